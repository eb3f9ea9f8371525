"""Draw the pictures of docs/quantizers.md with the quantizers themselves: ``python docs/draw.py [FOLDER]``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import nnabla as nn  # noqa: E402
import numpy as np  # noqa: E402

from nnmpq.quantizers import QUANTIZERS, make  # noqa: E402

# Options and raw values of each picture; a quantizer without an entry is drawn at 3 bits and a step of 1/2.
SHOWN: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "uniform_b_xmax": ({"signed": True}, {"bits": 3, "xmax": 1.5}),
    "uniform_delta_xmax": ({"signed": True}, {"step": 0.5, "xmax": 1.5}),
    "uniform_delta_b": ({"signed": True}, {"step": 0.5, "bits": 3}),
    "pow2_b_xmax": ({"signed": True}, {"bits": 3, "xmax": 2.0}),
    "pow2_b_xmin": ({"signed": True}, {"bits": 3, "xmin": 0.25}),
    "pow2_xmin_xmax": ({"signed": False}, {"xmin": 0.25, "xmax": 2.0}),
    "gaussian": ({}, {"bits": 2}),
    "half_wave_gaussian": ({"signed": False}, {"bits": 2}),
    "dorefa": ({}, {"bits": 2}),
    "pact": ({"signed": False}, {"bits": 2, "xmax": 2.0}),
    "sign_mean": ({}, {"bits": 1}),
}
X = np.linspace(-2.6, 2.6, 2081).astype(np.float32)


def curves(quantizer: Any, values: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Value, derivative by x and derivative by each learned parameter, at every point of X."""
    names = [name for name in values if quantizer.learned(name)]
    parameters = {name: nn.Variable.from_numpy_array(np.float32(v)) for name, v in values.items()}
    for name in names:
        parameters[name].need_grad = True
    x = nn.Variable.from_numpy_array(X).apply(need_grad=True)
    y = quantizer.apply(x, parameters)
    y.forward()
    x.g = 0
    y.backward()
    value, slope = y.d.copy(), x.g.copy()
    by_parameter = {name: np.zeros_like(X) for name in names}
    for index in range(len(X)) if names else ():
        upstream = np.zeros_like(X)
        upstream[index] = 1
        for name in names:
            parameters[name].g = 0
        y.backward(nn.NdArray.from_numpy_array(upstream))
        for name in names:
            by_parameter[name][index] = float(parameters[name].g)
    return value, slope, by_parameter


def draw(name: str, path: Path) -> None:
    """Draw one quantizer: its values on the left, its derivatives on the right."""
    options, values = SHOWN.get(name, ({"signed": True}, {}))
    quantizer = make(name, **options)
    values = values or dict(quantizer.initial(3, 0.5))
    value, slope, by_parameter = curves(quantizer, values)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.5), layout="constrained")
    left.plot(X, X, color="0.8", linewidth=1)
    left.plot(X, value, color="#1b4f8f", linewidth=1.8)
    given = ", ".join(f"{key} {number:g}" for key, number in values.items())
    left.set(title=f"{name}: {given}", xlabel="x", ylabel="Q(x)", ylim=(-2.6, 2.6))
    right.plot(X, slope, color="#1b4f8f", linewidth=1.8, label="by x")
    for (key, curve), colour in zip(by_parameter.items(), ("#c0392b", "#2a8a4a")):
        right.plot(X, curve, color=colour, linewidth=1.2, label=f"by {key}")
    right.set(title="gradient", xlabel="x")
    right.legend(loc="upper center", fontsize=8, frameon=False, ncols=3)
    low, high = right.get_ylim()
    right.set_ylim(low, high + 0.25 * (high - low))
    for axes in (left, right):
        axes.title.set_fontsize(9)
        axes.grid(color="0.93")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main() -> None:
    """Draw every registered quantizer."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "images")
    folder.mkdir(parents=True, exist_ok=True)
    for name in QUANTIZERS:
        draw(name, folder / f"quantizer_{name}.png")


if __name__ == "__main__":
    main()
