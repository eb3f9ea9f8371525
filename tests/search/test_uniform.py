from __future__ import annotations

import pytest

from nnmpq.budget import Budget
from nnmpq.cost import cost
from nnmpq.search.candidates import candidate_quantizers, searched_widths
from nnmpq.search.spend import spend
from nnmpq.search.task import network_of
from nnmpq.search.uniform import widest_uniform
from tests.search.searching import experiment, run, trail
from tests.search.small import network

NET = network([1024, 4096], [64], [(0,), (0,)])
WIDTHS = {"l0/W": (2, 4, 8), "l1/W": (2, 4, 8), "a0/relu": (2, 4, 8)}


@pytest.mark.parametrize("limit,expected", [(1.25, 2), (2.4, 2), (2.5, 4), (4.9, 4), (5.0, 8), (99, 8)])
def test_the_widest_that_meets_the_limit(limit, expected):
    # 5,120 weights of b bits: b * 0.625 KiB.
    bits = widest_uniform(NET, WIDTHS, {}, Budget(weights_kib=limit))
    assert set(bits.values()) == {expected} and bits.keys() == WIDTHS.keys()


def test_a_site_that_cannot_have_the_width_takes_the_next_one():
    bits = widest_uniform(NET, {**WIDTHS, "l0/W": (3, 8)}, {}, Budget(mean_bits=4.0))
    # Uniform 4 would give it 8 bits: (8 * 4 + 4 * 4 * 4) / 5 = 19.2 exceeds 16; uniform 3 costs (3 * 4 + 64) / 5.
    assert bits == {"l0/W": 3, "l1/W": 4, "a0/relu": 4}


def test_what_is_kept_counts():
    budget = Budget(weights_kib=1 + 2.0)
    assert widest_uniform(NET, {"l1/W": (2, 4, 8)}, {"l0/W": 8}, budget) == {"l1/W": 4}


def test_every_uniform_width_is_in_the_trail(tmp_path):
    policy = run("uniform", tmp_path, mean_bits=4.0)
    assert {site.bits for site in policy.sites.values()} == {4}
    assert [row[:2] for row in trail(tmp_path)[1:]] == [
        ["uniform 2", "True"],
        ["uniform 3", "True"],
        ["uniform 4", "True"],
        ["uniform 8", "False"],
    ]


def test_the_nearest_uniform_has_as_many_at_the_next_width_as_possible(tmp_path):
    limit = 20.0
    policy = run("uniform", tmp_path, weights_kib=limit, nearest_uniform=True)
    sizes = {
        s.name: s.elements for s in network_of(experiment("uniform"), (1, 8, 8), 10).sites() if s.role != "activation"
    }
    widened = [name for name in sizes if policy.sites[name].bits == 3]
    assert {policy.sites[name].bits for name in sizes} == {2, 3}
    # One more bit a number above 74,522 numbers at 2: the smallest tensors first fit in most.
    room = limit * 8192 - 2 * sum(sizes.values())
    fitting, used = 0, 0
    for size in sorted(sizes.values()):
        used += size
        fitting += used <= room
    assert len(widened) == fitting and sum(sizes[name] for name in widened) <= room


def test_published_quantizers_are_named_and_their_biases_stay_float(tmp_path):
    changes = {"weight_candidate": "gaussian", "activation_candidate": "half_wave_gaussian"}
    chosen = experiment("uniform", **changes)
    net = network_of(chosen, (1, 8, 8), 10)
    given = {site.name: (2,) for site in net.sites()}
    assert given.keys() - searched_widths(chosen, net, given).keys() == {"fc/affine/b"}
    assert searched_widths(experiment("uniform"), net, given) == given
    assert candidate_quantizers(experiment("uniform"), net, dict.fromkeys(given, 2)) == {}
    sites = run("uniform", tmp_path, mean_bits=3.0, **changes).sites
    assert sites["conv1/conv/W"].quantizer == "gaussian"
    assert sites["conv1/conv/relu"].quantizer == "half_wave_gaussian"
    # The pixels have a sign: a quantizer from zero on cannot serve.
    assert sites["input"].quantizer == "uniform_b_xmax" and sites["input"].signed
    assert (sites["fc/affine/b"].quantizer, sites["fc/affine/b"].bits) == ("float", 32)


def test_what_is_left_is_spent_where_it_helps_most():
    losses = {"l0/W": {2: 9.0, 4: 3.0, 8: 0.0}, "l1/W": {2: 8.0, 4: 7.0, 8: 6.9}}
    start = {"l0/W": 2, "l1/W": 2, "a0/relu": 2}
    # 1,024 * 2 + 4,096 * 2 bits are 1.25 KiB; each step of l0 is 0.25 and 0.5, of l1 1 and 2.
    for limit, expected in ((1.4, (2, 2)), (1.5, (4, 2)), (2.0, (8, 2)), (2.9, (8, 2)), (3.0, (8, 4)), (5.0, (8, 8))):
        found = spend(start, losses, NET, Budget(weights_kib=limit))
        assert (found["l0/W"], found["l1/W"], found["a0/relu"]) == (*expected, 2)
        assert cost(NET, found).weights_kib <= limit
