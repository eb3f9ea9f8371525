from __future__ import annotations

from typing import Any

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest

from nnmpq.budget import Budget
from nnmpq.cost import cost
from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Parametric, SiteSettings
from nnmpq.training.errors import BudgetError
from nnmpq.training.ladder import ladder, relative_error
from nnmpq.training.project import check_reachable, project

PAIRS: list[tuple[str, dict[str, Any]]] = [
    ("uniform_delta_xmax", {}),
    ("uniform_b_xmax", {}),
    ("uniform_delta_b", {}),
    ("pow2_b_xmax", {}),
    ("pow2_b_xmin", {}),
    ("pow2_xmin_xmax", {}),
]


def numbers(site):
    return np.array(site.source.d)


def network(quantizer="uniform_delta_xmax", bits=6, **options):
    """Two convolutions and an affine on 2x8x8 images; returns the quantized network and its activation inputs."""
    x = nn.Variable((4, 2, 8, 8))
    h = F.relu(PF.convolution(x, 8, (3, 3), pad=(1, 1), name="a"))
    h = F.relu(PF.convolution(h, 16, (3, 3), pad=(1, 1), stride=(2, 2), name="b"))
    y = PF.affine(h, 5, name="c")
    rng = np.random.default_rng(5)
    for variable in nn.get_parameters().values():
        variable.d = rng.normal(0, 0.2, variable.shape)
    settings = SiteSettings(quantizer, bits=bits, step=2.0**-4, step_from_data=True, options=options)
    found = quantize(y, Parametric(weight=settings, activation=settings))
    x.d = rng.normal(size=x.shape)
    found.output.forward()
    inputs = {n: numbers(s).reshape(-1) for n, s in found.sites.items() if n.endswith("/relu")}
    return found, inputs


def kib(found, activations):
    """Sizes from shapes and bits, without the code under test."""
    bits = found.bit_numbers()
    sites = [s for s in found.network.sites() if s.name in bits and (s.role == "activation") == activations]
    return [bits[s.name] * int(np.prod(s.shape)) / 8192 for s in sites]


@pytest.mark.parametrize(("quantizer", "options"), PAIRS)
@pytest.mark.parametrize("limits", [(1.0, None, None), (None, 0.3, None), (None, None, 0.35), (1.1, 0.3, 0.4)])
def test_projection_meets_the_budget(quantizer, options, limits):
    found, inputs = network(quantizer, **options)
    weights, largest, total = limits
    budget = Budget(weights_kib=weights, activations_max_kib=largest, activations_sum_kib=total)
    assert not budget.met_by(cost(found.network, found.bit_numbers())), "else there is nothing to do"
    project(found, budget, inputs)
    assert weights is None or sum(kib(found, False)) <= weights
    assert largest is None or max(kib(found, True)) <= largest
    assert total is None or sum(kib(found, True)) <= total


def test_nothing_is_narrowed_further_than_needed():
    found, inputs = network()
    start = found.bit_numbers()
    budget = Budget(weights_kib=1.02, activations_sum_kib=0.37)
    project(found, budget, inputs)
    bits = found.bit_numbers()
    narrowed = [name for name in bits if bits[name] < start[name]]
    assert narrowed
    for name in narrowed:
        wider = {**bits, name: bits[name] + 1}
        sizes = {s.name: wider[s.name] * int(np.prod(s.shape)) / 8192 for s in found.network.sites() if s.name in wider}
        activations = [size for site, size in sizes.items() if site.endswith("/relu")]
        weights = [size for site, size in sizes.items() if not site.endswith("/relu")]
        assert sum(weights) > 1.02 or sum(activations) > 0.37, name


@pytest.mark.parametrize("target", ["bitops", "mean_bits"])
def test_projection_meets_limits_on_operations(target):
    found, inputs = network()
    before = getattr(cost(found.network, found.bit_numbers()), target)
    limit = before * (0.5 if target == "bitops" else 0.5**0.5)
    project(found, Budget(**{target: limit}), inputs)
    after = getattr(cost(found.network, found.bit_numbers()), target)
    assert 0.75 * limit < after <= limit


def test_nothing_changes_where_the_budget_is_met():
    found, inputs = network()
    before = {name: np.array(v.d) for name, v in found.parameters().items()}
    assert project(found, Budget(weights_kib=100.0), inputs) == {}
    assert all(np.array_equal(before[name], v.d) for name, v in found.parameters().items())


