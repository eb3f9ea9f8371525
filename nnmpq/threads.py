"""One pool of OpenMP threads for numba's loops and oneDNN alike."""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any

import numba
from numba import config

# Two pools on the same cores would spin against each other. Where OpenMP is missing numba takes what there is.
config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]  # type: ignore[attr-defined]


@functools.lru_cache(maxsize=1)
def _openmp() -> Any:
    try:
        return ctypes.CDLL("libgomp.so.1")
    except OSError:
        return None


def available_threads() -> int:
    """Return the number of cores that this process may use, at most what NUMBA_NUM_THREADS allows."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(min(cores, config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def set_threads(count: int | None = None) -> int:
    """Say how many threads the CPU functions use from now on.

    Args:
        count: at least 1; all cores that this process may use if None. More than those are not used.

    Returns:
        What was set.

    Raises:
        ValueError: the count is below 1.

    Example:
        >>> set_threads(1)
        1
    """
    if count is not None and count < 1:
        raise ValueError(f"{count} threads: at least 1 is needed")
    chosen = min(count or available_threads(), available_threads())
    numba.set_num_threads(chosen)
    openmp = _openmp()
    if openmp is not None:
        openmp.omp_set_num_threads(chosen)
    return chosen


def threads() -> int:
    """Return how many threads the CPU functions use."""
    return int(numba.get_num_threads())
