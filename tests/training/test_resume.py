"""A run that is killed and resumed ends with the very bytes of one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nnmpq.training import CheckpointError, checkpoint, train
from tests.training.tiny import MIXED, data, experiment

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
import nnabla as nn
from nnmpq.training import train
from tests.training.tiny import MIXED, data, experiment

nn.set_default_context(nn.Context(["cpu:float"], "CpuCachedArray", "0"))
chosen = experiment(**MIXED, epochs=4, finetune_epochs=3, optimizer=sys.argv[2])
result = train(chosen, data(320), sys.argv[1], resume=True, quiet=True)
print(result.test_accuracy, result.validation_accuracy, result.best_epoch, result.cost)
print(result.policy.to_yaml())
"""


def start(folder, optimizer):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), optimizer],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return out


def rows(folder):
    path = folder / "metrics.csv"
    return path.read_text().count("\n") if path.exists() else 0


def outcome(folder):
    """Everything that a run leaves, the arrays of its checkpoint by their bytes."""
    path = checkpoint.latest(folder)
    assert path is not None
    last = checkpoint.read(path)
    found = {f"parameter {name}": np.asarray(array).tobytes() for name, array in last.parameters.items()}
    for path in (folder / "best.h5", folder / "metrics.csv", *sorted((folder / "monitor").iterdir())):
        found[path.name] = path.read_bytes()
    return found, last.state


def test_killed_several_times_at_random_moments(tmp_path):
    seed = random.SystemRandom().randrange(10**6)
    moments = random.Random(seed)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    undisturbed = start(whole, "adam")
    # 4 epochs, the projection and 3 epochs: 8 rows under the heading.
    killed = 0
    for after in (0, 2, 4, 6):
        process = start(broken, "adam")
        while rows(broken) < after + 1 and process.poll() is None:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    result = finish(start(broken, "adam"))
    assert killed >= 2, "the run was over before it could be killed"
    assert result == finish(undisturbed), f"seed {seed}"
    expected, expected_state = outcome(whole)
    found, state = outcome(broken)
    assert state == expected_state, f"seed {seed}"
    assert [name for name in expected if expected[name] != found.get(name)] == [], f"seed {seed}"
    assert expected.keys() == found.keys()


class Killed(BaseException):
    """The process ends here."""


def interrupted(monkeypatch, folder, chosen, moment):
    """Train until the moment-th file is flushed or renamed; return whether that came."""
    calls = 0

    def counted(function):
        def call(*arguments, **keywords):
            nonlocal calls
            calls += 1
            if calls > moment:
                raise Killed
            return function(*arguments, **keywords)

        return call

    with monkeypatch.context() as patch:
        for name in ("fsync", "rename", "replace"):
            patch.setattr(os, name, counted(getattr(os, name)))
        try:
            train(chosen, data(), folder, resume=True, quiet=True)
        except Killed:
            return True
    return False


def test_interrupted_while_files_are_written(tmp_path, monkeypatch):
    chosen = experiment(**MIXED)
    expected_result = train(chosen, data(), tmp_path / "whole", quiet=True)
    expected, expected_state = outcome(tmp_path / "whole")
    moments = 0
    # An epoch writes a dozen files; steps of 17 meet other ones in each.
    for moment in range(3, 1000, 17):
        folder = tmp_path / str(moment)
        if not interrupted(monkeypatch, folder, chosen, moment):
            break
        moments += 1
        result = train(chosen, data(), folder, resume=True, quiet=True)
        found, state = outcome(folder)
        assert [name for name in expected if expected[name] != found.get(name)] == [], f"moment {moment}"
        assert state == expected_state
        assert result.policy == expected_result.policy and result.test_accuracy == expected_result.test_accuracy
    assert moments >= 3


def test_a_damaged_checkpoint_is_refused_not_guessed(tmp_path):
    chosen = experiment(epochs=1, milestones=())
    train(chosen, data(), tmp_path, quiet=True)
    (folder,) = (tmp_path / "checkpoint").iterdir()
    path = folder / "parameters.npz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="parameters.npz: the checkpoint cannot be used"):
        train(chosen, data(), tmp_path, resume=True, quiet=True)
