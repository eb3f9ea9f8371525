"""Pooling plans: maximum and average over windows, channel-last."""

from __future__ import annotations

import functools
from typing import Any

import attrs

from nnmpq.onednn.library import session
from nnmpq.onednn.primitive import (
    DESTINATION,
    DESTINATION_GRADIENT,
    SOURCE,
    SOURCE_GRADIENT,
    WORKSPACE,
    WORKSPACE_LAYOUT,
    Layout,
    Primitive,
    channel_last_strides,
    dims,
)

FORWARD_TRAINING = 64
MAXIMUM, AVERAGE_WITH_PAD, AVERAGE_WITHOUT_PAD = 0x1FF, 0x2FF, 0x3FF


@attrs.frozen
class PoolingSpec:
    """One shape of pooling.

    Args:
        algorithm: `MAXIMUM`, `AVERAGE_WITH_PAD` (the divisor is the window's size) or `AVERAGE_WITHOUT_PAD`.
        batch: images.
        channels: of input and output.
        size: height and width of the input.
        output_size: height and width of the output.
        kernel: height and width of the window.
        stride: steps down and right.
        pad: pixels above and left.
    """

    algorithm: int
    batch: int
    channels: int
    size: tuple[int, ...]
    output_size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]


class PoolingPlan:
    """Primitives of one shape; the backward pass is made when it is first needed."""

    def __init__(self, spec: PoolingSpec) -> None:
        self.spec = spec
        source, destination = (spec.batch, spec.channels, *spec.size), (spec.batch, spec.channels, *spec.output_size)
        self.source = Layout.strided(source, channel_last_strides(source))
        self.destination = Layout.strided(destination, channel_last_strides(destination))
        self.workspace = self.forward.layout(WORKSPACE_LAYOUT) if spec.algorithm == MAXIMUM else None

    def _geometry(self) -> tuple[Any, ...]:
        spec = self.spec
        last = [
            max(0, (out - 1) * stride + kernel - size - pad)
            for out, stride, kernel, size, pad in zip(spec.output_size, spec.stride, spec.kernel, spec.size, spec.pad)
        ]
        none = dims([0] * len(spec.kernel))
        return dims(spec.stride), dims(spec.kernel), none, dims(spec.pad), dims(last)

    @functools.cached_property
    def forward(self) -> Primitive:
        """Pointers: source, destination, [workspace]."""
        spec = self.spec
        arguments = (
            session().engine,
            FORWARD_TRAINING,
            spec.algorithm,
            self.source.handle,
            self.destination.handle,
            *self._geometry(),
            session().attributes,
        )
        made = Primitive("dnnl_pooling_forward_primitive_desc_create", arguments, f"{spec}")
        roles = [(SOURCE, self.source), (DESTINATION, self.destination)]
        if spec.algorithm == MAXIMUM:
            roles.append((WORKSPACE, made.layout(WORKSPACE_LAYOUT)))
        made.bind(*roles)
        return made

    @functools.cached_property
    def backward(self) -> Primitive:
        """Pointers: gradient of the destination, gradient of the source, [workspace]."""
        spec = self.spec
        arguments = (
            session().engine,
            spec.algorithm,
            self.source.handle,
            self.destination.handle,
            *self._geometry(),
            self.forward.description,
            session().attributes,
        )
        made = Primitive("dnnl_pooling_backward_primitive_desc_create", arguments, f"{spec}", self.forward)
        roles = [(DESTINATION_GRADIENT, self.destination), (SOURCE_GRADIENT, self.source)]
        if self.workspace is not None:
            roles.append((WORKSPACE, self.workspace))
        made.bind(*roles)
        return made


@functools.lru_cache(maxsize=256)
def pooling_plan(spec: PoolingSpec, threads: int) -> PoolingPlan:
    """Return the plan of a shape; equal shapes share one.

    Args:
        spec: the shape.
        threads: that the primitives are made for.
    """
    del threads
    return PoolingPlan(spec)
