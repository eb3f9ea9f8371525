"""How far a progressive search has come, and its checkpoint: after each choice and each epoch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import numpy as np

from nnmpq.search.task import SearchTask
from nnmpq.training import checkpoint as checkpoints
from nnmpq.training.errors import CheckpointError
from nnmpq.training.identity import check_same, identity
from nnmpq.training.parameters import current

FOLDER = "progressive"
CHOOSE, TUNE, DONE = "choose", "tune", "done"


def _rows(rows: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    # JSON knows lists alone.
    return tuple(rows)


@attrs.frozen
class State:
    """How far a search has come.

    Args:
        phase: what comes next: "choose" the bits of a step, "tune" to them, or nothing, "done".
        step: number of the step, 0 before the first choice.
        epoch: epochs of training done in this step.
        bits: of every site that is searched.
        choice: what the step's choice told the trail.
        rows: of the trail so far.
        saves: checkpoints written.
        updates: of the training between the steps.
        images: training images seen, for scores and in training.
        seconds: of searching before this process.
        since: updates before this step.
        rival: the widest uniform bits, while they wait for their turn after the last step.
        own: what the last step came to, while the rival has its turn: bits, cross entropy, updates.
    """

    phase: str
    step: int
    epoch: int
    bits: dict[str, int]
    choice: dict[str, Any] = attrs.field(factory=dict)
    rows: tuple[dict[str, Any], ...] = attrs.field(default=(), converter=_rows)
    saves: int = 0
    updates: int = 0
    images: int = 0
    seconds: float = 0.0
    since: int = 0
    rival: dict[str, int] = attrs.field(factory=dict)
    own: dict[str, Any] = attrs.field(factory=dict)


def identity_of(task: SearchTask) -> dict[str, Any]:
    """Return what decides a search, as JSON would give it back: experiment, data, seed, budget and widths."""
    own = {
        "seed": task.seed,
        "budget": task.budget.limits(),
        "weight_widths": task.weight_widths,
        "activation_widths": task.activation_widths,
        "steps": task.steps,
    }
    return {**identity(task.experiment, task.data), "task": json.loads(json.dumps(own))}


def save(task: SearchTask, known: Mapping[str, Any], state: State, solvers: Mapping[str, np.ndarray]) -> State:
    """Write a checkpoint of the current scope's parameters, in the first process; return the state that it holds."""
    state = attrs.evolve(state, saves=state.saves + 1)
    if task.machine.communicator.rank > 0:
        return state
    kept = checkpoints.Checkpoint(current(), solvers, {"identity": dict(known), "search": attrs.asdict(state)})
    checkpoints.save(task.folder / FOLDER, state.saves, kept)
    return state


def load(task: SearchTask, known: Mapping[str, Any]) -> tuple[State, checkpoints.Checkpoint] | None:
    """Return what a killed search left; None to begin anew, what was left is removed then.

    Raises:
        CheckpointError: it is damaged, or of another search.
    """
    folder = task.folder / FOLDER
    path = checkpoints.latest(folder) if task.resume else None
    found = None if path is None else checkpoints.read(path)
    # Everybody has looked before the first one removes or writes anything.
    task.machine.communicator.barrier()
    if path is None or found is None:
        if task.machine.communicator.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
        return None
    saved = found.state["identity"]
    check_same(path, saved, known)
    for key, value in known["task"].items():
        if saved["task"].get(key) != value:
            said = f"{key} was {saved['task'].get(key)}, is {value}"
            raise CheckpointError(f"{path}: the search has changed: {said}; change it back, or start anew")
    return State(**found.state["search"]), found
