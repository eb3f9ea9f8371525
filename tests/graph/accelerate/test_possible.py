"""Where graphs are accelerated, where not, what is said of it, and weights that are promised to stay."""

from __future__ import annotations

import logging

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest
from nnabla.function import PythonFunction

from nnmpq.config.scheme import build_scheme
from nnmpq.graph.accelerate import accelerate, accelerate_where_possible, possible
from nnmpq.graph.accelerate.weights import BlockedWeight
from nnmpq.graph.functions import functions_of
from nnmpq.onednn import library
from nnmpq.runs import main
from nnmpq.training import graphs
from nnmpq.training.graphs import build_evaluation, build_training
from tests.training.tiny import data, experiment

OURS = {"Convolution", "Normalise", "ChannelsLast"}


@pytest.fixture(autouse=True)
def nothing_said_yet():
    possible._say_once.cache_clear()
    yield
    possible._say_once.cache_clear()


@pytest.fixture
def no_library(monkeypatch):
    """A machine without oneDNN; the loaded library is forgotten for the test."""

    def absent():
        raise library.LibraryMissing("the package onednn-cpu-gomp is not installed")

    monkeypatch.setattr(library, "session", absent)


def network(batch: int = 4) -> tuple[nn.Variable, nn.Variable]:
    x = nn.Variable((batch, 3, 8, 8))
    h = PF.convolution(x, 24, (3, 3), pad=(1, 1), with_bias=False, name="a")
    h = F.relu(PF.batch_normalization(h, name="a", batch_stat=False))
    return x, PF.affine(F.relu(PF.convolution(h, 40, (3, 3), pad=(1, 1), name="b")), 5, name="c")


def test_without_the_package_plain_nnabla_runs_and_it_is_said_once(no_library, caplog):
    _, y = network()
    with caplog.at_level(logging.WARNING, "nnmpq"):
        assert [accelerate_where_possible([y]) for _ in range(3)] == [None] * 3
    assert [record.message for record in caplog.records] == [
        "not accelerated, nnabla's own CPU functions run: the package onednn-cpu-gomp is not installed"
    ]


def test_training_without_the_package_is_plain_nnabla(no_library, caplog):
    chosen = experiment()
    with caplog.at_level(logging.WARNING, "nnmpq"):
        training = build_training(chosen, data(), build_scheme(chosen), accelerate=True)
        evaluation = build_evaluation(chosen, data(), build_scheme(chosen), accelerate=True)
    assert len(caplog.records) == 1
    for output in (training.loss, evaluation.cross_entropies):
        assert not OURS & {f.info.type_name for f in functions_of([output])} - {"Convolution"}
    training.images.d, training.labels.d = 0.5, 1
    training.loss.forward()
    assert np.isfinite(training.loss.d)


def test_a_graph_with_a_foreign_python_function_stays_plain_and_says_which(caplog):
    class Twice(PythonFunction):
        @property
        def name(self):
            return "Twice"

        def min_outputs(self):
            return 1

        def setup_impl(self, inputs, outputs):
            outputs[0].reset_shape(inputs[0].shape, True)

        def grad_depends_output_data(self, i, o):
            return False

        def grad_depends_input_data(self, i, j):
            return False

    x, y = network()
    with caplog.at_level(logging.WARNING, "nnmpq"):
        assert accelerate_where_possible([Twice()(y)]) is None
    assert len(caplog.records) == 1 and "'Twice'" in caplog.text


def test_a_gpu_s_graph_is_left_alone_in_silence(caplog):
    _, y = network()
    with caplog.at_level(logging.WARNING), nn.context_scope(nn.Context(["cudnn:float", "cuda:float"], "CudaArray")):
        assert accelerate_where_possible([y]) is None
    assert not caplog.records


@pytest.mark.parametrize("options,expected", [([], True), (["--no-accelerate"], False)])
def test_the_command_line_decides(options, expected, tmp_path, monkeypatch):
    """What runs is looked at: functions that a forward pass calls."""
    ran = set()
    built = []
    build = graphs.build_training

    def watched(*arguments, **keys):
        built.append(build(*arguments, **keys))
        return built[-1]

    monkeypatch.setattr("nnmpq.training.begin.build_training", watched)
    cfg = tmp_path / "test.cfg"
    cfg.write_text(
        "[ONE]\narch = resnet_digits\ndataset = digits\naugmentation = none\nvalidation_images = 40\n"
        "train_images = 64\ntest_images = 40\nepochs = 1\nbatch_size = 32\n"
    )
    arguments = ["ONE", "--cfg", str(cfg), "-o", str(tmp_path), "--quiet", "--threads", "1", *options]
    assert main("train_resnet.py", ("resnet_digits",), arguments) == 0
    (graph,) = built
    graph.loss.visit(lambda f: ran.add(f.info.type_name))
    assert ("Normalise" in ran) is expected and ("BatchNormalization" in ran) is not expected


def test_weights_are_reordered_once_inside_a_promise(monkeypatch):
    moves = []
    pointer = BlockedWeight.pointer

    def watched(self, layout, weight):
        stamp = self.stamp if self.layout is layout else None
        found = pointer(self, layout, weight)
        moves.append(layout.move is not None and (self.clock.running or stamp != self.stamp))
        return found

    monkeypatch.setattr(BlockedWeight, "pointer", watched)
    x, y = network()
    fast = accelerate([y])
    x.d = np.random.RandomState(0).randn(*x.shape)

    def reorders(count: int) -> int:
        moves.clear()
        for _ in range(count):
            fast.outputs[0].forward()
        assert len(moves) == 2 * count
        return sum(moves)

    each = reorders(1)
    if not each:
        pytest.skip("oneDNN takes these weights as they are on this processor")
    assert reorders(3) == 3 * each
    with fast.clock.stopped():
        assert reorders(3) == each
    assert reorders(2) == 2 * each


def test_a_weight_that_changed_after_a_promise_is_seen():
    x, y = network()
    fast = accelerate([y])
    x.d = np.random.RandomState(0).randn(*x.shape)
    w = nn.get_parameters()["b/conv/W"]

    def both() -> float:
        y.forward()
        fast.outputs[0].forward()
        assert np.abs(fast.outputs[0].d - y.d).max() <= 1e-5 * np.abs(y.d).max()
        return float(np.sum(fast.outputs[0].d, dtype=np.float64))

    with fast.clock.stopped():
        found = [both(), both()]
    w.d = w.d * 2.0
    found.append(both())
    w.d = w.d + 0.1
    with fast.clock.stopped():
        found.append(both())
    w.d = w.d * 3.0
    with pytest.raises(ValueError, match="in the middle"), fast.clock.stopped():
        raise ValueError("in the middle")
    found.append(both())
    assert found[0] == found[1] and len(set(found)) == 4


def test_a_promise_inside_a_promise_still_holds_after_it():
    clock = accelerate([network()[1]]).clock
    with clock.stopped():
        with clock.stopped():
            assert not clock.running
        assert not clock.running
    assert clock.running


def test_functions_written_for_the_cpu_take_what_a_user_assigned():
    """Numbers that were assigned as float64 or as whole numbers."""
    x, y = network()
    (fast,) = accelerate([y]).outputs
    for kind in (np.float64, np.int32, np.float32):
        x.d = np.random.RandomState(0).randint(-3, 4, x.shape).astype(kind)
        y.forward()
        fast.forward()
        assert np.abs(fast.d - y.d).max() <= 1e-5 * np.abs(y.d).max()
