from __future__ import annotations

from typing import Any

import attrs
import nnabla as nn
import numpy as np
import pytest

from nnmpq.budget import Budget, least_reachable
from nnmpq.cost import TARGETS, cost
from nnmpq.graph.network import Network
from nnmpq.graph.trace import trace
from nnmpq.models import build
from tests.networks import images, residual


@pytest.fixture
def resnet20() -> Network:
    return trace(build("resnet", nn.Variable((1, 3, 32, 32)), 10, num_layers=20))


def uniform(network: Network, weight_bits: Any, activation_bits: Any) -> dict[str, Any]:
    found = {s.name: weight_bits for s in network.sites() if s.role != "activation"}
    return {**found, **{s.name: activation_bits for s in network.activations if s.kind == "relu"}}


@pytest.mark.parametrize(
    "weight_bits,activation_bits,weights,total,largest",
    [(32, 32, 1048.23, 736.0, 64.0), (2, 4, 65.51, 92.0, 8.0), (4, 4, 131.03, 92.0, 8.0)],
)
def test_published_sizes(
    resnet20: Network, weight_bits: int, activation_bits: int, weights: float, total: float, largest: float
) -> None:
    used = cost(resnet20, uniform(resnet20, weight_bits, activation_bits))
    assert round(used.weights_kib, 2) == weights
    assert (used.activations_sum_kib, used.activations_max_kib) == (total, largest)


def test_bitops(resnet20: Network) -> None:
    used = cost(resnet20, uniform(resnet20, 2, 4))
    # The first layer reads the image and the classifier the pooled map: both are float.
    first, last = 16 * 27 * 1024, 640
    inner = 40551040 - first - last
    assert used.bitops_inner == inner * 8
    assert used.bitops == inner * 8 + (first + last) * 2 * 32
    assert used.mean_bits == pytest.approx(np.sqrt(used.bitops / 40551040))


def test_variables_cost_what_numbers_do() -> None:
    network = trace(residual(images()))
    rng = np.random.RandomState(0)
    numbers = {s.name: int(rng.randint(1, 9)) for s in network.sites()}
    variables = {name: nn.Variable.from_numpy_array(np.float32(b)) for name, b in numbers.items()}
    del numbers["last/affine/b"], variables["last/affine/b"]
    variables["input"] = numbers["input"]  # numbers and variables may stand side by side
    wanted, found = cost(network, numbers), cost(network, variables)
    for name in TARGETS:
        value = getattr(found, name)
        value.forward()
        assert float(value.d) == pytest.approx(getattr(wanted, name), rel=1e-6), name


def test_gradients_are_sizes() -> None:
    network = trace(residual(images()))
    bits = {s.name: nn.Variable.from_numpy_array(np.float32(4)).apply(need_grad=True) for s in network.sites()}
    used = cost(network, bits)
    for name in ("weights_kib", "activations_sum_kib", "activations_max_kib", "bitops"):
        for v in bits.values():
            v.g = 0
        getattr(used, name).forward()
        getattr(used, name).backward()
        gradients = {site: float(v.g) for site, v in bits.items()}
        sizes = {s.name: s.elements / 8192 for s in network.sites()}
        if name == "weights_kib":
            wanted = {s.name: sizes[s.name] * (s.role != "activation") for s in network.sites()}
        elif name == "activations_sum_kib":
            wanted = {s.name: sizes[s.name] * (s.role == "activation") for s in network.sites()}
        elif name == "bitops":
            wanted = dict.fromkeys(gradients, 0.0)
            for layer in network.layers:
                wanted[layer.weight.name] += 4.0 * layer.macs
                wanted[str(layer.input)] += 4.0 * layer.macs
        else:
            # Several maps are as large as the largest; the gradient goes to one of them alone.
            assert sorted(gradients.values())[-2:] == [0.0, max(sizes[s.name] for s in network.activations)]
            continue
        assert gradients == pytest.approx(wanted, rel=1e-6)


def test_scales_are_counted_on_request() -> None:
    network = trace(residual(images()))
    plain = cost(network, {})
    assert cost(network, {}, scale_channels={"first/conv/W": 256}).weights_kib == plain.weights_kib + 1


def test_budgets() -> None:
    network = trace(residual(images()))
    bits = {s.name: 8 for s in network.sites()}
    used = cost(network, bits)
    assert Budget().met_by(used) and Budget(weights_kib=used.weights_kib).met_by(used)
    tight = Budget(weights_kib=used.weights_kib / 2, bitops=used.bitops * 2, mean_bits=7.5)
    assert tight.excess(used) == pytest.approx({"weights_kib": used.weights_kib / 2, "mean_bits": 0.5})
    assert least_reachable(network, tight, dict.fromkeys(bits, 4)) == {}
    unreachable = least_reachable(network, tight, dict.fromkeys(bits, 5))
    assert unreachable == pytest.approx({"weights_kib": used.weights_kib * 5 / 8})
    with pytest.raises(ValueError, match="weights_kib = -1"):
        Budget(weights_kib=-1)
    assert list(attrs.fields_dict(Budget)) == [name for name in TARGETS if name != "bitops_inner"]
