"""The progressive search on digits: budgets, seeds, breaks, what it refuses, and the published way."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import h5py
import numpy as np
import pytest

from nnmpq.cost import cost
from nnmpq.search import SEARCHES, progressive, progressive_network
from nnmpq.search.progressive_network import RuntimeNetwork
from nnmpq.search.show import weight_ratio
from nnmpq.search.table import TableError
from nnmpq.search.task import network_of
from nnmpq.training import parameters
from nnmpq.training.errors import BudgetError, CheckpointError
from tests.search.progressive import make_task, trained

LIMITS = {"weights_kib": 30.0, "activations_sum_kib": 2.0}
KEEP = ("conv1/conv", "fc/affine", "res3/layer1/basicblock2/conv/relu")


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    # No power is cut here: what is killed are processes.
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(scope="module")
def weightfile(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("float") / "best.h5")


@pytest.fixture(scope="module")
def quantfile(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("quant") / "best.h5", archtype="quant", keep=KEEP)


def parts(task, policy):
    """The network, and the policy's bits of all sites and of those that were searched."""
    network = network_of(task.experiment, task.data.shape, task.data.classes)
    return network, policy.bits(), {name: policy.bits()[name] for name in task.widths(network)}


def recorded(task):
    rows: list[dict] = []
    return attrs.evolve(task, report=rows.append), rows


def assert_nothing_could_be_wider(task, network, rows):
    """After the last step: wherever a site is below 8 bits, one more exceeds the budget."""
    last = [row for row in rows if row["candidate"] != "widest uniform"][-1]
    bits = dict(zip(task.widths(network), map(int, last["bits"].split())))
    assert last["meets_budget"] and task.budget.met_by(cost(network, bits))
    for name, width in bits.items():
        assert width == 8 or not task.budget.met_by(cost(network, {**bits, name: width + 1})), name


@pytest.mark.parametrize(
    "limits",
    [
        LIMITS,
        {"mean_bits": 14.0},
        {"activations_max_kib": 0.3, "bitops": 1.5e8, "weights_kib": 40.0},
    ],
    ids=lambda limits: "+".join(limits),
)
def test_the_last_step_hits_the_budget_exactly(tmp_path, weightfile, limits):
    task, rows = recorded(make_task(tmp_path, weightfile, limits))
    policy = SEARCHES["progressive"](task)
    network, bits, searched = parts(task, policy)
    policy.check(network)
    assert task.budget.met_by(cost(network, bits))
    assert {2 <= width <= 8 for width in searched.values()} == {True}
    assert_nothing_could_be_wider(task, network, rows)
    met = [row["meets_budget"] for row in rows]
    assert met == sorted(met) and 1 <= sum(met) <= 2
    # Of the last step and the widest uniform policy that with the lower cross entropy on the validation images.
    best = min(rows[met.index(True) :], key=lambda row: row["validation_cross_entropy"])
    assert best["bits"] == " ".join(map(str, searched.values()))


def test_bits_only_fall_until_the_last_step_and_half_of_the_sites_at_a_time(tmp_path, weightfile):
    task, rows = recorded(make_task(tmp_path, weightfile, {"weights_kib": 48.0}, interval=1))
    SEARCHES["progressive"](task)
    assert rows.pop()["candidate"] == "widest uniform"
    steps = [[int(bits) for bits in row["bits"].split()] for row in rows]
    assert steps[0] == [8] * len(steps[0]) and len(steps) > 4
    for before, after in zip(steps[:-2], steps[1:-1]):
        fallen = [a - b for a, b in zip(before, after)]
        assert set(fallen) <= {0, 1} and 1 <= sum(fallen) <= len(fallen) // 2
    # Only weights are limited: no activation has lost a bit.
    network = network_of(task.experiment, task.data.shape, task.data.classes)
    roles = [network.site(name).role for name in task.widths(network)]
    assert {steps[-1][i] for i, role in enumerate(roles) if role == "activation"} == {8}


def test_nothing_is_lowered_where_the_start_meets_the_budget(tmp_path, weightfile):
    task, rows = recorded(make_task(tmp_path, weightfile, {"weights_kib": 500.0}))
    _, _, searched = parts(task, SEARCHES["progressive"](task))
    assert set(searched.values()) == {8} and len(rows) == 1


def test_the_same_seed_gives_the_same_policy(tmp_path, weightfile):
    policies = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        task = make_task(tmp_path / name, weightfile, {"bitops": 2.5e7}, seed=seed)
        policies.append(SEARCHES["progressive"](task).to_yaml())
    assert policies[0] == policies[1] != policies[2]


def contents(path):
    """All arrays of an .h5 file, as bytes."""
    found = {}
    with h5py.File(path, "r") as file:
        file.visititems(lambda n, item: found.update({n: np.array(item).tobytes()}) if hasattr(item, "shape") else None)
    return found


