"""Draw the pictures of docs/ with the package itself: ``python docs/draw.py [FOLDER]``."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import nnabla as nn  # noqa: E402
import nnabla.functions as F  # noqa: E402
import numpy as np  # noqa: E402

from nnmpq.dynamic.decide import sampled, straight_through, take  # noqa: E402
from nnmpq.dynamic.reward import Action, diversity, entropy  # noqa: E402
from nnmpq.quantizers import QUANTIZERS, make  # noqa: E402
from nnmpq.quantizers.mixture import CandidateMixture  # noqa: E402
from nnmpq.search.attribution import imitation, normalised  # noqa: E402
from nnmpq.search.calibrate import kl_range  # noqa: E402

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
    "haq": ({}, {"bits": 3, "xmax": 1.5}),
    "pact": ({"signed": False}, {"bits": 2, "xmax": 2.0}),
    "sign_mean": ({}, {"bits": 1}),
}
COLOURS = ("#2a8a4a", "#1b4f8f", "#b7791f", "#c0392b")
X = np.linspace(-2.6, 2.6, 2081).astype(np.float32)


def curves(
    quantizer: Any, values: dict[str, Any], slopes: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Value, derivative by x and derivative by each learned parameter, at every point of X."""
    names = [name for name in values if quantizer.learned(name)] if slopes is None else list(slopes)
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


def draw_mixture(path: Path) -> None:
    """Draw a mixture of 1 to 4 bits while its shares decide: its values on the left, its derivatives on the right."""
    mixture = CandidateMixture(quantizer="half_wave_gaussian", candidates=(1, 2, 3, 4), signed=False)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.5), layout="constrained")
    for alpha, colour, label in (
        ((0, 0, 0, 0), "#1b4f8f", "equal shares"),
        ((0, 2, 0, 0), "#c0392b", "2 bit leads"),
        ((0, 9, 0, 0), "#2a8a4a", "2 bit"),
    ):
        value, slope, _ = curves(mixture, {"alpha": np.float32(alpha)}, slopes=())
        left.plot(X, value, color=colour, linewidth=1.4, label=label)
        right.plot(X, slope, color=colour, linewidth=1.4)
    left.set(title="sum of p_k Q_k(x), half-wave Gaussian, 1 to 4 bit", xlabel="x", xlim=(-0.5, 2.6))
    right.set(title="gradient by x", xlabel="x", xlim=(-0.5, 2.6))
    left.legend(fontsize=8, frameon=False)
    for axes in (left, right):
        axes.title.set_fontsize(9)
        axes.grid(color="0.93")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def concentrated(maps: np.ndarray, power: float) -> np.ndarray:
    """A teacher's attribution as the loss takes it: to a power, at length 1; shape (1, pixels)."""
    shown = normalised(F.pow_scalar(nn.Variable.from_numpy_array(maps / maps.max()), power))
    shown.forward()
    return np.array(shown.d)


