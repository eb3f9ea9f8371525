"""The scripts from the command line to the run folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nnabla as nn
import numpy as np
import pytest
from nnabla.utils.nnp_graph import NnpLoader

from nnmpq.data import load
from nnmpq.data.batches import normalise
from nnmpq.export.nnp import read_manifest
from nnmpq.policy import Policy
from nnmpq.runs import main

ROOT = Path(__file__).parent.parent
CFG = """
[DEFAULT]
arch = resnet_digits
dataset = digits
augmentation = none
validation_images = 100
train_images = 256
test_images = 60
epochs = 1
batch_size = 32
initial_learning_rate = 0.05
finetune_epochs = 1

[MIXED]
weightfile = DEFAULT/best.h5
w_quantize = parametric_fp_d_xmax
a_quantize = parametric_fp_d_xmax_relu
initial_learning_rate = 0.01
target_weight_kbytes = 28
target_activation_kbytes = 0.4

[FROM_POLICY]
policy = {policy}
"""


def run(folder: Path, *arguments: str) -> int:
    path = folder / "test.cfg"
    path.write_text(CFG.format(policy=folder / "runs" / "MIXED" / "policy.yaml"))
    return main(
        "train_resnet.py",
        ("resnet", "resnet_digits"),
        [*arguments, "--cfg", str(path), "-o", str(folder / "runs"), "--quiet"],
    )


def test_from_float_to_a_file_that_computes_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "DEFAULT") == 0
    assert run(tmp_path, "MIXED") == 0
    folder = tmp_path / "runs" / "MIXED"
    wanted = {"config.cfg", "policy.yaml", "metrics.csv", "monitor", "best.h5", "checkpoint", "model.nnp"}
    assert wanted | {"bits.txt", "bits.png", "result.json"} <= {p.name for p in folder.iterdir()}
    result = json.loads((folder / "result.json").read_text())
    assert result["budget_met"] is True
    assert result["cost"]["weights_kib"] <= 28 and result["cost"]["activations_max_kib"] <= 0.4
    policy = Policy.load(folder / "policy.yaml")
    assert read_manifest(folder / "model.nnp")[0] == policy
    printed = capsys.readouterr().out
    assert (folder / "bits.txt").read_text().strip() in printed
    assert "DEFAULT: test accuracy" in printed and "where this run started" in printed
    # The file, loaded by itself, makes the reported number of errors on the test images.
    data = load("digits", validation_images=100, train_images=256, test_images=60, seed=313)
    nn.clear_parameters()
    network = NnpLoader(str(folder / "model.nnp")).get_network("main", batch_size=60)
    network.inputs["x"].d = normalise(data.test.images, data.offset, data.scale)
    network.outputs["y"].forward()
    right = np.mean(np.argmax(network.outputs["y"].d, axis=1) == data.test.labels)
    assert right == pytest.approx(result["test_accuracy"])
    # The policy trains another run, at the same bits.
    assert run(tmp_path, "FROM_POLICY") == 0
    again = Policy.load(tmp_path / "runs" / "FROM_POLICY" / "policy.yaml")
    assert again.bits() == policy.bits()


@pytest.mark.parametrize(
    "arguments,words",
    [
        (["MIXD"], ["MIXD", "MIXED"]),
        (["MIXED"], ["DEFAULT"]),
        (["DEFAULT", "--set", "epoch=2"], ["epoch", "epochs"]),
        (["DEFAULT", "--set", "dataset=cifar10", "--set", "arch=resnet", "--data-dir", "nowhere"], ["nowhere"]),
        (["FROM_POLICY"], ["policy.yaml"]),
        (["DEFAULT", "-c", "cudnn"], ["cudnn", "nnmpq[cuda]"]),
    ],
)
def test_what_the_user_got_wrong_is_said_in_one_line(
    arguments: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, *arguments) == 2
    message = capsys.readouterr().err
    lines = [line for line in message.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in message
    for word in words:
        assert word in lines[0]


def test_an_unreachable_budget_names_the_least(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "DEFAULT") == 0
    assert run(tmp_path, "MIXED", "--set", "target_weight_kbytes=3") == 2
    # 74,522 weights and biases at 2 bits.
    assert f"{74522 * 2 / 8192:.4g}"[:4] in capsys.readouterr().err


def test_help_is_complete_and_quick_to_reach() -> None:
    script = [sys.executable, str(ROOT / "train_resnet.py")]
    text = subprocess.run([*script, "--help"], capture_output=True, text=True, check=True).stdout
    for option in ("--cfg", "--set", "--resume", "--context", "--device-id", "--gpu", "--type-config", "--quiet"):
        assert option in text
    for option in ("--monitor-path", "--model-save-path", "--data-dir", "--help-keys", "--list"):
        assert option in text
    keys = subprocess.run([*script, "--help-keys"], capture_output=True, text=True, check=True).stdout
    assert "target_weight_kbytes" in keys and "finetune_epochs" in keys
