"""The GPU communicator's logic on a stand-in: which of nnabla's calls are made, with what."""

from __future__ import annotations

import nnabla as nn
import numpy as np
import pytest

from nnmpq.parallel.mpi import MpiCommunicator, started_by_mpi


class TwoProcesses:
    """Stands in for nnabla's communicator: another process whose arrays are all 3."""

    rank, size, local_rank = 1, 2, 1

    def __init__(self) -> None:
        self.waited = 0

    def all_reduce(self, arrays, division, inplace):
        assert division and isinstance(inplace, bool)
        for array in arrays:
            array.data = (array.data + 3) / 2

    def barrier(self):
        self.waited += 1


def test_means_go_through_nnabla():
    inner = TwoProcesses()
    communicator = MpiCommunicator(inner)
    array = nn.NdArray.from_numpy_array(np.array([1.0, 5.0], np.float32))
    communicator.mean([array])
    communicator.barrier()
    assert (communicator.rank, communicator.size, communicator.local_rank, inner.waited) == (1, 2, 1, 1)
    assert array.data.tolist() == [2.0, 4.0]
    assert communicator.mean_numbers(np.array([[1.0], [7.0]])).tolist() == [[2.0], [5.0]]


@pytest.mark.parametrize(
    "environment,expected",
    [({}, False), ({"PMI_SIZE": "1"}, False), ({"SLURM_NTASKS": "4"}, True), ({"PMI_SIZE": ""}, False)],
)
def test_a_launcher_is_known_by_what_it_sets(environment, expected):
    assert started_by_mpi(environment) is expected


def test_without_the_extension_starting_says_so():
    with pytest.raises((RuntimeError, ImportError, AttributeError)):
        MpiCommunicator.start(nn.Context(["cpu:float"], "CpuCachedArray", "0"))
