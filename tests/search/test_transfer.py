"""Policies that go over to another network: the published allocation of EdMIPS, names that do not fit, the command."""

from __future__ import annotations

import attrs
import pytest

from nnmpq.cli import main
from nnmpq.config.experiment import Experiment
from nnmpq.config.reader import to_cfg
from nnmpq.cost import cost
from nnmpq.graph.network import Layer, Network, Site
from nnmpq.policy import Policy, PolicyError, SitePolicy
from nnmpq.search.task import network_of, policy_sites
from nnmpq.search.transfer import check_layers, network_called, transfer

# EdMIPS' published ResNet-18, in its order of layers: blocks, in each the convolutions, then the projection.
WEIGHTS = (1, 1, 1, 1, 3, 2, 4, 2, 1, 3, 2, 4, 2, 1, 3, 2, 4, 2, 2)
ACTIVATIONS = (2, 2, 2, 2, 2, 2, 4, 2, 2, 3, 3, 3, 2, 2, 3, 3, 3, 2, 2)


def resnet(arch: str, stem: str = "imagenet", size: int = 224, classes: int = 1000) -> Network:
    return network_of(Experiment("X", arch=arch, stem=stem), (3, size, size), classes)


def published(network: Network) -> Policy:
    """The published bits at the sites of a pre-activation network; activations by the layers that read them."""
    bits: dict[str, int] = {}
    for layer, weight, activation in zip(network.layers[1:-1], WEIGHTS, ACTIVATIONS):
        bits[layer.weight.name] = weight
        bits[layer.inputs[0]] = max(bits.get(layer.inputs[0], 0), activation)
    quantizers = {n: "pact" if network.site(n).role == "activation" else "gaussian" for n in bits}
    return Policy("edmips_resnet18", "gmpq", 1, {"mean_bits": 2.0}, {}, policy_sites(network, bits, quantizers))


def test_the_published_allocation_found_on_cifar_costs_on_imagenet_what_was_published() -> None:
    """6730.8 MBitOps of the 19 quantized convolutions; the one input that two layers read counts as published."""
    policy = published(resnet("edmips_resnet18", "cifar", 32, 10))
    imagenet = resnet("resnet18")
    found = transfer(policy, imagenet, name="resnet18")
    found.check(imagenet)
    used = cost(imagenet, found.bits())
    # The published code quantizes a projection's input by itself: at 4 bits where the first convolution has 2.
    first = imagenet.layer("res2/block1/conv1/conv")
    assert found.sites[first.inputs[0]].bits == 4
    extra = first.macs * found.sites[first.weight.name].bits * (4 - 2)
    assert used.bitops_inner - extra == pytest.approx(6730.8e6, abs=0.1e6)
    assert found.cost == attrs.asdict(used) and found.budget == {}
    assert (found.network, found.method, found.seed) == ("resnet18", "gmpq", 1)
    assert [found.sites[layer.weight.name].bits for layer in imagenet.layers[1:-1]] == list(WEIGHTS)


def test_an_activation_follows_the_layers_that_read_it() -> None:
    """The ReLU stands before a convolution there and behind a sum here; a stem has one more there."""
    cifar, imagenet = resnet("edmips_resnet18", "cifar", 32, 10), resnet("resnet18")
    bits = {site.name: 8 for site in cifar.activations if site.kind == "relu"}
    read = cifar.layer("res1/block1/conv1/conv").inputs[0]
    assert read == "conv1/conv/relu_2" and imagenet.layer("res1/block1/conv1/conv").inputs[0] == "conv1/conv/relu"
    bits.update({read: 3, "conv1/conv/relu": 5, "res4/block2/conv2/conv/relu": 6})
    quantizers = dict.fromkeys(bits, "half_wave_gaussian")
    found = transfer(Policy("edmips_resnet18", sites=policy_sites(cifar, bits, quantizers)), imagenet)
    assert found.sites["conv1/conv/relu"] == SitePolicy("activation", 3, "half_wave_gaussian", False)
    # What no layer reads goes by its name.
    assert found.sites["res4/block2/conv2/conv/relu"].bits == 6
    assert "conv1/conv/relu_2" not in found.sites and found.sites["fc/affine/W"].bits == 32