@pytest.mark.parametrize("faithful", [False, True])
def test_a_search_that_is_killed_at_every_save_ends_as_one_that_was_not(
    tmp_path, monkeypatch, weightfile, quantfile, faithful
):
    keys = {"faithful": True, "keep": KEEP, "step": 8, "lam": 2} if faithful else {}
    start = quantfile if faithful else weightfile
    task, rows = recorded(make_task(tmp_path / "whole", start, {"weights_kib": 36.0}, **keys))
    whole = SEARCHES["progressive"](task)
    kept = progressive.save

    def save_and_die(*arguments):
        kept(*arguments)
        raise KeyboardInterrupt

    broken, again = recorded(make_task(tmp_path / "broken", start, {"weights_kib": 36.0}, resume=True, **keys))
    kills = 0
    while True:
        again.clear()
        # Each process gets as far as its first save.
        monkeypatch.setattr(progressive, "save", save_and_die)
        try:
            policy = SEARCHES["progressive"](broken)
        except KeyboardInterrupt:
            kills += 1
            continue
        break
    # A save after each choice, each epoch and each step; the uniform policy beside the last one is not chosen.
    uniform = sum(row["candidate"] == "widest uniform" for row in rows)
    assert uniform == (0 if faithful else 1)
    assert kills == 1 + 3 * (len(rows) - 1 - uniform) + 2 * uniform >= 4
    assert policy.to_yaml() == whole.to_yaml()
    assert again == rows
    assert contents(tmp_path / "broken" / "best.h5") == contents(tmp_path / "whole" / "best.h5")


def test_another_search_does_not_go_on_from_this_ones_checkpoint(tmp_path, weightfile):
    SEARCHES["progressive"](make_task(tmp_path, weightfile, LIMITS))
    with pytest.raises(CheckpointError, match="budget was .*30.0.*, is .*29.0"):
        SEARCHES["progressive"](make_task(tmp_path, weightfile, {**LIMITS, "weights_kib": 29.0}, resume=True))
    with pytest.raises(CheckpointError, match="lam was 3, is 4"):
        SEARCHES["progressive"](make_task(tmp_path, weightfile, LIMITS, resume=True, lam=4))


@pytest.mark.parametrize("limit", [{"deadline": 0.0}, {"steps": 2}])
def test_without_time_it_goes_down_to_the_budget_at_once(tmp_path, weightfile, limit):
    task, rows = recorded(make_task(tmp_path, weightfile, LIMITS, interval=1, **limit))
    network, bits, _ = parts(task, SEARCHES["progressive"](task))
    assert task.budget.met_by(cost(network, bits))
    assert rows[-1]["updates"] == limit.get("steps", 0)
    assert len([row for row in rows if row["candidate"] != "widest uniform"]) == (2 if "deadline" in limit else 3)
    assert_nothing_could_be_wider(task, network, rows)


def test_a_budget_out_of_reach_names_the_least(tmp_path, weightfile):
    task = make_task(tmp_path, weightfile, {"weights_kib": 3.0})
    network = network_of(task.experiment, task.data.shape, task.data.classes)
    least = cost(network, dict.fromkeys(task.widths(network), 2)).weights_kib
    with pytest.raises(BudgetError, match=f"weights_kib 3 is wanted, {least:g} is the least"):
        SEARCHES["progressive"](task)


def test_a_weight_that_is_no_number_is_named(tmp_path, weightfile):
    path = tmp_path / "bad.h5"
    path.write_bytes(Path(weightfile).read_bytes())
    with h5py.File(path, "r+") as file:
        file["res2/layer1/basicblock1/conv/W"][0, 0, 0, 0] = np.nan
    with pytest.raises(TableError, match="^res2/layer1/basicblock1/conv/W: 1 of 4608 numbers are not finite"):
        SEARCHES["progressive"](make_task(tmp_path / "run", str(path), LIMITS))


