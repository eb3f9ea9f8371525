"""What leaves out the paths that were not chosen gives what the mixed network gives, to the bit."""

from __future__ import annotations

import nnabla as nn
import numpy as np
import pytest

from nnmpq.dynamic.decide import greedy
from nnmpq.dynamic.network import DynamicNetwork
from nnmpq.dynamic.skip import Stage, mixed_with_constants, skipping
from nnmpq.graph.accelerate import accelerate
from nnmpq.graph.functions import functions_of
from nnmpq.onednn.library import missing
from tests.dynamic.small import COSTS, at_price, choices, network


def _expected(made: DynamicNetwork) -> np.ndarray:
    made.output.forward()
    return np.array(made.output.d)


@pytest.mark.parametrize("pre_gate", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_batches_are_equal_bit_for_bit(pre_gate: bool, seed: int) -> None:
    made = network(pre_gate=pre_gate, seed=seed)
    expected = _expected(made)
    taken = choices(made)
    # The test says nothing unless some block sends samples both ways.
    assert any(0 < share < 1 for share in taken.mean(axis=0))
    run = skipping(made)
    for _ in range(2):
        logits, found = run(made.images.d)
        np.testing.assert_array_equal(found, taken)
        np.testing.assert_array_equal(logits, expected)


@pytest.mark.parametrize("pre_gate", [False, True])
def test_one_image_is_equal_bit_for_bit(pre_gate: bool) -> None:
    made = network(1, pre_gate=pre_gate, seed=3)
    logits, found = skipping(made)(made.images.d)
    np.testing.assert_array_equal(found, choices(made))
    np.testing.assert_array_equal(logits, _expected(made))


def test_any_number_of_images_runs(capfd: pytest.CaptureFixture[str]) -> None:
    made = network()
    expected = _expected(made)
    run = skipping(made)
    for count in (6, 2, 5, 1, 6):
        logits, _ = run(made.images.d[:count])
        np.testing.assert_allclose(logits, expected[:count], atol=1e-5)
    # nnabla prints a line for every function that it must set up again by itself.
    assert "Inconsistent" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(("price", "pre_gate", "wide"), [(1e6, False, 0), (-1e6, False, 9), (1e6, True, 0)])
def test_paths_that_nobody_chose_do_not_run(
    price: float, pre_gate: bool, wide: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = network(decide=at_price(price), pre_gate=pre_gate)
    run = skipping(made)
    ran: list[int] = []
    call = Stage.__call__
    monkeypatch.setattr(Stage, "__call__", lambda self, x: (ran.append(id(self)), call(self, x))[1])
    run(made.images.d)
    last = [id(block.paths[-1]) for block in run.blocks]
    assert sum(stage in last for stage in ran) == wide
    narrow = [id(block.paths[0]) for block in run.blocks]
    if pre_gate:
        assert sum(stage in narrow for stage in ran) == 9 - wide


def test_only_the_rows_that_chose_a_path_run_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = network()
    run = skipping(made)
    rows: dict[int, int] = {}
    call = Stage.__call__
    monkeypatch.setattr(Stage, "__call__", lambda self, x: (rows.__setitem__(id(self), x.shape[0]), call(self, x))[1])
    _, taken = run(made.images.d)
    for number, block in enumerate(run.blocks):
        assert rows.get(id(block.paths[0]), 0) == int(taken[:, number].sum())


@pytest.mark.skipif(bool(missing()), reason="oneDNN is not installed")
def test_accelerated_parts_are_equal_to_the_accelerated_whole() -> None:
    made = network(seed=1)
    made.output.persistent = True
    (fast,) = accelerate([made.output]).outputs
    fast.forward()
    logits, _ = skipping(made, fast=True)(made.images.d)
    np.testing.assert_allclose(logits, fast.d, atol=1e-5)


@pytest.mark.parametrize("pre_gate", [False, True])
def test_a_batch_does_not_change_the_next_one(pre_gate: bool) -> None:
    price = nn.Variable((1, 1))
    made = network(decide=lambda block, logits: greedy(logits, COSTS, price), pre_gate=pre_gate)
    images = np.array(made.images.d)
    run = skipping(made)
    # All rows through a path hand it the stage before's own array; some rows then must not reshape that.
    for value in (-1e6, 0.0, -1e6, 1e6, 0.0, 1e6, 0.0):
        price.d = value
        expected, taken = _expected(made), choices(made)
        logits, found = run(images)
        np.testing.assert_array_equal(found, taken)
        np.testing.assert_array_equal(logits, expected)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_stream_of_batches_of_all_sizes_gives_what_single_images_do(seed: int) -> None:
    made = network(seed=seed)
    images = np.array(made.images.d)
    single = skipping(made)
    expected = [single(image[None]) for image in images]
    run = skipping(made)
    rng = np.random.RandomState(seed)
    for _ in range(12):
        rows = rng.choice(len(images), rng.randint(1, 7), replace=False)
        logits, found = run(images[rows])
        np.testing.assert_array_equal(found, np.concatenate([expected[row][1] for row in rows]))
        np.testing.assert_allclose(logits, np.concatenate([expected[row][0] for row in rows]), atol=1e-5)


def test_a_stage_leaves_the_array_of_the_call_before_alone() -> None:
    x = nn.Variable((4, 3))
    stage = Stage.of(x, [nn.functions.mul_scalar(x, 2.0)])
    first = nn.NdArray.from_numpy_array(np.ones((4, 3), np.float32))
    stage(first)
    stage(nn.NdArray.from_numpy_array(np.ones((2, 3), np.float32)))
    assert first.shape == (4, 3)
    np.testing.assert_array_equal(first.data, np.ones((4, 3)))


def test_weights_that_change_later_do_not_reach_it() -> None:
    made = network()
    run = skipping(made)
    before, _ = run(made.images.d)
    for name in ("res1/block1/conv1/conv/W", "res2/block1/gate/look/conv/W"):
        weight = nn.get_parameters(grad_only=False)[name]
        weight.d = -weight.d
    after, _ = run(made.images.d)
    np.testing.assert_array_equal(after, before)
    assert np.abs(skipping(made)(made.images.d)[0] - before).max() > 0


@pytest.mark.parametrize("pre_gate", [False, True])
def test_the_mixed_network_with_constants_is_the_mixed_network(pre_gate: bool) -> None:
    made = network(pre_gate=pre_gate)
    images, logits = mixed_with_constants(made)
    images.d = made.images.d
    logits.forward()
    np.testing.assert_array_equal(logits.d, _expected(made))
    assert len(functions_of([logits])) < len(functions_of([made.output])) / 2


def test_no_stage_quantizes_weights_at_each_call() -> None:
    run = skipping(network())
    stages = [stage for block in run.blocks for stage in (block.first, *block.paths)]
    names = {f.info.type_name for stage in stages for f in stage.functions}
    assert "Convolution" in names and not any("Weight" in name for name in names)


def test_a_stage_takes_other_numbers_of_rows() -> None:
    x = nn.Variable((4, 3))
    stage = Stage.of(x, [nn.functions.mul_scalar(x, 2.0)])
    for count in (4, 1, 7):
        values = np.random.RandomState(count).randn(count, 3).astype(np.float32)
        (y,) = stage(nn.NdArray.from_numpy_array(values))
        np.testing.assert_array_equal(y.data, 2 * values)