def draw_gmpq(path: Path) -> None:
    """Draw the power's effect: on a map in the order of its rank, and on the loss of students that know few pixels."""
    maps = np.sort(np.abs(np.random.default_rng(3).normal(size=(1, 16))).astype(np.float32))[:, ::-1].copy()
    figure, (left, right, last) = plt.subplots(1, 3, figsize=(9.6, 2.7), layout="constrained")
    ranks = np.arange(1, 17)
    for (bits, power), colour in zip(((6, 24 / 36), (4, 1.5), (3, 24 / 9), (2, 6.0)), COLOURS):
        label = f"{bits}/{bits} bits, p = {power:.2f}"
        left.plot(ranks, concentrated(maps, power)[0], "o-", color=colour, linewidth=1.2, markersize=3, label=label)
        losses = []
        for kept in ranks:
            student = nn.Variable.from_numpy_array(np.where(np.arange(16) < kept, maps, 0))
            loss = imitation(student, nn.Variable.from_numpy_array(maps), power)
            loss.forward()
            losses.append(float(loss.d))
        right.plot(ranks, losses, "o-", color=colour, linewidth=1.2, markersize=3)
    left.set(title="n(A^p) of a teacher's map", xlabel="pixel, by rank", ylabel="attribution")
    left.legend(fontsize=7, frameon=False)
    right.set(title="distance of a student with few pixels", xlabel="pixels it keeps", ylabel="loss")
    numbers = np.abs(np.random.default_rng(0).standard_t(3, 20000))
    last.hist(numbers, np.linspace(0, 12, 80).tolist(), color="0.8", log=True)
    for bits, colour in zip((4, 3, 2), COLOURS[1:]):
        cut = kl_range(numbers, 2 ** (bits - 1))
        last.axvline(cut, color=colour, linewidth=1.5, label=f"{bits} bits: {cut:.1f}")
    last.set(title="calibrated range by KL", xlabel="|w|", ylabel="weights")
    last.legend(fontsize=7, frameon=False)
    for axes in (left, right, last):
        axes.title.set_fontsize(9)
        axes.grid(color="0.93")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def draw_gate(path: Path) -> None:
    """Draw a gate's choice with the slope that it learns by, and what entropy and diversity ask of many choices."""
    difference = np.linspace(-6, 6, 481).astype(np.float32)
    logits = nn.Variable.from_numpy_array(np.stack([-difference / 2, difference / 2], axis=1)).apply(need_grad=True)
    zero = F.constant(0, (1, 1))
    hard = straight_through(logits, np.array([0.0, 1.0]), zero, nn.Variable((len(difference), 1)), zero)
    paths = [F.constant(value, (len(difference), 1)) for value in (0.0, 1.0)]
    mixed = take(paths, hard)
    mixed.forward()
    logits.g = 0
    mixed.backward()
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.7), layout="constrained")
    left.plot(difference, mixed.d[:, 0], color=COLOURS[0], label="share of the wide path")
    left.plot(difference, logits.g[:, 1] - logits.g[:, 0], color=COLOURS[1], label="its slope, straight through")
    drawn = sampled(logits, nn.Variable((len(difference), 1)), 0.02, zero)
    drawn.probabilities.forward()
    left.plot(difference, drawn.probabilities.d[:, 1], "--", color=COLOURS[2], label="probability when drawn")
    left.set(title="a gate of two precisions", xlabel="logit of the wide path less the other's")
    left.legend(fontsize=7, frameon=False)
    apart = np.linspace(0.001, 0.499, 100)
    for name, measure, colour in (("entropy", entropy, COLOURS[1]), ("diversity", diversity, COLOURS[3])):
        values = []
        for half in apart:
            p = np.array([[0.5 + half, 0.5 - half], [0.5 - half, 0.5 + half]], np.float32)
            term = measure([Action(F.constant(0, (2, 2)), nn.Variable.from_numpy_array(p))])
            term.forward()
            values.append(float(term.d))
        right.plot(2 * apart, values, color=colour, label=name)
    right.set(title="two samples, half of them wide", xlabel="difference of their probabilities", ylabel="nats")
    right.legend(fontsize=7, frameon=False)
    for axes in (left, right):
        axes.title.set_fontsize(9)
        axes.grid(color="0.93")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def draw_progressive(trail: Path, path: Path) -> None:
    """Draw a progressive search: cost and cross entropy after each step, the uniform policy beside them."""
    with open(trail, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    steps = [row for row in rows if row["candidate"].startswith("step")]
    beside = [row for row in rows if not row["candidate"].startswith("step")]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.7), layout="constrained")
    for axes, name, label in (
        (left, "weights_kib", "weights, KiB"),
        (right, "activations_sum_kib", "activations (sum), KiB"),
    ):
        x, y = ([float(row[key]) for row in steps] for key in (name, "validation_cross_entropy"))
        axes.plot(x, y, "o-", color=COLOURS[1], linewidth=1.2, markersize=3, label="a step each")
        for row in beside:
            place = float(row[name]), float(row["validation_cross_entropy"])
            axes.plot(*place, "s", color=COLOURS[3], markersize=5, label=row["candidate"])
        axes.set(xlabel=label, ylabel="validation cross entropy", ylim=(0, None))
        axes.invert_xaxis()
        axes.grid(color="0.93")
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main() -> None:
    """Draw every registered quantizer, and what GMPQ does to attribution."""
    parser = argparse.ArgumentParser(description="Draw the pictures of docs/.")
    parser.add_argument("--progressive", type=Path, metavar="CSV", help="trail.csv of a progressive search to draw too")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent / "images")
    arguments = parser.parse_args()
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in QUANTIZERS:
        draw(name, folder / f"quantizer_{name}.png")
    draw_gmpq(folder / "gmpq_attribution.png")
    draw_mixture(folder / "mixture.png")
    draw_gate(folder / "camp_gate.png")
    if arguments.progressive is not None:
        draw_progressive(arguments.progressive, folder / "progressive.png")


if __name__ == "__main__":
    main()
