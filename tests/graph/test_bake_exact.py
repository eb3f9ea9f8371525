"""Baked graphs: the same numbers, from constants and standard functions alone."""

from __future__ import annotations

import nnabla as nn
import nnabla.function_bases as function_bases
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest

from nnmpq.graph.bake import bake, on_grid
from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Fixed, Float, Parametric, SiteSettings
from nnmpq.graph.trace import functions_of
from nnmpq.quantizers import make, pow2_core, uniform_core
from nnmpq.quantizers.grid import POWER_OF_TWO, UNIFORM, Grid


def neighbours(centres: np.ndarray) -> np.ndarray:
    """Positive finite floats and the three below and above each, with both signs."""
    centres = np.asarray(centres, np.float32)
    around = centres.view(np.int32)[:, None] + np.arange(-3, 4, dtype=np.int32)
    around = np.clip(around, 0, 0x7F7FFFFF).astype(np.int32).view(np.float32).ravel()
    return np.concatenate([around, -around, np.float32([0.0, -0.0, np.inf, -np.inf])])


def evaluated(v: nn.Variable) -> np.ndarray:
    v.forward()
    return np.array(v.d)


def scalar(number) -> nn.Variable:
    return nn.Variable.from_numpy_array(np.float32(number))


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("with_zero", [True, False])
@pytest.mark.parametrize("low, high", [(-126, 0), (-126, -120), (-60, 67), (-8, 2), (0, 0), (-1, 127)])
def test_power_of_two_equals_the_fused_core_at_every_threshold(signed, with_zero, low, high):
    """All powers of two and sqrt(2) times them, each with its neighbours; denormals, zeros and infinities."""
    powers = 2.0 ** np.arange(-148, 128)
    x = neighbours(np.concatenate([powers, powers * 2**0.5, [1e-45, 1e-40]]))
    v, xmin, xmax = nn.Variable.from_numpy_array(x), np.float32(2.0**low), np.float32(2.0**high)
    fused = evaluated(pow2_core.fused(v, scalar(xmin), scalar(xmax), signed, with_zero, None))
    grid = Grid(POWER_OF_TWO, 8, signed, xmin=xmin, xmax=xmax, with_zero=with_zero)
    np.testing.assert_array_equal(evaluated(on_grid(v, grid)), fused)


def test_power_of_two_of_random_floats():
    """A million floats of all exponents, against the rounding of exact logarithms."""
    bits = np.random.RandomState(0).randint(0x20000000, 0x5F000000, 1_000_000).astype(np.int32)
    x = bits.view(np.float32)
    low, high = -30, 30
    grid = Grid(POWER_OF_TWO, 8, False, xmin=np.float32(2.0**low), xmax=np.float32(2.0**high), with_zero=True)
    found = evaluated(on_grid(nn.Variable.from_numpy_array(x), grid))
    exponent = np.round(np.log2(x.astype(np.float64)))
    expected = np.where(exponent < low, 0.0, 2.0 ** np.clip(exponent, low, high))
    np.testing.assert_array_equal(found, expected.astype(np.float32))


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("step", [2.0**-8, 0.3, 1.0, 0.0123])
@pytest.mark.parametrize("high", [1, 7, 255])
def test_uniform_equals_the_fused_core_at_every_tie(signed, step, high):
    step = np.float32(step)
    x = neighbours(np.concatenate([(np.arange(high + 2) + 0.5) * step, np.arange(1, high + 3) * step, [1e-45, 3e38]]))
    v = nn.Variable.from_numpy_array(x)
    fused = evaluated(uniform_core.fused(v, scalar(step), scalar(step * np.float32(high)), signed, None))
    low = np.int32(-high if signed else 0)
    grid = Grid(UNIFORM, 8, signed, step=step, low=low, high=np.int32(high))
    np.testing.assert_array_equal(evaluated(on_grid(v, grid)), fused)


@pytest.mark.parametrize("faithful", [False, True])
@pytest.mark.parametrize(
    "name, values",
    [
        ("uniform_delta_xmax", {"step": 0.11, "xmax": 1.37}),
        ("uniform_delta_xmax", {"step": 0.25, "xmax": 0.874}),
        ("uniform_b_xmax", {"bits": 3.2, "xmax": 1.37}),
        ("uniform_delta_b", {"bits": 3.7, "step": 0.11}),
        ("pow2_b_xmax", {"bits": 3.2, "xmax": 1.37}),
        ("pow2_b_xmin", {"bits": 3.2, "xmin": 0.03}),
        ("pow2_xmin_xmax", {"xmin": 0.03, "xmax": 1.37}),
        ("pact", {"bits": 3.0, "xmax": 1.37}),
        ("half_wave_gaussian", {"bits": 2.0}),
    ],
)
def test_activation_quantizers_at_raw_values(name, values, faithful):
    quantizer = make(name, signed=False, faithful=faithful)
    raw = {key: np.float32(value) for key, value in values.items()}
    x = np.concatenate([neighbours(np.arange(1, 65) / 32), np.random.RandomState(0).randn(5000).astype(np.float32)])
    v = nn.Variable.from_numpy_array(x)
    fused = evaluated(quantizer.apply(v, {key: scalar(value) for key, value in raw.items()}))
    np.testing.assert_array_equal(evaluated(on_grid(v, quantizer.grid(raw))), fused)


