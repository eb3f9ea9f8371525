"""`.nnp` files: the same numbers at any batch size, and manifests that can be trusted."""

from __future__ import annotations

import io
import zipfile
from collections import OrderedDict
from pathlib import Path

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nnabla.utils.load import load
from nnabla.utils.nnp_graph import NnpLoader

import nnmpq.export.nnp as nnp
from nnmpq.export.nnp import POLICY_MEMBER, WEIGHTS_MEMBER, grids_of, read_manifest, save_nnp
from nnmpq.graph.quantize import QuantizedNetwork, quantize
from nnmpq.graph.schemes import Fixed, Parametric, SiteSettings
from nnmpq.models import build
from nnmpq.policy import Policy, PolicyError

UNIFORM = Fixed(4, 4)
POW2 = Parametric(
    weight=SiteSettings("pow2_xmin_xmax", bits=4),
    activation=SiteSettings("pow2_b_xmax", bits=4),
    kinds=("input", "relu", "sum"),
)
PER_CHANNEL = Parametric(
    weight=SiteSettings("uniform_delta_xmax", bits=3, per_channel=True), activation=SiteSettings("uniform_b_xmax")
)
SCHEMES = {"uniform": UNIFORM, "pow2": POW2, "per channel": PER_CHANNEL}


def made(batch: int, scheme=UNIFORM) -> tuple[nn.Variable, QuantizedNetwork]:
    """ResNet-8 for digits in the current scope, with running statistics that are not the first ones."""
    x = nn.Variable((batch, 1, 8, 8))
    y = build("resnet_digits", x, 10, test=True, seed=3)
    rng = np.random.RandomState(5)
    for name, v in nn.get_parameters(grad_only=False).items():
        if "/bn/" in name and not nn.get_parameters(grad_only=False)[name].need_grad:
            v.d = rng.uniform(0.5, 1.5, v.shape)
    return x, quantize(y, scheme)


def images(batch: int) -> np.ndarray:
    return np.random.RandomState(batch).randn(batch, 1, 8, 8).astype(np.float32)


def outputs(x: nn.Variable, y: nn.Variable, data: np.ndarray) -> np.ndarray:
    x.d = data
    y.forward()
    return np.array(y.d)


def saved(path: Path, batch: int = 7, scheme=UNIFORM) -> Policy:
    _, quantized = made(batch, scheme)
    policy = quantized.policy(name="resnet_digits", method="fixed", seed=3)
    save_nnp(path, quantized, policy)
    return policy


@pytest.mark.parametrize("batch", [1, 7, 16])
@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_same_numbers_at_any_batch_size(tmp_path: Path, scheme, batch):
    """16 is also a number of channels, 1 a length of every parameter of the normalizations."""
    saved(tmp_path / "m.nnp", batch, SCHEMES[scheme])
    for size in (1, 3, batch):
        x, quantized = made(size, SCHEMES[scheme])
        expected = outputs(x, quantized.output, images(size))
        with nn.parameter_scope("", OrderedDict()):
            network = NnpLoader(str(tmp_path / "m.nnp")).get_network("main", batch_size=size)
            assert list(network.inputs) == ["x"] and list(network.outputs) == ["y"]
            found = outputs(network.inputs["x"], network.outputs["y"], images(size))
        np.testing.assert_array_equal(found, expected)
        assert np.unique(expected).size > 3


def test_loads_as_nnabla_cli_does(tmp_path: Path):
    saved(tmp_path / "m.nnp")
    x, quantized = made(3)
    expected = outputs(x, quantized.output, images(3))
    with nn.parameter_scope("", OrderedDict()):
        info = load([str(tmp_path / "m.nnp")], prepare_data_iterator=False, batch_size=3)
        executor = info.executors["runtime"]
        network = executor.network
        (source,) = executor.dataset_assign
        (result,) = executor.output_assign
        found = outputs(source.variable_instance, result.variable_instance, images(3))
    assert (source.name, result.name, network.name) == ("x", "y", "main")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_manifest_decodes_to_the_saved_weights(tmp_path: Path, scheme):
    policy = saved(tmp_path / "m.nnp", scheme=SCHEMES[scheme])
    found, numbers = read_manifest(tmp_path / "m.nnp")
    assert found == policy
    grids = grids_of(numbers)
    assert set(grids) == set(policy.sites)
    with nn.parameter_scope("", OrderedDict()):
        nn.load_parameters(str(tmp_path / "m.nnp"))
        stored = {name: np.array(v.d) for name, v in nn.get_parameters(grad_only=False).items()}
    weights = [name for name, site in policy.sites.items() if site.role != "activation"]
    assert len(weights) > 5
    for name in weights:
        codes = numbers[f"{name}:codes"]
        assert codes.dtype in (np.int8, np.int16)
        np.testing.assert_array_equal(grids[name].decode(codes), stored[name])
        assert grids[name].bits == policy.sites[name].bits
        assert np.unique(codes).size <= 2 ** policy.sites[name].bits


def test_only_parameters_of_the_graph_are_saved(tmp_path: Path):
    nn.parameter.get_parameter_or_create("elsewhere/W", (3,))
    saved(tmp_path / "m.nnp")
    with nn.parameter_scope("", OrderedDict()):
        nn.load_parameters(str(tmp_path / "m.nnp"))
        names = list(nn.get_parameters(grad_only=False))
    assert "fc/affine/W" in names
    assert not [name for name in names if name.startswith("elsewhere") or "_quantizer" in name]


