"""Processes on one machine, one thread each, that average through shared memory.

Where cores are shared with other work this is several times faster than as many OpenMP threads, which wait for the
slowest of them after every function; here they wait once a step.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np

from nnmpq.quantizers.buffers import float_view

CHUNK = 1 << 20  # numbers that are averaged at once; larger models take several rounds
CHECK_SECONDS = 0.5


class PeerLost(RuntimeError):
    """Another process of the run has ended or failed."""


@attrs.frozen(eq=False)
class Board:
    """Memory that all processes of a run see.

    Args:
        counters: int64, how many barriers each process has reached; the last one is set where one has failed.
        slots: float32, a chunk a process, and one for the mean.
        size: processes.
        parent: process number of the one that started the others.
    """

    counters: Any
    slots: Any
    size: int
    parent: int


def make_board(size: int) -> Board:
    """Take shared memory for so many processes; it is given back when the last one ends."""
    context = multiprocessing.get_context("spawn")
    return Board(context.RawArray("q", size + 1), context.RawArray("f", (size + 1) * CHUNK), size, os.getpid())


class SharedMemoryCommunicator:
    """One process of a run on one machine.

    Args:
        board: of the run.
        rank: number of this process.
        alive: whether all processes that this one started still run.
    """

    def __init__(self, board: Board, rank: int, alive: Callable[[], bool] = lambda: True) -> None:
        self.rank, self.size, self.alive = rank, board.size, alive
        self.parent = board.parent
        self.counters = np.frombuffer(board.counters, np.int64)
        self.slots = np.frombuffer(board.slots, np.float32).reshape(board.size + 1, CHUNK)
        self.cpu: Any = None

    def fail(self) -> None:
        """Let the others know that this process gives up."""
        self.counters[-1] = 1

    def _check(self) -> None:
        orphan = self.rank > 0 and os.getppid() != self.parent
        if not self.counters[-1] and (orphan or not self.alive()):
            self.fail()
        if self.counters[-1]:
            raise PeerLost("another process of this run has ended; its message stands above")

    def barrier(self) -> None:
        """Wait until every process is here."""
        own = self.counters[self.rank] + 1
        self.counters[self.rank] = own
        peers = self.counters[: self.size]
        checked = time.monotonic()
        while peers.min() < own:
            # Give the core to whoever is late.
            os.sched_yield()
            if time.monotonic() - checked > CHECK_SECONDS:
                self._check()
                checked = time.monotonic()

    def _mean_chunk(self, count: int) -> np.ndarray:
        """Average the first numbers of all slots: each process does a part, in the order of ranks."""
        self.barrier()
        first, last = (count * (self.rank + i) // self.size for i in (0, 1))
        total = self.slots[0, first:last].copy()
        for peer in range(1, self.size):
            total += self.slots[peer, first:last]
        self.slots[self.size, first:last] = total / np.float32(self.size)
        self.barrier()
        return self.slots[self.size, :count]

    def mean(self, arrays: Sequence[Any]) -> None:
        """Replace each `NdArray` by its mean over the processes."""
        if self.cpu is None:
            import nnabla as nn

            self.cpu = nn.Context(["cpu:float"], "CpuCachedArray", "0")
        views = [float_view(array, self.cpu) for array in arrays]
        batch: list[np.ndarray] = []
        room = CHUNK
        for whole in views:
            rest = whole
            while rest.size:
                part, rest = rest[:room], rest[room:]
                batch.append(part)
                room -= part.size
                if not room:
                    self._exchange(batch)
                    batch, room = [], CHUNK
        if batch:
            self._exchange(batch)

    def _exchange(self, parts: Sequence[np.ndarray]) -> None:
        first = 0
        for part in parts:
            self.slots[self.rank, first : first + part.size] = part
            first += part.size
        mean = self._mean_chunk(first)
        first = 0
        for part in parts:
            part[:] = mean[first : first + part.size]
            first += part.size

    def mean_numbers(self, numbers: np.ndarray) -> np.ndarray:
        """Return the mean of a few numbers over the processes, float64, as two float32 each."""
        exact = np.asarray(numbers, np.float64)
        high = exact.astype(np.float32)
        both = np.concatenate([high.reshape(-1), (exact - high).astype(np.float32).reshape(-1)])
        self.slots[self.rank, : both.size] = both
        self.barrier()
        found = self.slots[: self.size, : both.size].astype(np.float64).mean(0)
        self.barrier()
        return np.asarray((found[: exact.size] + found[exact.size :]).reshape(exact.shape))
