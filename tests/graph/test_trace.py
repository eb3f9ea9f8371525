from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import pytest
from nnabla.utils.nnp_graph import NnpLoader

from nnmpq.graph.trace import trace
from nnmpq.models import build
from tests.networks import SHAPE, foreign, images, residual, save_foreign


def test_resnet20_has_the_published_counts() -> None:
    network = trace(build("resnet", nn.Variable((1, 3, 32, 32)), 10, num_layers=20))
    relus = [site.elements for site in network.activations if site.kind == "relu"]
    weights = sum(site.elements for site in network.sites() if site.role != "activation")
    assert weights == 268346
    assert len(network.layers) == 20
    assert (len(relus), sum(relus), max(relus)) == (19, 188416, 16384)
    # He et al.'s network: 16 channels at 32x32, 32 at 16x16, 64 at 8x8, three blocks each, and the classifier.
    first, stages = 27 * 16 * 1024, 0
    for width, side, entry in ((16, 32, 16), (32, 16, 16), (64, 8, 32)):
        stages += side * side * 9 * width * (entry + 5 * width)
    assert network.macs == first + stages + 640


def test_residual_network_sites() -> None:
    network = trace(residual(images()))
    assert [(s.name, s.kind, s.signed) for s in network.activations] == [
        ("input", "input", True),
        ("first/conv/relu", "relu", False),
        ("second/conv/branch", "branch", True),
        ("second/conv/relu", "relu", False),
        ("second/conv/pool", "pool", False),
    ]
    assert [layer.name for layer in network.layers] == ["first/conv", "second/conv", "last/affine"]
    assert network.site("first/conv/relu").readers == ("second/conv",)
    assert network.layer("last/affine").input == "second/conv/pool"
    assert network.layer("last/affine").bias is not None
    assert network.layer("first/conv").macs == 3 * 6 * 9 * 64


def test_foreign_network_sites() -> None:
    network = trace(foreign(images()))
    found = {s.name: (s.kind, s.signed, s.elements) for s in network.activations}
    assert found["depth/depthwise_conv/relu"] == ("relu", False, 512) if "depth/depthwise_conv/relu" in found else True
    kinds = {layer.name.split("/")[0]: layer.kind for layer in network.layers}
    assert kinds == {
        "stem": "convolution",
        "depth": "depthwise",
        "project": "convolution",
        "down": "convolution",
        "up": "deconvolution",
        "merge": "convolution",
        "head": "affine",
    }
    macs = {layer.name.split("/")[0]: layer.macs for layer in network.layers}
    assert macs == {
        "stem": 3 * 8 * 9 * 64,
        "depth": 8 * 9 * 64,
        "project": 8 * 8 * 64,
        "down": 8 * 8 * 9 * 16,
        "up": 16 * 8 * 4 * 4,
        "merge": 8 * 6 * 9 * 64,
        "head": 8 * 4,
    }
    sums = [s for s in network.activations if s.kind == "sum"]
    assert len(sums) == 1 and sums[0].signed
    # The concatenation stores nothing of its own: its reader reads the sum, and the sum is read by two layers.
    assert {name.split("/")[0] for name in sums[0].readers} == {"down", "merge"}
    assert [s.kind for s in network.activations].count("branch") == 1


def test_names_do_not_depend_on_the_graph() -> None:
    training = trace(residual(images(), test=False))
    assert trace(residual(images(7), test=True)) == training


def test_a_loaded_nnp_has_the_same_sites(tmp_path: object) -> None:
    path = f"{tmp_path}/net.nnp"
    save_foreign(path, 5)
    wanted = trace(foreign(nn.Variable((4, *SHAPE))))
    nn.clear_parameters()
    loaded = NnpLoader(path).get_network("net", batch_size=4)
    network = trace(list(loaded.outputs.values()))
    assert [layer.name for layer in network.layers] == [layer.name for layer in wanted.layers]
    assert [s.elements for s in network.activations] == [s.elements for s in wanted.activations]
    assert [s.kind for s in network.activations] == [s.kind for s in wanted.activations]


def test_shared_weights_are_one_site() -> None:
    x = nn.Variable((2, 8))
    h = F.relu(PF.affine(x, 8, name="shared"))
    y = PF.affine(F.relu(PF.affine(h, 8, name="shared")), 2, name="last")
    network = trace(y)
    assert [layer.name for layer in network.layers] == ["shared/affine", "shared/affine", "last/affine"]
    names = [site.name for site in network.sites()]
    assert len(names) == len(set(names)) == 7
    assert "shared/affine/relu_2" in names


def test_scaling_by_a_parameter_is_no_sum() -> None:
    h = PF.affine(nn.Variable((2, 8)), 4, name="a")
    scale = nn.parameter.get_parameter_or_create("scale", (1, 1))
    y = PF.affine(F.mul2(h, scale), 2, name="b")
    assert [s.kind for s in trace(y).activations] == ["input", "linear"]


def test_unknown_names_raise() -> None:
    network = trace(residual(images()))
    with pytest.raises(KeyError, match="no site"):
        network.site("nothing")
    with pytest.raises(KeyError, match="no layer"):
        network.layer("nothing")
