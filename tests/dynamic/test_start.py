"""Where a network with gates starts: from nothing, from a uniform network, from one with gates."""

from __future__ import annotations

from pathlib import Path

import nnabla as nn
import numpy as np
import pytest

from nnmpq.dynamic.start import build_graphs
from nnmpq.models import build
from nnmpq.runs import load_data
from nnmpq.training.errors import TrainingError
from tests.dynamic.digits import experiment

PREACT = {"arch": "preact_resnet", "width_multiplier": 0.25, "keep": ()}
STATISTICS = ("gamma", "beta", "mean", "var")


def parameters() -> dict[str, np.ndarray]:
    return {name: np.array(v.d, np.float32) for name, v in nn.get_parameters(grad_only=False).items()}


def start(weightfile: str | None = None, **changes: object) -> dict[str, np.ndarray]:
    chosen = experiment("CAMP_SP", weightfile=weightfile, **{**PREACT, **changes})
    build_graphs(chosen, load_data(chosen))
    return parameters()


@pytest.fixture
def uniform(tmp_path: Path) -> tuple[str, dict[str, np.ndarray]]:
    """A file of a uniform PreAct-ResNet-20 in which every number is another, and what it holds."""
    nn.clear_parameters()
    build("preact_resnet", nn.Variable((1, 1, 8, 8)), 10, num_layers=20, width_multiplier=0.25)
    rng = np.random.RandomState(0)
    for parameter in nn.get_parameters(grad_only=False).values():
        parameter.d = rng.rand(*parameter.shape) + 0.5
    path = str(tmp_path / "uniform.h5")
    nn.save_parameters(path)
    return path, parameters()


def test_from_nothing_the_seed_alone_decides() -> None:
    one, two, other = start(), start(), start(seed=5)
    assert one.keys() == two.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name], err_msg=name)
    for name in ("res1/block1/conv1/conv/W", "res1/block1/gate/look/conv/W"):
        assert np.abs(one[name] - other[name]).max() > 0


def test_gates_do_not_start_as_their_network_does() -> None:
    # One source of numbers for both would make the two equal where shapes are.
    own = start()
    assert np.abs(own["res1/block1/gate/look/conv/W"] - own["res1/block1/conv1/conv/W"]).max() > 0.01


def test_every_parameter_is_read_by_some_graph() -> None:
    own = start()
    # A block's own normalization is read by the float graph alone, which is not run.
    blocks = [name for name in own if "/bn/" in name and "/gate/" not in name and not name.startswith("last/")]
    assert blocks and all(name.startswith(("precision1/", "precision4/")) for name in blocks)
    assert "gates/price" in own


def test_all_precisions_start_as_the_uniform_network(uniform: tuple[str, dict[str, np.ndarray]]) -> None:
    path, values = uniform
    own = start(path)
    for key in STATISTICS:
        expected = values[f"res1/block2/conv1/bn/{key}"]
        for bits in (1, 4):
            np.testing.assert_array_equal(own[f"precision{bits}/res1/block2/conv1/bn/{key}"], expected)
        np.testing.assert_array_equal(own[f"last/bn/{key}"], values[f"last/bn/{key}"])
    for name in ("conv1/conv/W", "res2/block1/conv1/conv/W", "fc/affine/W", "fc/affine/b"):
        np.testing.assert_array_equal(own[name], values[name])


def test_the_published_start_gives_the_statistics_to_the_narrow_path_alone(
    uniform: tuple[str, dict[str, np.ndarray]],
) -> None:
    path, values = uniform
    own = start(path, faithful=True)
    first = {"gamma": 1.0, "beta": 0.0, "mean": 0.0, "var": 1.0}
    for key in STATISTICS:
        name = f"res1/block2/conv1/bn/{key}"
        np.testing.assert_array_equal(own[f"precision1/{name}"], values[name])
        for fresh in (f"precision4/{name}", f"last/bn/{key}"):
            np.testing.assert_array_equal(own[fresh], np.full_like(own[fresh], first[key]))


def test_ranges_of_a_uniform_network_go_to_every_precision(tmp_path: Path) -> None:
    learned = {
        "w_quantize": "dorefa",
        "a_quantize": "parametric_fp_d_xmax_relu",
        "a_bitwidth": 4,
        "a_stepsize": 0.25,
    }
    nn.clear_parameters()
    name = "res1/block2/conv1/conv/relu_quantizer/xmax"
    nn.parameter.set_parameter(name, nn.Variable.from_numpy_array(np.array(2.75, np.float32)))
    build("preact_resnet", nn.Variable((1, 1, 8, 8)), 10, num_layers=20, width_multiplier=0.25)
    nn.save_parameters(str(tmp_path / "ranges.h5"))
    own = start(str(tmp_path / "ranges.h5"), **learned)
    found = {key: float(values) for key, values in own.items() if key.endswith(name)}
    assert found == {f"precision{bits}/{name}": 2.75 for bits in (1, 4)}


def test_from_gates_every_number_is_taken_as_it_is(tmp_path: Path) -> None:
    before = start()
    rng = np.random.RandomState(1)
    for parameter in nn.get_parameters(grad_only=False).values():
        parameter.d = rng.rand(*parameter.shape)
    before = parameters()
    nn.save_parameters(str(tmp_path / "gates.h5"))
    own = start(str(tmp_path / "gates.h5"))
    assert own.keys() == before.keys()
    for name, values in before.items():
        np.testing.assert_array_equal(own[name], values, err_msg=name)


def test_faithful_does_not_touch_weights_that_had_gates(tmp_path: Path) -> None:
    start(faithful=True)
    for name, parameter in nn.get_parameters(grad_only=False).items():
        if "precision4/" in name and name.endswith("/bn/mean"):
            parameter.d = 0.75
    nn.save_parameters(str(tmp_path / "gates.h5"))
    own = start(str(tmp_path / "gates.h5"), faithful=True)
    assert set(own["precision4/res1/block2/conv1/bn/mean"].ravel()) == {0.75}


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    nn.clear_parameters()
    nn.parameter.get_parameter_or_create("other/W", (2, 2))
    nn.save_parameters(str(tmp_path / "other.h5"))
    with pytest.raises(TrainingError, match="none of its 1 parameters"):
        start(str(tmp_path / "other.h5"))


def test_weights_of_other_shapes_are_refused_with_their_file(
    uniform: tuple[str, dict[str, np.ndarray]],
) -> None:
    with pytest.raises(TrainingError, match="uniform.h5"):
        start(uniform[0], width_multiplier=0.5)


def test_a_network_without_residual_blocks_is_refused() -> None:
    with pytest.raises(TrainingError, match="CAMP_SP.*no residual block"):
        start(arch="mobilenet_v1", width_multiplier=0.25)


def test_what_was_there_before_is_gone() -> None:
    nn.parameter.get_parameter_or_create("left/over", (3,))
    assert "left/over" not in start()