def test_nothing_is_narrowed_more_than_it_must():
    # The last bit taken is the one that brought the sum below the limit: any changed site's bit more would break it.
    found, inputs = network()
    limit = 1.0
    changed = project(found, Budget(weights_kib=limit), inputs)
    used = sum(kib(found, False))
    sizes = {s.name: int(np.prod(s.shape)) / 8192 for s in found.network.sites()}
    assert any(used + sizes[name] > limit for name in changed)
    assert not any(name.endswith("/relu") for name in changed)


def test_greedy_choice_is_the_least_error_per_kib():
    found, inputs = network()
    now = found.bit_numbers()
    prices = {}
    for site in found.network.sites():
        if site.role != "activation":
            rungs = ladder(found.sites[site.name], np.array(found.sites[site.name].source.d))
            prices[site.name] = (rungs[1].error - rungs[0].error) / (int(np.prod(site.shape)) / 8192)
    cheapest = min(prices, key=lambda name: prices[name])
    total = sum(kib(found, False))
    changed = project(found, Budget(weights_kib=total - 1e-6), inputs)
    assert changed == {cheapest: (now[cheapest], now[cheapest] - 1)}


def test_only_the_activations_above_a_limit_on_the_largest_are_narrowed():
    found, inputs = network()  # 8x8x8 and 16x4x4 activations at 6 bits: 0.375 and 0.1875 KiB
    changed = project(found, Budget(activations_max_kib=0.2), inputs)
    assert changed == {"a/conv/relu": (6, 3)}
    assert found.bit_numbers()["b/conv/relu"] == 6


def test_an_unreachable_budget_names_the_least_and_changes_nothing():
    found, inputs = network(bits_limits=(3.0, 8.0))
    before = {name: np.array(v.d) for name, v in found.parameters().items()}
    elements = sum(int(np.prod(s.shape)) for s in found.network.sites() if s.role != "activation")
    with pytest.raises(BudgetError, match="weights_kib 0.01 is wanted, ([0-9.]+) is the least") as caught:
        project(found, Budget(weights_kib=0.01, activations_max_kib=0.3), inputs)
    least = float(str(caught.value).split("wanted, ")[1].split(" ")[0])
    assert least == pytest.approx(3 * elements / 8192, rel=1e-4)
    assert "activations_max_kib" not in str(caught.value)
    assert all(np.array_equal(before[name], v.d) for name, v in found.parameters().items())


def test_an_unreachable_budget_is_known_before_training():
    found, _ = network(bits_limits=(3.0, 8.0))
    check_reachable(found, Budget(weights_kib=1.0, activations_sum_kib=1.0))
    check_reachable(found, Budget())
    with pytest.raises(BudgetError, match="activations_sum_kib 0.01 is wanted"):
        check_reachable(found, Budget(weights_kib=1.0, activations_sum_kib=0.01))


@pytest.mark.parametrize(("quantizer", "options"), PAIRS)
def test_each_rung_is_one_bit_less_and_the_better_way(quantizer, options):
    found, inputs = network(quantizer, **options)
    site = found.sites["b/conv/W"]
    x = np.array(site.source.d)
    rungs = ladder(site, x)
    widths = [rung.bits for rung in rungs]
    assert len(rungs) > 1 and widths == list(range(widths[0], widths[0] - len(rungs), -1))
    for upper, lower in zip(rungs, rungs[1:]):
        ways = [relative_error(site.quantizer, way, x) for way in site.quantizer.narrowed(upper.values)]
        assert lower.error == min(ways)


def test_static_quantizers_are_not_narrowed():
    found, _ = network("uniform_b_xmax", learn=False)
    assert [len(ladder(site)) for site in found.sites.values()] == [1] * len(found.sites)
    with pytest.raises(BudgetError):
        check_reachable(found, Budget(weights_kib=0.1))


def test_relative_error_of_a_relu_site_is_against_the_relu():
    found, _ = network()
    site = found.sites["a/conv/relu"]
    x = np.array([-5.0, 0.5, 1.0, 0.53125], np.float32)  # step 1/16: only the last is off the grid, by 1/32
    error = relative_error(site.quantizer, {"step": np.array(0.0625, np.float32), "xmax": np.array(2, np.float32)}, x)
    assert error == pytest.approx(0.03125**2 / (0.25 + 1 + 0.53125**2))


def test_zeros_make_no_error():
    found, _ = network()
    site = found.sites["b/conv/W"]
    assert relative_error(site.quantizer, site.values(), np.zeros(4, np.float32)) == 0.0
