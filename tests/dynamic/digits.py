"""Experiments of cfgs/camp_digits.cfg, cut down to three blocks and a few images."""

from __future__ import annotations

from pathlib import Path

import attrs

from nnmpq.config.experiment import Experiment
from nnmpq.config.reader import read_experiment

CFG = Path(__file__).parents[2] / "cfgs" / "camp_digits.cfg"
# Three blocks instead of nine; the sections' patterns are those of the larger network.
SMALL = {
    "arch": "resnet_digits",
    "width_multiplier": 1.0,
    "keep": ("conv1/conv/W", "fc/*"),
    "train_images": 200,
    "test_images": 60,
    "validation_images": 100,
    "epochs": 2,
    "milestones": (),
}


def experiment(stage: str, **changes: object) -> Experiment:
    """A section, cut down, without weights to start from and without a warm-up."""
    found = read_experiment(CFG, stage)
    return attrs.evolve(found, **{**SMALL, "weightfile": None, "gate_warmup_epochs": 0, **changes})
