from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from nnmpq.export.integer.program import ExportError
from tests.export.networks import everything, small, trained

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed: extra onnx")
pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed: extra onnx")

from nnmpq.export.onnx.target import NAME, verify, write  # noqa: E402


def test_a_written_network_is_the_trained_one(tmp_path: Path) -> None:
    network = trained(build=everything, weight_bits=3)
    assert [path.name for path in write(network, tmp_path)] == ["model.onnx", "sizes.txt"]
    found = verify(network, tmp_path)
    assert found.passed and found.differing == 0 and found.same_class == 1 and found.images == 40
    # Three bits stand in four: the file promises the container, and says what the policy counts.
    assert found.promised_bytes == network.weight_bytes * 4 / 3
    assert f"the policy counts {network.weight_bytes:,.0f}" in found.report()
    assert "4 optimisation levels: 0 elements apart" in found.report()
    assert found.file_bytes == {NAME: (tmp_path / NAME).stat().st_size}
    stored = {entry.key: entry.value for entry in onnx.load(str(tmp_path / NAME)).metadata_props}
    assert stored == {"nnmpq.policy": network.policy.to_yaml()}


def changed(path: Path, ending: str, change) -> None:
    model = onnx.load(str(path))
    constant = next(c for c in model.graph.initializer if c.name.endswith(ending))
    constant.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(constant)), constant.name))
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("ending", ["/slope", "/offset", "relu/high"])
def test_verify_sees_a_changed_constant(ending: str, tmp_path: Path) -> None:
    network = trained(build=small)
    write(network, tmp_path)
    changed(tmp_path / NAME, ending, lambda numbers: (numbers * np.float32(0.7)).astype(np.float32))
    found = verify(network, tmp_path)
    assert found.differing > 0 and not found.passed


def test_what_is_no_file_of_this_network_is_refused(tmp_path: Path) -> None:
    network = trained(build=small)
    with pytest.raises(ExportError, match=r"model\.onnx: no ONNX model can be read"):
        verify(network, tmp_path)
    write(network, tmp_path)
    content = (tmp_path / NAME).read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"\xff" * 64):
        (tmp_path / NAME).write_bytes(damaged)
        with pytest.raises(ExportError, match=r"model\.onnx: no ONNX model can be read"):
            verify(network, tmp_path)
    write(trained(build=everything), tmp_path)
    with pytest.raises(ExportError, match="it is another network's; export again"):
        verify(trained(build=small), tmp_path)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = trained(build=small)
    write(network, tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=rf"the package {package} is not installed: pip install nnmpq\[onnx\]"):
        verify(network, tmp_path)
