"""From a quantized evaluation graph to the integer program."""

from __future__ import annotations

import attrs
import nnabla as nn
import numpy as np

from nnmpq.export.integer import program as ir
from nnmpq.export.integer.chain import Chain, Link
from nnmpq.export.integer.joins import JOINS, lower_average, lower_sum
from nnmpq.export.integer.layers import lower_layer, lower_output
from nnmpq.export.integer.levels import SiteGrid
from nnmpq.export.integer.lowering import AVERAGES, Lowering, Prepare
from nnmpq.export.integer.program import ExportError, Program, Tensor
from nnmpq.export.integer.requantise import fit
from nnmpq.graph.bake import bake
from nnmpq.graph.functions import functions_of, moves
from nnmpq.graph.network import Site
from nnmpq.graph.quantize import QuantizedNetwork
from nnmpq.graph.trace import trace_graph

PIXELS = "pixels"


def lower(
    quantized: QuantizedNetwork, prepare: Prepare | None = None, *, largest_pixel: int = 255, name: str = ""
) -> Program:
    """Turn a quantized network into whole numbers.

    Args:
        quantized: the evaluation graph, every activation that a layer, sum or pooling reads with a quantizer.
        prepare: how the data set makes the network's input of pixels: uint8 (N, C, H, W) to float32, each pixel by
            itself; None for float32(pixel).
        largest_pixel: pixels go from 0 to this.
        name: of the network.

    Returns:
        The program; its logits are the output's numbers times its step.

    Raises:
        ExportError: a site is float, or the graph holds what has no integer form; the message names it.

    Example:
        >>> import nnabla.functions as F, nnabla.parametric_functions as PF
        >>> from nnmpq.graph.quantize import quantize
        >>> from nnmpq.graph.schemes import Fixed
        >>> y = PF.affine(F.relu(PF.convolution(nn.Variable((1, 1, 8, 8)), 4, (3, 3), name="a")), 2, name="b")
        >>> program = lower(quantize(y, Fixed(4, 4, kinds=("input", "relu"))), lambda pixels: pixels / 255)
        >>> [tensor.name for tensor in program.tensors.values()]
        ['pixels', 'input', 'a/conv/relu', 'logits']
    """
    traced = trace_graph(quantized.float_outputs)
    if len(traced.outputs) != 1:
        raise ExportError(f"the network has {len(traced.outputs)} outputs; one is exported: the logits")
    baked = bake(quantized)
    if len(baked.inputs) != 1:
        raise ExportError(f"the network has {len(baked.inputs)} inputs that are no parameters; one is exported: images")
    data = baked.inputs[0].data
    dependent: set[nn.Variable] = set()
    for function in functions_of(traced.outputs):
        dependent.update(v for v in function.inputs if v.parent is None and v.data == data)
        if any(v in dependent for v in function.inputs):
            dependent.update(function.outputs)
    state = Lowering(traced, baked, data, dependent, prepare or (lambda p: p.astype(np.float32)), largest_pixel)
    shape = baked.inputs[0].shape
    if len(shape) != 4:
        raise ExportError(f"the input has shape {shape}: images (B, C, H, W) are needed")
    state.tensors[PIXELS] = Tensor(PIXELS, shape[1:], 0, largest_pixel, 1.0, 8, False)
    for variable, site in traced.sites.items():
        if site.name in baked.grids:
            _store(state, variable, site)
    output = lower_output(state, traced.outputs[0])
    _check_layers(state)
    return Program(name, state.tensors, tuple(state.operations), output)


def _store(state: Lowering, variable: nn.Variable, site: Site) -> None:
    """Lower what computes a quantized site."""
    target = state.site(variable)
    assert target is not None
    links, source = state.climb(variable)
    function = source.parent
    shape = (tuple(variable.shape[1:]) + (1, 1))[:3]
    tensor = Tensor(site.name, shape, target.low, target.high, target.unit, target.bits, True)
    if source in state.done:
        operation = lower_sum(state, links, [source], (1,), source.ndim, site.name, target)
    elif function is None:
        if source.data != state.inputs:
            raise ExportError(f"{site.name}: it is computed from something that is no image")
        operation = _pixels(state, links, source, variable, site.name, target)
    elif function in state.traced.layers:
        operation = lower_layer(state, links, function, site.name, target)
    elif function.info.type_name in JOINS:
        signs = (1, -1) if function.info.type_name == "Sub2" else (1,) * len(function.inputs)
        operation = lower_sum(state, links, function.inputs, signs, source.ndim, site.name, target)
    elif function.info.type_name in AVERAGES and not moves(function):
        operation = lower_average(state, links, function, site.name, target)
    elif moves(function):
        operation = lower_sum(state, links, [source], (1,), source.ndim, site.name, target)
    else:
        raise ExportError(f"{site.name}: {function.info.type_name} has no integer form here")
    state.done[variable] = state.add(attrs.evolve(operation, output=site.name), tensor)


def _pixels(
    state: Lowering, links: list[Link], source: nn.Variable, variable: nn.Variable, name: str, target: SiteGrid
) -> ir.Operation:
    channels = source.shape[1]
    values = np.arange(state.largest_pixel + 1, dtype=np.uint8)
    planes = np.broadcast_to(values[:, None, None, None], (len(values), channels, *source.shape[2:]))
    prepared = np.asarray(state.prepare(planes), np.float32)
    if prepared.shape != planes.shape or np.any(prepared != prepared[:, :, :1, :1]):
        raise ExportError(f"{name}: pixels of one value become different numbers at different places")
    table = prepared[:, :, 0, 0]
    chain = Chain(tuple(links), channels, 4, name)
    evaluate = chain.evaluator(np.ones(()), len(values)) if links else None
    if evaluate is not None:
        # The chain takes sums; here they are the prepared pixels.
        table = evaluate(table)
    levels = target.level_of(table)
    rising = np.where(table[-1] >= table[0], 1, -1)
    if np.any(np.diff(levels * rising, axis=0) < 0):
        raise ExportError(f"{name}: the normalisation of pixels is not monotone")
    slope = (table[-1].astype(np.float64) - table[0]) / state.largest_pixel / target.unit
    zeros = np.zeros(channels, np.int64)
    requantiser = fit(
        lambda sums: levels[sums, np.arange(channels)], target.grid, slope, zeros, zeros + state.largest_pixel, name
    )
    return ir.Pixels((PIXELS,), name, requantiser)


def _check_layers(state: Lowering) -> None:
    """Every layer of the network is in the program; one whose output nobody quantizes would be left out."""
    lowered = {op.layer for op in state.operations if isinstance(op, ir.Convolve)}
    missing = [layer.name for layer in state.traced.network.layers if layer.name not in lowered]
    if missing:
        raise ExportError(f"{missing[0]}: its output is float; quantize what follows it")
