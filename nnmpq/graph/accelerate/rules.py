"""Which accelerated function stands for which of nnabla's: one rule a type name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import nnabla as nn

from nnmpq.graph.accelerate.affine import Affine
from nnmpq.graph.accelerate.convolution import Convolution, Deconvolution
from nnmpq.graph.accelerate.elementwise import Addition, Clip, ConcatenateLast, ConcatenateRows, FixedPoint, PadLast
from nnmpq.graph.accelerate.loss import SoftmaxCrossEntropy
from nnmpq.graph.accelerate.normalise import Follow, normalise
from nnmpq.graph.accelerate.patterns import RECTIFIERS
from nnmpq.graph.accelerate.pooling import Pooling, pooled_size
from nnmpq.graph.accelerate.work import Work
from nnmpq.onednn.pooling import AVERAGE_WITH_PAD, AVERAGE_WITHOUT_PAD, MAXIMUM

Rule = Callable[[Work, Any, Sequence[nn.Variable]], "Sequence[nn.Variable] | None"]


def _planar(function: Any) -> bool:
    """Whether a layer works on (N, C, H, W)."""
    arguments = function.info.args
    x = function.inputs[0]
    return x.ndim == 4 and arguments.get("base_axis", 1) == 1 and not arguments.get("channel_last", False)


def convolution(work: Work, function: Any, inputs: Sequence[nn.Variable]) -> Sequence[nn.Variable] | None:
    """Convolution and depthwise convolution over images."""
    if not _planar(function):
        return None
    made = Convolution(work.scratch, work.clock, dict(function.info.args))
    return [work.mark(made(work.last(inputs[0]), *inputs[1:]))]


def deconvolution(work: Work, function: Any, inputs: Sequence[nn.Variable]) -> Sequence[nn.Variable] | None:
    """Deconvolution over images."""
    if not _planar(function):
        return None
    made = Deconvolution(work.scratch, work.clock, dict(function.info.args))
    return [work.mark(made(work.last(inputs[0]), *inputs[1:]))]


def affine(work: Work, function: Any, inputs: Sequence[nn.Variable]) -> Sequence[nn.Variable]:
    """Affine over the axes from `base_axis` on."""
    return [Affine(work.scratch, function.info.args["base_axis"])(work.first(inputs[0]), *inputs[1:])]


def clip(work: Work, function: Any, inputs: Sequence[nn.Variable]) -> Sequence[nn.Variable]:
    """ReLU and ReLU6, in the order that their input has."""
    made = Clip(work.scratch, 0.0, RECTIFIERS[function.info.type_name])(inputs[0])
    return [work.mark(made) if work.is_last(inputs[0]) else made]


def total(work: Work, function: Any, inputs: Sequence[nn.Variable]) -> Sequence[nn.Variable] | None:
    """Sums of tensors of one shape, channel-last where one of them is."""
    if len(function.inputs) < 2 or any(v.shape != function.outputs[0].shape for v in function.inputs):
        return None
    if any(work.is_last(v) for v in inputs):
        return [work.mark(Addition(work.scratch)(*(work.last(v) for v in inputs)))]
    return [Addition(work.scratch)(*inputs)]


def pooling(work: Work, function: Any, inputs: Sequence[nn.Variable]) -> Sequence[nn.Variable] | None:
    """Maximum and average over windows."""
    given, x, y = function.info.args, function.inputs[0], function.outputs[0]
    if x.ndim != 4 or len(given["kernel"]) != 2 or given["channel_last"]:
        return None
    geometry = (given["kernel"], given["stride"], given["pad"], given["ignore_border"])
    if pooled_size(x.shape[2:], *geometry) != y.shape[2:]:
        return None
    overhang = any(
        (out - 1) * s + k > length + 2 * p
        for out, k, s, p, length in zip(y.shape[2:], given["kernel"], given["stride"], given["pad"], x.shape[2:])
    )
    # What an average over a window that hangs over the pad is divided by is nnabla's own.
    if overhang and function.info.type_name == "AveragePooling":
        return None
    algorithm = MAXIMUM
    if function.info.type_name == "AveragePooling":
        algorithm = AVERAGE_WITH_PAD if given["including_pad"] else AVERAGE_WITHOUT_PAD
    return [work.mark(Pooling(work.scratch, algorithm, *geometry)(work.last(inputs[0])))]


def global_pooling(work: Work, function: Any, inputs: Sequence[nn.Variable]) -> Sequence[nn.Variable] | None:
    """Average over the whole map."""
    if function.inputs[0].ndim != 4:
        return None
    return [work.mark(Pooling(work.scratch, AVERAGE_WITHOUT_PAD)(work.last(inputs[0])))]


def concatenate(work: Work, function: Any, inputs: Sequence[nn.Variable]) -> Sequence[nn.Variable] | None:
    """Channels side by side."""
    ndim = function.inputs[0].ndim
    axis = function.info.args["axis"] % ndim
    if ndim == 4 and axis == 1:
        return [work.mark(ConcatenateLast(work.scratch)(*(work.last(v) for v in inputs)))]
    if axis == ndim - 1 and not any(work.is_last(v) for v in inputs):
        return [ConcatenateLast(work.scratch)(*inputs)]
    if axis == 0 and not any(work.is_last(v) for v in inputs):
        return [ConcatenateRows(work.scratch)(*inputs)]
    return None


def fixed_point(work: Work, function: Any, inputs: Sequence[nn.Variable]) -> Sequence[nn.Variable]:
    """The quantizer of a given width and step, in the order that its input has."""
    given = function.info.args
    levels = 2 ** (given["n"] - 1) - 1 if given["sign"] else 2 ** given["n"] - 1
    high = levels * given["delta"]
    made = FixedPoint(work.scratch, given["delta"], -high if given["sign"] else 0.0, high, given["ste_fine_grained"])(
        inputs[0]
    )
    return [work.mark(made) if work.is_last(inputs[0]) else made]


def pad(work: Work, function: Any, inputs: Sequence[nn.Variable]) -> Sequence[nn.Variable] | None:
    """Channels of zeros."""
    given = function.info.args
    widths = list(given["pad_width"])
    widths = [0] * (8 - len(widths)) + widths
    channels_only = not any(widths[:2]) and not any(widths[4:])
    if function.inputs[0].ndim != 4 or given["mode"] != "constant" or given["constant_value"] or not channels_only:
        return None
    return [work.mark(PadLast(work.scratch, widths[2], widths[3])(work.last(inputs[0])))]


def loss(work: Work, function: Any, inputs: Sequence[nn.Variable]) -> Sequence[nn.Variable] | None:
    """Softmax cross entropy of rows."""
    if function.inputs[0].ndim != 2 or function.info.args["axis"] != 1:
        return None
    return [SoftmaxCrossEntropy(work.scratch)(*(work.first(v) for v in inputs))]


def quantizer(work: Work, function: Any, inputs: Sequence[nn.Variable]) -> Sequence[nn.Variable]:
    """A fused quantizer, built again; elementwise, so it takes either order."""
    arguments = dict(function.info.args)
    core, axis = arguments.pop("core"), arguments.get("channel_axis")
    x = inputs[0]
    if work.is_last(x) and axis is not None:
        arguments["channel_axis"] = {0: 0, 1: 3, 2: 1, 3: 2}[axis]
    made = core(nn.get_current_context(), **arguments)(x, *inputs[1:])
    return [work.mark(made) if work.is_last(x) else made]


def chain(work: Work, function: Any, inputs: Sequence[nn.Variable]) -> Sequence[nn.Variable]:
    """Batch normalization with what follows; all but the last function of a chain only leave their inputs behind."""
    found = work.chains[function]
    work.absorbed[function] = list(inputs)
    # nnabla wraps a function anew at each look, and its wrappers know `==` alone.
    if not function == found.functions[-1]:
        return [inputs[0]]
    z, *statistics = work.absorbed[found.normalization]
    planar = found.normalization.inputs[0].ndim == 4
    place = work.last if planar else work.first
    rest = []
    if found.sum is not None:
        branch = 1 if found.sum.inputs[0] == found.normalization.outputs[0] else 0
        rest.append(place(work.absorbed[found.sum][branch]))
    follow = Follow(joins=found.sum is not None)
    if found.last is not None:
        name = found.last.info.type_name
        if name in RECTIFIERS:
            follow = Follow(0.0, RECTIFIERS[name], joins=found.sum is not None)
        else:
            follow = Follow(joins=found.sum is not None, quantizes=True, signed=found.last.info.args["signed"])
            rest.extend(work.absorbed[found.last][1:])
    made = normalise(work.scratch, place(z), statistics, dict(found.normalization.info.args), follow, rest)
    return [work.mark(made) if planar else made]


RULES: dict[str, Rule] = {
    "Convolution": convolution,
    "DepthwiseConvolution": convolution,
    "Deconvolution": deconvolution,
    "Affine": affine,
    "ReLU": clip,
    "ReLU6": clip,
    "Add2": total,
    "AddN": total,
    "MaxPooling": pooling,
    "AveragePooling": pooling,
    "GlobalAveragePooling": global_pooling,
    "Concatenate": concatenate,
    "Pad": pad,
    "FixedPointQuantize": fixed_point,
    "SoftmaxCrossEntropy": loss,
    "UniformQuantizerCore": quantizer,
    "Pow2QuantizerCore": quantizer,
    "WeightQuantizerCore": quantizer,
    "MixtureCore": quantizer,
}

# Functions of one tensor that treat every element alike: they run in whichever order their input has.
EITHER_ORDER = {
    "Abs", "AddScalar", "ELU", "Exp", "HardSigmoid", "HardTanh", "Identity", "LeakyReLU",
    "MaximumScalar", "Mish", "MinimumScalar", "MulScalar", "Pow2Quantize", "PowScalar", "RDivScalar", "RSubScalar",
    "Round", "SELU", "Sigmoid", "Sign", "SoftPlus", "Swish", "Tanh",
}  # fmt: skip

# Functions of two tensors of one shape, element by element: channel-last where one of them is.
SAME_PLACE = {"Div2", "Maximum2", "Minimum2", "Mul2", "Sub2"}
