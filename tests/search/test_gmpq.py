"""GMPQ from teacher to policy, what its loss has beside EdMIPS', and the settings that were published."""

from __future__ import annotations

from pathlib import Path

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest

from nnmpq.budget import Budget
from nnmpq.config.errors import ConfigError
from nnmpq.config.experiment import Experiment
from nnmpq.config.reader import read_experiment, to_cfg
from nnmpq.config.sections import read_sections
from nnmpq.data import load
from nnmpq.graph.accelerate import accelerate
from nnmpq.graph.mixture import Mixture
from nnmpq.graph.schemes import Float
from nnmpq.models import build
from nnmpq.quantizers.mixture import CandidateMixture
from nnmpq.search import SEARCHES, SearchTask, edmips, gmpq
from nnmpq.search.allocate import check_reachable
from nnmpq.search.differentiable import build_objective
from nnmpq.search.gmpq import Teacher, power, teacher_logits, teacher_of, terms
from nnmpq.search.step_cost import plain
from nnmpq.search.task import kept_bits, network_of
from nnmpq.training import train
from nnmpq.training.errors import BudgetError, TrainingError
from nnmpq.training.graphs import build_evaluation, build_training
from nnmpq.training.parameters import current, load_h5
from tests.graph.accelerate.conditioning import scattered
from tests.search.searching import experiment, run, trail

CFG = Path(__file__).resolve().parents[2] / "cfgs" / "search_gmpq.cfg"
SETS = {
    "CIFAR10": ("cifar10", 10),
    "FLOWERS": ("flowers102", 102),
    "CARS": ("stanford_cars", 196),
    "AIRCRAFT": ("fgvc_aircraft", 100),
    "PETS": ("oxford_iiit_pet", 37),
    "FOOD": ("food101", 101),
}


@pytest.fixture(scope="module")
def data():
    return load("digits", validation_images=40, train_images=160, test_images=40, seed=7)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, data) -> Teacher:
    """A float network of a few updates, in a run folder of its own."""
    folder = tmp_path_factory.mktemp("runs") / "FLOAT"
    chosen = attrs.evolve(plain(experiment("gmpq")), name="FLOAT", method=None)
    train(chosen, data, folder, quiet=True)
    (folder / "config.cfg").write_text(to_cfg(chosen))
    return Teacher(chosen, folder / "best.h5")


def task_of(data, folder, **changes) -> SearchTask:
    return SearchTask(experiment("gmpq", **changes), data, Budget(mean_bits=3.2), folder)


def test_a_teacher_of_another_experiment_serves_and_stays_as_it_is(tmp_path, teacher, data):
    before = teacher.path.read_bytes()
    policy = run("gmpq", tmp_path, teacher=str(teacher.path), mean_bits=3.2)
    assert policy.method == "gmpq" and policy.cost["mean_bits"] <= 3.2
    assert not (tmp_path / "TINY" / "float").exists() and teacher.path.read_bytes() == before
    # Nothing of it is in the checkpoint: it is read anew when a search goes on.
    names = {name for name in nn.get_parameters(grad_only=False) if "alpha" not in name and "xmax" not in name}
    own = network_of(experiment("gmpq"), data.shape, data.classes)
    assert {site.name for site in own.sites() if site.role != "activation"} <= names
    assert not any("teacher" in name for name in names)


def test_without_the_attributions_weight_it_is_edmips(tmp_path, teacher):
    """The same trail to the last digit: teacher and maps are out of the graph."""
    policies = [run("edmips", tmp_path / "a", mean_bits=3.2)]
    policies.append(run("gmpq", tmp_path / "b", teacher=str(teacher.path), aux_weight=0.0, mean_bits=3.2))
    assert trail(tmp_path / "a") == trail(tmp_path / "b")
    assert policies[0].bits() == policies[1].bits()
    run("gmpq", tmp_path / "c", teacher=str(teacher.path), aux_weight=40.0, mean_bits=3.2)
    assert trail(tmp_path / "c") != trail(tmp_path / "a")


