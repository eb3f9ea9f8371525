"""Read and run a saved integer program; needs numpy alone.

This file is handed over beside every saved program, so that it can be run without nnmpq and nnabla:

    python interpret.py program.npz images.npy     # uint8 (N, C, H, W); prints the class of each image

The saved form is an `.npz` without pickles. Its member `manifest` is JSON in bytes: tensors (name, shape, low, high,
step, bits, site), operations in execution order, and the name of the output. An operation's arrays are the members
"<place>/<name>"; packed weights hold number i at bit i * bits, counted from the lowest bit of the first byte.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

FORMAT = 1
LARGEST = 2**30


def load(path: Any) -> dict[str, Any]:
    """Return a saved program: its manifest, with each operation's arrays under "arrays".

    Args:
        path: a file that `nnmpq.export.integer.saved.save` wrote.

    Raises:
        ValueError: it is not one, or of another format.
    """
    with open(path, "rb") as stream:
        try:
            with np.load(stream, allow_pickle=False) as archive:
                if "manifest" not in archive:
                    raise ValueError("it has no manifest")
                manifest = json.loads(archive["manifest"].tobytes().decode())
                if manifest.get("format") != FORMAT:
                    raise ValueError(f"format {manifest.get('format')}; this reader knows {FORMAT}")
                for place, operation in enumerate(manifest["operations"]):
                    names = [name for name in archive.files if name.split("/")[0] == str(place)]
                    operation["arrays"] = {name.split("/", 1)[1]: archive[name] for name in names}
                _check(manifest)
        except Exception as error:  # damage has many kinds: those of zipfile, zlib, json and numpy
            raise ValueError(f"{path}: no integer program: {error!r}") from error
    return manifest


def _check(manifest: dict[str, Any]) -> None:
    """Every operation reads what was written before it, and the output is written."""
    names = [tensor["name"] for tensor in manifest["tensors"]]
    written = set(names[:1])
    for operation in manifest["operations"]:
        if not set(operation["inputs"]) <= written or operation["output"] not in names:
            raise ValueError(f"operation {operation['kind']} reads or writes a tensor that is not there")
        written.add(operation["output"])
    if manifest["output"] not in written:
        raise ValueError(f"nothing writes the output {manifest['output']}")


def unpacked(arrays: dict[str, np.ndarray], operation: dict[str, Any]) -> np.ndarray:
    """Return a layer's weights as whole numbers, int64, shape (O, rows, columns, C / group)."""
    shape, bits = operation["shape"], operation["bits"]
    count = int(np.prod(shape))
    spread = np.unpackbits(arrays["weights"], count=count * bits, bitorder="little").reshape(count, bits)
    index = (spread.astype(np.int64) << np.arange(bits)).sum(1)
    return arrays["numbers"].astype(np.int64)[index].reshape(shape)


def requantise(sums: np.ndarray, arrays: dict[str, np.ndarray], operation: dict[str, Any]) -> np.ndarray:
    """Return the numbers that sums become, int64; sums have shape (N, C, H, W)."""

    def channels(name: str) -> np.ndarray:
        return arrays[name].astype(np.int64).reshape(1, -1, 1, 1)

    scaled = sums * channels("multiplier") + channels("bias")
    if "edges" in arrays:
        levels = np.searchsorted(arrays["edges"], scaled, side="right")
    else:
        levels = np.clip(scaled >> channels("shift"), 0, operation["levels"] - 1)
    if "exception_sum" in arrays:
        names = ("exception_channel", "exception_sum", "exception_correction")
        for channel, at, correction in zip(*(arrays[name].tolist() for name in names)):
            # One entry serves every channel of an operation that has one requantiser for all.
            part = slice(None) if len(arrays["bias"]) == 1 else slice(channel, channel + 1)
            levels[:, part][sums[:, part] == at] += correction
    return arrays["values"].astype(np.int64)[levels] if "edges" in arrays else levels + operation["low"]


