"""One training step in PyTorch: forward, cross entropy, backward and stochastic gradient descent on fixed data."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.torch_peer.mixture import MIXTURE, architecture_parameters
from benchmarks.torch_peer.networks import FLOAT, NETWORKS
from benchmarks.torch_peer.quantizers import LEAST, QUANTIZED, quantizer_parameters

KINDS = {"float": FLOAT, "quantized": QUANTIZED, "mixture": MIXTURE}
LEARNING_RATE = 0.01
DECAY = 1e-4


class Trainer:
    """A network, its solver and one batch of random images and labels.

    Args:
        network: a key of `NETWORKS`.
        kind: a key of `KINDS`.
        layout: "nchw", "channels_last", or "compiled" (channels-last through `torch.compile`).
        batch: images a step.
        size: height and width of the images.
        classes: number of classes; the network's own if None.
    """

    def __init__(self, network: str, kind: str, layout: str, batch: int, size: int, classes: int | None = None) -> None:
        torch.manual_seed(313)
        options = {} if classes is None else {"classes": classes}
        memory = torch.contiguous_format if layout == "nchw" else torch.channels_last
        self.network = NETWORKS[network](KINDS[kind], **options).to(memory_format=memory)
        self.images = torch.randn(batch, 3, size, size).to(memory_format=memory)
        outputs = [module for module in self.network.modules() if isinstance(module, nn.Linear)][-1].out_features
        self.labels = torch.randint(0, outputs, (batch,))
        self.positive = quantizer_parameters(self.network)
        self.solver = torch.optim.SGD(self.groups(), lr=LEARNING_RATE, momentum=0.9, foreach=True)
        self.loss = torch.compile(self.loss_of_batch) if layout == "compiled" else self.loss_of_batch

    def groups(self) -> list[dict[str, Any]]:
        """Return the solver's groups: quantizer parameters do not decay, architecture parameters do."""
        own = {id(parameter) for parameter in self.positive}
        chosen = architecture_parameters(self.network)
        own |= {id(parameter) for parameter in chosen}
        weights = [parameter for parameter in self.network.parameters() if id(parameter) not in own]
        groups = [(weights, DECAY), (self.positive, 0.0), (chosen, DECAY)]
        return [{"params": parameters, "weight_decay": decay} for parameters, decay in groups if parameters]

    def loss_of_batch(self) -> Any:
        """Return the mean cross entropy of the batch."""
        return nn.functional.cross_entropy(self.network(self.images), self.labels)

    def step(self) -> Any:
        """Train by one step; return the loss before it."""
        self.solver.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()
        self.solver.step()
        if self.positive:
            with torch.no_grad():
                torch._foreach_clamp_min_(self.positive, LEAST)
        return loss
