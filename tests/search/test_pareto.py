"""Dominance, fronts, their files, and the command."""

from __future__ import annotations

import csv
import re

import nnabla as nn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nnmpq.budget import Budget
from nnmpq.cli import main
from nnmpq.config.experiment import Experiment
from nnmpq.cost import cost
from nnmpq.policy import Policy, PolicyError
from nnmpq.search import pareto
from nnmpq.search.allocate import allocate
from nnmpq.search.dominance import non_dominated
from nnmpq.search.table import ScoreTable, TableError
from nnmpq.search.task import network_of, policy_sites
from nnmpq.training.errors import BudgetError
from tests.search.small import network

NET = network([1000, 3000], [400, 80], [(0,), (1,)], bias=True)
LOSS = {
    "l0/W": {2: 4.0, 4: 1.0, 8: 0.25},
    "l1/W": {2: 3.0, 4: 0.5, 8: 0.125},
    "a0/relu": {2: 2.0, 4: 1.5, 8: 0.5},
    "a1/relu": {2: 2.0, 4: 0.25, 8: 0.0625},
}
TABLE = ScoreTable("snr", NET, LOSS, 313, 64)
FIXED = {"l0/b": 8}


def read(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 3), max_size=25))
def test_what_is_kept_is_what_nothing_dominates(points):
    kept = non_dominated(np.array(points).reshape(-1, 3))
    for index, p in enumerate(points):
        dominated = any(all(a <= b for a, b in zip(q, p)) and q != p for q in points)
        assert kept[index] == (not dominated and p not in points[:index])


def test_a_coordinate_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="point 1 has a coordinate"):
        non_dominated(np.array([[1.0, 2.0], [np.nan, 0.0]]))


@pytest.mark.parametrize("target", ["mean_bits", "weights_kib", "bitops", "activations_sum_kib", "activations_max_kib"])
def test_a_front_is_made_of_optima_from_end_to_end(target):
    points = pareto.front(TABLE, target, points=12, fixed=FIXED)
    costs, losses = pareto.coordinates(points, target).T
    assert np.all(np.diff(costs) > 0) and np.all(np.diff(losses) < 0)
    narrowest = cost(NET, {**FIXED, **dict.fromkeys(LOSS, 2)})
    assert costs[0] == pytest.approx(getattr(narrowest, target))
    assert losses[-1] == sum(by_bits[8] for by_bits in LOSS.values())
    for point in points:
        assert costs.size > 2 and getattr(point.cost, target) <= point.limit
        best = allocate(LOSS, NET, Budget(**{target: point.limit}), fixed=FIXED)
        assert point.loss == pytest.approx(TABLE.total(best))
        assert point.cost == cost(NET, point.bits)


def test_further_limits_hold_at_every_point():
    points = pareto.front(TABLE, "weights_kib", points=6, budget=Budget(activations_max_kib=0.1), fixed=FIXED)
    assert len(points) > 2 and all(point.bits["a0/relu"] == 2 for point in points)
    with pytest.raises(BudgetError, match="beside weights_kib are out of reach: the least is activations_max_kib 0.09"):
        pareto.front(TABLE, "weights_kib", budget=Budget(activations_max_kib=0.05))


def test_uniform_is_never_below_the_front():
    points = pareto.front(TABLE, "bitops", points=32, fixed=FIXED)
    uniform = pareto.uniform_points(TABLE, FIXED)
    assert [point.name for point in uniform] == ["uniform 2", "uniform 4", "uniform 8"]
    for point in uniform:
        best = allocate(LOSS, NET, Budget(bitops=point.cost.bitops), fixed=FIXED)
        assert TABLE.total(best) <= point.loss
    assert points[0].loss <= uniform[0].loss


def test_the_files_of_a_front(tmp_path):
    points = [*pareto.front(TABLE, "mean_bits", points=7, fixed=FIXED), *pareto.uniform_points(TABLE, FIXED)]
    pareto.save(tmp_path, TABLE, "mean_bits", points, name="small", title="SMALL")
    rows = read(tmp_path / "front.csv")
    assert tuple(rows[0]) == pareto.COLUMNS and len(rows) == len(points)
    coordinates = np.array([[float(row["mean_bits"]), float(row["loss"])] for row in rows])
    assert [row["dominated"] == "no" for row in rows] == non_dominated(coordinates).tolist()
    for row, point in zip(rows, points):
        assert (row["policy"] == "") == (point.method == "uniform")
        if row["policy"]:
            policy = Policy.load(tmp_path / row["policy"])
            policy.check(NET)
            assert policy.bits() == point.bits
            assert policy.budget == {"mean_bits": float(row["limit"])} and policy.network == "small"
            assert policy.cost["bitops"] == float(row["bitops"]) == cost(NET, policy.bits()).bitops
    with Image.open(tmp_path / "front.png") as image:
        picture = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in pareto.COLOURS[:2]:
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert np.sum(np.all(picture == wanted, axis=1)) > 50, colour


