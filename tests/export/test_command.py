from __future__ import annotations

import json
from pathlib import Path

import attrs
import nnabla as nn
import numpy as np
import pytest

from nnmpq.cli import main
from nnmpq.config.experiment import Experiment
from nnmpq.config.reader import read_experiment, to_cfg
from nnmpq.config.scheme import build_scheme
from nnmpq.data import load
from nnmpq.export.c99 import host
from nnmpq.export.command import TARGET_NAMES
from nnmpq.export.targets import TARGETS
from nnmpq.export.trained import load_run
from nnmpq.training import parameters
from nnmpq.training.graphs import build_evaluation
from tests.export.networks import stir

EXPERIMENT = Experiment(
    "EXPORTED",
    arch="resnet_digits",
    dataset="digits",
    augmentation="none",
    validation_images=237,
    w_quantize="parametric_fp_d_xmax",
    a_quantize="parametric_fp_d_xmax_relu",
    activation_sites=("input", "relu", "branch", "pool"),
)


def run_folder(folder: Path, experiment: Experiment = EXPERIMENT) -> Path:
    """A run folder as training leaves it, with stirred parameters in place of learned ones."""
    nn.clear_parameters()
    data = load("digits", validation_images=237, seed=experiment.seed)
    graph = build_evaluation(attrs.evolve(experiment, batch_size=4), data, build_scheme(experiment))
    stir()
    folder.mkdir(parents=True, exist_ok=True)
    parameters.save_h5(folder / "best.h5")
    (folder / "config.cfg").write_text(to_cfg(experiment))
    (folder / "result.json").write_text(json.dumps({"experiment": experiment.name}))
    graph.quantized.policy(name=experiment.arch).save(folder / "policy.yaml")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_folder(tmp_path_factory.mktemp("runs") / "EXPORTED")


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_export_ends_with_a_verification(target: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if target == "c99" and host.compiler() is None:
        pytest.skip("no C compiler (cc, gcc or clang) is installed")
    if target == "onnx":
        pytest.importorskip("onnxruntime", reason="the packages onnx and onnxruntime are not installed: extra onnx")
    if target == "tflite":
        pytest.importorskip("tflite_micro", reason="the package tflite-micro is not installed: extra tflite")
    assert main(["export", str(folder), "--to", target, "--images", "70"]) == 0
    said = capsys.readouterr().out
    written = [Path(line) for line in said.splitlines() if Path(line).is_absolute()]
    assert written and all(path.is_file() and path.parent == folder / "export" / target for path in written)
    assert f"{target}: 70 images" in said and f"{target}: passed" in said
    if target != "tflite":
        # There biases are whole numbers, and logits lie in 8 bits.
        assert " 0 differ" in said and "same class on 100.00%" in said
    assert main(["verify", str(folder), "--to", target, "--images", "5"]) == 0
    assert f"{target}: 5 images" in capsys.readouterr().out


def test_names_of_the_targets() -> None:
    assert set(TARGET_NAMES) == set(TARGETS)
    assert all(callable(module.write) and callable(module.verify) for module in TARGETS.values())


def test_another_model_than_the_exported_one_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_folder(tmp_path / "A")
    for target in ("nnp", "integer"):
        assert main(["export", str(folder), "--to", target, "--images", "3", "--no-verify"]) == 0
    assert "passed" not in capsys.readouterr().out
    weight = "res1/layer1/basicblock1/conv/W"
    nn.get_parameters()[weight].d = -nn.get_parameters()[weight].d
    parameters.save_h5(folder / "best.h5")
    for target in ("nnp", "integer"):
        assert main(["verify", str(folder), "--to", target, "--images", "20"]) == 1
        assert f"{target}: FAILED" in capsys.readouterr().out


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), "--to", "c99"]) == 2
    assert "config.cfg is missing: a folder of a finished run" in capsys.readouterr().err
    relu_only = run_folder(tmp_path / "B", attrs.evolve(EXPERIMENT, activation_sites=("relu",)))
    assert main(["export", str(relu_only), "--to", "integer"]) == 2
    assert "input: this input is float" in capsys.readouterr().err
    assert main(["verify", str(relu_only), "--to", "nnp"]) == 2
    (relu_only / "best.h5").write_bytes(b"damaged")
    assert main(["export", str(relu_only), "--to", "nnp"]) == 2
    assert "cannot be read as parameters" in capsys.readouterr().err


def test_a_run_is_loaded_with_real_images(folder: Path) -> None:
    trained = load_run(folder, images=300)
    data = load("digits", validation_images=237, seed=EXPERIMENT.seed)
    np.testing.assert_array_equal(trained.images, data.test.images[:300])
    # The last batch is not full; its filler must not be among the results.
    sites, logits = trained.run()
    assert logits.shape == (300, 10) and all(len(levels) == 300 for levels in sites.values())
    assert set(sites) == {s.name for s in trained.quantized.network.activations}
    bits = trained.policy.bits()
    weights = [s for s in trained.quantized.network.sites() if s.role == "weight"]
    assert trained.weight_bytes == sum(s.elements * bits[s.name] for s in weights) / 8


def test_the_section_of_the_demonstration_can_be_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = Path(__file__).resolve().parents[2] / "cfgs" / "train_resnet_digits.cfg"
    experiment = read_experiment(cfg, "DIGITS_EXPORT")
    plain = read_experiment(cfg, "DIGITS_MIXED")
    assert experiment.target_weight_kbytes == plain.target_weight_kbytes == 24
    folder = run_folder(tmp_path / "DIGITS_EXPORT", attrs.evolve(experiment, weightfile=None))
    assert main(["export", str(folder), "--to", "integer", "--images", "5"]) == 0
    assert "integer: passed" in capsys.readouterr().out


def test_cores_are_for_c99_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folder), "--to", "nnp", "--core", "cortex-m4"]) == 2
    assert "--core cortex-m4: c99 alone runs on cores, not nnp" in capsys.readouterr().err


def test_options_of_one_target_are_refused_elsewhere(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(folder), "--to", "csrc", "--api", "39"]) == 2
    assert "--api 39: nnb alone has an API level, not csrc" in capsys.readouterr().err
    assert main(["export", str(folder), "--to", "integer", "--pack-activations"]) == 2
    assert "--pack-activations: c99 alone packs maps, not integer" in capsys.readouterr().err


def test_images_go_through_a_few_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = load_run(folder, images=7)
    write_target = TARGETS["integer"]
    write_target.write(trained, folder / "parts")
    whole = write_target.verify(trained, folder / "parts")
    monkeypatch.setattr(write_target, "LARGEST_ELEMENTS", 1)
    one_by_one = write_target.verify(trained, folder / "parts")
    assert one_by_one == whole and whole.images == 7 and whole.compared > 0


def test_a_damaged_program_is_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(folder), "--to", "integer", "--images", "2", "--no-verify"]) == 0
    path = folder / "export" / "integer" / "program.npz"
    path.write_bytes(path.read_bytes()[:-100])
    assert main(["verify", str(folder), "--to", "integer", "--images", "2"]) == 2
    assert "program.npz: no integer program" in capsys.readouterr().err
