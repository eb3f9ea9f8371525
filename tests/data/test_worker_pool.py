from __future__ import annotations

import gc
import os
import pickle
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nnmpq.data import DataError
from nnmpq.data.pipeline import file_training_batches
from nnmpq.data.slots import READY
from nnmpq.data.worker_pool import WorkerError, WorkerPool
from tests.data.listed import (
    Listed,
    alive,
    assert_same,
    children,
    epoch,
    happens,
    settings,
    write_files,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def files(tmp_path: Path) -> Listed:
    return write_files(tmp_path)


def test_a_pool_serves_many_epochs_and_broken_off_ones(files: Listed) -> None:
    chosen = settings()
    with WorkerPool(chosen, 5, 2) as pool:
        workers = children()
        assert len(workers) == 2
        for number in range(3):
            broken_off = file_training_batches(files, chosen, 5, seed=3, epoch=9, workers=pool)
            shown = [next(broken_off)]
            with pytest.raises(DataError, match="another iterator"):
                epoch(files, chosen, workers=pool)
            shown.append(next(broken_off))  # undisturbed
            assert_same(shown, epoch(files, chosen, 9)[:2])
            broken_off.close()
            assert_same(epoch(files, chosen, number, workers=pool), epoch(files, chosen, number))
        assert children() == workers
        unfinished = file_training_batches(files, chosen, 5, seed=3, epoch=0, workers=pool)
        next(unfinished)
    with pytest.raises(DataError, match="closed"):
        list(unfinished)
    assert not children()
    with pytest.raises(DataError, match="closed"):
        epoch(files, chosen, workers=pool)


def test_batches_are_made_while_nobody_asks(files: Listed) -> None:
    with WorkerPool(settings(prefetch=3), 5, 2) as pool:
        pool.records["status"] = 255
        batches = file_training_batches(files, settings(prefetch=3), 5, seed=0, epoch=0, workers=pool)
        next(batches)
        # The first slot was emptied and ordered anew only where there is a fifth batch; there is none.
        assert happens(lambda: bool((pool.records["status"] == READY).all()))
        batches.close()


def test_nothing_is_left_behind(files: Listed) -> None:
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd"))
    batches = file_training_batches(files, settings(), 2, seed=0, epoch=0, workers=2)
    next(batches)
    workers = children()
    for pid in workers:  # memory without a name in any file system
        maps = Path(f"/proc/{pid}/maps")
        assert happens(lambda: "/memfd:nnmpq-batches (deleted)" in maps.read_text())  # noqa: B023
        assert "/dev/shm" not in maps.read_text()
    assert len(workers) == 2
    batches.close()
    assert not any(map(alive, workers)) and not children()  # nor as zombies, which would be children still
    forgotten = file_training_batches(files, settings(), 2, seed=0, epoch=0, workers=2)
    next(forgotten)
    del forgotten
    pool = WorkerPool(settings(), 2, 1)
    del pool
    gc.collect()
    assert not children()
    assert len(os.listdir("/proc/self/fd")) == descriptors


CRASHING = """
import os, signal, sys
import attrs
from nnmpq.data.transforms import Stretch

@attrs.frozen
class Crashing:
    how: str
    def view(self, size, output, rng):
        if size[0] == 16:
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "exit":
                os._exit(3)
            if self.how == "error":
                raise ZeroDivisionError("division of the worker")
        return Stretch().view(size, output, rng)
"""


@pytest.mark.parametrize(
    "how,message",
    [
        (
            "killed",
            r"worker process \d ended by signal 9 \(SIGKILL\), perhaps for want of memory at .*image(4|9|14|19).png",
        ),
        ("exit", r"worker process \d ended by exit status 3 at .*image(4|9|14|19).png"),
        ("error", r"image(4|9|14|19).png: a worker process failed:(.|\n)*ZeroDivisionError: division of the worker"),
    ],
)
def test_a_worker_that_fails_is_an_error_and_no_hang(
    files: Listed, how: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crashing_transform.py").write_text(CRASHING)
    monkeypatch.syspath_prepend(str(tmp_path))
    import crashing_transform  # type: ignore[import-not-found]

    chosen = settings(training=crashing_transform.Crashing(how))
    with pytest.raises(WorkerError, match=message):
        epoch(files, chosen, workers=2)
    assert not children()
    with WorkerPool(chosen, 5, 2) as pool, pytest.raises(WorkerError, match=message):
        epoch(files, chosen, workers=pool)
    assert not children()


def test_a_worker_that_cannot_start_is_an_error(files: Listed, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr("nnmpq.data.worker_pool.PROGRAM", "raise SystemExit(5)")
    with pytest.raises(WorkerError, match=r"exit status 5$"):
        epoch(files, settings(), workers=2)
    assert not children()


# A process started in the background of a shell ignores the interrupt, and so would its children.
PARENT = """
import os, pickle, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
sys.path[:] = pickle.loads(bytes.fromhex(sys.argv[1]))
from nnmpq.data.pipeline import file_training_batches
from nnmpq.data.image_settings import ImageSettings
import numpy as np

class Listed:
    boxes = None
    labels = np.zeros(400, np.int32)
    def __len__(self): return 400
    def path(self, index): return sys.argv[2]

def run():
    batches = file_training_batches(Listed(), ImageSettings(16, 16), 8, seed=0, epoch=0, workers=2)
    next(batches)
    print(Path(f"/proc/self/task/{os.getpid()}/children").read_text(), flush=True)
    time.sleep(60)
run()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_a_killed_parent(files: Listed, how: signal.Signals) -> None:
    # No main guard is needed in that script: a worker does not import it.
    search = pickle.dumps([entry for entry in sys.path if isinstance(entry, str)]).hex()
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, search, str(files.paths[0])], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 30)[0]
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 2 and all(map(alive, workers))
        process.send_signal(how)
        _, said = process.communicate(timeout=20)
        assert happens(lambda: not any(map(alive, workers)))
        assert (b"KeyboardInterrupt" in said) == (how == signal.SIGINT)
        assert said.count(b"Traceback") == (how == signal.SIGINT)  # the parent's alone
    finally:
        process.kill()
        process.communicate()