def _line(readers: dict[str, tuple[str, ...]], signed: bool = False) -> Network:
    """Layers that read these activations."""
    names = dict.fromkeys(name for read in readers.values() for name in read)
    layers = []
    for name, read in readers.items():
        weight = Site(f"{name}/W", "weight", "affine", (4, 4), True, layer=name)
        layers.append(Layer(name, "affine", weight, None, 16, read[0], (4,), (4,), read))
    sites = [
        Site(name, "activation", "relu", (4,), signed, readers=[r for r, read in readers.items() if name in read])
        for name in names
    ]
    return Network(tuple(layers), tuple(sites))


def test_where_readers_disagree_the_widest_is_stored() -> None:
    source = _line({"a": ("x",), "b": ("y",)})
    policy = Policy("two", sites=policy_sites(source, {"a/W": 2, "b/W": 3, "x": 1, "y": 4}))
    found = transfer(policy, _line({"a": ("z",), "b": ("z",)}), source)
    assert found.bits() == {"a/W": 2, "b/W": 3, "z": 4}


def test_a_quantizer_from_zero_is_replaced_where_there_is_a_sign() -> None:
    source = _line({"a": ("x",)})
    policy = Policy("one", sites=policy_sites(source, {"a/W": 2, "x": 1}, {"x": "pact", "a/W": "haq"}))
    found = transfer(policy, _line({"a": ("x",)}, signed=True), source)
    assert found.sites["x"] == SitePolicy("activation", 2, "uniform_b_xmax", True)
    assert found.sites["a/W"].quantizer == "haq"


def test_parts_of_a_concatenation_keep_their_order() -> None:
    source = _line({"a": ("x", "y")})
    policy = Policy("one", sites=policy_sites(source, {"a/W": 2, "x": 3, "y": 5}))
    assert transfer(policy, _line({"a": ("p", "q")}), source).bits() == {"a/W": 2, "p": 3, "q": 5}
    assert transfer(policy, _line({"a": ("p",)}), source).bits() == {"a/W": 2, "p": 5}


def test_names_that_miss_and_that_are_too_many_are_told() -> None:
    source, target = _line({"a": ("x",), "conv_b": ("x",)}), _line({"a": ("x",), "conv_c": ("x",)})
    with pytest.raises(PolicyError) as said:
        check_layers(target, source, "two")
    assert str(said.value) == (
        "the policy of two does not fit: it has no layer conv_c (the nearest is conv_b); "
        "its layer conv_b is too many (the nearest is conv_c)"
    )
    with pytest.raises(PolicyError, match="it has no layer res1/block3/conv1/conv .*; and [1-9]"):
        check_layers(resnet("resnet34"), resnet("resnet18"))
    other = attrs.evolve(source, layers=[attrs.evolve(layer, kind="convolution") for layer in source.layers])
    with pytest.raises(PolicyError, match="a is of the kind convolution there, affine here"):
        check_layers(source, other)


def test_the_policys_own_network_is_found_by_its_names() -> None:
    cifar = resnet("edmips_resnet18", "cifar", 32, 10)
    policy = published(cifar)
    assert [s.name for s in network_called(policy).activations] == [s.name for s in cifar.activations]
    with pytest.raises(PolicyError, match="none here has that name; the nearest is 'resnet18'"):
        network_called(attrs.evolve(policy, network="resnet81"))
    with pytest.raises(PolicyError, match="another network's"):
        network_called(attrs.evolve(policy, network="mobilenet_v2"))


def test_the_command(tmp_path, capsys) -> None:
    cifar = resnet("edmips_resnet18", "cifar", 32, 10)
    folder = tmp_path / "SEARCH"
    folder.mkdir()
    published(cifar).save(folder / "policy.yaml")
    (folder / "config.cfg").write_text(to_cfg(Experiment("SEARCH", arch="edmips_resnet18", stem="cifar")))
    out = tmp_path / "moved.yaml"
    assert main(["transfer", str(folder), "--arch", "resnet18", "-o", str(out)]) == 0
    moved, target = Policy.load(out), resnet("resnet18")
    moved.check(target)
    assert moved == transfer(published(cifar), target, name="resnet18")
    assert "edmips_resnet18 to resnet18" in capsys.readouterr().out
    for arguments, words in (
        (["--arch", "resnet81"], "--arch resnet81: no such network; the nearest is resnet18"),
        (
            ["--arch", "resnet50"],
            "policy.yaml: the policy of edmips_resnet18 does not fit: it has no layer res1/block1",
        ),
        (["--arch", "resnet18", "--stem", "cifr"], "stem = cifr: must be one of imagenet, cifar"),
    ):
        assert main(["transfer", str(folder), *arguments, "-o", str(tmp_path / "no.yaml")]) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / "no.yaml").exists()
