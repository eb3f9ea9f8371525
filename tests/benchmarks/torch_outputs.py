"""What the PyTorch peer computes, for tests: ``python -m tests.benchmarks.torch_outputs IN.npz OUT.npz``."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.torch_peer import mixture, networks, quantizers
from benchmarks.torch_peer.training import Trainer

LAST = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


def learned_step(given: Any, found: dict[str, Any]) -> None:
    """Both forms of the quantizer, in both layouts, signed and not."""
    forms = {"fused": quantizers.FusedLearnedStep.apply, "composed": quantizers.composed_learned_step}
    for form, quantize in forms.items():
        for layout, memory in LAST.items():
            for signed in (False, True):
                x = torch.tensor(given["x"]).to(memory_format=memory).requires_grad_()
                step, xmax = (torch.tensor(given[name]).requires_grad_() for name in ("step", "xmax"))
                y = quantize(x, step, xmax, signed, float(given["scale"]))
                y.backward(torch.tensor(given["g"]))
                for name, tensor in {"y": y, "x": x.grad, "step": step.grad, "xmax": xmax.grad}.items():
                    found[f"{form} {layout} {signed} {name}"] = tensor.detach().numpy()


def mixtures(given: Any, found: dict[str, Any]) -> None:
    """Both forms of the activation's mixture, and the weight's."""
    forms = {"fused": mixture.FusedActivationMixture.apply, "composed": mixture.composed_activation_mixture}
    for form, mix in forms.items():
        x, strengths = torch.tensor(given["x"]).requires_grad_(), torch.tensor(given["strengths"]).requires_grad_()
        y = mix(x, torch.softmax(strengths, 0))
        y.backward(torch.tensor(given["g"]))
        for name, tensor in {"y": y, "x": x.grad, "strengths": strengths.grad}.items():
            found[f"{form} {name}"] = tensor.detach().numpy()
    layer = mixture.MixedConvolution(3, 5, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(given["weight"]))
        layer.strengths.copy_(torch.tensor(given["weight_strengths"]))
    mixed = layer.to(memory_format=torch.channels_last).mixed_weight()
    mixed.backward(torch.tensor(given["weight_g"]))
    for name, tensor in {"y": mixed, "x": layer.weight.grad, "strengths": layer.strengths.grad}.items():
        found[f"weight {name}"] = tensor.detach().numpy()


def losses(given: Any, found: dict[str, Any]) -> None:
    """A network's loss in training mode with given weights, and the gradient of its first weight."""
    for name, layout in (("resnet20", "channels_last"), ("mobilenet_v2", "nchw")):
        network = networks.NETWORKS[name]().to(memory_format=LAST[layout])
        for index, layer in enumerate(m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))):
            numbers = torch.tensor(given[f"{name} {index}"])
            numbers = numbers.T if isinstance(layer, nn.Linear) else numbers.reshape(layer.weight.shape)
            with torch.no_grad():
                layer.weight.copy_(numbers)
                if layer.bias is not None:
                    layer.bias.copy_(torch.tensor(given[f"{name} bias"]))
        logits = network(torch.tensor(given[f"{name} images"]))
        loss = nn.functional.cross_entropy(logits, torch.tensor(given[f"{name} labels"]))
        loss.backward()
        found[f"{name} loss"] = loss.detach().numpy()
        found[f"{name} gradient"] = next(network.parameters()).grad.numpy()
        found[f"{name} parameters"] = sum(parameter.numel() for parameter in network.parameters())


def training(found: dict[str, Any]) -> None:
    """Thirty steps of each kind, and whether every parameter moved."""
    for kind in ("float", "quantized", "mixture"):
        trainer = Trainer("resnet20", kind, "channels_last", 4, 8)
        before = [parameter.detach().clone() for parameter in trainer.network.parameters()]
        found[f"{kind} losses"] = [trainer.step().item() for _ in range(30)]
        after = list(trainer.network.parameters())
        found[f"{kind} still"] = sum(torch.equal(old, new) for old, new in zip(before, after))
        found[f"{kind} smallest"] = min([parameter.item() for parameter in trainer.positive], default=1.0)
        found[f"{kind} own"] = len(trainer.positive) + len(mixture.architecture_parameters(trainer.network))


def counts(found: dict[str, Any]) -> None:
    """How many weights and activations of each network have quantizers or mixtures, and what a layout changes."""
    for name, network in networks.NETWORKS.items():
        quantized, mixed = network(quantizers.QUANTIZED), network(mixture.MIXTURE)
        found[f"{name} quantized weights"] = sum(
            isinstance(m, (quantizers.QuantizedConvolution, quantizers.QuantizedAffine)) for m in quantized.modules()
        )
        found[f"{name} quantizers"] = sum(isinstance(m, quantizers.LearnedStep) for m in quantized.modules())
        found[f"{name} mixed weights"] = sum(isinstance(m, mixture.MixedConvolution) for m in mixed.modules())
        found[f"{name} mixed activations"] = sum(isinstance(m, mixture.MixedActivation) for m in mixed.modules())
    for kind in ("float", "quantized", "mixture"):
        found[f"{kind} by layout"] = [Trainer("resnet20", kind, layout, 8, 16).step().item() for layout in LAST]


def main() -> None:
    """Read, compute, write."""
    torch.set_num_threads(1)
    torch.manual_seed(313)
    given, found = np.load(sys.argv[1]), {}  # type: ignore[var-annotated]
    learned_step(given, found)
    mixtures(given, found)
    losses(given, found)
    training(found)
    counts(found)
    np.savez(sys.argv[2], **found)


if __name__ == "__main__":
    main()
