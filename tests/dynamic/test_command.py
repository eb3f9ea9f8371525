"""`search.py` with gates, from the command line, as a user runs it; killed by the system and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnmpq.dynamic.finished import load_gates
from nnmpq.training import checkpoint
from tests.dynamic.digits import CFG

# Up to three processes a test, each of which loads everything anew.
pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).parents[2]
# Three blocks instead of nine, and few images.
SMALL = (
    "weightfile=none",
    "arch=resnet_digits",
    "width_multiplier=1",
    "keep=conv1/conv/W, fc/*",
    "train_images=150",
    "validation_images=100",
    "test_images=60",
    "gate_warmup_epochs=1",
)


def start(folder: Path, *options: str, stage: str = "CAMP_SP", epochs: int = 3) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "search.py"), stage, "--cfg", str(CFG), "-o", str(folder), "--quiet"]
    settings = [word for change in (*SMALL, f"epochs={epochs}") for word in ("--set", change)]
    return subprocess.Popen(
        [*command, *settings, "--threads", "1", *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, err


def rows(folder: Path) -> int:
    path = folder / "CAMP_SP" / "metrics.csv"
    return path.read_text().count("\n") if path.exists() else 0


def outcome(folder: Path) -> tuple[dict[str, bytes], Any]:
    """Everything that a run leaves but pictures, the parameters of its last checkpoint by their bytes."""
    run = folder / "CAMP_SP"
    path = checkpoint.latest(run)
    assert path is not None
    last = checkpoint.read(path)
    found = {f"parameter {name}": np.asarray(array).tobytes() for name, array in last.parameters.items()}
    for name in ("best.h5", "metrics.csv", "choices.csv", "energy.csv", "result.json", "config.cfg"):
        found[name] = (run / name).read_bytes()
    return found, last.state


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    out, _ = finish(start(folder))
    (folder / "printed.txt").write_text(out)
    return folder


def test_the_stage_runs_to_its_end(whole: Path) -> None:
    run = whole / "CAMP_SP"
    result = json.loads((run / "result.json").read_text())
    assert rows(whole) == 1 + 3
    assert result["gate_training"] == "supervised" and result["best_epoch"] > 1
    assert result["energy"] == pytest.approx(0.8, abs=0.06)
    assert (run / "model.nnp").stat().st_size > 0
    printed = (whole / "printed.txt").read_text()
    assert f"test accuracy {100 * result['test_accuracy']:.2f} %" in printed
    assert str(run) in printed


def test_its_gates_depend_on_their_input(whole: Path) -> None:
    result = json.loads((whole / "CAMP_SP" / "result.json").read_text())
    assert result["spread_within"] > 0.02
    lines = (whole / "CAMP_SP" / "choices.csv").read_text().splitlines()[1:]
    shares = [float(line.split(",")[1]) for line in lines]
    assert len(shares) == 3
    assert any(0.05 < share < 0.95 for share in shares), "some block sends samples both ways"


def test_its_folder_loads(whole: Path) -> None:
    found = load_gates(whole / "CAMP_SP")
    assert len(found.evaluation.network.blocks) == 3
    assert found.account.least_share() < 0.8


@pytest.mark.parametrize("after", [0, 2, 3])
def test_killed_by_the_system_and_resumed(after: int, whole: Path, tmp_path: Path) -> None:
    process = start(tmp_path)
    # Killed before the first epoch, between epochs, and while the reports are written.
    while process.poll() is None and rows(tmp_path) < after + int(after > 0):
        time.sleep(0.002)
    if not after:
        while process.poll() is None and not (tmp_path / "CAMP_SP" / "config.cfg").exists():
            time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run was over before it could be killed"
    assert not (tmp_path / "CAMP_SP" / "result.json").exists()
    finish(start(tmp_path, "--resume"))
    expected, expected_state = outcome(whole)
    found, state = outcome(tmp_path)
    assert state == expected_state
    assert [name for name in expected if expected[name] != found.get(name)] == []
    assert found.keys() == expected.keys()


def test_several_processes_are_refused_in_one_line_and_leave_nothing(tmp_path: Path) -> None:
    process = start(tmp_path, "--processes", "2")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "gates train in one process, not in 2" in errors[0] and "--threads" in errors[0]
    assert not (tmp_path / "CAMP_SP").exists()


def test_a_target_out_of_reach_is_refused_with_the_least_that_is_not(tmp_path: Path) -> None:
    process = start(tmp_path, "--set", "energy_target=0.2")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "energy_target = 0.2: the least that is reachable is 0.6" in err
    assert not (tmp_path / "CAMP_SP" / "metrics.csv").exists()