def test_the_teacher_computes_what_its_evaluation_does(teacher, data):
    images = nn.Variable((8, *data.shape))
    logits = teacher_logits(teacher, images, data.classes)
    assert not nn.get_parameters(grad_only=False)
    assert not logits.need_grad
    chosen = attrs.evolve(teacher.experiment, batch_size=8)
    graph = build_evaluation(chosen, data, Float())
    load_h5(teacher.path)
    images.d = graph.images.d = np.random.RandomState(1).randn(*images.shape)
    logits.forward(clear_no_need_grad=True)
    graph.logits.forward()
    np.testing.assert_allclose(logits.d, graph.logits.d, rtol=1e-5, atol=1e-5)


def _distance(training, steps: int, solvers, weight: float) -> list[float]:
    found = []
    for _ in range(steps):
        training.loss.forward(clear_no_need_grad=True)
        found.append(float(training.penalties["attribution"].d) / weight)
        solvers.zero_grad()
        training.loss.backward(clear_buffer=True)
        solvers.update()
    return found


def test_the_network_comes_nearer_to_the_teachers_attribution(tmp_path, teacher, data):
    """On one batch, seen again and again: with the term the maps come together, without its weight they do not."""
    last = {}
    for weight in (400.0, 1e-6):
        nn.clear_parameters()
        nn.seed(3)
        task = task_of(data, tmp_path, teacher=str(teacher.path), aux_weight=weight, batch_size=32)
        learned = edmips.objective(task, lambda graph, task=task: terms(task.experiment, teacher, graph))
        training, _ = build_objective(task, plain(task.experiment), learned)
        training.images.d = (data.train.images[:32] - data.offset) / data.scale
        training.labels.d = data.train.labels[:32, None]
        solvers = edmips.build_solvers(task.experiment, training)
        start = {name: v.copy() for name, v in current().items()}
        distances = _distance(training, 25, solvers, weight)
        last[weight] = np.mean(distances[-5:]) / distances[0]
        moved = current()
        assert any(not np.array_equal(start[n], moved[n]) for n in moved if n.endswith("alpha"))
    assert last[400.0] < 0.5 and last[400.0] < 0.7 * last[1e-6]


def test_the_search_graph_runs_accelerated_to_the_same_numbers(teacher, data):
    """Loss, attribution and every gradient of the whole graph with its teacher, the two ways."""
    chosen = experiment("gmpq", batch_size=8)
    graph = build_training(chosen, data, Mixture((2, 3, 4), (2, 3, 4), "haq", "pact", keep=("fc/*",)))
    added = terms(chosen, teacher, graph).losses["attribution"]
    loss = F.add2(graph.loss, added)
    scattered()
    for name, v in nn.get_parameters(grad_only=False).items():
        if name.endswith("W_quantizer/xmax"):
            v.d = 0.4
    outputs = [loss, added]
    for v in outputs:
        v.persistent = True
    fast = accelerate(outputs).outputs
    graph.images.d = np.random.RandomState(2).rand(*graph.images.shape)
    graph.labels.d = np.arange(8)[:, None]
    start, found = current(), []
    for pair in (outputs, fast):
        for name, v in nn.get_parameters(grad_only=False).items():
            v.d, v.g = start[name], 0
        pair[0].forward(clear_no_need_grad=True)
        values = np.array([float(v.d) for v in pair])
        pair[0].backward(clear_buffer=True)
        found.append({"losses": values, **{name: np.array(v.g) for name, v in nn.get_parameters().items()}})
    assert found[0]["losses"][1] > 1e-3
    for name, expected in found[0].items():
        scale = np.abs(expected).max() + 1e-6
        np.testing.assert_allclose(found[1][name] / scale, expected / scale, atol=2e-3, err_msg=name)
    shares = [name for name in found[0] if name.endswith("/alpha")]
    assert shares and all(np.any(found[0][name]) for name in shares)


