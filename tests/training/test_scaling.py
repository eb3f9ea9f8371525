"""Loss scaling: what an overflow does, when the factor grows, and that updates are those without a scale."""

from __future__ import annotations

from typing import Any

import nnabla as nn
import numpy as np
import pytest

from nnmpq.config.scheme import build_scheme
from nnmpq.data import training_batches
from nnmpq.training.epoch import run_epoch
from nnmpq.training.errors import NonFiniteLoss
from nnmpq.training.graphs import build_training
from nnmpq.training.scaling import LossScale, scale_for
from nnmpq.training.solvers import QUANTIZERS, build_groups
from tests.training.tiny import MIXED, data, experiment


def start(**changes: Any):
    chosen = experiment(**changes)
    graph = build_training(chosen, data(), build_scheme(chosen))
    return graph, build_groups(chosen, graph.quantized.sites, learn_bits=True)


def batches(count: int = 4):
    return list(training_batches(data(), 32, seed=2, epoch=0))[:count]


def snapshot() -> dict[str, np.ndarray]:
    return {name: np.array(v.d) for name, v in nn.get_parameters(grad_only=False).items()}


class Spoiling:
    """Solvers whose gradients overflow at chosen updates, as half precision's do: the largest become infinite."""

    def __init__(self, solvers: Any, at: tuple[int, ...]) -> None:
        self.solvers, self.at, self.updates, self.done = solvers, at, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.solvers, name)

    def gradients_are_finite(self) -> bool:
        self.updates += 1
        if self.updates in self.at:
            parameter = nn.get_parameters()["conv1/conv/W"]
            spoilt = parameter.g.copy()
            spoilt.flat[np.argmax(np.abs(spoilt))] = np.inf
            parameter.g = spoilt
        return self.solvers.gradients_are_finite()

    def update(self) -> None:
        self.done += 1
        assert all(np.all(np.isfinite(v.g)) for v in nn.get_parameters().values())
        self.solvers.update()


@pytest.mark.parametrize("first,patience,largest,overflows,expected", [
    (8.0, 2, 64.0, "", [8, 16, 16, 32, 32, 64, 64, 64]),
    (8.0, 2, 64.0, "01", [4, 2, 2, 4, 4, 8, 8, 16]),
    (8.0, 3, 2.0**24, "2", [8, 8, 4, 4, 4, 8, 8, 8]),
    (2.0, 1, 4.0, "3", [4, 4, 4, 2, 4, 4, 4, 4]),
])  # fmt: skip
def test_the_factor_falls_at_once_and_grows_after_patience(first, patience, largest, overflows, expected):
    scale = LossScale(first, patience, largest)
    found = []
    for number in range(8):
        if str(number) in overflows:
            assert scale.overflowed()
        else:
            scale.went_well()
        found.append(scale.value)
    assert found == expected


def test_an_overflow_that_no_factor_explains_is_not_excused():
    assert [LossScale(1.0).overflowed(), LossScale(64.0, dynamic=False).overflowed()] == [False, False]
    scale = LossScale(4.0)
    # 4 -> 2 -> 1, and then the gradients themselves are infinite.
    assert [scale.overflowed() for _ in range(3)] == [True, True, False] and scale.value == 1.0


def test_half_precision_alone_is_scaled():
    assert {name: scale_for(name).value > 1 for name in ("float", "half", "mixed_half")} == {
        "float": False, "half": True, "mixed_half": True,
    }  # fmt: skip
    assert not scale_for("float").dynamic


@pytest.mark.parametrize("changes", [{}, MIXED], ids=["float", "clamped quantizers"])
def test_updates_are_those_without_a_scale(changes):
    """A power of two changes no digit; clamps and decay see gradients of the true size."""
    found = []
    for factor in (1.0, 2.0**10):
        nn.clear_parameters()
        np.random.seed(0)
        graph, solvers = start(**{**changes, "weight_decay": 0.01})
        if changes:
            assert solvers.groups[QUANTIZERS].clamp
        run_epoch(graph, solvers, batches(), 1, scale=LossScale(factor, patience=10**6))
        found.append(snapshot())
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][name], err_msg=name)


def test_an_overflow_skips_one_update_and_halves():
    """Three of four batches are learned, as if the second had never been; infinities reach no parameter."""
    graph, solvers = start()
    spoiling = Spoiling(solvers, at=(2,))
    scale = LossScale(2.0**8, patience=10**6)
    seen = []

    def stream():
        for batch in batches():
            seen.append(snapshot())
            yield batch

    run_epoch(graph, spoiling, stream(), 1, scale=scale)
    learned = snapshot()
    weights = nn.get_parameters()
    assert spoiling.done == 3 and scale.value == 2.0**7 and scale.good == 2
    assert all(np.array_equal(seen[1][name], seen[2][name]) for name in weights), "the second batch taught nothing"
    assert all(np.all(np.isfinite(value)) for value in learned.values())
    # The momentum too is that of three updates: the fourth batch's is v = m v + rate g with the first's v.
    nn.clear_parameters()
    graph, solvers = start()
    first, _, third, fourth = batches()
    run_epoch(graph, solvers, [first, third, fourth], 1)
    for name in weights:
        np.testing.assert_array_equal(nn.get_parameters()[name].d, learned[name], err_msg=name)


def test_means_count_the_skipped_batch_too():
    graph, solvers = start()
    means = run_epoch(graph, Spoiling(solvers, at=(1,)), batches(1), 1, scale=LossScale(2.0))
    assert means.cross_entropy == pytest.approx(float(graph.cross_entropy.d), rel=1e-6)


def test_without_a_scale_an_infinite_gradient_ends_the_run():
    graph, solvers = start()
    before = snapshot()
    with pytest.raises(NonFiniteLoss, match="gradient of conv1/conv/W"):
        run_epoch(graph, Spoiling(solvers, at=(1,)), batches(), 3)
    after = nn.get_parameters()
    assert all(np.array_equal(before[name], after[name].d) for name in after)


def test_gradients_that_stay_infinite_end_the_run_at_the_smallest_factor():
    graph, solvers = start()
    spoiling, scale = Spoiling(solvers, at=tuple(range(1, 9))), LossScale(4.0)
    with pytest.raises(NonFiniteLoss, match="iteration 3"):
        run_epoch(graph, spoiling, batches(), 1, scale=scale)
    assert spoiling.done == 0 and scale.value == 1.0
