"""The sensitivity search from weights to a policy that can be trained, and what a task decides."""

from __future__ import annotations

import shutil

import attrs
import nnabla as nn
import numpy as np
import pytest

from nnmpq.budget import Budget
from nnmpq.config.experiment import Experiment
from nnmpq.cost import cost
from nnmpq.data import load
from nnmpq.graph.network import Site
from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import FromPolicy
from nnmpq.models import build
from nnmpq.policy import Policy
from nnmpq.search import SEARCHES, SearchTask
from nnmpq.search.pieces import Pieces
from nnmpq.search.sensitivity import load_float, score_table, uniform_bits, validate
from nnmpq.search.table import ScoreTable, TableError
from nnmpq.search.task import make_policy, narrowest, network_of, quantizer_name
from nnmpq.training import train
from nnmpq.training.errors import BudgetError
from nnmpq.training.evaluate import Evaluation
from nnmpq.training.machine import Machine
from tests.search.affine import task as affine_task


@pytest.fixture(scope="module")
def data():
    return load("digits", validation_images=200, train_images=600, test_images=100, seed=313)


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    """A run: a float network of a few epochs, and its scores."""
    made = tmp_path_factory.mktemp("sensitivity")
    nn.clear_parameters()
    SEARCHES["sensitivity"](digits(data, made, Budget(mean_bits=3.6), resume=False))
    return made


def digits(data, folder, budget, **changes):
    keys = {
        "arch": "resnet_digits",
        "dataset": "digits",
        "augmentation": "none",
        "epochs": 4,
        "batch_size": 32,
        "initial_learning_rate": 0.1,
        "validation_images": 200,
        **changes.pop("keys", {}),
    }
    options = {"score": "snr", "score_images": 64, "resume": True, **changes}
    return SearchTask(Experiment("S", **keys), data, budget, folder, **options)


def test_from_digits_to_a_policy_that_meets_every_limit(data, tmp_path):
    rows: list = []
    budget = Budget(mean_bits=3.6, weights_kib=34.0, activations_sum_kib=2.2)
    policy = SEARCHES["sensitivity"](digits(data, tmp_path, budget, report=rows.append, resume=False))
    net = network_of(Experiment("S", arch="resnet_digits"), data.shape, data.classes)
    policy.check(net)
    used = cost(net, policy.bits())
    assert budget.met_by(used) and policy.cost == attrs.asdict(used)
    assert (policy.method, policy.network, policy.seed) == ("sensitivity", "resnet_digits", 313)
    assert policy.budget == budget.limits() and len(set(policy.bits().values())) > 1
    assert {site.name for site in net.activations if site.name in policy.sites} == {
        site.name for site in net.activations if site.kind == "relu"
    }
    # The trail: uniform candidates, then what is better than each of them that meets the budget.
    scored = [row for row in rows if "candidate" not in row]
    *uniform, own, widest = rows[len(scored) :]
    assert {row["site"] for row in scored} == set(policy.sites)
    assert [row["candidate"] for row in uniform] == [f"uniform {bits}" for bits in range(2, 9)]
    assert own["candidate"] == "sensitivity" and own["meets_budget"]
    assert all(own["loss"] <= row["loss"] for row in uniform if row["meets_budget"])
    # Of it and the widest uniform one that with the lower cross entropy on the validation images was taken.
    assert widest["candidate"] == "widest uniform" and widest["meets_budget"]
    taken = min(own, widest, key=lambda row: row["validation_cross_entropy"])
    assert taken["weights_kib"] == used.weights_kib and taken["mean_bits"] == used.mean_bits
    # 4 epochs of 18 batches of 32 before the scores, which run 64 images once more.
    assert own["images"] == 4 * 18 * 32 + 64
    # The policy is one that a network can be built of.
    logits = build("resnet_digits", nn.Variable((2, 1, 8, 8)), 10)
    assert quantize(logits, FromPolicy(policy)).bit_numbers() == policy.bits()


def test_scores_serve_the_next_budget_without_a_run(data, folder, monkeypatch):
    before = (folder / "scores.csv").read_bytes()

    def fail(task):
        raise AssertionError("scored again")

    monkeypatch.setattr("nnmpq.search.sensitivity.measure", fail)
    task = digits(data, folder, Budget(weights_kib=25.0))
    policy = SEARCHES["sensitivity"](task)
    assert policy.cost["weights_kib"] <= 25.0 and (folder / "scores.csv").read_bytes() == before
    assert set(policy.bits().values()) != {2}


