"""Who takes part in the step-time benchmark, and what each is started with."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import attrs

ACCELERATED, PLAIN, TORCH = "nnmpq accelerated", "plain nnabla", "PyTorch"
TORCH_LAYOUTS = ("nchw", "channels_last", "compiled")
KINDS = ("float", "quantized", "mixture")
# Images a step, height and width.
NETWORKS = {"resnet20": (128, 32), "mobilenet_v2": (32, 96)}


@attrs.frozen
class Race:
    """One network with one kind of quantization.

    Args:
        network: a key of `NETWORKS`.
        kind: one of `KINDS`.
        batch: images a step.
        size: height and width of the images.
    """

    network: str
    kind: str
    batch: int
    size: int


@attrs.frozen
class Contender:
    """One process of a race.

    Args:
        library: ACCELERATED, PLAIN or TORCH.
        layout: what the worker calls it.
        threads: of its pools.
    """

    library: str
    layout: str
    threads: int

    @property
    def name(self) -> str:
        """What tables and charts call it.

        Example:
            >>> Contender(TORCH, "nchw", 4).name, Contender(PLAIN, "plain", 1).name
            ('PyTorch nchw, 4 threads', 'plain nnabla, 1 thread')
        """
        layout = f" {self.layout}" if self.library == TORCH else ""
        return f"{self.library}{layout}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    def command(self, race: Race, torch_python: str) -> list[str]:
        """Return program and arguments of its process.

        Args:
            race: what it trains.
            torch_python: interpreter that has PyTorch.
        """
        worker = ("benchmarks.torch_peer.worker", "benchmarks.nnabla_worker")[self.library != TORCH]
        options = {"network": race.network, "kind": race.kind, "layout": self.layout}
        numbers = {"batch": race.batch, "size": race.size, "threads": self.threads}
        words = [word for key, value in {**options, **numbers}.items() for word in (f"--{key}", str(value))]
        return [torch_python if self.library == TORCH else sys.executable, "-m", worker, *words]


def contenders(threads: Sequence[int], layouts: Sequence[str] = TORCH_LAYOUTS) -> list[Contender]:
    """Return all that race: plain nnabla once, as it never uses more than one thread, the others for each number.

    Args:
        threads: numbers of threads.
        layouts: of PyTorch.

    Example:
        >>> [contender.name for contender in contenders([1, 4], ["nchw"])][:3]
        ['plain nnabla, 1 thread', 'nnmpq accelerated, 1 thread', 'PyTorch nchw, 1 thread']
    """
    found = [Contender(PLAIN, "plain", 1)]
    for count in threads:
        found.append(Contender(ACCELERATED, "accelerated", count))
        found += [Contender(TORCH, layout, count) for layout in layouts]
    return found
