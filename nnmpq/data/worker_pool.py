"""Worker processes that make batches of images ahead of their use, in memory that they share with this process."""

from __future__ import annotations

import logging
import mmap
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import weakref
from types import TracebackType
from typing import Any

import attrs
import numpy as np

from nnmpq.data.errors import DataError
from nnmpq.data.image_settings import ImageSettings
from nnmpq.data.slots import fill, slot_type
from nnmpq.data.worker import TASK, views

logger = logging.getLogger(__name__)
TASK_IMAGES = 4
# All tasks together stay well below what a pipe holds (64 KiB), so that no write to it waits.
MOST_TASKS = 2048
PATIENCE = 60.0  # seconds without any image until the log says so
FAREWELL = 5.0  # seconds that a worker has to finish its image before it is killed
PROGRAM = "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); from nnmpq.data.worker import main; main()"


def default_workers(processes: int = 1) -> int:
    """Return how many workers suit one of several training processes: half of its cores; 0 where there can be none.

    Args:
        processes: that share the machine.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // (2 * processes)) if os.name == "posix" else 0


class WorkerError(DataError):
    """A worker process ended or met an error that is no image's."""


class InProcess:
    """Makes batches in this process, when they are asked for; what 0 workers means.

    Args:
        settings: what is done to images.
        batch_size: images of a batch.
    """

    def __init__(self, settings: ImageSettings, batch_size: int) -> None:
        self.settings = settings
        self.batch_size = batch_size
        self.records = np.zeros(1, slot_type(batch_size, settings))
        self._count = 0

    def submit(self, slot: int, count: int) -> None:
        """Take the order to make the first `count` images of a slot."""
        del slot
        self._count = count

    def wait(self, slot: int) -> None:
        """Return when a slot is made."""
        for position in range(self._count):
            fill(self.records[slot], position, self.settings)

    def cancel(self) -> None:
        """Drop what was ordered."""

    def close(self) -> None:
        """Nothing to end."""


@attrs.define(eq=False)
class _Resources:
    """What must be given back, however the pool ends."""

    descriptors: list[int] = attrs.field(factory=list)
    processes: list[subprocess.Popen[bytes]] = attrs.field(factory=list)

    def release(self) -> None:
        for process in self.processes:
            if process.stdin is not None:
                try:
                    process.stdin.close()  # the sign to end
                except BrokenPipeError:
                    pass
        for process in self.processes:
            try:
                process.wait(FAREWELL)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.processes, self.descriptors = [], []