def test_a_search_repeats_itself_to_the_byte(data, folder, tmp_path):
    task = digits(
        data, tmp_path, Budget(weights_kib=25.0), resume=False, keys={"weightfile": str(folder / "float" / "best.h5")}
    )
    first = SEARCHES["sensitivity"](task)
    assert SEARCHES["sensitivity"](task) == first
    assert (tmp_path / "scores.csv").read_bytes() == (folder / "scores.csv").read_bytes()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"score": "kl"}, "scores.csv: score snr, this run's kl"),
        ({"seed": 5}, "scores.csv: seed 313, this run's 5"),
        ({"weight_widths": (2, 4)}, "scores.csv: widths .* this run's"),
    ],
)
def test_scores_of_another_run_are_refused(data, folder, changes, said):
    keys = {"weightfile": str(folder / "float" / "best.h5")}
    with pytest.raises(TableError, match=said):
        score_table(digits(data, folder, Budget(), keys=keys, **changes))


def test_a_budget_out_of_reach_names_the_least(data, folder):
    keys = {"weightfile": str(folder / "float" / "best.h5")}
    task = digits(data, folder, Budget(weights_kib=5.0, activations_sum_kib=0.1), keys=keys)
    with pytest.raises(
        BudgetError, match=r"weights_kib 5 is wanted, 18\.19.* is the least; activations_sum_kib 0\.1 .* 1\.125"
    ):
        SEARCHES["sensitivity"](task)


def test_weights_of_a_file_are_those_that_are_scored(data, folder):
    keys = {"weightfile": str(folder / "float" / "best.h5")}
    net = load_float(digits(data, folder, Budget(), keys=keys))
    assert {layer.weight.name for layer in net.layers} <= set(nn.get_parameters())
    import h5py

    with h5py.File(folder / "float" / "best.h5") as file:
        np.testing.assert_array_equal(file["conv1/conv/W"], nn.get_parameters()["conv1/conv/W"].d)


def test_the_policy_trains(data, folder, tmp_path):
    """Search, train, and the trained network has the policy's bits."""
    policy = SEARCHES["sensitivity"](digits(data, folder, Budget(mean_bits=4.0)))
    policy.save(tmp_path / "policy.yaml")
    task = digits(data, folder, Budget())
    experiment = attrs.evolve(
        task.experiment,
        policy=str(tmp_path / "policy.yaml"),
        epochs=1,
        milestones=(),
        initial_learning_rate=0.01,
        weightfile=str(folder / "float" / "best.h5"),
    )
    result = train(experiment, data, tmp_path / "run", quiet=True, machine=Machine())
    assert result.policy.bits() == Policy.load(tmp_path / "policy.yaml").bits()
    assert result.cost.mean_bits <= 4.0


def test_uniform_bits_are_as_near_as_a_site_allows():
    found = uniform_bits({"w": (1, 2, 8), "b": (2, 4), "a": (3,)})
    assert list(found) == [f"uniform {bits}" for bits in (1, 2, 3, 4, 8)]
    assert found["uniform 1"] == {"w": 1, "b": 2, "a": 3}
    assert found["uniform 3"] == {"w": 8, "b": 4, "a": 3}
    assert found["uniform 8"] == {"w": 8, "b": 4, "a": 3}


def test_widths_follow_role_sign_and_keep(monkeypatch, tmp_path):
    keys = {"keep": ("b/*:8", "a/affine/b"), "activation_sites": ("relu", "input")}
    task = affine_task(monkeypatch, tmp_path, keys=keys, weight_widths=(1, 4), activation_widths=(1, 3))
    net = network_of(task.experiment, (1, 8, 8), 10)
    # The input is signed: it needs a level on either side of zero.
    assert task.widths(net) == {"a/affine/W": (1, 4), "input": (2, 3), "a/affine/relu": (1, 3)}
    assert task.kept(net) == {"a/affine/b": 32, "b/affine/W": 8, "b/affine/b": 8}
    policy = make_policy(task, net, {"a/affine/W": 1, "input": 2, "a/affine/relu": 1}, "test")
    assert {name: (site.bits, site.quantizer, site.signed) for name, site in policy.sites.items()} == {
        "a/affine/W": (1, "sign_mean", True),
        "a/affine/b": (32, "float", True),
        "b/affine/W": (8, "uniform_b_xmax", True),
        "b/affine/b": (8, "uniform_b_xmax", True),
        "input": (2, "uniform_b_xmax", True),
        "a/affine/relu": (1, "uniform_b_xmax", False),
    }
    other = make_policy(task, net, {"a/affine/W": 3}, "test", {"a/affine/W": "gaussian"})
    assert other.sites["a/affine/W"].quantizer == "gaussian" and "a/affine/relu" not in other.sites


def test_a_kept_float_activation_of_another_kind_does_not_count(monkeypatch, tmp_path):
    task = affine_task(monkeypatch, tmp_path, keys={"keep": ("input", "a/affine/relu")})
    net = network_of(task.experiment, (1, 8, 8), 10)
    assert task.kept(net) == {"a/affine/relu": 32}


@pytest.mark.parametrize("widths", [(), (3, 2), (2, 2), (0, 4), (4, 17)])
def test_widths_are_ascending(monkeypatch, tmp_path, widths):
    with pytest.raises(ValueError, match="weight_widths"):
        affine_task(monkeypatch, tmp_path, weight_widths=widths)