def through(reshaped) -> QuantizedNetwork:
    """Two layers with a function between them."""
    h = F.relu(PF.affine(nn.Variable((4, 6)), 6, name="a"))
    return quantize(PF.affine(reshaped(h), 2, name="b"), UNIFORM)


def test_networks_of_one_batch_size_are_refused(tmp_path: Path):
    quantized = through(lambda h: F.transpose(F.reshape(F.transpose(h, (1, 0)), (6, 4)), (1, 0)))
    with pytest.raises(ValueError, match="batch size 4 alone"):
        save_nnp(tmp_path / "m.nnp", quantized, quantized.policy())
    assert list(tmp_path.iterdir()) == []


def test_reshapes_within_an_image_and_constants_keep_the_batch_open(tmp_path: Path):
    quantized = through(lambda h: F.add2(F.reshape(F.reshape(h, (4, 2, 3)), (4, 6)), F.constant(1.0, (1, 6))))
    save_nnp(tmp_path / "m.nnp", quantized, quantized.policy())
    with nn.parameter_scope("", OrderedDict()):
        network = NnpLoader(str(tmp_path / "m.nnp")).get_network("main", batch_size=3)
        assert network.outputs["y"].shape == (3, 2)


def test_a_policy_of_another_network_is_refused(tmp_path: Path):
    _, quantized = made(7)
    with pytest.raises(PolicyError, match="no bits"):
        save_nnp(tmp_path / "m.nnp", quantized, Policy())
    assert list(tmp_path.iterdir()) == []


def test_other_endings_are_refused(tmp_path: Path):
    _, quantized = made(7)
    with pytest.raises(ValueError, match="model.h5"):
        save_nnp(tmp_path / "model.h5", quantized, quantized.policy())


def test_a_failure_keeps_the_old_file(tmp_path: Path, monkeypatch):
    saved(tmp_path / "m.nnp")
    before = (tmp_path / "m.nnp").read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(nnp, "weights_npz", fail)
    with pytest.raises(OSError, match="disk full"):
        saved(tmp_path / "m.nnp")
    assert [p.name for p in tmp_path.iterdir()] == ["m.nnp"]
    assert (tmp_path / "m.nnp").read_bytes() == before


def replaced(path: Path, **members: bytes) -> Path:
    """The file with other members at the two places of the manifest."""
    names = {"policy": POLICY_MEMBER, "weights": WEIGHTS_MEMBER}
    other = path.with_name("other.nnp")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            key = next((k for k, v in names.items() if v == name), "")
            new.writestr(name, members.get(key, old.read(name)))
    return other


def npz(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


def npy(array: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def test_truncated_files_are_refused(tmp_path: Path):
    saved(tmp_path / "m.nnp")
    data = (tmp_path / "m.nnp").read_bytes()
    for length in (0, 10, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.nnp").write_bytes(data[:length])
        with pytest.raises(PolicyError, match="cut.nnp"):
            read_manifest(tmp_path / "cut.nnp")
    with pytest.raises(PolicyError, match="none.nnp"):
        read_manifest(tmp_path / "none.nnp")


def test_hostile_manifests_are_refused(tmp_path: Path, monkeypatch):
    saved(tmp_path / "m.nnp")
    huge = npy(np.zeros(4, np.int8)).replace(b"(4,), ", b"(4000000000000,), ".ljust(6))
    bad = {
        "pickle": npz(a=npy(np.array([{}], object), allow_pickle=True)),
        "no arrays": b"PK\x05\x06",
        "claims more than it holds": npz(a=huge),
        "claims less than it holds": npz(a=npy(np.zeros(4, np.int8)) + b"rest"),
        "no npy": npz(a=b"import os"),
        "another numpy format": npz(a=b"\x93NUMPY\x02\x00" + npy(np.zeros(4))[8:]),
    }
    for case, weights in bad.items():
        with pytest.raises(PolicyError, match="no manifest"):
            read_manifest(replaced(tmp_path / "m.nnp", weights=weights))
            pytest.fail(case)
    with pytest.raises(PolicyError, match="policy.yaml"):
        read_manifest(replaced(tmp_path / "m.nnp", policy=b"sites: 3"))
    monkeypatch.setattr(nnp, "LARGEST_WEIGHTS", 2**20)
    with pytest.raises(PolicyError, match="larger than"):
        read_manifest(replaced(tmp_path / "m.nnp", weights=npz(a=npy(np.zeros(2**20, np.int8)))))


def test_good_arrays_of_all_shapes_are_read(tmp_path: Path):
    saved(tmp_path / "m.nnp")
    arrays = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.array("pow2"), "c": np.zeros((0, 3)), "d": np.array(True)}
    packed = npz(**{key: npy(value) for key, value in arrays.items()})
    found = read_manifest(replaced(tmp_path / "m.nnp", weights=packed))[1]
    for key, value in arrays.items():
        np.testing.assert_array_equal(found[key], value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_anywhere_gives_one_error_or_none(tmp_path: Path, data):
    """Bytes overwritten in the manifest or the directory of the zip: refused, or not part of what is read."""
    path = tmp_path / "m.nnp"
    if not path.exists():
        saved(path)
    content = bytearray(path.read_bytes())
    first = content.find(POLICY_MEMBER.encode()) - 30
    position = data.draw(st.integers(first, len(content) - 1))
    content[position] = data.draw(st.integers(0, 255))
    (tmp_path / "broken.nnp").write_bytes(content)
    try:
        policy, numbers = read_manifest(tmp_path / "broken.nnp")
    except PolicyError:
        return
    assert isinstance(policy, Policy) and all(isinstance(v, np.ndarray) for v in numbers.values())
