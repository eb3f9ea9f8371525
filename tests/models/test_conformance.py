"""Every network of the registry: small, quantized by every family, baked, and saved to a file that computes the same.

A new network enters by its line in `MODELS`; options that make it small may stand in `SMALL`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import nnabla as nn
import numpy as np
import pytest
from nnabla.utils.nnp_graph import NnpLoader

from nnmpq.export.nnp import read_manifest, save_nnp
from nnmpq.graph.bake import bake
from nnmpq.graph.network import ACTIVATION, ACTIVATION_KINDS, Network, Site
from nnmpq.graph.quantize import QuantizedNetwork, quantize
from nnmpq.graph.schemes import Fixed, FromPolicy, Parametric, Quantized, SiteSettings
from nnmpq.models import MODELS, build
from nnmpq.quantizers import QUANTIZERS

SMALL: dict[str, dict[str, Any]] = {
    **{name: {"width_multiplier": 0.125, "stem": "cifar"} for name in ("resnet18", "resnet34", "resnet50")},
    **{name: {"width_multiplier": 0.125, "stem": "cifar"} for name in ("edmips_resnet18", "edmips_resnet50")},
    "preact_resnet": {"width_multiplier": 0.25},
    "mobilenet_v1": {"width_multiplier": 0.25, "stem": "cifar"},
    "mobilenet_v2": {"width_multiplier": 0.35, "stem": "cifar"},
    "vgg11": {"width_multiplier": 0.125, "hidden": (16,)},
    "vgg16": {"width_multiplier": 0.125, "hidden": ()},
    "vgg19": {"width_multiplier": 0.125, "hidden": ()},
}
SIDE, CLASSES = 16, 5
# With these every family is tried by itself; all networks have them all at once, one at each site in turn. All by all,
# which takes long: NNMPQ_EVERY_SCHEME=1 python -m pytest tests/models/test_conformance.py
LIGHT = tuple(MODELS) if os.environ.get("NNMPQ_EVERY_SCHEME") else ("resnet_digits", "mobilenet_v1")
# Of nnabla's batch normalization: running numbers keep so much of themselves.
DECAY = 0.9


def both(weight: SiteSettings, activation: SiteSettings | None = None) -> Parametric:
    return Parametric(weight=weight, activation=activation or weight, kinds=("relu", "input"))


ONE_BIT = SiteSettings("sign_mean", bits=1, options={"bits_limits": (1.0, 1.0)})
SCHEMES: dict[str, Any] = {
    **{
        name: both(SiteSettings(name, bits=3))
        for name in ("uniform_b_xmax", "uniform_delta_xmax", "uniform_delta_b")
        + ("pow2_b_xmax", "pow2_b_xmin", "pow2_xmin_xmax")
    },
    "fixed": Fixed(2, 4),
    "per_channel": both(SiteSettings("uniform_delta_xmax", per_channel=True)),
    "gaussian": both(SiteSettings("gaussian", bits=2), SiteSettings("half_wave_gaussian", bits=3)),
    "dorefa": both(SiteSettings("dorefa", bits=2), SiteSettings("pact", bits=3)),
    "haq": both(SiteSettings("haq", bits=3), SiteSettings("pact", bits=3)),
    "sign_mean": both(ONE_BIT, SiteSettings("pact", bits=4)),
}


@attrs.frozen
class InTurn:
    """The scheme that gives the sites all other schemes' quantizers in turn, activations of every kind included."""

    schemes: tuple[Any, ...]
    turns: dict[str, int] = attrs.field(factory=dict)

    def check(self, network: Network) -> None:
        counts = {True: 0, False: 0}
        for site in network.sites():
            self.turns[site.name] = counts[site.role == ACTIVATION]
            counts[site.role == ACTIVATION] += site.role != "bias"

    def covers(self, site: Site) -> bool:
        return True

    def _chosen(self, site: Site) -> Any:
        return self.schemes[self.turns[site.name] % len(self.schemes)]

    def weight(self, site: Site, w: nn.Variable) -> Quantized:
        return self._chosen(site).weight(site, w)

    def activation(self, site: Site, x: nn.Variable) -> Quantized:
        return self._chosen(site).activation(site, x)


