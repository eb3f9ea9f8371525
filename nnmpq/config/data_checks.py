"""Rules between the keys of an experiment that concern its data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnmpq.config.choices import BOX_DATASETS, FILE_DATASETS
from nnmpq.config.errors import InvalidValue

if TYPE_CHECKING:
    from nnmpq.config.experiment import Experiment


def check_data(experiment: Experiment) -> None:
    """Check that the data set can do what is asked of it.

    Args:
        experiment: its keys dataset, augmentation, image_size, resize and crop_to_box.

    Raises:
        InvalidValue: naming the key to change.
    """
    name = experiment.dataset
    if name not in FILE_DATASETS:
        _in_memory(experiment)
    if experiment.crop_to_box and name not in BOX_DATASETS:
        reason = f"dataset = {name} has no boxes; {' and '.join(BOX_DATASETS)} have; nearest valid: false"
        raise InvalidValue("crop_to_box", "true", reason)
    size, resize = experiment.image_size, experiment.resize
    if size is not None and resize is not None and resize < size:
        raise InvalidValue("resize", resize, f"less than image_size = {size}; nearest valid: {size}")


def _in_memory(experiment: Experiment) -> None:
    name = experiment.dataset
    if experiment.augmentation == "random_resized_crop":
        reason = f"is for images in files, which dataset = {name} has not; nearest valid: crop_flip"
        raise InvalidValue("augmentation", experiment.augmentation, reason)
    for key in ("image_size", "resize"):
        if getattr(experiment, key) is not None:
            reason = f"dataset = {name} has images of one size; nearest valid: none"
            raise InvalidValue(key, getattr(experiment, key), reason)
