from __future__ import annotations

import numpy as np
import pytest

from nnmpq.budget import Budget
from nnmpq.data import load
from nnmpq.search import learned
from nnmpq.search.differentiable import build_objective
from nnmpq.search.task import SearchTask
from nnmpq.training.solvers import QUANTIZERS
from tests.search.searching import experiment, run, trail


def built(tmp_path, limits, **changes):
    data = load("digits", validation_images=40, train_images=160, test_images=40)
    task = SearchTask(experiment("learned", **changes), data, Budget(**limits), tmp_path)
    graph, _ = build_objective(task, task.experiment, learned.objective(task))
    graph.images.d, graph.labels.d = np.zeros(graph.images.shape), 0
    graph.loss.forward()
    return task, graph


def test_penalties_are_squared_excesses(tmp_path):
    limits = {"weights_kib": 30.0, "activations_max_kib": 0.25, "bitops": 747136 * 9.0}
    changes = {"initial_cost_lambda2": 0.2, "initial_cost_lambda3": 0.5, "w_bitwidth_max": 8}
    _, graph = built(tmp_path, limits, **changes, w_quantize="fp", a_quantize="fp_relu")
    # Static 4 bit everywhere: 74,522 numbers, 1,024 numbers in the largest map, 16 BitOps a MAC.
    expected = {
        "weights_kib": 0.2 * (74522 * 4 / 8192 - 30) ** 2,
        "activations_max_kib": 0.5 * (1024 * 4 / 8192 - 0.25) ** 2,
        "bitops": 0.2 * (4 - 3) ** 2,
    }
    assert graph.penalties.keys() == expected.keys()
    for name, value in expected.items():
        assert float(graph.penalties[name].d) == pytest.approx(value, rel=1e-5)


def test_gradients_are_clamped_under_limits_alone(tmp_path):
    task, graph = built(tmp_path, {"weights_kib": 30.0})
    assert learned.build_solvers(task.experiment, graph, True).groups[QUANTIZERS].clamp
    assert not learned.build_solvers(task.experiment, graph, False).groups[QUANTIZERS].clamp


def test_the_better_of_learned_and_uniform_is_handed_over(tmp_path):
    policy = run("learned", tmp_path, mean_bits=3.5)
    header, *rows = trail(tmp_path)
    offered = [dict(zip(header, row)) for row in rows[-2:]]
    assert [row["candidate"] for row in offered] == ["learned", "uniform"]
    best = min(offered, key=lambda row: float(row["validation_cross_entropy"]))
    assert policy.cost["bitops"] == float(best["bitops"])
    assert all(float(row["mean_bits"]) <= 3.5 for row in offered)


def test_without_limits_bits_are_what_was_learned(tmp_path):
    run("learned", tmp_path, w_quantize="parametric_fp_b_xmax", a_quantize="parametric_fp_b_xmax_relu")
    header, *rows = trail(tmp_path)
    assert [dict(zip(header, row))["candidate"] for row in rows] == ["", "", "learned"]