def test_the_power_follows_the_expected_bits(data):
    chosen = experiment("gmpq", activation_sites=("relu",), batch_size=4)
    scheme = Mixture((2, 3, 4, 6), (2, 3, 4, 6), "haq", "pact", keep=("conv1/conv", "fc/*"))
    graph = build_training(chosen, data, scheme)
    p = power(chosen, graph)
    p.forward()
    # 24 / (3.75 * 3.75), the published start of four equal shares; the last layer's input is float and not counted.
    assert float(p.d) == pytest.approx(1.7067, abs=1e-3)
    for name, site in graph.quantized.sites.items():
        if isinstance(site.quantizer, CandidateMixture):
            site.parameters["alpha"].d = [50, 0, 0, 0] if name.endswith("/W") else [0, 50, 0, 0]
    p.forward()
    assert float(p.d) == pytest.approx(24 / (2 * 3), rel=1e-5)
    assert power(attrs.evolve(chosen, pnorm=3.0), graph) == 3.0


def test_any_size_of_image(data, tmp_path):
    """The published network and teacher take 32 pixels only."""
    keys = {"arch": "edmips_resnet18", "stem": "cifar", "width_multiplier": 0.125, "batch_size": 2}
    chosen = Experiment("SIZE", **keys)
    other = attrs.evolve(chosen, arch="resnet18")
    with nn.parameter_scope("", scope={}):
        build("resnet18", nn.Variable((1, 3, 40, 56)), 10, test=True, seed=1, stem="cifar", width_multiplier=0.125)
        nn.save_parameters(str(tmp_path / "t.h5"))
    shaped = attrs.evolve(data, train=attrs.evolve(data.train, images=np.zeros((4, 3, 40, 56), np.uint8)))
    graph = build_training(chosen, shaped, Mixture(keep=("conv1/conv", "fc/*")))
    found = terms(chosen, Teacher(other, tmp_path / "t.h5"), graph).losses["attribution"]
    graph.images.d = np.random.RandomState(0).randn(*graph.images.shape)
    graph.labels.d = [[1], [4]]
    found.forward()
    assert 0 < float(found.d) < 40 * 2 / 35
    with pytest.raises(ValueError, match=r"map has \(2, 2\) pixels, the network's \(5, 7\)"):
        terms(chosen, Teacher(attrs.evolve(other, stem="imagenet"), _wide(tmp_path)), graph)


def _wide(folder: Path) -> Path:
    with nn.parameter_scope("", scope={}):
        build("resnet18", nn.Variable((1, 3, 40, 56)), 10, test=True, stem="imagenet", width_multiplier=0.125)
        nn.save_parameters(str(folder / "wide.h5"))
    return folder / "wide.h5"


def test_a_teacher_may_be_the_default_section(tmp_path, teacher, data):
    folder = tmp_path / "DEFAULT"
    folder.mkdir()
    (folder / "best.h5").write_bytes(teacher.path.read_bytes())
    (folder / "config.cfg").write_text(to_cfg(attrs.evolve(teacher.experiment, name="DEFAULT")))
    found = teacher_of(task_of(data, tmp_path / "TINY", teacher="DEFAULT/best.h5"))
    assert found.path == folder / "best.h5" and found.experiment.name == "DEFAULT"


def test_teachers_that_cannot_be(tmp_path, teacher, data):
    def refused(match: str, error: type = ConfigError, **changes):
        with pytest.raises(error, match=match):
            found = teacher_of(task_of(data, tmp_path / "TINY", **changes))
            teacher_logits(found, nn.Variable((2, *data.shape)), data.classes)

    refused("teacher: .*NONE/best.h5: not found", teacher="NONE/best.h5")
    for key, value in (("w_quantize", "dorefa"), ("a_quantize", "pact")):
        folder = tmp_path / key
        folder.mkdir()
        (folder / "best.h5").write_bytes(teacher.path.read_bytes())
        (folder / "config.cfg").write_text(to_cfg(attrs.evolve(teacher.experiment, **{key: value})))
        refused(f"{key} = {value}; a float one is needed", teacher=f"{key}/best.h5")
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "best.h5").write_bytes(teacher.path.read_bytes())
    (tmp_path / "mnist" / "config.cfg").write_text(to_cfg(attrs.evolve(teacher.experiment, dataset="mnist")))
    refused("of mnist, not of digits", teacher="mnist/best.h5")
    (tmp_path / "other.h5").write_bytes(teacher.path.read_bytes())
    refused(
        "15 parameters of the teacher are missing, res1/layer1/basicblock_s/shortcut_conv/conv/W",
        TrainingError,
        teacher=str(tmp_path / "other.h5"),
        shortcut_type="c",
    )


