from __future__ import annotations

import nnabla as nn
import numpy as np
import pytest

from nnmpq.config.scheme import build_scheme
from nnmpq.data import training_batches
from nnmpq.training.epoch import run_epoch
from nnmpq.training.errors import NonFiniteLoss
from nnmpq.training.graphs import build_training
from nnmpq.training.solvers import build_groups
from tests.training.tiny import MIXED, data, experiment


def start(**changes):
    chosen = experiment(**changes)
    graph = build_training(chosen, data(), build_scheme(chosen))
    return graph, build_groups(chosen, graph.quantized.sites, learn_bits=True)


def batches(count=5):
    return list(training_batches(data(), 32, seed=2, epoch=0))[:count]


def test_means_are_means_over_all_updates():
    """The published code kept views of one buffer, so that its mean was the last update's value."""
    graph, groups = start(**MIXED)
    values = {name: np.array(v.d) for name, v in nn.get_parameters(grad_only=False).items()}
    single = []
    for batch in batches():
        means = run_epoch(graph, groups, [batch], 1)
        single.append((means.loss, means.cross_entropy, means.error))
    for name, variable in nn.get_parameters(grad_only=False).items():
        variable.d = values[name]
    chosen = experiment(**MIXED)
    fresh = build_groups(chosen, graph.quantized.sites, learn_bits=True)
    means = run_epoch(graph, fresh, batches(), 1)
    assert len({loss for loss, *_ in single}) == 5, "equal losses would hide the fault"
    expected = np.mean(single, axis=0)
    assert (means.loss, means.cross_entropy, means.error) == pytest.approx(expected, rel=1e-12)


def test_a_parameter_that_is_not_a_number_is_named():
    graph, groups = start()
    nn.get_parameters()["res2/layer1/basicblock1/conv/W"].d = np.nan
    with pytest.raises(NonFiniteLoss) as caught:
        run_epoch(graph, groups, batches(), 7)
    message = str(caught.value)
    assert "epoch 7, iteration 1" in message
    assert "parameter res2/layer1/basicblock1/conv/W" in message


def test_the_loss_is_named_where_it_is_the_loss():
    graph, groups = start()
    nn.get_parameters()["fc/affine/b"].d = np.inf
    with pytest.raises(NonFiniteLoss, match=r"parameter fc/affine/b, cross entropy \(nan\), loss \(nan\)"):
        run_epoch(graph, groups, batches(), 1)


def test_the_iteration_is_counted_and_nothing_moves_after_it():
    graph, groups = start()
    good = batches(2)
    broken = (np.full_like(good[0][0], np.inf), good[0][1])
    seen = []

    def stream():
        for batch in (*good, broken, *good):
            seen.append({name: np.array(v.d) for name, v in nn.get_parameters().items()})
            yield batch

    with pytest.raises(NonFiniteLoss, match="epoch 1, iteration 3"):
        run_epoch(graph, groups, stream(), 1)
    assert len(seen) == 3, "a ReLU hides the infinite input from the loss, but not from the gradients"
    after = nn.get_parameters()
    assert all(np.array_equal(seen[2][name], after[name].d) for name in after), "no update with the broken batch"


def test_an_infinite_penalty_is_named():
    graph, groups = start(**{**MIXED, "initial_cost_lambda2": 1e38})
    with pytest.raises(NonFiniteLoss, match=r"penalty of the weights \(inf\)"):
        run_epoch(graph, groups, batches(), 1)


def test_an_epoch_without_batches_is_refused():
    graph, groups = start()
    with pytest.raises(ValueError, match="without a batch"):
        run_epoch(graph, groups, [], 1)
