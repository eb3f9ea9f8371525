"""Gates, against their formula in numpy."""

from __future__ import annotations

import nnabla as nn
import numpy as np
import pytest

from nnmpq.dynamic.gates import START_RANGE, build_gate, gate
from nnmpq.dynamic.paths import Part
from tests.dynamic.small import published_scheme

SHAPE = (3, 4, 6, 6)


def maps(shape: tuple[int, ...] = SHAPE, scale: float = 1.0) -> nn.Variable:
    x = nn.Variable(shape)
    x.d = scale * np.random.RandomState(0).randn(*shape)
    return x


def by_hand(x: np.ndarray) -> np.ndarray:
    """The formula, with running statistics."""
    p = {name: np.array(v.d, np.float64) for name, v in nn.get_parameters(grad_only=False).items()}
    if "reduce/conv/W" in p:
        x = np.einsum("bchw,oc->bohw", x, p["reduce/conv/W"][:, :, 0, 0])
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    half = -(-x.shape[2] // 2)
    h = np.zeros((len(x), x.shape[1], half, half))
    for i in range(half):
        for j in range(half):
            window = padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            h[:, :, i, j] = np.einsum("bcij,ocij->bo", window, p["look/conv/W"])
    h = (h - p["look/bn/mean"]) / np.sqrt(p["look/bn/var"] + 1e-5) * p["look/bn/gamma"] + p["look/bn/beta"]
    mean = np.maximum(h, 0).mean(axis=(2, 3))
    return np.asarray(mean @ p["decide/affine/W"] + p["decide/affine/b"])


@pytest.mark.parametrize("channels", [0, 2])
@pytest.mark.parametrize("choices", [2, 3])
@pytest.mark.parametrize("side", [6, 5])
def test_a_gate_is_its_formula(channels: int, choices: int, side: int) -> None:
    x = maps((3, 4, side, side))
    y = gate(x, choices, channels=channels, test=True, rng=np.random.RandomState(1))
    rng = np.random.RandomState(2)
    for name, parameter in nn.get_parameters(grad_only=False).items():
        if "/bn/" in name or name.endswith("/b"):
            parameter.d = rng.rand(*parameter.shape) + 0.1
    y.forward()
    assert y.shape == (3, choices)
    np.testing.assert_allclose(y.d, by_hand(np.array(x.d, np.float64)), atol=1e-4)


def test_a_gate_is_undecided_at_its_start_but_for_its_weights() -> None:
    y = gate(maps(), test=True, rng=np.random.RandomState(0))
    own = nn.get_parameters(grad_only=False)
    np.testing.assert_array_equal(own["decide/affine/b"].d, [0, 0])
    own["decide/affine/W"].d = 0
    y.forward()
    np.testing.assert_array_equal(y.d, np.zeros((3, 2)))


def test_the_same_numbers_give_the_same_gate() -> None:
    found = []
    for _ in range(2):
        nn.clear_parameters()
        y = gate(maps(), test=True, rng=np.random.RandomState(5))
        y.forward()
        found.append(np.array(y.d))
    np.testing.assert_array_equal(*found)


def built(**options: object) -> Part:
    options = {"rng": np.random.RandomState(0), "test": True, **options}
    return build_gate("res1/block2", SHAPE, 2, published_scheme(), 4, **options)


def test_all_names_lie_in_the_blocks_scope() -> None:
    part = built()
    assert part.sites() and all(name.startswith("res1/block2/gate/") for name in part.sites())
    assert all(name.startswith("res1/block2/gate/") for name in nn.get_parameters(grad_only=False))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_everything_in_a_gate_has_its_width(bits: int) -> None:
    part = build_gate("b", SHAPE, 2, published_scheme(), bits, test=True)
    found = {site.bit_number() for site in part.sites().values() if site.quantizer is not None}
    assert found == {bits}


@pytest.mark.parametrize("quantized", [True, False])
def test_the_map_that_it_reads_is_quantized_or_not(quantized: bool) -> None:
    part = built(quantize_input=quantized)
    kinds = [s.kind for s in part.quantized.network.activations if part.quantized.sites.get(s.name) is not None]
    assert ("input" in kinds) is quantized
    # A change of a hundredth of a step is seen by floats alone.
    x = maps(scale=0.5)
    step = START_RANGE / 8
    x.d = step * np.round(x.d / step)
    y = part.on(x)
    y.forward()
    before = np.array(y.d)
    x.d = x.d + 0.01 * step
    y.forward()
    assert bool(np.abs(y.d - before).max() > 0) is not quantized


def test_what_it_reads_may_be_negative() -> None:
    part = built()
    x = maps()
    y = part.on(x)
    y.forward()
    before = np.array(y.d)
    x.d = np.where(x.d < 0, 0, x.d)
    y.forward()
    assert np.abs(y.d - before).max() > 1e-4


def test_a_first_convolution_reduces_the_channels() -> None:
    part = built(channels=2)
    shapes = [layer.weight.shape for layer in part.quantized.network.layers]
    assert shapes == [(2, 4, 1, 1), (2, 2, 3, 3), (2, 2)]


def test_samples_do_not_see_each_other() -> None:
    part = built()
    x = maps()
    y = part.on(x)
    y.forward()
    before = np.array(y.d)
    x.d[0] = 9.0
    y.forward()
    np.testing.assert_array_equal(y.d[1:], before[1:])
    assert np.abs(y.d[0] - before[0]).max() > 0
