"""Processes that average through shared memory: exact means, and an end together."""

from __future__ import annotations

import os
import signal
import sys
import time

import nnabla as nn
import numpy as np
import pytest

from nnmpq.parallel import ALONE, Alone
from nnmpq.parallel.communicator import shard
from nnmpq.parallel.launch import run_processes
from nnmpq.parallel.shared_memory import CHUNK, SharedMemoryCommunicator, make_board


def _array(values: np.ndarray) -> nn.NdArray:
    return nn.NdArray.from_numpy_array(np.asarray(values, np.float32))


def _average(folder: str, sizes: tuple[int, ...], communicator) -> int:
    generator = np.random.RandomState(communicator.rank)
    arrays = [_array(generator.randn(size)) for size in sizes]
    communicator.mean(arrays)
    numbers = communicator.mean_numbers(np.array([1 / 3 + communicator.rank, 1e-9]))
    communicator.barrier()
    np.savez(f"{folder}/{communicator.rank}.npz", *[a.data for a in arrays], numbers=numbers)
    return 0


@pytest.mark.parametrize("count,sizes", [(2, (5, 1, 1000)), (3, (7, CHUNK + 11, 3))])
def test_means_are_those_of_all_processes_and_equal_in_each(tmp_path, count, sizes):
    assert run_processes(count, _average, (str(tmp_path), sizes)) == 0
    found = [np.load(tmp_path / f"{rank}.npz") for rank in range(count)]
    generators = [np.random.RandomState(rank) for rank in range(count)]
    for index, size in enumerate(sizes):
        expected = np.mean([g.randn(size) for g in generators], 0)
        for one in found:
            assert np.abs(one[f"arr_{index}"] - expected).max() < 1e-6
            assert np.array_equal(one[f"arr_{index}"], found[0][f"arr_{index}"])
    for one in found:
        assert np.allclose(one["numbers"], [1 / 3 + (count - 1) / 2, 1e-9], rtol=1e-13)


def _one_fails(how: str, communicator) -> int:
    if communicator.rank == 1:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "raise":
            # Its traceback is part of what a user sees, and no part of this test's output.
            sys.stderr = open(os.devnull, "w")
            raise ValueError("made up")
        return 3
    communicator.barrier()
    communicator.barrier()
    return 0


@pytest.mark.parametrize("how", ["kill", "raise", "status"])
def test_no_process_waits_for_one_that_has_failed(how, capfd):
    begun = time.monotonic()
    assert run_processes(3, _one_fails, (how,)) == 1
    assert time.monotonic() - begun < 30
    assert "another process" in capfd.readouterr().err


def _lead_fails(communicator) -> int:
    if communicator.rank == 0:
        return 2
    communicator.barrier()
    return 0


def test_the_lead_s_status_is_the_run_s():
    assert run_processes(2, _lead_fails, ()) == 2


def test_a_communicator_of_one_process_changes_nothing():
    array = _array(np.array([1.5, -2.0]))
    for communicator in (ALONE, SharedMemoryCommunicator(make_board(1), 0)):
        communicator.mean([array])
        communicator.barrier()
        assert array.data.tolist() == [1.5, -2.0]
        assert np.allclose(communicator.mean_numbers(np.array([0.1])), 0.1, rtol=1e-14)


def test_shares_of_a_batch_are_all_of_it():
    batch = np.arange(24).reshape(12, 2)
    parts = [shard(batch, Alone(rank, 4)) for rank in range(4)]
    assert np.array_equal(np.concatenate(parts), batch)
