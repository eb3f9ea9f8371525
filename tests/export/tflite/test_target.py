from __future__ import annotations

import sys
from pathlib import Path

import attrs
import numpy as np
import pytest

from nnmpq.export.integer.program import ExportError
from nnmpq.export.tflite import target
from nnmpq.export.tflite.runtime import read
from nnmpq.export.trained import Trained
from tests.export.networks import everything, small, trained

pytest.importorskip("tflite_micro", reason="the package tflite-micro is not installed: extra tflite")


def test_a_written_network_is_near_the_trained_one_and_is_the_model(tmp_path: Path) -> None:
    network = trained(build=everything, weight_bits=3)
    assert [path.name for path in target.write(network, tmp_path)] == ["model.tflite", "sizes.txt"]
    found = target.verify(network, tmp_path)
    assert found.passed and found.images == 40 and found.allowed == target.SHARE
    assert 0 < found.differing < 0.12 * found.compared
    report = found.report()
    assert "TFLM and the numpy model of its kernels: 0 elements apart, none may be" in report
    assert "40.0% may: biases are whole numbers of sums" in report
    assert f"the policy counts {network.weight_bytes:,.0f}" in report
    # Three bits stand in four, in eight for the grouped layer (8 filters of 4 x 3 x 3).
    assert found.promised_bytes == network.weight_bytes * 4 / 3 + 8 * 4 * 9 / 2
    assert found.file_bytes == {target.NAME: (tmp_path / target.NAME).stat().st_size}
    assert found.same_class >= 0.8


def test_verify_sees_a_changed_weight(tmp_path: Path) -> None:
    network = trained(build=small)
    target.write(network, tmp_path)
    path = tmp_path / target.NAME
    whole = target.file_of
    graph = target.lower(network.program(), target.read(path.read_bytes(), path).tensors["logits"])
    layer = next(op for op in graph.operations if getattr(op, "counted", False))
    layer.weights.flat[0] = -layer.weights.flat[0] or 1
    path.write_bytes(whole(graph))
    found = target.verify(network, tmp_path)
    assert not found.passed and found.allowed == 0 and "0 elements apart" not in found.report().replace(",", "")


def test_another_networks_file_is_refused(tmp_path: Path) -> None:
    network = trained(build=small)
    with pytest.raises(ExportError, match=r"model\.tflite: no TensorFlow Lite file can be read"):
        target.verify(network, tmp_path)
    target.write(trained(build=everything), tmp_path)
    with pytest.raises(ExportError, match=r"it is another network's; export again"):
        target.verify(trained(build=small), tmp_path)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = trained(build=small)
    monkeypatch.setitem(sys.modules, "tflite_micro.tensorflow.lite.micro.python", None)
    with pytest.raises(ExportError, match=r"the package tflite-micro is not installed: pip install nnmpq\[tflite\]"):
        target.write(network, tmp_path)
    assert not list(tmp_path.iterdir())


def test_logits_are_held_at_the_ends(tmp_path: Path) -> None:
    network = trained(build=small)
    target.write(network, tmp_path)
    logits = target.read((tmp_path / target.NAME).read_bytes(), tmp_path).tensors["logits"]
    _, real = network.run(sites=False)
    low, high = (logits.scale * (end - logits.zero) for end in (-128, 127))
    assert low < min(real.min(), 0) and high > max(real.max(), 0)
    assert high - low < 1.15 * (np.maximum(real.max(), 0) - np.minimum(real.min(), 0))


def test_the_range_of_the_logits_is_that_of_the_calibration_images(tmp_path: Path) -> None:
    network = trained(images=8)
    output = network.program().output

    def scale(chosen: Trained) -> float:
        target.write(chosen, tmp_path)
        path = tmp_path / target.NAME
        return read(path.read_bytes(), path).tensors[output].scale

    _, logits = network.run(sites=False)
    low, high = float(logits.min()), float(logits.max())
    margin = 0.05 * (high - low)
    # INT8 has 255 steps, and zero is always among its numbers.
    steps = max(high + margin, 0.0) - min(low - margin, 0.0)
    assert scale(network) == pytest.approx(steps / 255, rel=1e-5)
    assert scale(attrs.evolve(network, calibration=network.images[:1])) < scale(network)