class WorkerPool:
    """Worker processes and the slots that they fill; may serve one epoch after another.

    The shared memory has no name: it is gone when the last process is, even one that was killed.

    Args:
        settings: what is done to images.
        batch_size: images of a batch.
        workers: processes, at least 1.

    Raises:
        DataError: this system has no POSIX pipes.

    Example:
        >>> with WorkerPool(ImageSettings(8, 8), 2, workers=1) as pool:
        ...     len(pool.records)
        5
    """

    def __init__(self, settings: ImageSettings, batch_size: int, workers: int) -> None:
        if workers < 1:
            raise DataError(f"{workers} workers: a pool needs at least 1")
        if os.name != "posix":
            raise DataError("worker processes need a POSIX system: use workers = 0")
        self.settings = settings
        self.batch_size = batch_size
        slots = settings.prefetch + 1
        self._pending = [0] * slots
        self._taken = False
        self._chunk = max(TASK_IMAGES, -(-batch_size * slots // MOST_TASKS))
        resources = _Resources()
        self._finalizer = weakref.finalize(self, resources.release)
        memory = _anonymous_memory(slots * slot_type(batch_size, settings).itemsize + 16 * workers)
        resources.descriptors.append(memory)
        self.records, self._places = views(mmap.mmap(memory, 0), batch_size, settings, slots, workers)
        self._places[:] = -1
        task_reader, self._tasks = os.pipe()
        self._results, result_writer = os.pipe()
        self._task_reader = task_reader
        resources.descriptors += [task_reader, self._tasks, self._results, result_writer]
        # Several read from this end: whoever comes late must not wait in the read, deaf to all else.
        os.set_blocking(task_reader, False)
        task = {"memory": memory, "tasks": task_reader, "results": result_writer, "batch_size": batch_size}
        task.update(slots=slots, workers=workers)
        try:
            for number in range(workers):
                resources.processes.append(_start({**task, "settings": settings, "number": number}))
        except BaseException:
            self.close()
            raise
        self._processes = tuple(resources.processes)
        self._poll = select.poll()
        self._poll.register(self._results, select.POLLIN)
        self._outputs = {}
        for number, process in enumerate(self._processes):
            assert process.stdout is not None
            self._outputs[process.stdout.fileno()] = number
            self._poll.register(process.stdout, select.POLLIN)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self) -> None:
        """Take the slots for one iterator, until `cancel`.

        Raises:
            DataError: another one has them, or the pool is closed.
        """
        self._check_open()
        if self._taken:
            raise DataError("the workers still make another iterator's batches: close that first, or use a second pool")
        self._taken = True

    def submit(self, slot: int, count: int) -> None:
        """Have the first `count` images of a slot made, whose orders are written."""
        for first in range(0, count, self._chunk):
            images = min(self._chunk, count - first)
            os.write(self._tasks, TASK.pack(slot, first, images, 0))
            self._pending[slot] += 1

    def wait(self, slot: int) -> None:
        """Return when a slot is made.

        Raises:
            DataError: the pool is closed.
            WorkerError: a worker ended; says how, and at which file.
        """
        self._check_open()
        while self._pending[slot]:
            self._collect()

    def cancel(self) -> None:
        """Drop what was ordered and is not begun, wait for the rest, and leave the slots to the next iterator."""
        self._taken = False
        while self._finalizer.alive and any(self._pending):
            try:
                self._finished(os.read(self._task_reader, TASK.size))
            except BlockingIOError:
                self._collect()

    def close(self) -> None:
        """End the workers and give the memory back; calling it again does nothing."""
        self._finalizer()
        self.records = self.records[:0].copy()
        self._places = self._places[:0].copy()

    def _check_open(self) -> None:
        if not self._finalizer.alive:
            raise DataError("the pool of workers is closed")

    def _finished(self, tasks: bytes) -> None:
        for slot, _, _, _ in TASK.iter_unpack(tasks):
            self._pending[slot] -= 1

    def _collect(self) -> None:
        """Take note of what is finished; wait for something to be."""
        self._check_open()
        ready = [descriptor for descriptor, _ in self._poll.poll(int(PATIENCE * 1000))]
        if not ready:
            logger.warning("no image for %d s; the workers are at %s", PATIENCE, ", ".join(self._at_work()))
        if self._results in ready:
            self._finished(os.read(self._results, 256 * TASK.size))
        for descriptor in ready:
            if descriptor in self._outputs:
                raise WorkerError(self._obituary(self._outputs[descriptor]))

    def _file(self, number: int) -> str:
        slot, position = self._places[number]
        return "" if slot < 0 else os.fsdecode(self.records[slot]["paths"][position])

    def _at_work(self) -> list[str]:
        return [file for file in map(self._file, range(len(self._processes))) if file] or ["nothing"]

    def _obituary(self, number: int) -> str:
        try:
            code = self._processes[number].wait(FAREWELL)
        except subprocess.TimeoutExpired:
            code = None
        how = f"exit status {code}"
        if code is not None and code < 0:
            how = f"signal {-code} ({signal.Signals(-code).name})"
            how += ", perhaps for want of memory" if -code == signal.SIGKILL else ""
        file = self._file(number)
        return f"worker process {number} ended by {how}" + (f" at {file}" if file else "")


def _anonymous_memory(size: int) -> int:
    """Return the descriptor of memory that has no name in any file system."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("nnmpq-batches", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as stream:
            descriptor = os.dup(stream.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


def _start(task: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start one worker; it holds its ends of the pipes and nothing else of this process."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", PROGRAM],
        stdin=subprocess.PIPE,
        # Nothing is written to it: that it closes tells that the worker is gone.
        stdout=subprocess.PIPE,
        pass_fds=(task["memory"], task["tasks"], task["results"]),
        # One worker, one core.
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert process.stdin is not None
    try:
        process.stdin.write(pickle.dumps([entry for entry in sys.path if isinstance(entry, str)]) + pickle.dumps(task))
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it ended at once; the first wait says so
    return process
