"""How far a run has come: everything about it that is no array."""

from __future__ import annotations

from typing import Any

import attrs

LEARN, PROJECT, FINETUNE, DONE = "learn", "project", "finetune", "done"


@attrs.frozen
class Row:
    """One epoch; the training columns are None for the projection, which trains nothing.

    Args:
        epoch: number of epochs done, 1 for the first.
        phase: "learn", "project" or "finetune".
        loss: mean over the epoch's updates.
        cross_entropy: mean over the epoch's updates.
        training_error: mean over the epoch's updates, 0 to 1.
        validation_error: at the end of the epoch, 0 to 1.
        validation_cross_entropy: at the end of the epoch.
        weights_kib: at the end of the epoch.
        activations_sum_kib: at the end of the epoch, for one image.
        activations_max_kib: at the end of the epoch, for one image.
        learning_rate: of the weights.
        quantizer_learning_rate: of the quantizer parameters, None where nothing of them is learned.
    """

    epoch: int
    phase: str
    loss: float | None
    cross_entropy: float | None
    training_error: float | None
    validation_error: float
    validation_cross_entropy: float
    weights_kib: float
    activations_sum_kib: float
    activations_max_kib: float
    learning_rate: float | None
    quantizer_learning_rate: float | None


@attrs.frozen
class Best:
    """The best model so far, of those that meet the budget.

    Args:
        epoch: number of epochs done.
        phase: phase that it came from.
        error: on the validation images, 0 to 1.
        cross_entropy: on the validation images; decides between equal errors.
        bits: of every site.
    """

    epoch: int
    phase: str
    error: float
    cross_entropy: float
    bits: dict[str, int]


@attrs.frozen
class Progress:
    """How far a run has come.

    Args:
        phase: what comes next: "learn", "project", "finetune" or "done".
        epoch: epochs done, both phases together.
        history: a row an epoch.
        best: the best model so far.
        test_error: read once, at the end.
        test_cross_entropy: read once, at the end.
    """

    phase: str = LEARN
    epoch: int = 0
    history: tuple[Row, ...] = ()
    best: Best | None = None
    test_error: float | None = None
    test_cross_entropy: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts and lists; every float comes back from JSON as it was."""
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Progress:
        """Return what `to_json` was made from.

        Example:
            >>> Progress.from_json(Progress(epoch=3).to_json()) == Progress(epoch=3)
            True
        """
        best = None if found["best"] is None else Best(**found["best"])
        return cls(**{**found, "history": tuple(Row(**row) for row in found["history"]), "best": best})

    def offer(self, row: Row, bits: dict[str, int], meets_budget: bool) -> tuple[Progress, bool]:
        """Return the progress with an epoch added, and whether that epoch's model is the best so far.

        Args:
            row: the epoch.
            bits: of every site, after it.
            meets_budget: models that do not are never the best.
        """
        candidate = Best(row.epoch, row.phase, row.validation_error, row.validation_cross_entropy, bits)
        better = meets_budget and (
            self.best is None or (candidate.error, candidate.cross_entropy) < (self.best.error, self.best.cross_entropy)
        )
        history = (*self.history, row)
        return attrs.evolve(self, history=history, best=candidate if better else self.best), better
