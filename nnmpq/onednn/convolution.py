"""Convolution plans: forward and both backward passes of one shape, activations channel-last."""

from __future__ import annotations

import functools
from ctypes import c_void_p
from typing import Any

import attrs

from nnmpq.onednn.library import session
from nnmpq.onednn.primitive import (
    BIAS,
    BIAS_GRADIENT,
    DESTINATION,
    DESTINATION_GRADIENT,
    SOURCE,
    SOURCE_GRADIENT,
    WEIGHTS,
    WEIGHTS_GRADIENT,
    WEIGHTS_GRADIENT_LAYOUT,
    WEIGHTS_LAYOUT,
    Layout,
    Primitive,
    channel_last_strides,
    dims,
    plain_strides,
    reorder,
)

FORWARD_TRAINING = 64
DIRECT = 1


@attrs.frozen
class ConvolutionSpec:
    """One shape of convolution.

    Args:
        batch: images.
        channels: of the input.
        size: height and width of the input.
        outputs: output channels.
        output_size: height and width of the output.
        kernel: height and width.
        stride: steps down and right.
        pad: pixels above and left, and as many below and right.
        dilation: distance of neighbouring kernel elements, 1 for none between.
        group: groups of channels.
        bias: whether there is one.
    """

    batch: int
    channels: int
    size: tuple[int, ...]
    outputs: int
    output_size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]
    group: int = 1
    bias: bool = False

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight as oneDNN wants it: (O, I, kernel), with groups (G, O/G, I/G, kernel)."""
        shape = (self.outputs // self.group, self.channels // self.group, *self.kernel)
        return (self.group, *shape) if self.group > 1 else (self.outputs, *shape[1:])


class WeightLayout:
    """How oneDNN wants a weight, and the way there from the plain order or back."""

    def __init__(self, plain: Layout, wanted: Layout, back: bool) -> None:
        self.wanted = wanted
        self.same = plain.equals(wanted)
        self.move = None if self.same else reorder(wanted, plain) if back else reorder(plain, wanted)


class ConvolutionPlan:
    """Primitives of one shape; each backward pass is made when it is first needed."""

    def __init__(self, spec: ConvolutionSpec) -> None:
        self.spec = spec
        source, destination = (spec.batch, spec.channels, *spec.size), (spec.batch, spec.outputs, *spec.output_size)
        self.source = Layout.strided(source, channel_last_strides(source))
        self.destination = Layout.strided(destination, channel_last_strides(destination))
        self.plain = Layout.strided(spec.weight_shape, plain_strides(spec.weight_shape))
        self.anyhow = Layout.any(spec.weight_shape)
        self.bias_layout = Layout.strided((spec.outputs,), (1,)) if spec.bias else None

    def _geometry(self) -> tuple[Any, ...]:
        spec = self.spec
        last = [
            max(0, (out - 1) * stride + (kernel - 1) * dilation + 1 - size - pad)
            for out, stride, kernel, dilation, size, pad in zip(
                spec.output_size, spec.stride, spec.kernel, spec.dilation, spec.size, spec.pad
            )
        ]
        # oneDNN counts the elements left out between kernel elements.
        return dims(spec.stride), dims([d - 1 for d in spec.dilation]), dims(spec.pad), dims(last)

    def _bias_handle(self) -> c_void_p | None:
        return self.bias_layout.handle if self.bias_layout is not None else None

    @functools.cached_property
    def forward(self) -> Primitive:
        """Pointers: source, weight, [bias], destination."""
        arguments = (
            session().engine,
            FORWARD_TRAINING,
            DIRECT,
            self.source.handle,
            self.anyhow.handle,
            self._bias_handle(),
            self.destination.handle,
            *self._geometry(),
            session().attributes,
        )
        made = Primitive("dnnl_convolution_forward_primitive_desc_create", arguments, f"{self.spec}")
        roles = [(SOURCE, self.source), (WEIGHTS, made.layout(WEIGHTS_LAYOUT))]
        if self.bias_layout is not None:
            roles.append((BIAS, self.bias_layout))
        made.bind(*roles, (DESTINATION, self.destination))
        return made

    @functools.cached_property
    def backward_data(self) -> Primitive:
        """Pointers: gradient of the destination, weight, gradient of the source."""
        arguments = (
            session().engine,
            DIRECT,
            self.source.handle,
            self.anyhow.handle,
            self.destination.handle,
            *self._geometry(),
            self.forward.description,
            session().attributes,
        )
        made = Primitive(
            "dnnl_convolution_backward_data_primitive_desc_create", arguments, f"{self.spec}", self.forward
        )
        made.bind(
            (DESTINATION_GRADIENT, self.destination),
            (WEIGHTS, made.layout(WEIGHTS_LAYOUT)),
            (SOURCE_GRADIENT, self.source),
        )
        return made

    @functools.cached_property
    def backward_weights(self) -> Primitive:
        """Pointers: source, gradient of the destination, gradient of the weight, [gradient of the bias]."""
        arguments = (
            session().engine,
            DIRECT,
            self.source.handle,
            self.anyhow.handle,
            self._bias_handle(),
            self.destination.handle,
            *self._geometry(),
            self.forward.description,
            session().attributes,
        )
        made = Primitive(
            "dnnl_convolution_backward_weights_primitive_desc_create", arguments, f"{self.spec}", self.forward
        )
        roles = [
            (SOURCE, self.source),
            (DESTINATION_GRADIENT, self.destination),
            (WEIGHTS_GRADIENT, made.layout(WEIGHTS_GRADIENT_LAYOUT)),
        ]
        if self.bias_layout is not None:
            roles.append((BIAS_GRADIENT, self.bias_layout))
        made.bind(*roles)
        return made

    @functools.cached_property
    def forward_weight(self) -> WeightLayout:
        """The weight's layout for the forward pass."""
        return WeightLayout(self.plain, self.forward.layout(WEIGHTS_LAYOUT), back=False)

    @functools.cached_property
    def backward_weight(self) -> WeightLayout:
        """The weight's layout for the gradient of the data."""
        return WeightLayout(self.plain, self.backward_data.layout(WEIGHTS_LAYOUT), back=False)

    @functools.cached_property
    def weight_gradient(self) -> WeightLayout:
        """The layout of the weight's gradient, with the way back to the plain order."""
        return WeightLayout(self.plain, self.backward_weights.layout(WEIGHTS_GRADIENT_LAYOUT), back=True)


@functools.lru_cache(maxsize=1024)
def convolution_plan(spec: ConvolutionSpec, threads: int) -> ConvolutionPlan:
    """Return the plan of a shape; equal shapes share one.

    Args:
        spec: the shape.
        threads: that the primitives are made for; they are chosen by it.
    """
    del threads
    return ConvolutionPlan(spec)
