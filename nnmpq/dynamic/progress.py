"""How far the training of gates has come, and metrics.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from nnmpq.files import atomic_write

# A model whose energy on the validation images is beyond the target by more than this is never the best.
TOLERANCE = 0.01


@attrs.frozen
class Row:
    """One epoch.

    Args:
        epoch: number of epochs done, 1 for the first.
        loss: mean over the epoch's updates.
        cross_entropy: mean over the epoch's updates.
        training_error: mean over the epoch's updates, 0 to 1.
        training_energy: share of the widest uniform network's energy, mean over the updates.
        alpha: worth of a saving, at the end of the epoch.
        price: what wide paths must be worth to be taken in evaluation.
        validation_error: at the end of the epoch, 0 to 1.
        validation_cross_entropy: at the end of the epoch.
        validation_energy: share of the widest uniform network's energy.
        widest_share: share of blocks and validation images on the widest path.
        spread_within: deviation of P(widest) between images, mean over blocks.
        spread_between: deviation of P(widest) between blocks.
        learning_rate: of the weights.
    """

    epoch: int
    loss: float
    cross_entropy: float
    training_error: float
    training_energy: float
    alpha: float
    price: float
    validation_error: float
    validation_cross_entropy: float
    validation_energy: float
    widest_share: float
    spread_within: float
    spread_between: float
    learning_rate: float


@attrs.frozen
class Progress:
    """How far a run has come.

    Args:
        alpha: worth of a saving.
        history: a row an epoch.
        best: number of the best model's epoch, of those that meet the target; 0 before there is one.
        test: what the test images said, read once, at the end.
    """

    alpha: float
    history: tuple[Row, ...] = ()
    best: int = 0
    test: dict[str, float] | None = None

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts and lists; every float comes back from JSON as it was."""
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Progress:
        """Return what `to_json` was made from.

        Example:
            >>> Progress.from_json(Progress(0.1).to_json()) == Progress(0.1)
            True
        """
        return cls(**{**found, "history": tuple(Row(**row) for row in found["history"])})

    def offer(self, row: Row, target: float | None, first: int = 0) -> tuple[Progress, bool]:
        """Return the progress with an epoch added, and whether its model is the best so far.

        Args:
            row: the epoch.
            target: of the energy; models beyond it are never the best.
            first: models of the epochs up to this one are never the best: their paths were drawn by lot.
        """
        meets = target is None or row.validation_energy <= target + TOLERANCE
        better = meets and row.epoch > first
        if better and self.best:
            best = self.history[self.best - 1]
            key = (row.validation_error, row.validation_cross_entropy)
            better = key < (best.validation_error, best.validation_cross_entropy)
        return attrs.evolve(self, history=(*self.history, row), best=row.epoch if better else self.best), better


def write_metrics(path: Path, history: Sequence[Row]) -> None:
    """Write every epoch so far, whole: a resumed run has no row twice."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([field.name for field in attrs.fields(Row)])
    writer.writerows([[repr(value) for value in attrs.astuple(row)] for row in history])
    atomic_write(path, stream.getvalue())
