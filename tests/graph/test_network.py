"""What a traced network is."""

from __future__ import annotations

import pytest

from nnmpq.graph.network import Layer, Network, Site


def layer(name: str, weight: str, bias: str | None = None) -> Layer:
    return Layer(
        name,
        "affine",
        Site(weight, "weight", "affine", (2, 3), True, layer=name, channel_axis=1),
        None if bias is None else Site(bias, "bias", "affine", (3,), True, layer=name),
        6,
        "input",
        (2,),
        (3,),
    )


def network() -> Network:
    layers = [layer("a", "a/W", "a/b"), layer("b", "a/W", "b/b"), layer("c", "c/W")]
    return Network(layers, [Site("input", "activation", "input", (2,), True, readers=["a"])])


def test_sites_are_in_order_and_a_shared_weight_is_one():
    assert [site.name for site in network().sites()] == ["a/W", "a/b", "b/b", "c/W", "input"]


def test_elements_and_multiplications():
    assert [site.elements for site in network().sites()] == [6, 3, 3, 6, 2]
    assert Site("y", "activation", "sum", (), True).elements == 1
    assert network().macs == 3 * 6


def test_lookup_by_name():
    assert network().site("b/b").layer == "b"
    assert network().layer("c").weight.name == "c/W"
    assert network().site("input").readers == ("a",)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(KeyError, match="'inputs'.*'input'"):
        network().site("inputs")
    with pytest.raises(KeyError, match="'d'.*'[abc]'"):
        network().layer("d")


def test_a_layer_reads_its_input_unless_told_otherwise():
    one = layer("a", "a/W")
    assert one.inputs == ("input",)
    assert Layer("a", "affine", one.weight, None, 6, None, (2,), (3,)).inputs == ()
    joined = Layer("a", "affine", one.weight, None, 6, "x", (2,), (3,), inputs=["x", "y"])
    assert joined.inputs == ("x", "y")


@pytest.mark.parametrize(("role", "kind"), [("weights", "affine"), ("weight", "linear_layer"), ("activation", "Relu")])
def test_unknown_roles_and_kinds_are_refused(role, kind):
    with pytest.raises(ValueError):
        Site("x", role, kind, (1,), True)
    with pytest.raises(ValueError):
        Layer("x", "relu", layer("a", "a/W").weight, None, 1, None, (1,), (1,))


def test_networks_compare_by_content():
    assert network() == network()
    assert hash(network()) == hash(network())
