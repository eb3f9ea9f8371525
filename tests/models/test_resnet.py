from __future__ import annotations

from pathlib import Path

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest
from nnabla.utils.nnp_graph import NnpLoader
from nnabla.utils.save import save

from nnmpq.config.choices import ARCHITECTURES
from nnmpq.graph.trace import trace
from nnmpq.models import MODELS, build


def sizes() -> tuple[int, int]:
    """Weights and biases of layers; scales and shifts of batch normalization."""
    parameters = nn.get_parameters()
    normalisation = sum(int(np.prod(v.shape)) for name, v in parameters.items() if "/bn/" in name)
    return sum(int(np.prod(v.shape)) for v in parameters.values()) - normalisation, normalisation


def test_resnet20_is_the_published_one() -> None:
    build("resnet", nn.Variable((1, 3, 32, 32)), 10, num_layers=20)
    assert sizes() == (268346, 1376)
    assert list(nn.get_parameters())[0] == "conv1/conv/W"
    assert "res2/layer1/basicblock2/conv/W" in nn.get_parameters()


@pytest.mark.parametrize("depth,millions,mmacs", [(20, 0.268, 40.55), (56, 0.849, 125.5), (110, 1.720, 252.9)])
def test_the_published_counts(depth: int, millions: float, mmacs: float) -> None:
    network = trace(build("resnet", nn.Variable((1, 3, 32, 32)), 10, num_layers=depth))
    assert round(sizes()[0] / 1e6, 3) == pytest.approx(millions, abs=1.1e-3)
    assert network.macs / 1e6 == pytest.approx(mmacs, abs=0.06)
    assert len(network.layers) == depth


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_every_depth_has_the_counts_of_the_formula(depth: int) -> None:
    network = trace(build("resnet", nn.Variable((1, 3, 32, 32)), 10, num_layers=depth))
    n = (depth - 2) // 6
    # 3x3 convolutions: the stem, then in each stage 2n of equal width, but for the first one of stages 2 and 3.
    equal, widening = 9 * 16**2, 9 * 16 * 32
    stages = [2 * n * equal, widening + (2 * n - 1) * 4 * equal, 4 * widening + (2 * n - 1) * 16 * equal]
    assert sizes()[0] == 27 * 16 + sum(stages) + 64 * 10 + 10
    pixels = (32**2, 16**2, 8**2)
    assert network.macs == 27 * 16 * 32**2 + sum(w * p for w, p in zip(stages, pixels)) + 64 * 10
    # Scale and shift a channel: the stem's and those of 2n convolutions a stage.
    assert sizes()[1] == 2 * (16 + 2 * n * (16 + 32 + 64))


def test_running_statistics_are_not_among_the_1376() -> None:
    build("resnet", nn.Variable((1, 3, 32, 32)), 10, num_layers=20)
    everything = nn.get_parameters(grad_only=False)
    running = set(everything) - set(nn.get_parameters())
    assert {name.split("/")[-1] for name in running} == {"mean", "var"}
    assert sum(int(np.prod(everything[name].shape)) for name in running) == 1376


@pytest.mark.parametrize("seed", [None, 3])
def test_initial_weights(seed: int | None) -> None:
    build("resnet", nn.Variable((1, 3, 32, 32)), 10, num_layers=20, seed=seed, shortcut_type="b")
    for name, parameter in nn.get_parameters().items():
        if name.endswith("conv/W"):
            outputs, inputs, height, width = parameter.shape
            bound = np.sqrt(6 / (height * width * (inputs + outputs)))  # Glorot
        elif name.startswith("fc/"):
            bound = 1 / np.sqrt(64)
        else:
            continue
        assert np.abs(parameter.d).max() <= bound * (1 + 1e-6), name
        # A uniform distribution on +-b has the deviation b / sqrt(3).
        if parameter.size > 400:
            assert parameter.d.std() == pytest.approx(bound / np.sqrt(3), rel=0.1), name
    assert nn.get_parameters()["fc/affine/b"].shape == (10,)


def test_layers_are_where_they_should_be() -> None:
    build("resnet", nn.Variable((1, 3, 32, 32)), 10, num_layers=20, shortcut_type="c", scale_layer=True)
    blocks = [f"res{s}/layer{n}/" for s in (1, 2, 3) for n in (1, 2, 3)]
    inner = ("basicblock1/", "basicblock2/", "basicblock_s/shortcut_conv/")
    normalised = ["conv1/", *(block + part for block in blocks for part in inner)]
    expected = {scope + name for scope in normalised for name in ("conv/W", "bn/beta", "bn/gamma")}
    assert set(nn.get_parameters()) == expected | {"fc/affine/W", "fc/affine/b", "fc/scale_layer"}


