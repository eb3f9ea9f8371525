"""Every registered quantizer in every form that its class has: the conformance test's cases."""

from __future__ import annotations

from typing import Any

import nnabla as nn
import numpy as np

from nnmpq.quantizers import QUANTIZERS, make

WEIGHTS_ALONE = ("gaussian", "dorefa", "haq", "sign_mean")


def cases() -> list[tuple[str, dict[str, Any]]]:
    """Name and options of each case; a new quantizer is in here by being registered."""
    found = []
    for name, chosen in QUANTIZERS.items():
        fields = {field.name for field in chosen.__attrs_attrs__}
        learned = chosen.at_fixed_bits != name or name.endswith("_b_xmax")
        signs = (
            [True] if name in WEIGHTS_ALONE else [False] if name in ("half_wave_gaussian", "pact") else [True, False]
        )
        for signed in signs:
            plain: dict[str, Any] = {"signed": signed}
            found.append((name, plain))
            if learned:
                found.append((name, {"signed": signed, "faithful": True}))
            if "with_zero" in fields:
                found.append((name, {**plain, "with_zero": signed, "bits_limits": (2.0, 8.0)}))
        if learned:
            channels: dict[str, Any] = {"signed": True, "channel_axis": 0}
            found += [(name, channels), (name, {**channels, "channel_axis": 1})]
        if "residual_gradient" in fields:
            found.append((name, {"signed": False, "residual_gradient": True}))
    return found


def case_id(case: tuple[str, dict[str, Any]]) -> str:
    name, options = case
    return "-".join([name, *(f"{key}={value}" for key, value in options.items())])


CASES = cases()
SHAPE = (6, 5, 7, 3)


def tensor(seed: int = 0, scale: float = 1.0) -> np.ndarray:
    x = (np.random.RandomState(seed).randn(*SHAPE) * scale).astype(np.float32)
    x.flat[0] = 0.0
    return x


def start(quantizer: Any, bits: int = 3, step: float = 0.27) -> dict[str, np.ndarray]:
    """Raw values off every boundary; one a channel where the quantizer has channels."""
    axis = getattr(quantizer, "channel_axis", None)
    steps: Any = step if axis is None else step * np.linspace(0.7, 1.6, SHAPE[axis])
    bits = int(np.clip(bits, *quantizer.bits_limits))
    return {name: np.asarray(v, np.float32) for name, v in quantizer.initial(bits, steps).items()}


def variables(values: dict[str, np.ndarray]) -> dict[str, nn.Variable]:
    made = {name: nn.Variable.from_numpy_array(np.asarray(v, np.float32)) for name, v in values.items()}
    for variable in made.values():
        variable.need_grad = True
    return made


def run(
    quantizer: Any, values: dict[str, np.ndarray], x: np.ndarray, g: np.ndarray, *, fused: bool = True
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Output and gradients of the quantizer in a graph."""
    parameters = variables(values)
    source = nn.Variable.from_numpy_array(x.copy()).apply(need_grad=True)
    y = quantizer.apply(source, parameters, fused)
    for variable in (source, *parameters.values()):
        variable.g = 0
    y.forward()
    y.backward(nn.NdArray.from_numpy_array(g))
    return y.d.copy(), source.g.copy(), {name: v.g.copy() for name, v in parameters.items()}


__all__ = ["CASES", "SHAPE", "case_id", "make", "run", "start", "tensor", "variables"]