def float_network(name: str, test: bool = True) -> tuple[nn.Variable, nn.Variable]:
    x = nn.Variable.from_numpy_array(np.random.RandomState(0).randn(4, 3, SIDE, SIDE))
    return x, build(name, x, CLASSES, test=test, seed=1, **SMALL.get(name, {}))


def network(name: str, scheme: Any) -> tuple[nn.Variable, nn.Variable, QuantizedNetwork]:
    """Images, a float network and it quantized; no layer's result vanishes or grows."""
    training = float_network(name, test=False)[1]
    for parameter, variable in nn.get_parameters().items():
        if parameter.endswith("/W"):
            inputs = variable.shape[0] if parameter.endswith("affine/W") else int(np.prod(variable.shape[1:]))
            variable.d = variable.d * (np.sqrt(2 / inputs) / variable.d.std())
    quantize(training, scheme).output.forward()
    for parameter, variable in nn.get_parameters(grad_only=False).items():
        # Normalized by the statistics of these images, which one update has moved the running ones towards.
        if parameter.endswith(("/bn/mean", "/bn/var")):
            variable.d = (variable.d - DECAY * (0.0 if parameter.endswith("mean") else 1.0)) / (1.0 - DECAY)
    x, y = float_network(name)
    return x, y, quantize(y, scheme)


def computed(y: nn.Variable) -> np.ndarray:
    y.forward()
    return np.array(y.d)


def baked_computes_the_same(quantized: QuantizedNetwork) -> np.ndarray:
    """Compare bit for bit; return the numbers, which tell images and classes apart."""
    expected = computed(quantized.output)
    assert np.isfinite(expected).all()
    assert np.ptp(expected, axis=0).max() > 0 and np.ptp(expected, axis=1).max() > 0
    np.testing.assert_array_equal(computed(bake(quantized).outputs[0]), expected)
    return expected


def test_every_quantizer_is_tried() -> None:
    used: set[str] = set()
    for scheme in SCHEMES.values():
        nn.clear_parameters()
        _, y = float_network("resnet_digits")
        used |= {site.quantizer_name for site in quantize(y, scheme).sites.values()}
    assert used - {"float"} == set(QUANTIZERS)


@pytest.mark.parametrize("scheme", list(SCHEMES))
@pytest.mark.parametrize("name", LIGHT)
def test_every_family(name: str, scheme: str) -> None:
    _, y, quantized = network(name, SCHEMES[scheme])
    found = baked_computes_the_same(quantized)
    assert not np.array_equal(found, computed(y))
    weights = {layer.weight.name for layer in quantized.network.layers}
    relus = {site.name for site in quantized.network.activations if site.kind == "relu"}
    assert weights | relus <= {site for site, found in quantized.sites.items() if found.quantizer is not None}


@pytest.mark.parametrize("name", list(MODELS))
def test_all_families_in_one_network_and_its_file(name: str, tmp_path: Path) -> None:
    x, _, quantized = network(name, InTurn(tuple(SCHEMES.values())))
    assert set(quantized.sites) == {site.name for site in quantized.network.sites()}
    expected = baked_computes_the_same(quantized)
    policy = quantized.policy(name=name, method="in turn")
    save_nnp(tmp_path / "network.nnp", quantized, policy)
    numbers = x.d.copy()
    nn.clear_parameters()
    # At the same batch size: nnabla's affine layer adds up in another order at another one.
    loaded = NnpLoader(str(tmp_path / "network.nnp")).get_network("main", batch_size=len(numbers))
    loaded.inputs["x"].d = numbers
    np.testing.assert_array_equal(computed(loaded.outputs["y"]), expected)
    assert read_manifest(tmp_path / "network.nnp")[0] == policy


@pytest.mark.parametrize("name", LIGHT)
def test_a_policy_builds_the_network_again(name: str) -> None:
    first = quantize(float_network(name)[1], Fixed(3, 5, kinds=ACTIVATION_KINDS))
    policy = first.policy(name=name)
    nn.clear_parameters()
    again = network(name, FromPolicy(policy))[2]
    assert again.bit_numbers() == first.bit_numbers() and set(first.bit_numbers().values()) == {3, 5}
    baked_computes_the_same(again)
