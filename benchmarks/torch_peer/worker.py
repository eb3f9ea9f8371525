"""PyTorch's side of the benchmark: ``python -m benchmarks.torch_peer.worker --network resnet20 --kind float ...``."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.line_protocol import Unavailable, answers_only, serve

LAYOUTS = ("nchw", "channels_last", "compiled")


def prepared(options: argparse.Namespace) -> Callable[[], Any]:
    """Build the network; return its training step after the first, which compiles and allocates."""
    try:
        import torch
    except ImportError as error:
        raise Unavailable(f"{sys.executable} has no PyTorch: {error}") from error
    from benchmarks.torch_peer.training import Trainer

    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    trainer = Trainer(options.network, options.kind, options.layout, options.batch, options.size)
    trainer.step()

    def step() -> Any:
        return trainer.step().detach()

    return step


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to quit."""
    answers = answers_only()
    parser = argparse.ArgumentParser(description="Train a network in PyTorch, a step at a time, as told by lines.")
    parser.add_argument("--network", required=True)
    parser.add_argument("--kind", required=True, choices=("float", "quantized", "mixture"))
    parser.add_argument("--layout", required=True, choices=LAYOUTS)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args(arguments)
    with contextlib.suppress(ImportError):  # said later; what an import takes is not the network's memory
        importlib.import_module("benchmarks.torch_peer.training")
    return serve(lambda: prepared(options), sys.stdin, answers)


if __name__ == "__main__":
    sys.exit(main())