def test_a_signed_activation_cannot_have_one_bit():
    site = Site("x/sum", "activation", "sum", (3,), True)
    assert narrowest(site) == 2
    with pytest.raises(ValueError, match="x/sum: 1 bit is less than the 2 that it needs"):
        quantizer_name(site, 1)


def test_the_scores_of_a_task_are_a_table(monkeypatch, tmp_path):
    """Weights in the current scope are not those of a search: it trains or loads its own, and says which score."""
    task = affine_task(monkeypatch, tmp_path, keys={"epochs": 1, "milestones": ()}, resume=True)
    assert task.score == "kl"
    table = score_table(task)
    loaded = ScoreTable.load(tmp_path / "scores.csv", table.network)
    assert loaded.loss == table.loss and (loaded.score, loaded.images) == ("kl", 24)
    assert (tmp_path / "float" / "best.h5").exists()


@pytest.mark.parametrize(("entropies", "taken"), [((0.5, 0.4), "uniform"), ((0.4, 0.5), "own"), ((0.4, 0.4), "own")])
def test_the_better_of_it_and_uniform_is_handed_over(data, folder, monkeypatch, entropies, taken):
    """By the cross entropy on the validation images, here a made-up one; of equal ones its own."""
    asked: list = []

    def validate(task, policies):
        asked.extend(policies)
        return [Evaluation(0.1, entropy) for entropy in entropies]

    monkeypatch.setattr("nnmpq.search.sensitivity.validate", validate)
    policy = SEARCHES["sensitivity"](digits(data, folder, Budget(mean_bits=3.6)))
    own, uniform = asked
    assert set(uniform.values()) == {3} and len(set(own.values())) > 1
    assert policy.bits() == (uniform if taken == "uniform" else own)


def test_validation_is_of_the_quantized_network(data, folder):
    """Float bits answer as the float network; 2 bits everywhere far worse; nothing stays quantized."""
    task = digits(data, folder, Budget())
    load_float(task)
    before = {name: np.array(v.d) for name, v in nn.get_parameters(grad_only=False).items()}
    net = network_of(task.experiment, data.shape, data.classes)
    free, narrow = validate(task, [{}, dict.fromkeys(task.widths(net), 2)])
    assert free.error < 0.1 and narrow.cross_entropy > free.cross_entropy + 0.5
    assert all(np.array_equal(v.d, before[name]) for name, v in nn.get_parameters(grad_only=False).items())


@pytest.mark.parametrize("score", ["kl", "fisher", "learned_step"])
def test_a_killed_scoring_goes_on_where_it_was(monkeypatch, tmp_path, score):
    """Killed after each piece: none is computed twice, and the table and the trail are as of one run."""
    computed: list[str] = []
    each = Pieces.each

    def dying(self, names, compute, length):
        def counted(name):
            computed.append(name)
            return compute(name)

        for number, pair in enumerate(each(self, names, counted, length)):
            yield pair
            if number + 1 == len(kills) + 1 and len(kills) < 2:
                kills.append(number)
                raise KeyboardInterrupt

    kills = [0, 1]
    keys = {"epochs": 1, "milestones": ()}
    whole_rows: list = []
    options = {"score": score, "steps": 3, "keys": keys}
    whole = score_table(affine_task(monkeypatch, tmp_path / "whole", **options, report=whole_rows.append))
    # This network's first weights are drawn without a seed.
    shutil.copytree(tmp_path / "whole" / "float", tmp_path / "broken" / "float")
    kills = []
    monkeypatch.setattr(Pieces, "each", dying)
    rows: list = []
    task = affine_task(monkeypatch, tmp_path / "broken", **options, report=rows.append, resume=True)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            score_table(task)
        assert (tmp_path / "broken" / "scores.partial.json").exists()
        rows.clear()
    table = score_table(task)
    assert table.loss == whole.loss and rows == whole_rows
    assert len(computed) == len(set(computed)) > 2 and not (tmp_path / "broken" / "scores.partial.json").exists()
    # Once it is there its rows come again without any run.
    rows.clear()
    computed.clear()
    assert score_table(task).loss == whole.loss and rows == whole_rows and computed == []


def test_scores_of_other_weights_do_not_go_on(monkeypatch, tmp_path):
    known = {"score": "kl", "parameters": "a"}
    pieces = Pieces.open(tmp_path / "p.json", known, resume=False)
    assert list(pieces.each(["x"], lambda name: [1.5], 1)) == [("x", [1.5])]
    assert Pieces.open(tmp_path / "p.json", known, resume=True).done == {"x": [1.5]}
    with pytest.raises(TableError, match=r"p\.json: the run has changed: parameters was a, is b"):
        Pieces.open(tmp_path / "p.json", {**known, "parameters": "b"}, resume=True)
    assert Pieces.open(tmp_path / "p.json", known, resume=False).done == {}
    (tmp_path / "p.json").write_text("[")
    with pytest.raises(TableError, match="it cannot be read"):
        Pieces.open(tmp_path / "p.json", known, resume=True)