def test_a_loss_of_nothing_can_be_drawn(tmp_path):
    zero = ScoreTable("snr", NET, {"l0/W": {2: 1.0, 4: 0.5, 8: 0.0}})
    points = pareto.front(zero, "weights_kib", points=5)
    assert points[-1].loss == 0.0
    pareto.plot(tmp_path / "zero.png", points, "weights_kib")
    with Image.open(tmp_path / "zero.png") as picture:
        assert picture.size == (720, 450)


def test_another_methods_policy_is_a_point():
    bits = {**dict.fromkeys(LOSS, 4), **FIXED}
    policy = Policy("small", "edmips", sites=policy_sites(NET, bits))
    point = pareto.policy_point(TABLE, policy, "run")
    assert (point.method, point.name, point.loss) == ("edmips", "run", 1.0 + 0.5 + 1.5 + 0.25)
    assert point.cost == cost(NET, bits)
    with pytest.raises(TableError, match="l0/W at 5 bits: the table has 2, 4, 8"):
        pareto.policy_point(TABLE, Policy(sites=policy_sites(NET, {**bits, "l0/W": 5})), "run")
    sites = policy_sites(NET, bits)
    del sites["l1/W"]
    with pytest.raises(PolicyError, match="no bits for l1/W"):
        pareto.policy_point(TABLE, Policy(sites=sites), "run")


@pytest.fixture
def digits(tmp_path):
    """A configuration, and a table of its network's scores."""
    (tmp_path / "small.cfg").write_text(
        "[SMALL]\narch = resnet_digits\ndataset = digits\nvalidation_images = 200\nkeep = conv1/*:8, fc/*\n"
    )
    experiment = Experiment("SMALL", arch="resnet_digits")
    net = network_of(experiment, (1, 8, 8), 10)
    losses = {
        site.name: {bits: site.elements * 4.0**-bits for bits in (2, 3, 4, 8)}
        for site in net.sites()
        if (site.role == "weight" or site.kind == "relu") and not site.name.startswith(("conv1/conv/", "fc/"))
    }
    losses["conv1/conv/relu"] = {2: 0.5, 8: 0.1}
    ScoreTable("kl", net, losses, 1, 10).save(tmp_path / "scores.csv")
    return tmp_path


def run(folder, *more):
    scores = ["--scores", str(folder / "scores.csv")]
    return main(["pareto", "SMALL", "--cfg", str(folder / "small.cfg"), "-o", str(folder / "runs"), *scores, *more])


def test_the_command_draws_the_front_of_a_table(digits, capsys):
    assert run(digits, "--points", "9", "--threads", "1") == 0
    out = capsys.readouterr().out
    assert "points of 9 limits, mean_bits from" in out
    folder = digits / "runs" / "SMALL" / "pareto"
    rows = read(folder / "front.csv")
    policy = Policy.load(folder / rows[0]["policy"])
    # What `keep` decides is in the policy as well as in its cost.
    assert policy.sites["conv1/conv/W"].bits == 8 and policy.sites["fc/affine/W"].quantizer == "float"
    assert policy.sites["conv1/conv/relu"].bits == 8 and policy.network == "resnet_digits"
    net = network_of(Experiment("SMALL", arch="resnet_digits"), (1, 8, 8), 10)
    policy.check(net)
    assert float(rows[0]["mean_bits"]) == cost(net, policy.bits()).mean_bits == policy.cost["mean_bits"]
    assert [row["name"] for row in rows if row["method"] == "uniform"] == [f"uniform {bits}" for bits in (2, 3, 4, 8)]
    assert nn.get_parameters(grad_only=False) == {}


def test_the_command_needs_no_data_where_the_shape_is_given(digits, capsys):
    policy = digits / "other" / "policy.yaml"
    assert run(digits, "--points", "3", "--target", "weights_kib", "--threads", "1") == 0
    policy.parent.mkdir()
    policy.write_bytes((digits / "runs" / "SMALL" / "pareto" / "policies" / "02.yaml").read_bytes())
    more = ["--shape", "1,8,8", "--classes", "10", "--set", "dataset=cifar10", "--policy", str(policy)]
    assert run(digits, *more, "--limit", "weights_kib=90", "--points", "4", "--threads", "1") == 0, capsys.readouterr()
    rows = read(digits / "runs" / "SMALL" / "pareto" / "front.csv")
    assert rows[-1]["name"] == "other" and rows[-1]["limit"] == ""
    assert all(float(row["weights_kib"]) <= 90 for row in rows if row["limit"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--target", "weight_kib"], "--target weight_kib: the nearest is 'weights_kib'"),
        (["--limit", "bitops=many"], "--limit bitops=many: NAME=VALUE"),
        (["--limit", "bitops=-1"], "--limit bitops = -1.0: a limit is a number above 0"),
        (["--limit", "weights_kib=1"], "out of reach: the least is weights_kib"),
        (["--shape", "1,8,8"], "--shape stands for a data set: it needs --classes"),
        (["--set", "keep=conv9/*"], "keep = conv9/\\*: it fits no site"),
        (["--policy", "none.yaml"], "none.yaml: cannot be read as a policy"),
    ],
)
def test_the_command_says_what_is_wrong(digits, capsys, more, said):
    assert run(digits, "--points", "2", "--threads", "1", *more) == 2
    assert re.search(said, capsys.readouterr().err)
