from __future__ import annotations

from typing import Any

import nnabla as nn
import numpy as np
import pytest

from nnmpq.graph.bake import bake, on_grid
from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Parametric, SiteSettings
from nnmpq.graph.trace import functions_of
from nnmpq.quantizers import QUANTIZERS, make
from tests.networks import foreign, images

ALL_KINDS = ("input", "relu", "sum", "branch", "pool", "linear", "nonlinearity")
LEARNED = [name for name in QUANTIZERS if name.startswith(("uniform", "pow2"))]


def awkward(low: float, high: float) -> np.ndarray:
    """Numbers at, just below and just above every place where a grid changes its mind, and extreme ones."""
    places = [k * low / 2 for k in range(-40, 41)]
    power = low
    while power <= high * 2:
        places += [power, power * np.sqrt(2), power / np.sqrt(2), -power, -power * np.sqrt(2)]
        power *= 2
    centre = np.array(places, np.float32)
    near = [centre]
    for direction in (np.inf, -np.inf):
        step = centre
        for _ in range(3):
            step = np.nextafter(step, np.float32(direction))
            near.append(step)
    extreme = np.array([0, -0.0, 1e-45, -1e-45, 1e-38, 3e38, -3e38, np.inf, -np.inf], np.float32)
    return np.concatenate([*near, extreme])


@pytest.mark.parametrize("name", [*LEARNED, "pact", "half_wave_gaussian"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 7])
def test_standard_functions_are_the_quantizer_bit_for_bit(name: str, signed: bool, bits: int) -> None:
    if signed and name in ("pact", "half_wave_gaussian"):
        pytest.skip("unsigned by nature")
    quantizer = make(name, signed=signed, with_zero=True, bits_limits=(1.0 + signed, 8.0))
    values = quantizer.initial(max(bits, 1 + signed), 0.19)
    grid = quantizer.grid(values)
    low = float(grid.step if grid.kind == "uniform" else grid.xmin)
    high = float(grid.step * grid.high if grid.kind == "uniform" else grid.xmax)
    x = nn.Variable.from_numpy_array(awkward(low, min(high, 1e6)))
    parameters = {k: nn.Variable.from_numpy_array(np.asarray(v, np.float32)) for k, v in values.items()}
    wanted, baked = quantizer.apply(x, parameters), on_grid(x, grid)
    wanted.forward()
    baked.forward()
    np.testing.assert_array_equal(baked.d, wanted.d)


@pytest.mark.parametrize("name", [*LEARNED, "gaussian", "dorefa", "sign_mean"])
def test_a_baked_network_computes_the_same(name: str) -> None:
    x = images()
    learned = name in LEARNED
    activation = SiteSettings(name if learned else "pact")
    bits = {"sign_mean": 1}.get(name, 3)
    chosen = Parametric(
        weight=SiteSettings(name, bits=bits, options={} if learned else {"bits_limits": (bits, bits)}),
        activation=activation,
        kinds=ALL_KINDS if learned else ("relu",),
    )
    quantized = quantize(foreign(x, test=True), chosen)
    quantized.output.forward()
    baked = bake(quantized)
    baked.outputs[0].forward()
    np.testing.assert_array_equal(baked.outputs[0].d, quantized.output.d)
    standard = {f.info.type_name for f in functions_of(baked.outputs)}
    assert not any("Quantizer" in function for function in standard)
    for site, codes in baked.codes.items():
        np.testing.assert_array_equal(baked.grids[site].decode(codes), baked.parameters[site].d, err_msg=site)
        assert len(np.unique(codes)) <= 2 ** baked.grids[site].bits
    # What was learned is untouched, so that training can go on.
    assert not set(baked.parameters["stem/conv/W"].d.ravel()) == set(nn.get_parameters()["stem/conv/W"].d.ravel())


def test_grids_that_no_activation_has_are_refused() -> None:
    grid: Any = make("gaussian").grid({"bits": np.float32(2)}, np.array([1.0, -1.0]))
    with pytest.raises(ValueError, match="holds zero"):
        on_grid(images(), grid)
