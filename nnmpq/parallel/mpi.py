"""Several GPUs under ``mpirun -n N``, through nnabla's own communicator."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import nnabla as nn
import numpy as np

# What the launchers of Open MPI, MPICH and Slurm set.
SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS")


def started_by_mpi(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether an MPI launcher started this process beside others.

    Example:
        >>> started_by_mpi({"OMPI_COMM_WORLD_SIZE": "2"}), started_by_mpi({})
        (True, False)
    """
    return any(int(environment.get(name, "1") or 1) > 1 for name in SIZES)


class MpiCommunicator:
    """One GPU of a run; wraps nnabla's `MultiProcessDataParallelCommunicator`.

    Args:
        inner: nnabla's, initialised.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.rank, self.size = int(inner.rank), int(inner.size)

    @classmethod
    def start(cls, context: Any) -> MpiCommunicator:
        """Join the run that mpirun started.

        Args:
            context: of a GPU; nnabla's CPU communicators do not exist.

        Raises:
            RuntimeError: nnabla-ext-cuda was built without MPI and NCCL, or they are not installed.
        """
        import nnabla.communicators as C

        inner = C.MultiProcessDataParallelCommunicator(context)
        inner.init()
        return cls(inner)

    @property
    def local_rank(self) -> int:
        """Number of this process on its machine, for the choice of a GPU."""
        return int(getattr(self.inner, "local_rank", self.rank))

    def mean(self, arrays: Sequence[Any]) -> None:
        """Replace each `NdArray` by its mean over the processes."""
        self.inner.all_reduce(list(arrays), division=True, inplace=False)

    def mean_numbers(self, numbers: np.ndarray) -> np.ndarray:
        """Return the mean of a few numbers over the processes; float32 on its way."""
        array = nn.NdArray.from_numpy_array(np.asarray(numbers, np.float32).reshape(-1))
        self.inner.all_reduce([array], division=True, inplace=True)
        return np.asarray(array.data, np.float64).reshape(np.shape(numbers))

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.inner.barrier()