def windows(x: np.ndarray, kernel: Any, stride: Any, pad: Any, dilation: Any, fill: int) -> np.ndarray:
    """Return every window of maps, shape (N, C, rows, columns, kernel rows, kernel columns)."""
    x = np.pad(x, [(0, 0), (0, 0), (pad[0], pad[0]), (pad[1], pad[1])], constant_values=fill)
    reach = (dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1)
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(2, 3))  # type: ignore[call-overload]
    return view[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def convolve(x: np.ndarray, weights: np.ndarray, operation: dict[str, Any]) -> np.ndarray:
    """Return the sums of a convolution, int64."""
    outputs, *kernel, inner = weights.shape
    if operation["group"] == 1 and tuple(kernel) == x.shape[2:] and not any(operation["pad"]):
        kernel_matrix = weights.transpose(0, 3, 1, 2).reshape(outputs, -1)
        return _product(x.reshape(len(x), -1), kernel_matrix.T)[:, :, None, None]
    view = windows(x, kernel, operation["stride"], operation["pad"], operation["dilation"], 0)
    group = operation["group"]
    count, _, rows, columns = view.shape[:4]
    if inner == 1 and group > 1:
        # One input channel a group: no matrix product.
        repeated = np.repeat(view, outputs // group, 1) if outputs != group else view
        return np.einsum("nchwij,cij->nchw", repeated, weights[..., 0])
    sums = np.empty((count, outputs, rows, columns), np.int64)
    each = outputs // group
    for g in range(group):
        part = view[:, g * inner : (g + 1) * inner].transpose(0, 2, 3, 4, 5, 1).reshape(count * rows * columns, -1)
        matrix = weights[g * each : (g + 1) * each].reshape(each, -1)
        made = _product(part, matrix.T).reshape(count, rows, columns, each)
        sums[:, g * each : (g + 1) * each] = made.transpose(0, 3, 1, 2)
    return sums


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # float64 holds every sum below 2^53 exactly, and has a fast product; the export has made sure of 2^30.
    return np.rint(a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)


def step(operation: dict[str, Any], inputs: list[np.ndarray]) -> np.ndarray:
    """Run one operation on int64 arrays (N, C, H, W)."""
    kind, arrays = operation["kind"], operation["arrays"]
    x = inputs[0]
    if kind == "pixels":
        return requantise(x, arrays, operation)
    if kind == "convolve":
        return requantise(convolve(x, unpacked(arrays, operation), operation), arrays, operation)
    if kind == "sum":
        sums = sum(m * v for m, v in zip(operation["multipliers"], inputs))
        return requantise(np.asarray(sums), arrays, operation)
    if kind == "average_pool":
        view = windows(x, operation["kernel"], operation["stride"], operation["pad"], (1, 1), 0)
        return requantise(view.sum((4, 5)), arrays, operation)
    if kind == "max_pool":
        # The last windows may hang over the edge.
        rows, columns = operation["size"]
        over = [(0, 0), (0, 0), (0, operation["kernel"][0]), (0, operation["kernel"][1])]
        x = np.pad(x, over, constant_values=-LARGEST)
        view = windows(x, operation["kernel"], operation["stride"], operation["pad"], (1, 1), -LARGEST)
        return view[:, :, :rows, :columns].max((4, 5))
    if kind == "select":
        rows, columns = operation["stride"]
        after = operation["channels"] - operation["before"] - x.shape[1]
        return np.pad(x[:, :, ::rows, ::columns], [(0, 0), (operation["before"], after), (0, 0), (0, 0)])
    if kind == "concatenate":
        return np.concatenate([m * v for m, v in zip(operation["multipliers"], inputs)], 1)
    raise ValueError(f"operation {kind!r} is not one that this reader knows")


def run(program: dict[str, Any], pixels: np.ndarray, check: bool = True) -> dict[str, np.ndarray]:
    """Run a program on images.

    Args:
        program: from `load`.
        pixels: uint8, shape (N, C, H, W).
        check: make sure that every tensor stays between the ends that the manifest gives.

    Returns:
        Every tensor by name, int64, shape (N, C, H, W).

    Raises:
        ValueError: the images have another shape, or a tensor leaves its ends.
    """
    tensors = {tensor["name"]: tensor for tensor in program["tensors"]}
    first = program["tensors"][0]
    if list(pixels.shape[1:]) != first["shape"]:
        raise ValueError(f"images of shape {tuple(pixels.shape[1:])}; the program takes {tuple(first['shape'])}")
    values = {first["name"]: pixels.astype(np.int64)}
    for operation in program["operations"]:
        made = step(operation, [values[name] for name in operation["inputs"]])
        tensor = tensors[operation["output"]]
        if list(made.shape[1:]) != tensor["shape"]:
            raise ValueError(f"{tensor['name']}: shape {made.shape[1:]}, the manifest says {tensor['shape']}")
        if check and made.size and (made.min() < tensor["low"] or made.max() > tensor["high"]):
            raise ValueError(f"{tensor['name']}: a number lies outside {tensor['low']} to {tensor['high']}")
        values[tensor["name"]] = made
    return values


def logits(program: dict[str, Any], values: dict[str, np.ndarray]) -> np.ndarray:
    """Return the logits of what `run` returned as real numbers, float64, shape (N, classes)."""
    output = next(tensor for tensor in program["tensors"] if tensor["name"] == program["output"])
    numbers = values[output["name"]]
    return numbers.reshape(len(numbers), -1) * float(output["step"])


if __name__ == "__main__":
    saved = load(sys.argv[1])
    for answer in logits(saved, run(saved, np.load(sys.argv[2], allow_pickle=False))).argmax(1):
        print(int(answer))
