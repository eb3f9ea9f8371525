from __future__ import annotations

import io
import zipfile
from pathlib import Path

import nnabla as nn
import numpy as np
import pytest
from nnabla.utils.nnp_graph import NnpLoader

from nnmpq.export.nnp import POLICY_MEMBER, WEIGHTS_MEMBER, read_manifest, save_nnp
from nnmpq.graph.quantize import QuantizedNetwork, quantize
from nnmpq.graph.schemes import Parametric, SiteSettings
from nnmpq.policy import PolicyError
from tests.networks import images, residual


def network(name: str = "uniform_delta_xmax") -> tuple[nn.Variable, QuantizedNetwork]:
    x = images(4)
    settings = SiteSettings(name)
    return x, quantize(residual(x, test=True), Parametric(weight=settings, activation=settings))


@pytest.mark.parametrize("name", ["uniform_delta_xmax", "pow2_xmin_xmax"])
def test_loads_at_any_batch_size_with_the_same_outputs(name: str, tmp_path: Path) -> None:
    x, quantized = network(name)
    quantized.output.forward()
    numbers, wanted = x.d.copy(), quantized.output.d.copy()
    policy = quantized.policy(name="residual", seed=3)
    save_nnp(tmp_path / "m.nnp", quantized, policy)
    weights = nn.get_parameters()["first/conv/W"].d.copy()
    nn.clear_parameters()
    for batch in (1, 3, 4):
        loaded = NnpLoader(str(tmp_path / "m.nnp")).get_network("main", batch_size=batch)
        loaded.inputs["x"].d = numbers[:batch]
        loaded.outputs["y"].forward()
        np.testing.assert_array_equal(loaded.outputs["y"].d, wanted[:batch])
    found, arrays = read_manifest(tmp_path / "m.nnp")
    assert found == policy
    codes, grid_step = arrays["first/conv/W:codes"], arrays.get("first/conv/W:step")
    stored = nn.get_parameters(grad_only=False)["first/conv/W"].d
    assert codes.dtype == np.int8 and codes.shape == weights.shape
    if grid_step is not None:
        np.testing.assert_array_equal(codes * grid_step, stored)
    assert list(tmp_path.iterdir()) == [tmp_path / "m.nnp"]


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    _, quantized = network()
    path = tmp_path / "m.nnp"
    save_nnp(path, quantized, quantized.policy(name="residual"))
    content = path.read_bytes()
    (tmp_path / "cut.nnp").write_bytes(content[: len(content) // 2])
    with pytest.raises(PolicyError, match="cut.nnp"):
        read_manifest(tmp_path / "cut.nnp")
    with zipfile.ZipFile(tmp_path / "plain.nnp", "w") as archive:
        archive.writestr("network.nntxt", "")
    with pytest.raises(PolicyError, match="no manifest"):
        read_manifest(tmp_path / "plain.nnp")
    hostile = io.BytesIO()
    np.savez(hostile, **{"w:codes": np.array([print], dtype=object)})
    with zipfile.ZipFile(tmp_path / "hostile.nnp", "w") as archive:
        archive.writestr(POLICY_MEMBER, quantized.policy().to_yaml())
        archive.writestr(WEIGHTS_MEMBER, hostile.getvalue())
    with pytest.raises(PolicyError, match="hostile.nnp"):
        read_manifest(tmp_path / "hostile.nnp")


def test_nothing_is_left_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, quantized = network()

    def broken(*_: object) -> bytes:
        raise OSError("disk full")

    monkeypatch.setattr("nnmpq.export.nnp.weights_npz", broken)
    (tmp_path / "m.nnp").write_text("the old one")
    with pytest.raises(OSError, match="disk full"):
        save_nnp(tmp_path / "m.nnp", quantized, quantized.policy())
    assert [p.name for p in tmp_path.iterdir()] == ["m.nnp"]
    assert (tmp_path / "m.nnp").read_text() == "the old one"
    with pytest.raises(ValueError, match="ends in .nnp"):
        save_nnp(tmp_path / "m.zip", quantized, quantized.policy())
