"""Accuracy, energy and choices over images, and the price that meets a target."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import nnabla as nn
import numpy as np
import pytest

from nnmpq.data import DataSet
from nnmpq.data.feed import Feed
from nnmpq.dynamic.energy import Account
from nnmpq.dynamic.evaluate import Choices, choices, meet_target
from nnmpq.dynamic.graphs import DynamicEvaluation
from nnmpq.dynamic.start import build_graphs
from nnmpq.runs import load_data
from tests.dynamic.digits import experiment
from tests.dynamic.test_report import made

Built = tuple[DynamicEvaluation, DataSet, Account]


@pytest.fixture
def built() -> Iterator[Built]:
    """An untrained network whose gates choose differently by sample, on digits in batches of 16."""
    start = experiment("CAMP_SP", batch_size=16, test_images=40)
    data = load_data(start)
    training, evaluation = build_graphs(start, data)
    rng = np.random.RandomState(3)
    for name, parameter in nn.get_parameters(grad_only=False).items():
        if name.endswith("gate/decide/affine/W"):
            parameter.d = 4 * rng.randn(*parameter.shape)
    yield evaluation, data, training.account


def test_a_summary_is_what_its_words_say() -> None:
    found = made([0, 1, 1, 2], [[1, 0], [1, 1], [0, 0], [1, 0]], energy=[0.7, 0.8, 0.9, 1.0])
    found = attrs.evolve(
        found,
        answers=np.array([0, 1, 2, 2]),
        cross_entropies=np.array([1.0, 2.0, 3.0, 6.0]),
        bitops=np.array([10, 20, 30, 40]),
    )
    summary = found.summary()
    assert summary["error"] == pytest.approx(1 / 4)
    assert summary["cross_entropy"] == pytest.approx(3.0)
    assert summary["energy"] == pytest.approx(0.85)
    assert summary["bitops"] == pytest.approx(25.0)
    assert summary["widest_share"] == pytest.approx(4 / 8)
    # P(widest) is 0.9 three times of four in the first block, once of four in the second, else 0.2.
    assert summary["spread_within"] == pytest.approx(0.7 * np.sqrt(3 / 16))
    assert summary["spread_between"] == pytest.approx(0.7 * 0.25)


def test_constant_gates_have_no_spread_within_and_equal_blocks_none_between() -> None:
    constant = made([0] * 4, [[1, 0]] * 4).summary()
    assert constant["spread_within"] == pytest.approx(0, abs=1e-12)
    assert constant["spread_between"] == pytest.approx(0.35)
    alike = made([0] * 4, [[1, 0], [0, 1], [1, 0], [0, 1]]).summary()
    assert alike["spread_between"] == pytest.approx(0, abs=1e-12)
    assert alike["spread_within"] == pytest.approx(0.35)


def test_every_image_is_counted_once(built: Built) -> None:
    graph, data, account = built
    found = choices(graph, data, data.test, account)
    # 40 images in batches of 16: the last batch is half full.
    assert len(found.labels) == 40
    np.testing.assert_array_equal(found.labels, data.test.labels.ravel())
    assert found.chosen.shape == (40, 3) and found.probabilities.shape == (40, 3, 2)
    assert found.energy.shape == found.bitops.shape == found.cross_entropies.shape == (40,)


def test_what_is_found_fits_together(built: Built) -> None:
    graph, data, account = built
    found = choices(graph, data, data.test, account)
    np.testing.assert_allclose(found.probabilities.sum(axis=2), 1, atol=1e-5)
    np.testing.assert_array_equal(found.chosen, found.probabilities.argmax(axis=2))
    np.testing.assert_allclose(found.energy, account.share(found.chosen))
    np.testing.assert_allclose(found.bitops, account.bitops(found.chosen))
    assert 0 < found.chosen.mean() < 1
    assert found.error == np.mean(found.answers != found.labels)


def test_the_size_of_the_batch_does_not_matter(built: Built) -> None:
    graph, data, account = built
    whole = choices(graph, data, data.test, account)
    one = attrs.evolve(data, test=data.test.take(np.arange(5)))
    few = choices(graph, one, one.test, account)
    np.testing.assert_array_equal(few.chosen, whole.chosen[:5])
    np.testing.assert_allclose(few.cross_entropies, whole.cross_entropies[:5], rtol=1e-5)


@pytest.mark.parametrize(("limit", "seen"), [(1, 16), (16, 16), (17, 32), (1000, 40)])
def test_a_limit_ends_with_a_batch(limit: int, seen: int, built: Built) -> None:
    graph, data, account = built
    assert len(choices(graph, data, data.test, account, limit=limit).labels) == seen


def test_the_feed_may_be_ones_own(built: Built) -> None:
    graph, data, account = built
    with Feed(data, 16, seed=1) as feed:
        found = choices(graph, data, data.test, account, feed)
    np.testing.assert_array_equal(found.chosen, choices(graph, data, data.test, account).chosen)


def test_no_image_is_no_result(built: Built) -> None:
    graph, data, account = built
    with pytest.raises(ValueError, match="there is no image"):
        choices(graph, data, data.test.take(np.arange(0)), account)


def test_evaluation_moves_no_statistics(built: Built) -> None:
    graph, data, account = built
    before = {name: np.array(v.d, np.float32) for name, v in nn.get_parameters(grad_only=False).items()}
    choices(graph, data, data.test, account)
    for name, v in nn.get_parameters(grad_only=False).items():
        np.testing.assert_array_equal(v.d, before[name], err_msg=name)


def energies(found: Choices) -> float:
    return float(np.mean(found.energy))


def test_the_price_is_the_least_that_meets_the_target(built: Built) -> None:
    graph, data, account = built
    target = 0.85
    price = meet_target(graph, data, data.validation, account, target, images=96, steps=14)
    assert float(graph.price.d[0, 0]) == price
    at = choices(graph, data, data.validation, account, limit=96)
    assert energies(at) <= target
    # 32 / 2^14 cheaper, and it is beyond: a price is no larger than it must be.
    graph.price.d = price - 32 / 2**13
    assert energies(choices(graph, data, data.validation, account, limit=96)) > target


def test_dearer_targets_have_lower_prices(built: Built) -> None:
    graph, data, account = built
    targets = (0.7, 0.8, 0.9, 1.0)
    prices = [meet_target(graph, data, data.validation, account, target, images=48) for target in targets]
    assert prices == sorted(prices, reverse=True)
    assert prices[0] > prices[-1]


def test_a_target_out_of_reach_is_refused_with_what_is_paid_always(built: Built) -> None:
    graph, data, account = built
    least = account.least_share()
    with pytest.raises(ValueError, match=f"{least:.3f}"):
        meet_target(graph, data, data.validation, account, least - 0.01)
    meet_target(graph, data, data.validation, account, least + 1e-6, images=16)
    assert choices(graph, data, data.validation, account, limit=16).chosen.sum() == 0
