"""Settings shared by the tests and by the examples in the docstrings."""

from __future__ import annotations

import os

# Test processes run side by side: one thread each, chosen before numba and the BLAS libraries are loaded.
for variable in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ["MPLBACKEND"] = "Agg"

from collections.abc import Iterator  # noqa: E402

import nnabla as nn  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# How long an example takes depends on who else is at work on the machine; pytest's own time limit stays.
settings.register_profile("nnmpq", deadline=None)
settings.load_profile("nnmpq")


@pytest.fixture(autouse=True)
def fresh_nnabla() -> Iterator[None]:
    """Give every test no parameters, no current scope, fixed seeds and graphs that do not execute at once."""
    nn.clear_parameters()
    nn.seed(313)
    np.random.seed(313)
    with nn.context_scope(nn.Context(["cpu:float"], "CpuCachedArray", "0")), nn.auto_forward(False):
        yield
    nn.clear_parameters()
