"""Independent pieces of a computation: spread over processes, and kept as they come."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, TypeVar

import attrs
import numpy as np

from nnmpq.files import atomic_write
from nnmpq.parallel import ALONE, Communicator
from nnmpq.search.table import TableError

T = TypeVar("T")


def spread(
    pieces: Sequence[T], compute: Callable[[T], Sequence[float]], length: int, communicator: Communicator = ALONE
) -> Iterator[list[float]]:
    """Yield the numbers of each piece, in order; processes take turns at them.

    Every process gets all numbers, the same ones, within a relative 2^-47. What fails in one process, or is not finite,
    is computed in each of them again: all raise the same error, or have the same numbers.

    Args:
        pieces: what is computed.
        compute: numbers of a piece; depends on nothing but the piece.
        length: most numbers of a piece.
        communicator: of the processes that stand at the same place.

    Example:
        >>> list(spread([1, 2, 3], lambda piece: [piece, piece**2], 2))
        [[1.0, 1.0], [2.0, 4.0], [3.0, 9.0]]
    """
    size, rank = communicator.size, communicator.rank
    if size == 1:
        for piece in pieces:
            yield [float(number) for number in compute(piece)]
        return
    for first in range(0, len(pieces), size):
        turn = pieces[first : first + size]
        # Whether there are numbers, and how many.
        sent = np.zeros((size, 2 + length))
        if rank < len(turn):
            own = _tried(compute, turn[rank])
            if own is not None and np.all(np.isfinite(own)):
                sent[rank, : 2 + len(own)] = [1.0, len(own), *own]
        found = communicator.mean_numbers(sent) * size
        for piece, (there, count, *numbers) in zip(turn, found.tolist()):
            yield numbers[: round(count)] if there else [float(number) for number in compute(piece)]


def _tried(compute: Callable[[T], Sequence[float]], piece: T) -> list[float] | None:
    try:
        return [float(number) for number in compute(piece)]
    except TableError:
        return None


@attrs.define(eq=False)
class Pieces:
    """Numbers by the name of their piece, in a file that a killed run leaves and a resumed one goes on from.

    Args:
        path: the file; None keeps nothing.
        known: what the numbers depend on, as JSON would give it back.
        communicator: of the processes that share the work; the first one writes.
        done: what is there already.

    Example:
        >>> pieces = Pieces()
        >>> dict(pieces.each(["a", "bb"], lambda name: [len(name)], 1))
        {'a': [1.0], 'bb': [2.0]}
    """

    path: Path | None = None
    known: Mapping[str, Any] = attrs.field(factory=dict)
    communicator: Communicator = ALONE
    done: dict[str, list[float]] = attrs.field(factory=dict)

    @classmethod
    def open(cls, path: Path, known: Mapping[str, Any], *, resume: bool, communicator: Communicator = ALONE) -> Pieces:
        """Take up what a killed run left.

        Args:
            path: the file; there may be none.
            known: what the numbers depend on.
            resume: False begins anew.
            communicator: of the processes that share the work.

        Raises:
            TableError: the file is damaged, or another run's; what differs is named.
        """
        known = json.loads(json.dumps(known))
        done: dict[str, list[float]] = {}
        if resume and path.exists():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
                before, done = found["known"], {name: list(map(float, own)) for name, own in found["done"].items()}
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise TableError(f"{path}: it cannot be read: {error!r}; remove it") from error
            for key in sorted(before.keys() | known.keys()):
                if before.get(key) != known.get(key):
                    said = f"{key} was {before.get(key)}, is {known.get(key)}"
                    raise TableError(f"{path}: the run has changed: {said}; change it back, or start anew")
        # Nobody writes before everybody has read.
        communicator.barrier()
        return cls(path, known, communicator, done)

    def each(
        self, names: Sequence[str], compute: Callable[[str], Sequence[float]], length: int
    ) -> Iterator[tuple[str, list[float]]]:
        """Yield names and numbers in order, those that are there already and then the others, as they come.

        Args:
            names: of the pieces, different ones.
            compute: numbers of a piece.
            length: most numbers of a piece.
        """
        there = [name for name in names if name in self.done]
        for name in there:
            yield name, self.done[name]
        missing = [name for name in names if name not in self.done]
        for name, numbers in zip(missing, spread(missing, compute, length, self.communicator)):
            self._keep(name, numbers)
            yield name, numbers

    def _keep(self, name: str, numbers: list[float]) -> None:
        if self.path is None:
            return
        self.done[name] = numbers
        if self.communicator.rank == 0:
            atomic_write(self.path, json.dumps({"known": self.known, "done": self.done}))
