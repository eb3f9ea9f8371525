"""A run that takes a second: the digits network on a few digits."""

from __future__ import annotations

from typing import Any

from nnmpq.config.experiment import Experiment
from nnmpq.data import DataSet, load

MIXED = {
    "w_quantize": "parametric_fp_d_xmax",
    "a_quantize": "parametric_fp_d_xmax_relu",
    "target_weight_kbytes": 20.0,
    "target_activation_kbytes": 0.4,
}


def experiment(**changes: Any) -> Experiment:
    """Two epochs of five updates, then one of fine-tuning."""
    keys: dict[str, Any] = {
        "arch": "resnet_digits",
        "dataset": "digits",
        "augmentation": "crop_flip",
        "epochs": 2,
        "milestones": (1,),
        "finetune_epochs": 1 if "target_weight_kbytes" in changes else None,
        "batch_size": 32,
        "initial_learning_rate": 0.05,
        "validation_images": 40,
    }
    return Experiment("TINY", **{**keys, **changes})


def data(train: int = 160) -> DataSet:
    """A few digits."""
    return load("digits", validation_images=40, train_images=train, test_images=40)
