from __future__ import annotations

import nnabla as nn
import numpy as np
import pytest

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


@pytest.mark.parametrize("depth,millions,mmacs", [(56, 0.849, 125.5), (110, 1.720, 252.9)])
def test_deeper_ones_have_the_published_counts(depth: int, millions: float, mmacs: float) -> None:
    network = trace(build("resnet", nn.Variable((1, 3, 32, 32)), 10, num_layers=depth))
    assert round(sizes()[0] / 1e6, 3) == pytest.approx(millions, abs=1.1e-3)
    assert round(network.macs / 1e6, 1) == pytest.approx(mmacs, abs=0.11)
    assert len(network.layers) == depth


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
    for seed in (1, 1, 2):
        nn.clear_parameters()
        x = nn.Variable.from_numpy_array(np.linspace(-1, 1, 2 * 3 * side * side).reshape(2, 3, side, side))
        y = build(name, x, 7, test=True, seed=seed)
        y.forward()
        outputs.append(y.d.copy())
    assert outputs[0].shape == (2, 7)
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0], outputs[2])


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