def test_grids_that_no_activation_has_are_refused():
    v = nn.Variable((2, 2))
    with pytest.raises(ValueError, match="one step"):
        on_grid(v, Grid(UNIFORM, 4, True, step=np.ones(2, np.float32), low=-1, high=1, channel_axis=0))
    with pytest.raises(ValueError, match="zero"):
        on_grid(v, Grid(UNIFORM, 4, True, step=np.float32(1), offset=0.5, low=-1, high=1))


def network(x: nn.Variable, test: bool = True) -> nn.Variable:
    h = PF.convolution(x, 8, (3, 3), pad=(1, 1), name="first")
    h = F.relu(PF.batch_normalization(h, batch_stat=not test, name="first"))
    return PF.affine(h, 5, name="last")


WEIGHTS = {
    name: SiteSettings(name, bits=3)
    for name in ("uniform_b_xmax", "uniform_delta_xmax", "uniform_delta_b", "gaussian", "dorefa")
    + ("pow2_b_xmax", "pow2_b_xmin", "pow2_xmin_xmax")
}
WEIGHTS["sign_mean"] = SiteSettings("sign_mean", bits=1, options={"bits_limits": (1.0, 1.0)})
WEIGHTS["per channel"] = SiteSettings("uniform_delta_xmax", bits=4, per_channel=True)
WEIGHTS["faithful"] = SiteSettings("uniform_delta_xmax", bits=4, options={"faithful": True})


def built(scheme, batch: int = 4):
    x = nn.Variable((batch, 3, 6, 6))
    x.d = np.random.RandomState(1).randn(*x.shape)
    return x, quantize(network(x), scheme)


@pytest.mark.parametrize("activation", ["uniform_delta_xmax", "pow2_b_xmax"])
@pytest.mark.parametrize("weight", sorted(WEIGHTS))
def test_same_numbers_from_codes(weight, activation):
    settings = SiteSettings(activation, bits=3)
    _, quantized = built(Parametric(weight=WEIGHTS[weight], activation=settings, kinds=("relu", "input")))
    baked = bake(quantized)
    expected = evaluated(quantized.output)
    np.testing.assert_array_equal(evaluated(baked.outputs[0]), expected)
    assert np.any(expected != 0)
    quantized_sites = [name for name, site in quantized.sites.items() if site.quantizer is not None]
    assert {"first/conv/W", "last/affine/W"} <= set(baked.codes)
    assert set(baked.codes) == {name for name in quantized_sites if name.endswith(("/W", "/b"))}
    assert set(baked.grids) == set(quantized_sites)
    for name, codes in baked.codes.items():
        assert codes.dtype in (np.int8, np.int16)
        np.testing.assert_array_equal(baked.grids[name].decode(codes), baked.parameters[name].d)
        assert np.unique(codes).size <= baked.grids[name].levels()


def test_holds_standard_functions_and_no_quantizer_parameters():
    _, quantized = built(Fixed(3, 4))
    baked = bake(quantized)
    for function in functions_of(baked.outputs):
        assert hasattr(function_bases.F, function.info.type_name), function.info.type_name
    assert not [name for name in baked.parameters if "_quantizer/" in name]
    assert [v.shape for v in baked.inputs] == [(4, 3, 6, 6)]


def test_later_training_of_weights_does_not_reach_it():
    x, quantized = built(Fixed(3, 4))
    baked = bake(quantized)
    before = evaluated(baked.outputs[0]).copy()
    for name, parameter in nn.get_parameters(grad_only=False).items():
        if name.endswith("/W") or "_quantizer/" in name:
            parameter.d = np.array(parameter.d) * 3 + 1
    np.testing.assert_array_equal(evaluated(baked.outputs[0]), before)


def test_leaves_the_parameters_of_the_caller_alone():
    _, quantized = built(Fixed(3, 4))
    quantized.output.forward()
    before = {name: np.array(v.d) for name, v in nn.get_parameters(grad_only=False).items()}
    bake(quantized)
    after = nn.get_parameters(grad_only=False)
    assert set(after) == set(before)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name].d, value)


def test_a_float_network_stays_as_it_is():
    _, quantized = built(Float())
    baked = bake(quantized)
    np.testing.assert_array_equal(evaluated(baked.outputs[0]), evaluated(quantized.output))
    assert baked.codes == {} and baked.grids == {}


def test_weights_of_zero_bake_to_zero():
    x, quantized = built(Fixed(3, 4))
    nn.get_parameters(grad_only=False)["first/conv/W"].d = 0
    baked = bake(quantized)
    assert not np.any(baked.codes["first/conv/W"])
    np.testing.assert_array_equal(evaluated(baked.outputs[0]), evaluated(quantized.output))