@pytest.mark.parametrize("faithful", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_no_number_names_the_site(tmp_path, monkeypatch, weightfile, quantfile, faithful, bad):
    name, real = "res2/layer1/basicblock2/conv/W", RuntimeNetwork.score

    def score(net):
        found = real(net)
        return bad if net.sites[name].bit_number() < 8 else found

    monkeypatch.setattr(RuntimeNetwork, "score", score)
    keys = {"faithful": True, "keep": KEEP, "lam": 9} if faithful else {}
    task = make_task(tmp_path, quantfile if faithful else weightfile, {"weights_kib": 30.0}, interval=1, **keys)
    with pytest.raises(TableError, match=f"^{name} at 7 bits: the score is {bad}"):
        SEARCHES["progressive"](task)


def test_no_graph_is_built_after_the_start(tmp_path, monkeypatch, weightfile):
    built = []
    for name in ("build_training", "build_evaluation"):
        real = getattr(progressive_network, name)
        monkeypatch.setattr(progressive_network, name, lambda *a, _real=real, **k: built.append(1) or _real(*a, **k))
    from nnmpq.training import graphs

    real = graphs.quantize
    passes = []
    monkeypatch.setattr(graphs, "quantize", lambda *a, **k: passes.append(1) or real(*a, **k))
    task, rows = recorded(make_task(tmp_path, weightfile, LIMITS))
    SEARCHES["progressive"](task)
    assert len(rows) > 2 and len(built) == len(passes) == 3


def test_published_steps_lower_half_of_all_quantizers(tmp_path, quantfile):
    keys = {"faithful": True, "keep": KEEP, "interval": 1, "step": 2, "lam": 2}
    task, rows = recorded(make_task(tmp_path, quantfile, **keys))
    policy = SEARCHES["progressive"](task)
    network, bits, _ = parts(task, policy)
    # Without a limit it makes all its steps; there are 6 weights and 6 activations, biases stay float.
    assert [row["candidate"] for row in rows] == ["step 0", "step 1", "step 2"]
    searched = {name: site for name, site in policy.sites.items() if site.quantizer != "float"}
    assert len(searched) == 12 and {site.quantizer for site in searched.values()} == {"dorefa", "pact"}
    assert [row.get("lowered") for row in rows] == [None, 6, 6]
    assert sum(site.bits for site in searched.values()) == 12 * 8 - 12
    assert rows[-1]["computation_ratio"] == pytest.approx(weight_ratio(network, bits))
    assert bits["fc/affine/W"] == bits["conv1/conv/W"] == 32


def test_published_steps_that_do_not_get_there_say_so(tmp_path, quantfile):
    keys = {"faithful": True, "keep": KEEP, "interval": 1, "step": 1, "lam": 1}
    with pytest.raises(BudgetError, match="step = 1: after the last step weights_kib is .* above its limit"):
        SEARCHES["progressive"](make_task(tmp_path, quantfile, {"weights_kib": 30.0}, **keys))


@pytest.mark.parametrize("faithful", [False, True])
def test_accuracy_is_that_of_each_candidate_not_of_the_current_network(
    tmp_path, monkeypatch, weightfile, quantfile, faithful
):
    seen, real = [], RuntimeNetwork.validate

    def validate(net):
        bits = {name: site.bit_number() for name, site in net.sites.items()}
        real(net)
        # A made-up accuracy: what it costs a candidate is the number of bits that weights have lost.
        lost = sum(8 - width for name, width in bits.items() if name.endswith("/W"))
        seen.append((lost, bits))
        return lost / 100, 0.0

    monkeypatch.setattr(RuntimeNetwork, "validate", validate)
    keys = {"info": "acc", "step": 1, "lam": 6, "search_epochs": 0, "interval": 1}
    keys.update({"faithful": True, "keep": KEEP} if faithful else {"step": 2})
    limits = {} if faithful else {"bitops": 3e7}
    task, rows = recorded(make_task(tmp_path, quantfile if faithful else weightfile, limits, **keys))
    SEARCHES["progressive"](task)
    candidates = seen[1:7]
    assert len({tuple(bits.values()) for _, bits in candidates}) > 1
    # The candidate that lost fewest won, the first of equals.
    best = min(candidates, key=lambda pair: pair[0])[1]
    assert rows[1]["bits"] == " ".join(map(str, best.values()))


@pytest.mark.parametrize(("uniform_error", "kept"), [(0.1, "widest uniform"), (0.3, "step")])
def test_the_widest_uniform_policy_gets_the_same_training_and_wins_where_it_is_better(
    tmp_path, monkeypatch, weightfile, uniform_error, kept
):
    """Made-up cross entropies: 0.2 for any mixed bits."""
    starts: list[dict] = []
    real, challenged = RuntimeNetwork.validate, progressive._challenged

    def validate(net):
        error, _ = real(net)
        narrow = {site.bit_number() for site in net.sites.values()}
        return error, uniform_error if narrow == {4} else 0.2

    def challenge(run, state, entropy):
        made = challenged(run, state, entropy)
        starts.append(parameters.current())
        return made

    monkeypatch.setattr(RuntimeNetwork, "validate", validate)
    monkeypatch.setattr(progressive, "_challenged", challenge)
    # 4 bits throughout need 36.4 KiB; 10 biases of 32 bits do not count.
    task, rows = recorded(make_task(tmp_path, weightfile, {"weights_kib": 37.5, "activations_sum_kib": 2.5}))
    _, _, searched = parts(task, SEARCHES["progressive"](task))
    own, uniform = rows[-2:]
    assert own["meets_budget"] and uniform["meets_budget"] and uniform["candidate"] == "widest uniform"
    assert set(uniform["bits"].split()) == {"4"} != set(own["bits"].split())
    assert uniform["updates"] == own["updates"] > rows[-3]["updates"]
    winner = uniform if kept == "widest uniform" else own
    assert " ".join(map(str, searched.values())) == winner["bits"]
    # Both began at the same weights: those from before the last step.
    (start,) = starts
    with h5py.File(tmp_path / "best.h5") as file:
        assert not np.array_equal(file["conv1/conv/W"], start["conv1/conv/W"])
        left = {key: float(file[f"{name}_quantizer/bits"][()]) for name in searched for key in (name,)}
    assert left == {name: float(width) for name, width in searched.items()}
    assert not list(tmp_path.glob("progressive/*.h5"))
