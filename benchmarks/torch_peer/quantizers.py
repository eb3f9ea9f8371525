"""A per-tensor fake quantizer in PyTorch that learns its step and its range, as fast as eager PyTorch lets it be.

PyTorch's own fake quantizers (`torch.fake_quantize_per_tensor_affine`, `_fake_quantize_learnable_per_tensor_affine`)
were timed against it on 128x16x32x32, one thread: 22 ms forward and 21 backward, where this one takes about 1 and 2.
So the comparison is with this one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from benchmarks.torch_peer.networks import Layers, relu

BITS = 4
# The least step and range that training may reach: the quantizer divides by the step.
LEAST = 1e-4
# A weight's first range in its standard deviations: uniform weights reach 1.7, so that some are clipped from the start.
DEVIATIONS = 1.5
# An activation's first range, of normalised numbers.
ACTIVATION_RANGE = 2.0


def flat(tensor: Any, like: Any) -> Any:
    """Return all elements in the order in which `like` lies in memory: a view where both lie alike."""
    return tensor.permute(like.dim_order()).reshape(-1)


class FusedLearnedStep(torch.autograd.Function):
    """y = step * round(clip(x, low, xmax) / step), low = -xmax where signed, else 0; gradients by hand.

    With c = clip(x): of x, 1 strictly inside the range; of step, sum of (y - c) / step; of xmax, sum of
    1[x >= xmax] - 1[x <= -xmax]; the last two times `gradient_scale`. Written with the few operations that PyTorch
    runs as one vectorised loop: comparisons and `where` take four times as long as `hardtanh_backward`.
    """

    @staticmethod
    def forward(ctx: Any, x: Any, step: Any, xmax: Any, signed: bool, gradient_scale: float) -> Any:
        """Quantize."""
        ctx.step, ctx.xmax, ctx.signed, ctx.gradient_scale = step.item(), xmax.item(), signed, gradient_scale
        y = torch.clamp(x, -ctx.xmax if signed else 0.0, ctx.xmax).mul_(1.0 / ctx.step).round_().mul_(ctx.step)
        ctx.save_for_backward(x, y)
        ctx.below = torch.nextafter(xmax, torch.zeros_like(xmax)).item()
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Return the gradients of x, step and xmax."""
        x, y = ctx.saved_tensors
        (g,) = gradients
        gx = torch.ops.aten.hardtanh_backward(g, x, -ctx.xmax if ctx.signed else 0.0, ctx.xmax)
        # Where x > below, that is x >= xmax.
        outside = torch.ops.aten.threshold_backward(g, x, ctx.below).sum()
        if ctx.signed:
            outside = 2.0 * outside + gx.sum() - g.sum()
        highest = ctx.step * round(ctx.xmax / ctx.step)
        inside = torch.dot(flat(gx, x), flat(y - x, x))
        of_step = (inside + (highest - ctx.xmax) * outside) * (ctx.gradient_scale / ctx.step)
        return gx, of_step, outside * ctx.gradient_scale, None, None


def composed_learned_step(x: Any, step: Any, xmax: Any, signed: bool, gradient_scale: float) -> Any:
    """Quantize by differentiable operations: what the compiler fuses best, and what the function is tested against."""
    step, xmax = (p * gradient_scale + (p * (1.0 - gradient_scale)).detach() for p in (step, xmax))
    scaled = torch.minimum(torch.maximum(x, -xmax if signed else torch.zeros_like(xmax)), xmax) / step
    return (scaled + (scaled.round() - scaled).detach()) * step


class LearnedStep(nn.Module):
    """The quantizer with its two parameters, which start at `xmax` and at the step that makes BITS bits of it.

    Gradients of both are scaled by 1 / sqrt(elements * levels).

    Source:
        Esser et al., "Learned Step Size Quantization", section 2.2, for the scale of the gradients.
    """

    def __init__(self, signed: bool, xmax: float) -> None:
        super().__init__()
        self.signed = signed
        self.levels = 2 ** (BITS - 1) - 1 if signed else 2**BITS - 1
        self.xmax = nn.Parameter(torch.tensor(xmax))
        self.step = nn.Parameter(torch.tensor(xmax / self.levels))

    def forward(self, x: Any) -> Any:
        """Quantize a tensor of any shape."""
        quantize = composed_learned_step if torch.compiler.is_compiling() else FusedLearnedStep.apply
        return quantize(x, self.step, self.xmax, self.signed, 1.0 / math.sqrt(x.numel() * self.levels))


class QuantizedConvolution(nn.Conv2d):
    """A convolution with a quantized weight."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.quantizer = LearnedStep(True, DEVIATIONS * float(self.weight.detach().std()))

    def forward(self, x: Any) -> Any:
        """Convolve."""
        return self._conv_forward(x, self.quantizer(self.weight), self.bias)


class QuantizedAffine(nn.Linear):
    """An affine layer with a quantized weight."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.quantizer = LearnedStep(True, DEVIATIONS * float(self.weight.detach().std()))

    def forward(self, x: Any) -> Any:
        """Multiply by the weight and add the bias."""
        return nn.functional.linear(x, self.quantizer(self.weight), self.bias)


def quantized_relu(limit: float | None) -> nn.Module:
    """Return a rectifier and the quantizer of its output."""
    return nn.Sequential(relu(limit), LearnedStep(False, ACTIVATION_RANGE))


QUANTIZED = Layers(QuantizedConvolution, QuantizedConvolution, QuantizedAffine, quantized_relu, quantized_relu)


def quantizer_parameters(network: nn.Module) -> list[Any]:
    """Return every step and range of a network; they are kept positive and do not decay."""
    quantizers = [module for module in network.modules() if isinstance(module, LearnedStep)]
    return [parameter for quantizer in quantizers for parameter in quantizer.parameters()]
