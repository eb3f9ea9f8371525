"""Finished runs on a few digits, trained once for all tests of a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnmpq.dynamic.run import run_gates
from nnmpq.runs import run
from nnmpq.threads import set_threads
from tests.dynamic.digits import experiment


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs, with a uniform network and the supervised stage of gates in it."""
    folder = tmp_path_factory.mktemp("runs")
    set_threads(1)
    run(experiment("W4A4"), folder, quiet=True)
    supervised = experiment("CAMP_SP", weightfile=str(folder / "W4A4" / "best.h5"), gate_warmup_epochs=1)
    run_gates(supervised, folder, quiet=True)
    set_threads(None)
    return folder
