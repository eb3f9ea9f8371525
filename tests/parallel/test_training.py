"""Training in several processes against training in one, and what becomes of a run that loses a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nnabla as nn
import nnabla.functions as F
import nnabla.initializer as I
import nnabla.parametric_functions as PF
import numpy as np
import pytest

from nnmpq.models import MODELS
from nnmpq.parallel import ALONE
from nnmpq.parallel.launch import run_processes
from nnmpq.threads import set_threads
from nnmpq.training import parameters, train
from nnmpq.training.machine import Machine
from tests.training.tiny import MIXED, data, experiment

ROOT = Path(__file__).parents[2]
CFG = """
[ONE]
arch = resnet_digits
dataset = digits
augmentation = crop_flip
validation_images = 100
train_images = 128
test_images = 60
epochs = {epochs}
batch_size = 32
initial_learning_rate = 0.05
"""


def _without_statistics(x: nn.Variable, classes: int, *, rng: Any = None, **options: Any) -> nn.Variable:
    """No batch normalization: its statistics would be those of each process' share."""
    del options

    def uniform(limit: float) -> I.UniformInitializer:
        return I.UniformInitializer((-limit, limit), rng=rng)

    h = F.relu(PF.convolution(x, 6, (3, 3), pad=(1, 1), name="a", w_init=uniform(0.5)))
    h = F.relu(PF.convolution(h, 8, (3, 3), pad=(1, 1), stride=(2, 2), name="b", w_init=uniform(0.3)))
    return PF.affine(h, classes, name="c", w_init=uniform(0.1))


def _train(folder: str, mixed: bool, statistics: bool, communicator: Any = ALONE) -> int:
    """Train; keep what this process ended with, and every file that it opened to write in the run's folder."""
    set_threads(1)
    run = Path(folder) / "run"
    written: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in ("os.rename", "os.remove", "os.mkdir")) and str(run) in str(arguments[0]):
            if event != "os.mkdir" or not os.path.isdir(arguments[0]):
                written.append(f"{event} {arguments[0]}")

    def refuse(path: Any) -> None:
        written.append(f"save_h5 {path}")

    if communicator.rank:
        sys.addaudithook(watch)
        # HDF5 opens files out of Python's sight.
        parameters.save_h5 = refuse
    original = MODELS["resnet_digits"]
    if not statistics:
        MODELS["resnet_digits"] = _without_statistics
    try:
        run.mkdir(parents=True, exist_ok=True)
        chosen = experiment(**(MIXED if mixed else {}))
        result = train(chosen, data(), run, quiet=True, machine=Machine(communicator=communicator))
    finally:
        MODELS["resnet_digits"] = original
    found = {name: v.d for name, v in nn.get_parameters(grad_only=False).items()}
    losses = [row.loss for row in result.history if row.loss is not None]
    written = [line for line in written if "mkdir" not in line]
    np.savez(f"{folder}/{communicator.rank}.npz", losses=losses, written=written, **found)
    return 0


def _outcomes(folder: Path, count: int, **options: bool) -> list[dict[str, np.ndarray]]:
    folder.mkdir()
    arguments = (str(folder), options.get("mixed", False), options.get("statistics", False))
    if count == 1:
        nn.clear_parameters()
        assert _train(*arguments) == 0
    else:
        assert run_processes(count, _train, arguments) == 0
    return [dict(np.load(folder / f"{rank}.npz")) for rank in range(count)]


def test_two_processes_learn_what_one_learns(tmp_path):
    """Their mean gradient is the whole batch's: the same numbers but for the order of sums."""
    (one,) = _outcomes(tmp_path / "one", 1)
    two = _outcomes(tmp_path / "two", 2)
    assert len(one["losses"]) == 2 and one["losses"][1] < one["losses"][0]
    np.testing.assert_allclose(two[0]["losses"], one["losses"], rtol=1e-5)
    for name in one.keys() - {"losses", "written"}:
        assert np.array_equal(two[0][name], two[1][name]), name
        assert np.abs(two[0][name] - one[name]).max() <= 2e-5 * np.abs(one[name]).max(), name
    assert two[1]["written"].tolist() == []
    assert np.array_equal(two[0]["losses"], two[1]["losses"])


def test_processes_agree_on_learned_bits_and_statistics(tmp_path):
    """With batch normalization, quantizers, projection and fine-tuning all end with one model."""
    first, second = _outcomes(tmp_path / "two", 2, mixed=True, statistics=True)
    assert {name for name in first if name.endswith(("_quantizer/step", "bn/mean"))}
    for name in first.keys() - {"written"}:
        assert np.array_equal(first[name], second[name]), name
    assert second["written"].tolist() == []
    names = {path.name for path in (tmp_path / "two" / "run").iterdir()}
    assert {"best.h5", "metrics.csv", "monitor", "checkpoint"} <= names


def command(folder: Path, epochs: int) -> list[str]:
    cfg = folder / "test.cfg"
    cfg.write_text(CFG.format(epochs=epochs))
    return [
        sys.executable, str(ROOT / "train_resnet.py"), "ONE", "--cfg", str(cfg), "-o", str(folder / "runs"),
        "--quiet", "--processes", "2", "--threads", "1",
    ]  # fmt: skip


def test_the_script_trains_in_two_processes(tmp_path):
    done = subprocess.run(command(tmp_path, 1), capture_output=True, text=True, timeout=100, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "ONE"
    wanted = {"config.cfg", "policy.yaml", "metrics.csv", "best.h5", "model.nnp", "result.json", "bits.txt"}
    assert wanted <= {path.name for path in folder.iterdir()}
    assert json.loads((folder / "result.json").read_text())["experiment"] == "ONE"
    assert done.stdout.count("test accuracy") == 1 and "Traceback" not in done.stderr
    assert not list(folder.rglob("*tmp*"))


def workers(parent: int) -> Iterator[int]:
    """Process numbers of the run's other processes."""
    for entry in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if b"spawn_main" in Path(f"/proc/{entry}/cmdline").read_bytes():
            yield int(entry)


def alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are found in /proc")
@pytest.mark.parametrize("victim", ["worker", "lead"])
def test_a_killed_process_ends_the_run(tmp_path, victim):
    process = subprocess.Popen(
        command(tmp_path, 10000), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    others: list[int] = []
    try:
        metrics = tmp_path / "runs" / "ONE" / "metrics.csv"
        end = time.monotonic() + 60
        while not metrics.exists() or len(metrics.read_text().splitlines()) < 2:
            assert process.poll() is None and time.monotonic() < end, "training has not begun"
            time.sleep(0.1)
        others = list(workers(process.pid))
        assert len(others) == 1
        os.kill(others[0] if victim == "worker" else process.pid, signal.SIGKILL)
        errors = process.communicate(timeout=30)[1]
        if victim == "worker":
            assert process.returncode == 1
            assert "error: another process of this run has ended" in errors, errors
        end = time.monotonic() + 30
        while any(alive(number) for number in others):
            assert time.monotonic() < end, "a process waits for one that is gone"
            time.sleep(0.1)
    finally:
        for number in [*others, process.pid]:
            if alive(number):
                os.kill(number, signal.SIGKILL)
        process.wait(30)
