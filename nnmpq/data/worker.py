"""A process that makes images: reads tasks from a pipe, writes pixels into shared memory, reports through another.

It is a program of its own rather than a `multiprocessing` process: it imports nothing of the training script, and
inherits none of its threads and locks. When the training process is gone, however it went, the pipes close and it ends.
"""

from __future__ import annotations

import mmap
import os
import pickle
import select
import signal
import struct
import sys
import traceback
from typing import Any

import numpy as np

from nnmpq.data.image_settings import ImageSettings
from nnmpq.data.slots import FAILED, LONGEST_MESSAGE, fill, slot_type

# Slot, first position, number of images. All records have one size, below what a pipe moves in one piece: any number of
# processes may share an end without a lock, and so none can die holding one.
TASK = struct.Struct("=IIII")


def views(memory: mmap.mmap, batch_size: int, settings: ImageSettings, slots: int, workers: int) -> tuple[Any, Any]:
    """Return the slots in shared memory, and for each worker the slot and position that it is at, -1 for none."""
    record = slot_type(batch_size, settings)
    records = np.frombuffer(memory, record, slots)
    return records, np.frombuffer(memory, "i8", 2 * workers, slots * record.itemsize).reshape(workers, 2)


def work(
    number: int,
    memory: int,
    tasks: int,
    results: int,
    batch_size: int,
    settings: ImageSettings,
    slots: int,
    workers: int,
) -> None:
    """Make images until the training process is gone.

    Args:
        number: of this worker, from 0.
        memory: descriptor of the shared memory.
        tasks: descriptor of the pipe to read from, not blocking.
        results: descriptor of the pipe to write to.
        batch_size: images of a batch.
        settings: what is done to images.
        slots: number of slots.
        workers: number of workers.
    """
    mapped = mmap.mmap(memory, 0)
    records, places = views(mapped, batch_size, settings, slots, workers)
    waiting, parent = select.poll(), select.poll()
    waiting.register(tasks, select.POLLIN)
    waiting.register(0, select.POLLHUP)
    parent.register(0, select.POLLHUP)
    while not parent.poll(0):
        try:
            task = os.read(tasks, TASK.size)
        except BlockingIOError:
            waiting.poll()
            continue
        if not task:
            return
        slot, first, count, _ = TASK.unpack(task)
        for position in range(first, first + count):
            if parent.poll(0):
                return
            places[number] = slot, position
            try:
                fill(records[slot], position, settings)
            except Exception:  # an error of ours, not the image's: the training process is told, and stops
                lines = traceback.format_exc().encode()
                records[slot]["messages"][position] = lines[-LONGEST_MESSAGE:]
                records[slot]["status"][position] = FAILED
        places[number] = -1
        os.write(results, task)


def main() -> None:
    """Run a worker; what it is to do comes through standard input."""
    # Ctrl-C reaches every process of the terminal; the training process decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        work(**pickle.load(sys.stdin.buffer))
    except BrokenPipeError:
        pass  # nobody is there to report to