def test_a_budget_out_of_reach_is_told_before_a_teacher_is_trained(tmp_path, data, monkeypatch):
    monkeypatch.setattr(gmpq, "train", None)
    with pytest.raises(BudgetError, match="mean_bits 1 is wanted"):
        SEARCHES["gmpq"](SearchTask(experiment("gmpq"), data, Budget(mean_bits=1.0), tmp_path))


def test_every_section_can_be_run():
    """Each reads, its patterns fit its network, its limits can be met, and a section trains its float teacher."""
    names = [name for name in read_sections(CFG).names() if name not in ("DEFAULT", "PUBLISHED", "TEACHER")]
    assert {f"RESNET18_{name}{tail}" for name in SETS for tail in ("", "_FLOAT")} <= set(names)
    classes = {**dict(SETS.values()), "imagenet": 1000, "imagenette": 10, "digits": 10}
    for name in names:
        chosen = read_experiment(CFG, name, ["policy=none"])
        shape = (1, 8, 8) if chosen.dataset == "digits" else (3, 32, 32)
        network = network_of(chosen, shape, classes[chosen.dataset])
        kept = kept_bits(chosen, network)
        if name.endswith("_FLOAT"):
            assert chosen.w_quantize is None and chosen.a_quantize is None and chosen.teacher is None
            continue
        if chosen.teacher is None:
            assert chosen.calibrate and chosen.weightfile.split("/")[0] in names
            continue
        maker = read_experiment(CFG, chosen.teacher.split("/")[0])
        assert (maker.dataset, maker.stem, maker.colour, maker.image_size) == (
            chosen.dataset,
            chosen.stem,
            chosen.colour,
            chosen.image_size,
        )
        task = SearchTask(chosen, None, Budget(), Path("runs"))
        narrow = {site: own[0] for site, own in edmips.mixed_widths(task, network).items()}
        check_reachable(network, Budget(mean_bits=chosen.mean_bits), {**kept, **narrow})


@pytest.mark.parametrize("name, layers", [("RESNET18_CIFAR10", 19), ("RESNET50_CIFAR10", 52)])
def test_the_published_search(name: str, layers: int):
    """Of the published README and flags; 19 and 52 convolutions have shares, the first layer and the last have none."""
    chosen = read_experiment(CFG, name)
    assert (chosen.aux_weight, chosen.product, chosen.cd, chosen.epochs, chosen.batch_size) == (40, 24, 0.0003, 25, 256)
    assert (chosen.initial_learning_rate, chosen.alpha_learning_rate, chosen.milestones) == (0.1, 0.01, (10, 20))
    assert (chosen.weight_candidate, chosen.activation_candidate) == ("haq", "pact")
    assert chosen.weight_widths == chosen.activation_widths == ((2, 3, 4, 6) if layers == 19 else (2, 3, 4))
    network = network_of(chosen, (3, 32, 32), 10)
    task = SearchTask(chosen, None, Budget(), Path("runs"))
    widths = edmips.mixed_widths(task, network)
    searched = [layer for layer in network.layers if layer.weight.name in widths]
    assert len(searched) == layers and all(set(layer.inputs) <= widths.keys() for layer in searched)
    macs = sum(layer.macs for layer in searched) / 1e6
    assert macs == pytest.approx({19: 553.65, 52: 1296.04}[layers], abs=0.01)
