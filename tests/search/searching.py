"""A search that takes a second or two: the digits network on a few digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnmpq.config.experiment import Experiment
from nnmpq.search.run import search_experiment
from nnmpq.search.trail import TRAIL
from nnmpq.training.machine import Machine

KEYS: dict[str, Any] = {
    "arch": "resnet_digits",
    "dataset": "digits",
    "augmentation": "none",
    "train_images": 160,
    "validation_images": 40,
    "test_images": 40,
    "epochs": 2,
    "milestones": (1,),
    "batch_size": 32,
    "initial_learning_rate": 0.05,
    "quantizer_learning_rate": 0.01,
    "activation_sites": ("input", "relu", "pool"),
    "weight_widths": (2, 3, 4, 8),
    "activation_widths": (2, 3, 4, 8),
    "score": "snr",
    "score_images": 64,
    "seed": 7,
}


def experiment(method: str, **changes: Any) -> Experiment:
    """Two epochs of five updates."""
    return Experiment("TINY", **{**KEYS, "method": method, **changes})


def run(method: str, folder: Path, *, resume: bool = False, accelerate: bool = True, **changes: Any):
    """Search; the run's folder is folder/TINY."""
    machine = Machine(accelerate=accelerate)
    return search_experiment(experiment(method, **changes), folder, resume=resume, quiet=True, machine=machine)


def trail(folder: Path) -> list[list[str]]:
    """The rows of the trail without their seconds, which stand last."""
    return [line.split(",")[:-1] for line in (folder / "TINY" / TRAIL).read_text().splitlines()]
