"""What is left of a budget: spent until nothing fits, the least harm first."""

from __future__ import annotations

from hypothesis import given

from nnmpq.budget import Budget
from nnmpq.cost import cost
from nnmpq.search.spend import spend
from tests.search.small import network, problems


@given(problems())
def test_nothing_could_be_wider_and_nothing_is_narrower(problem):
    net, losses, fixed, budget = problem
    start = {**fixed, **{name: min(own) for name, own in losses.items()}}
    found = spend(start, losses, net, budget)
    assert budget.met_by(cost(net, found)) and found.keys() == start.keys()
    for name, bits in found.items():
        assert bits >= start[name]
        wider = [width for width in losses.get(name, ()) if width > bits]
        assert not wider or not budget.met_by(cost(net, {**found, name: min(wider)}))
        assert name in losses or bits == fixed[name]


def test_the_least_added_loss_comes_first():
    net = network([1024, 1024], [1], [(), ()])
    losses = {"l0/W": {2: 0.0, 4: 0.3}, "l1/W": {2: 0.0, 4: 0.2}}
    # 1024 weights at 2 bits are a quarter of a KiB: there is room for one step of a quarter.
    assert spend({"l0/W": 2, "l1/W": 2}, losses, net, Budget(weights_kib=0.75)) == {"l0/W": 2, "l1/W": 4}
    losses["l0/W"][4] = 0.1
    assert spend({"l0/W": 2, "l1/W": 2}, losses, net, Budget(weights_kib=0.75)) == {"l0/W": 4, "l1/W": 2}
    assert spend({"l0/W": 2, "l1/W": 2}, losses, net, Budget(weights_kib=1.0)) == {"l0/W": 4, "l1/W": 4}


def test_a_site_too_large_to_widen_does_not_stop_the_others():
    net = network([8192, 64], [1], [(), ()])
    losses = {"l0/W": {2: 0.0, 8: 0.0}, "l1/W": {2: 0.0, 4: 1.0, 8: 5.0}}
    assert spend({"l0/W": 2, "l1/W": 2}, losses, net, Budget(weights_kib=2.1)) == {"l0/W": 2, "l1/W": 8}
