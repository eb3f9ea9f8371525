"""search.py from the command line to the run folder, and what it hands over trains."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnmpq.budget import Budget
from nnmpq.config.choices import ARCHITECTURES
from nnmpq.policy import Policy
from nnmpq.runs import main
from nnmpq.search.device import processor
from nnmpq.search.layers_plot import layers_plot
from nnmpq.search.run import check_policy, mean_bits_inner, search_experiment
from nnmpq.search.task import network_of
from nnmpq.search.trail import Trail
from nnmpq.training.errors import BudgetError
from tests.search.searching import experiment, run
from tests.search.small import network

ROOT = Path(__file__).parents[2]
CFG = """
[TINY]
arch = resnet_digits
dataset = digits
augmentation = none
train_images = 160
validation_images = 40
test_images = 40
epochs = 8
milestones = 6
batch_size = 32
initial_learning_rate = 0.05
quantizer_learning_rate = 0.01
activation_sites = input, relu, pool
method = edmips
mean_bits = 3

[TRAINED]
inherit = TINY
epochs = 1
milestones =
policy = {policy}
"""


def command(folder, section, *more, action=search_experiment):
    path = folder / "test.cfg"
    path.write_text(CFG.format(policy=folder / "TINY" / "policy.yaml"))
    arguments = [section, "--cfg", str(path), "-o", str(folder), "--threads", "1", *more]
    return main("search.py", tuple(ARCHITECTURES), arguments, **({} if action is None else {"action": action}))


def test_the_policy_that_is_found_trains(tmp_path, capsys):
    assert command(tmp_path, "TINY", "--set", "method=uniform") == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "TINY" / "bits.txt").read_text().strip() in printed
    assert f"--set policy={tmp_path / 'TINY' / 'policy.yaml'}" in printed
    policy = Policy.load(tmp_path / "TINY" / "policy.yaml")
    result = json.loads((tmp_path / "TINY" / "result.json").read_text())
    assert set(policy.bits().values()) == {3} and result["mean_bits_inner"] == 3.0
    assert result["images_seen"] == 0 and result["step_over_float_step"] is None and result["device"]
    assert command(tmp_path, "TRAINED", "--quiet", action=None) == 0
    trained = Policy.load(tmp_path / "TRAINED" / "policy.yaml")
    assert trained.bits() == policy.bits()


@pytest.mark.parametrize(
    "changes,words",
    [
        ([], []),
        (["method=edmip"], ["method = edmip", "edmips"]),
        (["method=none"], ["method", "uniform"]),
        (["mean_bits=1"], ["mean_bits 1 is wanted", "2"]),
        (["weight_widths=3, 2"], ["weight_widths", "2, 3"]),
        (["weight_candidate=gausian"], ["weight_candidate", "gaussian"]),
        (["weight_widths=1, 2", "method=edmips"], ["TINY", "uniform_b_xmax at (1, 2)"]),
    ],
)
def test_what_the_user_got_wrong_is_said_in_one_line(changes, words, tmp_path, capsys):
    given = [word for change in ["method=uniform", *changes] for word in ("--set", change)]
    status = command(tmp_path, "TINY", *given, "--quiet")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert status == (2 if words else 0) and len(lines) == (1 if words else 0)
    for word in words:
        assert word in lines[0]


def test_a_policy_over_its_budget_is_refused(tmp_path):
    policy = run("uniform", tmp_path, mean_bits=3.0)
    traced = network_of(experiment("uniform"), (1, 8, 8), 10)
    assert check_policy(policy, traced, Budget(mean_bits=3.0)).mean_bits == 3.0
    with pytest.raises(BudgetError, match=r"uniform exceeds its budget: weights_kib 27\.2908, limit 27"):
        check_policy(policy, traced, Budget(mean_bits=3.0, weights_kib=27))


def test_a_new_search_leaves_nothing_of_the_old_one(tmp_path):
    run("uniform", tmp_path, mean_bits=3.0)
    with pytest.raises(BudgetError):
        run("uniform", tmp_path, mean_bits=1.0)
    assert {p.name for p in (tmp_path / "TINY").iterdir()} == {"config.cfg", "trail.csv"}


# What each method needs beside CFG to take long enough to be killed, and rows of the trail that may be there by then.
KILLED = {
    "edmips": ("epochs = 4\nmilestones = 2", 4),
    "progressive": ("epochs = 1\nmilestones =\nlam = 2\nsearch_epochs = 1\ninterval = 2", 2),
    "sensitivity": ("epochs = 1\nmilestones =\nscore = kl\nscore_images = 64", 12),
}


def search_process(folder: Path, method: str, resume: bool) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, str(ROOT / "search.py"), "KILLED", "--cfg", str(folder / "test.cfg")]
    arguments += ["-o", str(folder), "--set", f"method={method}", "--quiet", "--threads", "1"]
    arguments += ["--resume"] if resume else []
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("method", KILLED)
def test_killed_by_the_system_and_resumed(method, tmp_path):
    """SIGKILL at a random moment after a random row of the trail, in a process of its own."""
    more, rows = KILLED[method]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
        (folder / "test.cfg").write_text(f"{CFG.format(policy='none')}\n[KILLED]\ninherit = TINY\n{more}\n")
    rng = random.Random()
    wanted, wait = rng.randint(1, rows), rng.uniform(0, 0.2)
    said = f"killed {wait:.3f} s after row {wanted}"
    process = search_process(broken, method, False)
    path = broken / "KILLED" / "trail.csv"
    while process.poll() is None and not (path.exists() and path.read_text().count("\n") > wanted):
        time.sleep(0.005)
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, f"{said}: the search was over before it could be killed"
    assert not (broken / "KILLED" / "policy.yaml").exists(), said
    for folder, resume in ((broken, True), (whole, False)):
        process = search_process(folder, method, resume)
        _, errors = process.communicate(timeout=280)
        assert process.returncode == 0, f"{said}: {errors}"
    for name in ("policy.yaml", "bits.txt"):
        assert (broken / "KILLED" / name).read_bytes() == (whole / "KILLED" / name).read_bytes(), said
    trails = [(folder / "KILLED" / "trail.csv").read_text().splitlines() for folder in (broken, whole)]
    without_seconds = [[line.rsplit(",", 1)[0] for line in lines] for lines in trails]
    assert without_seconds[0] == without_seconds[1], said


def test_seconds_of_a_resumed_trail_go_on(tmp_path):
    path = tmp_path / "trail.csv"
    path.write_text("epoch,images,seconds\n1,32,5.00\n2,64,9.00\n")
    resumed = Trail(path, resume=True)
    for row in ({"epoch": 1, "images": 32}, {"epoch": 2, "images": 64}, {"epoch": 3, "images": 96, "loss": 0.5}):
        resumed.report(row)
    seconds = [float(line.rsplit(",", 1)[1]) for line in path.read_text().splitlines()[1:]]
    assert seconds[:2] == [5.0, 9.0] and 9.0 <= seconds[2] < 10.0
    assert path.read_text().splitlines()[0] == "epoch,images,loss,seconds"
    assert path.read_text().splitlines()[1] == "1,32,,5.00"
    assert resumed.images == 96
    # A new search takes nothing over.
    assert Trail(path).seconds < 1 and not path.exists()


def test_mean_bits_without_the_ends_is_the_papers():
    net = network([10, 20, 30, 40], [5], [(), (0,), (0,), ()])
    bits = {**{f"l{i}/W": 8 for i in range(4)}, "l1/W": 2, "l2/W": 4, "a0/relu": 3}
    from nnmpq.cost import cost

    # (140 * 2 + 210 * 4) MACs at 3-bit inputs over 350 MACs.
    assert mean_bits_inner(net, cost(net, bits)) == pytest.approx(((140 * 2 + 210 * 4) * 3 / 350) ** 0.5)


def test_the_picture_has_a_panel_for_each_quantity(tmp_path):
    net = network([10, 20], [5], [(), (0,)])
    layers_plot(tmp_path / "bits.png", net, {"l0/W": 2}, "title")
    assert (tmp_path / "bits.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="without layers"):
        layers_plot(tmp_path / "none.png", network([], [], []), {})


def test_the_processors_name(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nmodel name\t: Some CPU @ 2 GHz\nflags: a\n")
    assert processor(info) == "Some CPU @ 2 GHz"
    assert processor(tmp_path / "nowhere") != ""
