"""EdMIPS' mixtures in PyTorch: softmax-weighted sums of a tensor at several bit-widths, one convolution each.

Sources:
    Cai and Vasconcelos, "Rethinking Differentiable Search for Mixed-Precision Neural Networks", section 4: the mixture.
    Cai et al., "Deep Learning with Low Precision by Half-wave Gaussian Quantization", section 3: the steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.torch_peer.networks import Layers
from benchmarks.torch_peer.quantizers import flat

# Steps of the half-wave Gaussian quantizer by bits, for a normalised input.
ACTIVATION_STEPS = {2: 0.538, 3: 0.3217, 4: 0.185}
# Steps in units of the weight's standard deviation, by bits.
WEIGHT_STEPS = {1: 1.596, 2: 0.996, 3: 0.586, 4: 0.336}
# All candidates weigh the same at the start.
FIRST_STRENGTH = 0.01


class FusedActivationMixture(torch.autograd.Function):
    """y = sum_i p_i q_i(x) with q_i = s_i round(clip(x, 0, (2^b_i - 1) s_i) / s_i); gradients by hand.

    Of x, sum of p_i over the candidates that do not clip it; of p_i, the sum of g q_i.
    """

    @staticmethod
    def forward(ctx: Any, x: Any, probabilities: Any) -> Any:
        """Mix the candidates."""
        ctx.probabilities = probabilities.tolist()
        codes = []
        y = torch.empty_like(x)
        for index, (bits, step) in enumerate(ACTIVATION_STEPS.items()):
            code = torch.clamp(x, 0.0, (2**bits - 1) * step).mul_(1.0 / step).round_()
            codes.append(code)
            weight = ctx.probabilities[index] * step
            y = y.add_(code, alpha=weight) if index else torch.mul(code, weight, out=y)
        ctx.save_for_backward(x, *codes)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Return the gradients of x and of the probabilities."""
        x, *codes = ctx.saved_tensors
        (g,) = gradients
        gx = None
        of_probabilities = []
        flat_gradient = flat(g, x)
        for (bits, step), code, probability in zip(ACTIVATION_STEPS.items(), codes, ctx.probabilities):
            inside = torch.ops.aten.hardtanh_backward(g, x, 0.0, (2**bits - 1) * step)
            gx = inside.mul_(probability) if gx is None else gx.add_(inside, alpha=probability)
            of_probabilities.append(torch.dot(flat_gradient, flat(code, x)) * step)
        return gx, torch.stack(of_probabilities)


def composed_activation_mixture(x: Any, probabilities: Any) -> Any:
    """Mix by differentiable operations: for the compiler, and what the function is tested against."""
    y = torch.zeros_like(x)
    for index, (bits, step) in enumerate(ACTIVATION_STEPS.items()):
        scaled = torch.clamp(x, 0.0, (2**bits - 1) * step) / step
        y = y + (scaled + (scaled.round() - scaled).detach()) * (step * probabilities[index])
    return y


class MixedActivation(nn.Module):
    """The rectifier of a mixture: its candidates clip at zero, so no ReLU is needed before it."""

    def __init__(self) -> None:
        super().__init__()
        self.strengths = nn.Parameter(torch.full((len(ACTIVATION_STEPS),), FIRST_STRENGTH))

    def forward(self, x: Any) -> Any:
        """Rectify and mix a tensor of any shape."""
        probabilities = torch.softmax(self.strengths, 0)
        mix = composed_activation_mixture if torch.compiler.is_compiling() else FusedActivationMixture.apply
        return mix(x, probabilities)


def weight_candidates(weight: Any) -> Any:
    """Return the weight at each bit-width, shape (candidates, elements), in the weight's order in memory.

    b bits: 2^b levels at odd multiples of half a step, none at zero; 1 bit is +-0.798 standard deviations.
    """
    deviation = weight.detach().std()
    rows = []
    for bits, step in WEIGHT_STEPS.items():
        half = 2 ** (bits - 1)
        scaled = flat(weight.detach(), weight) / (deviation * step)
        rows.append((torch.clamp((scaled + 0.5).round(), 1 - half, half) - 0.5) * (deviation * step))
    return torch.stack(rows)


class MixedConvolution(nn.Conv2d):
    """A convolution whose weight is a mixture; the gradient passes to the weight as if nothing were rounded."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.strengths = nn.Parameter(torch.full((len(WEIGHT_STEPS),), FIRST_STRENGTH))

    def mixed_weight(self) -> Any:
        """Return the sum of the candidates, in the weight's shape and memory order."""
        order = self.weight.dim_order()
        mixed = torch.softmax(self.strengths, 0) @ weight_candidates(self.weight)
        mixed = mixed.reshape([self.weight.shape[axis] for axis in order])
        mixed = mixed.permute([order.index(axis) for axis in range(len(order))])
        # The probabilities sum to one, so the identity of every candidate is the identity of the sum.
        return mixed + (self.weight - self.weight.detach())

    def forward(self, x: Any) -> Any:
        """Convolve."""
        return self._conv_forward(x, self.mixed_weight(), self.bias)


def mixed_activation(limit: float | None) -> nn.Module:
    """Return a mixture in the rectifier's place; its candidates have their own limits."""
    return MixedActivation()


MIXTURE = Layers(convolution=MixedConvolution, activation=mixed_activation)


def architecture_parameters(network: nn.Module) -> list[Any]:
    """Return what chooses between the candidates, weights' and activations'."""
    mixed = [module for module in network.modules() if isinstance(module, (MixedActivation, MixedConvolution))]
    return [module.strengths for module in mixed]