def test_shortcut_a_takes_every_second_pixel_and_appends_zero_channels() -> None:
    x = nn.Variable.from_numpy_array(np.random.RandomState(0).randn(2, 3, 16, 16))
    y = build("resnet", x, 10, num_layers=20, test=True)
    parameters = nn.get_parameters()
    for name, parameter in parameters.items():
        if name.endswith("basicblock2/bn/gamma"):
            parameter.d = 0  # nothing is left of the blocks but their shortcuts
    y.forward()
    stem = F.relu(F.convolution(x, parameters["conv1/conv/W"], pad=(1, 1)) / float(np.sqrt(1 + 1e-5)))
    stem.forward()
    features = np.zeros((2, 64))
    features[:, :16] = stem.d[:, :, ::4, ::4].mean((2, 3))
    expected = features @ parameters["fc/affine/W"].d + parameters["fc/affine/b"].d
    np.testing.assert_allclose(y.d, expected, rtol=1e-5, atol=1e-6)


def test_a_saved_graph_loads_at_any_batch_size(tmp_path: Path) -> None:
    x = nn.Variable.from_numpy_array(np.random.RandomState(0).randn(2, 3, 32, 32))
    y = build("resnet", x, 10, num_layers=20, test=True)
    y.forward()
    contents = {
        "networks": [{"name": "net", "batch_size": 2, "outputs": {"y": y}, "names": {"x": x}}],
        "executors": [{"name": "run", "network": "net", "data": ["x"], "output": ["y"]}],
    }
    save(str(tmp_path / "net.nnp"), contents)
    expected = y.d.copy()
    network = NnpLoader(str(tmp_path / "net.nnp")).get_network("net", batch_size=5)
    network.inputs["x"].d = np.concatenate([x.d, x.d, x.d[:1]])
    network.outputs["y"].forward()
    np.testing.assert_allclose(network.outputs["y"].d[:4], np.tile(expected, (2, 1)), rtol=1e-5, atol=1e-6)


def test_shortcuts() -> None:
    x = nn.Variable((1, 3, 32, 32))
    layers = {}
    for kind in ("", "b", "c"):
        nn.clear_parameters()
        layers[kind] = len(trace(build("resnet", x, 10, num_layers=20, shortcut_type=kind)).layers)
    # Two blocks change the width; all nine have a shortcut.
    assert layers == {"": 20, "b": 22, "c": 29}
    with pytest.raises(ValueError, match="shortcut_type 'd'"):
        build("resnet", x, 10, shortcut_type="d")


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("side", [8, 12, 32])
def test_any_input_size_and_seed(name: str, side: int) -> None:
    outputs = []
    narrow = {"width_multiplier": 0.25} if "width_multiplier" in ARCHITECTURES[name] else {}
    for seed in (1, 1, 2):
        nn.clear_parameters()
        x = nn.Variable.from_numpy_array(np.linspace(-1, 1, 2 * 3 * side * side).reshape(2, 3, side, side))
        y = build(name, x, 7, test=True, seed=seed, **narrow)
        y.forward()
        outputs.append(y.d.copy())
    assert outputs[0].shape == (2, 7)
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0], outputs[2])


def test_the_digits_network_has_eight_layers() -> None:
    network = trace(build("resnet_digits", nn.Variable((1, 1, 8, 8)), 10))
    assert [layer.weight.shape[0] for layer in network.layers] == [16, 16, 16, 32, 32, 64, 64, 64]
    # The map is halved twice: 8, 4, 2.
    assert [layer.output_shape[1:] for layer in network.layers[:-1]] == [(8, 8)] * 3 + [(4, 4)] * 2 + [(2, 2)] * 2


def test_training_and_evaluation_share_parameters() -> None:
    x = nn.Variable((2, 1, 8, 8))
    build("resnet_digits", x, 10)
    names = set(nn.get_parameters(grad_only=False))
    build("resnet_digits", x, 10, test=True)
    assert set(nn.get_parameters(grad_only=False)) == names


def test_the_scale_starts_at_one() -> None:
    x = nn.Variable.from_numpy_array(np.ones((1, 1, 8, 8)))
    plain, scaled = build("resnet_digits", x, 10, test=True), None
    scaled = build("resnet_digits", x, 10, test=True, scale_layer=True)
    plain.forward()
    scaled.forward()
    np.testing.assert_array_equal(plain.d, scaled.d)
    nn.get_parameters()["fc/scale_layer"].d = 2
    scaled.forward()
    np.testing.assert_array_equal(2 * plain.d, scaled.d)


def test_unknown_names_and_depths() -> None:
    with pytest.raises(ValueError, match="nearest is 'resnet'"):
        build("resnt", nn.Variable((1, 3, 32, 32)), 10)
    with pytest.raises(ValueError, match="num_layers 21"):
        build("resnet", nn.Variable((1, 3, 32, 32)), 10, num_layers=21)
