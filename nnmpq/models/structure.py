"""Weights of a network whose parameters have other names, found by comparing what the two networks compute."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import attrs
import nnabla as nn
import numpy as np
from nnabla.utils.nnp_graph import NnpLoader

from nnmpq.files import nearest
from nnmpq.graph.functions import functions_of, parameter_names
from nnmpq.graph.rewrite import unfuse
from nnmpq.models.weights import WeightsError

LAYERS = ("Convolution", "DepthwiseConvolution", "Affine")
# Looked through: files differ in them, and no weight depends on them.
IGNORED = {"Dropout", "Identity", "Reshape", "GlobalAveragePooling", "Softmax", "LogSoftmax", "SoftmaxCrossEntropy"}
IGNORED |= {"CategoricalCrossEntropy", "TopNError", "ImageAugmentation"}
WINDOWED = ("MaxPooling", "AveragePooling", "SumPooling")


@attrs.frozen(eq=False)
class _Step:
    """A function with parameters, what it is in words, its parameters, and the number of what it computes."""

    function: Any
    text: str
    weights: tuple[nn.Variable, ...]
    number: int


@attrs.frozen(eq=False)
class _Examined:
    """What a graph computes.

    Args:
        number: the output's, equal for equal computations.
        steps: functions with parameters, in an order that depends on the computation alone.
        executed: the same, in the order of execution.
        before: what stands before the first layer.
    """

    number: int
    steps: list[_Step]
    executed: list[_Step]
    before: list[str]


def _as_convolution(weight: nn.Variable, group: int, kind: str) -> tuple[int, ...]:
    """The shape of a layer's weight as that of a grouped convolution, without kernel where that is 1x1."""
    shape = tuple(weight.shape)
    if kind == "Affine":
        return shape[1], shape[0]
    if kind == "DepthwiseConvolution":
        return shape[0], 1, *shape[1:]
    return shape[:2] if group == 1 and all(length == 1 for length in shape[2:]) else shape


def _text(function: Any, padding: bool) -> str:
    name, arguments = function.info.type_name, function.info.args
    pad = f", pad {tuple(arguments['pad'])}" if padding and any(arguments.get("pad", ())) else ""
    if name == "BatchNormalization":
        return f"BatchNormalization of {function.inputs[1].size} channels"
    if name in WINDOWED:
        border = ", with border" if padding and not arguments["ignore_border"] else ""
        return f"{name} {tuple(arguments['kernel'])}, stride {tuple(arguments['stride'])}{pad}{border}"
    if name not in LAYERS:
        return str(name)
    shape = _as_convolution(function.inputs[1], arguments.get("group", 1), name)
    steps = [(word, tuple(arguments.get(word, (1,)))) for word in ("stride", "dilation")]
    words = "".join(f", {word} {step}" for word, step in steps if set(step) != {1})
    return f"layer of weight {shape}{words}{pad}{', with bias' if len(function.inputs) > 2 else ''}"


def _ignored(function: Any) -> bool:
    name = function.info.type_name
    whole = name == "AveragePooling" and tuple(function.info.args["kernel"]) == tuple(function.inputs[0].shape[2:])
    return whole or name in IGNORED


def _examine(output: nn.Variable, numbers: dict[Any, int], padding: bool) -> _Examined:
    """Number every computation, equal ones equally: in one graph or, with the same `numbers`, in two."""
    number: dict[nn.Variable, int] = {}
    steps: dict[Any, _Step] = {}
    branches: dict[Any, list[nn.Variable]] = {}
    before: list[str] = []
    for function in functions_of([output]):
        name = function.info.type_name
        weights = {"BatchNormalization": 5}.get(name, len(function.inputs) if name in LAYERS else 1)
        # What no layer has computed has no number: images, labels, constants.
        inputs = [v for v in function.inputs[: 1 if weights > 1 else None] if v in number]
        if name == "Add2":
            inputs.sort(key=lambda v: number[v])
        branches[function] = inputs
        if not inputs and weights == 1:
            before.append(f"{name}({', '.join(f'{key}={value}' for key, value in function.info.args.items())})")
            continue
        if len(inputs) == 1 and _ignored(function):
            result = number[inputs[0]]
        else:
            text = _text(function, padding)
            result = numbers.setdefault((text, *(number[v] for v in inputs)), len(numbers))
            if weights > 1:
                steps[function] = _Step(function, text, tuple(function.inputs[1:weights]), result)
        for variable in function.outputs:
            number[variable] = result
    ordered: list[_Step] = []
    seen: set[Any] = set()
    stack = [output.parent]
    while stack:
        function = stack.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        if function in steps:
            ordered.append(steps[function])
        stack.extend(v.parent for v in branches.get(function, ()))
    return _Examined(number.get(output, -1), ordered, list(steps.values()), before)


