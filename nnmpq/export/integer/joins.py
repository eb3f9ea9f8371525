"""Sums of branches and average pooling."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnmpq.export.integer import program as ir
from nnmpq.export.integer.chain import Chain, Link
from nnmpq.export.integer.levels import SiteGrid
from nnmpq.export.integer.lowering import Lowering
from nnmpq.export.integer.moves import common_multipliers, read, window_of
from nnmpq.export.integer.program import ExportError, Tensor
from nnmpq.export.integer.requantise import as_it_is

JOINS = ("Add2", "AddN", "Sub2")


def lower_sum(
    state: Lowering,
    links: list[Link],
    operands: Any,
    signs: tuple[int, ...],
    dimensions: int,
    name: str,
    target: SiteGrid,
) -> ir.Operation:
    """Lower a sum, or, of one operand, a change of grid.

    Args:
        state: of the lowering.
        links: functions between sum and quantizer.
        operands: variables of the float graph.
        signs: 1 or -1 for each.
        dimensions: of the sum's tensor, the batch included.
        name: of the site.
        target: its grid.

    Raises:
        ExportError: shapes differ, or steps lie too far apart.
    """
    parts = [read(state, v, name) for v in operands]
    if len({tensor.shape for tensor in parts}) > 1:
        raise ExportError(f"{name}: operands of different shapes are added")
    unit, multipliers = common_multipliers([tensor.step for tensor in parts], name)
    signed = [m * sign for m, sign in zip(multipliers, signs)]
    ends = [sorted((m * t.low, m * t.high)) for m, t in zip(signed, parts)]
    channels = parts[0].shape[0] if any(link.constants() for link in links) else 1
    low, high = (np.full(channels, sum(pair[side] for pair in ends), np.int64) for side in (0, 1))
    chain = Chain(tuple(links), channels, dimensions, name)
    requantiser = state.requantiser(chain, np.asarray(unit), low, high, target)
    return ir.Sum(tuple(t.name for t in parts), name, tuple(signed), requantiser)


def lower_average(state: Lowering, links: list[Link], function: Any, name: str, target: SiteGrid) -> ir.Operation:
    """Lower an average pooling; arguments as of `lower_sum`, `function` is the pooling."""
    source = read(state, function.inputs[0], name)
    window, stride, pad = window_of(function, source, name)
    channels = source.shape[0] if any(link.constants() for link in links) else 1
    elements = window[0] * window[1]
    low, high = (np.full(channels, end * elements, np.int64) for end in (min(source.low, 0), max(source.high, 0)))
    chain = Chain(tuple(links), channels, function.outputs[0].ndim, name, window=window)
    requantiser = state.requantiser(chain, np.asarray(source.step), low, high, target)
    return ir.AveragePool((source.name,), name, window, stride, pad, requantiser)


def lower_raw_average(state: Lowering, function: Any) -> str:
    """Store the sums of an average pooling that no quantizer follows; return their tensor's name.

    Args:
        state: of the lowering.
        function: the pooling.

    Raises:
        ExportError: the window's size is no power of two, so that float32 rounds.
    """
    source = read(state, function.inputs[0], function.info.type_name)
    name = f"{source.name}/{function.info.type_name}"
    window, stride, pad = window_of(function, source, name)
    elements = window[0] * window[1]
    if elements & (elements - 1):
        raise ExportError(
            f"{name}: windows of {elements} elements without a quantizer behind them; 2, 4, 8, ... are exact"
        )
    low, high = elements * min(source.low, 0), elements * max(source.high, 0)
    shape = (source.shape[0], *function.outputs[0].shape[2:], 1, 1)[:3]
    tensor = Tensor(name, shape, low, high, source.step / elements, 32, False)
    return state.add(ir.AveragePool((source.name,), name, window, stride, pad, as_it_is(low, high)), tensor)
