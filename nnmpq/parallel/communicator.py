"""What processes that train one model say to each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import attrs
import numpy as np


class Communicator(Protocol):
    """One of several processes that hold the same parameters and see different images.

    Every process calls the same methods in the same order.
    """

    @property
    def rank(self) -> int:
        """Number of this process; 0 writes the files."""

    @property
    def size(self) -> int:
        """How many there are."""

    def mean(self, arrays: Sequence[Any]) -> None:
        """Replace each `NdArray` by its mean over the processes, the same numbers in each."""

    def mean_numbers(self, numbers: np.ndarray) -> np.ndarray:
        """Return the mean of a few numbers over the processes, float64."""

    def barrier(self) -> None:
        """Wait until every process is here."""


@attrs.frozen
class Alone:
    """The one process of an ordinary run."""

    rank: int = 0
    size: int = 1

    def mean(self, arrays: Sequence[Any]) -> None:
        """Leave everything as it is."""

    def mean_numbers(self, numbers: np.ndarray) -> np.ndarray:
        """Return the numbers."""
        return np.asarray(numbers, np.float64)

    def barrier(self) -> None:
        """Go on."""


ALONE = Alone()


def shard(images: np.ndarray, communicator: Communicator) -> np.ndarray:
    """Return a process' share of a batch: as many neighbouring images as each other's.

    Args:
        images: a batch, or its labels; the length is a multiple of the number of processes.
        communicator: of this process.

    Example:
        >>> shard(np.arange(6), Alone(rank=1, size=3)).tolist()
        [2, 3]
    """
    share = len(images) // communicator.size
    return images[communicator.rank * share : (communicator.rank + 1) * share]
