"""Whether a checkpoint is of the very run that wants to go on from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from nnmpq.config.experiment import Experiment
from nnmpq.data import DataSet, Split
from nnmpq.training.errors import CheckpointError

# Where the data lie decides nothing: what they are is compared.
FREE = ("data_dir",)


def identity(experiment: Experiment, data: DataSet) -> dict[str, Any]:
    """Return what decides a run, as JSON would give it back.

    Args:
        experiment: its keys.
        data: of its images and labels, the SHA-256.
    """
    keys = {name: value for name, value in attrs.asdict(experiment).items() if name not in FREE}
    return {"experiment": json.loads(json.dumps(keys)), "data": _fingerprint(data)}


def check_same(path: Path, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse to go on from another run's checkpoint.

    Args:
        path: the checkpoint.
        saved: the identity that it was written with.
        own: this run's.

    Raises:
        CheckpointError: names the keys that changed, with both values.
    """
    # A key that is younger than the checkpoint had its default: so the run then was.
    before, now = {**_defaults(), **saved["experiment"]}, own["experiment"]
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    if changed:
        said = "; ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in changed)
        raise CheckpointError(
            f"{path}: the experiment has changed: {said}; change it back, or start anew without --resume"
        )
    if saved["data"] != own["data"]:
        raise CheckpointError(f"{path}: the data are not those that the run began with")


def _defaults() -> dict[str, Any]:
    """Defaults of all keys that have one of their own, as JSON would give them back."""
    own = {f.name: f.default for f in attrs.fields(Experiment) if f.metadata and not hasattr(f.default, "takes_self")}
    return dict(json.loads(json.dumps(own)))


def _fingerprint(data: DataSet) -> str:
    """Of images in memory every pixel; of those in files which they are, as reading them all takes as long as an epoch.

    What is done to them, the colour statistics too, the experiment's keys say.
    """
    total = hashlib.sha256(repr((data.name, data.classes, data.offset, data.scale)).encode())
    for split in (data.train, data.validation, data.test):
        if isinstance(split, Split):
            arrays = [split.images, split.labels]
        else:
            arrays = [split.labels, split.names_digest()]
            arrays += [] if split.boxes is None else [split.boxes]
        for array in arrays:
            total.update(repr((array.shape, str(array.dtype))).encode())
            total.update(array.tobytes())
    return total.hexdigest()