def _fitted(source: _Step, own: _Step) -> list[np.ndarray]:
    """The source's parameters as the own function takes them."""
    arrays = [np.array(v.d, np.float32) for v in source.weights]
    kinds = [step.function.info.type_name for step in (source, own)]
    if kinds[1] == "BatchNormalization":
        # The constant that is added to the variance differs between files; the sum stays what it was.
        change = source.function.info.args["eps"] - own.function.info.args["eps"]
        arrays[3] = np.maximum(arrays[3] + np.float32(change), 0)
    elif (kinds[0] == "Affine") != (kinds[1] == "Affine"):
        arrays[0] = arrays[0].reshape(arrays[0].shape[:2]).T
    return [array.reshape(v.shape) for array, v in zip(arrays, own.weights)]


def _difference(source: _Examined, own: _Examined) -> str:
    """Where two graphs part, seen from the images."""
    names = parameter_names()
    first = []
    for one, other in ((own, source), (source, own)):
        shared = {step.number for step in other.executed}
        alone = next((step for step in one.executed if step.number not in shared), None)
        if alone is not None:
            name = names.get(alone.weights[0].data, alone.weights[0].name)
            first.append(
                f"{name} of a {alone.text} is the first without counterpart {'there' if one is own else 'here'}"
            )
    if first:
        return "; ".join(first)
    counts = len(source.steps), len(own.steps)
    if counts[0] != counts[1]:
        return f"{counts[0]} layers and batch normalizations, needed are {counts[1]}"
    return "the layers are the same, but not what follows the last one"


def _open(path: str | Path, network: str | None) -> nn.Variable:
    """The first output of a network in a file, at batch size 1; the current parameter scope stays as it is."""
    try:
        with nn.parameter_scope("", OrderedDict()):
            loader = NnpLoader(str(path))
            names = loader.get_network_names()
            chosen = names[0] if network is None else network
            if chosen in names:
                return unfuse(list(loader.get_network(chosen, batch_size=1).outputs.values())[:1])[0]
    except Exception as error:  # a damaged file can raise anything
        raise WeightsError(f"{path}: cannot be read as a network: {error}") from error
    raise WeightsError(f"{path}: no network {chosen!r}; the nearest is {nearest(chosen, names)!r}, all are {names}")


def load_by_structure(
    path: str | Path, y: nn.Variable, *, network: str | None = None, padding: bool = True
) -> list[str]:
    """Load the weights of an `.nnp` into a network that computes the same under other parameter names.

    Layers, strides, batch normalizations, activations, poolings and branches must be the same; an affine layer may be
    a 1x1 convolution there, a depthwise convolution a grouped one. Dropout, global pooling and the loss are ignored.
    Where batch normalization adds another constant, its running variance makes up for it.

    Args:
        path: the file.
        y: output of the network that takes the weights; its parameters are set in place.
        network: name of the network in the file; its first one if None.
        padding: False accepts convolutions and poolings that pad otherwise: not quite the same network.

    Returns:
        What the file does to images before its first layer, in order, such as "MulScalar(val=0.01, inplace=False)":
        its weights need images treated likewise.

    Raises:
        WeightsError: the file cannot be read, or holds another network, with the first difference. Nothing was set.
    """
    numbers: dict[Any, int] = {}
    own = _examine(unfuse([y])[0], numbers, padding)
    source = _examine(_open(path, network), numbers, padding)
    if own.number != source.number or len(own.steps) != len(source.steps):
        raise WeightsError(f"{path}: holds another network: {_difference(source, own)}")
    pairs = zip(source.steps, own.steps)
    fitted = [(variable, array) for s, o in pairs for variable, array in zip(o.weights, _fitted(s, o))]
    for variable, array in fitted:
        variable.d = array
    return source.before
