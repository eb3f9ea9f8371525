"""Energies and BitOps, held against the published figures and sums by hand."""

from __future__ import annotations

import math

import nnabla as nn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnmpq.dynamic.energy import PUBLISHED, Account, Work, energy_per_mac, parse_table, work_of
from nnmpq.graph.trace import trace
from nnmpq.models import build

# Table of A. Network, width, MACs of stem and classifier, of all blocks, of all gates; energy of 1 bit over 4 bits.
TABLES = [(1.0, 0.443e6, 96.731e6, 12.39e6, 0.351), (4.0, 1.795e6, 1547.70e6, 198.19e6, 0.166)]
# Printed energies of CAMP1 to CAMP5 over those of 4 bits, and the shares of wide paths that they imply.
ROWS = {1.0: [(1.046, 0.86), (0.715, 0.39), (0.726, 0.41), (0.827, 0.55), (0.948, 0.73)]}
ROWS[4.0] = [(0.906, 0.69), (0.608, 0.36), (0.622, 0.38), (0.704, 0.47), (0.857, 0.64)]


def _account(stem: float, blocks: float, gates: float) -> Account:
    energies = [energy_per_mac(PUBLISHED, bits, bits) for bits in (1, 4)]
    paths = [[Work(e * blocks, bits * bits * blocks, blocks) for e, bits in zip(energies, (1, 4))]]
    return Account(Work(93.3 * stem, 1024 * stem, stem), [Work(gates, 16 * gates, gates)], paths)


@pytest.mark.parametrize(("width", "stem", "blocks", "gates", "printed"), TABLES)
def test_uniform_1_bit_over_4_bits_is_as_printed(
    width: float, stem: float, blocks: float, gates: float, printed: float
) -> None:
    account = _account(stem, blocks, gates)
    assert account.uniform(0).energy / account.uniform(1).energy == pytest.approx(printed, abs=0.002)


@pytest.mark.parametrize(("width", "stem", "blocks", "gates", "printed"), TABLES)
def test_the_printed_energies_follow_from_the_shares_of_wide_paths(
    width: float, stem: float, blocks: float, gates: float, printed: float
) -> None:
    account = _account(stem, blocks, gates)
    low, high = account.share([[0], [1]])
    for energy, share in ROWS[width]:
        assert (1 - share) * low + share * high == pytest.approx(energy, abs=0.01)


@pytest.mark.parametrize(("width", "stem", "blocks", "gates", "printed"), TABLES)
def test_the_network_has_the_published_macs(
    width: float, stem: float, blocks: float, gates: float, printed: float
) -> None:
    nn.clear_parameters()
    y = build("preact_resnet", nn.Variable((1, 3, 32, 32)), 10, num_layers=44, width_multiplier=width)
    network = trace(y)
    outside = ["conv1/conv", "fc/affine"]
    # The published one has 100 classes where it is four times as wide.
    more = 90 * 256 if width == 4 else 0
    assert work_of(network, {}, PUBLISHED, outside).macs + more == pytest.approx(stem, rel=2e-3)
    assert network.macs - work_of(network, {}, PUBLISHED, outside).macs == pytest.approx(blocks, rel=1e-4)


@pytest.mark.parametrize("bits", [1, 4, 32])
def test_the_table_holds_at_its_own_widths(bits: int) -> None:
    assert energy_per_mac(PUBLISHED, bits, bits) == pytest.approx(PUBLISHED[bits])


def test_between_and_beyond_its_widths_energy_follows_a_power_of_the_width() -> None:
    assert energy_per_mac(PUBLISHED, 2, 2) == pytest.approx(math.sqrt(0.075))
    assert energy_per_mac(PUBLISHED, 1, 4) == pytest.approx(math.sqrt(0.075))
    # From 4 to 32 bits energy grows 93.3 times in three doublings: one more doubling is a factor of its cube root.
    assert energy_per_mac(PUBLISHED, 64, 64) == pytest.approx(93.3 * 93.3 ** (1 / 3))
    assert energy_per_mac({4.0: 2.0}, 8, 8) == pytest.approx(8.0)


@pytest.mark.parametrize("words", [(), ("4",), ("4:1", "4:2"), ("x:1",), ("4:-1",), ("0:1",), ("4:inf",)])
def test_a_table_that_says_nothing_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="width"):
        parse_table(words)


def test_a_layer_that_is_not_there_is_named_with_the_nearest() -> None:
    nn.clear_parameters()
    y = build("resnet_digits", nn.Variable((1, 1, 8, 8)), 10)
    with pytest.raises(ValueError, match="'fc/affin'.*'fc/affine'"):
        work_of(trace(y), {}, PUBLISHED, ["fc/affin"])


def test_narrow_path_gate_and_stem_are_always_paid_and_wide_paths_where_chosen() -> None:
    paths = [[Work(1, 10), Work(5, 50), Work(20, 200)], [Work(2, 20), Work(6, 60), Work(30, 300)]]
    account = Account(Work(100, 1000), [Work(3, 30), Work(4, 40)], paths)
    always = 100 + 3 + 4 + 1 + 2
    np.testing.assert_allclose(account.energy([[0, 0], [1, 0], [2, 2]]), [always, always + 5, always + 50])
    np.testing.assert_allclose(account.bitops([[0, 1]]), [10 * always + 60])
    assert account.uniform(2) == Work(150, 1500)
    np.testing.assert_allclose(account.extra() * 150, [[0, 5, 20], [0, 6, 30]])
    assert account.least_share() == pytest.approx(always / 150)


def test_gates_before_the_block_save_the_narrow_path_too() -> None:
    account = Account(Work(100), [Work(3)], [[Work(1), Work(20)]], reads_low=False)
    np.testing.assert_allclose(account.energy([[0], [1]]), [104, 123])
    np.testing.assert_allclose(account.extra() * 120, [[0, 19]])


WIDTHS = st.floats(1, 32)
# A wider MAC takes more; the extrapolation of a table that falls steeply has no float.
TABLE = st.dictionaries(st.integers(1, 32).map(float), st.floats(1e-3, 1e3), min_size=1, max_size=5).map(
    lambda table: dict(zip(sorted(table), sorted(table.values())))
)
WORK = st.builds(Work, *(st.floats(0, 1e9) for _ in range(3)))


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    """Accounts whose wider paths cost more, as they do."""
    blocks, precisions = draw(st.integers(1, 4)), draw(st.integers(2, 4))
    costs = st.lists(st.floats(0.1, 1e6), min_size=precisions, max_size=precisions, unique=True).map(sorted)
    paths = [[Work(cost, 10 * cost, 1.0) for cost in draw(costs)] for _ in range(blocks)]
    gates = [Work(draw(st.floats(0, 1e3))) for _ in range(blocks)]
    return Account(Work(draw(st.floats(1, 1e6))), gates, paths, draw(st.booleans()))


@st.composite
def accounts_with_choices(draw: st.DrawFn) -> tuple[Account, np.ndarray]:
    account = draw(accounts())
    number = st.integers(0, len(account.paths[0]) - 1)
    row = st.lists(number, min_size=len(account.paths), max_size=len(account.paths))
    return account, np.array(draw(st.lists(row, min_size=1, max_size=5)))


@given(accounts_with_choices())
def test_energy_is_the_sum_of_what_runs(drawn: tuple[Account, np.ndarray]) -> None:
    account, chosen = drawn
    expected = []
    for row in chosen:
        energy = account.always.energy
        for block, choice in enumerate(row):
            energy += account.gates[block].energy
            ran = {int(choice)} | ({0} if account.reads_low else set())
            energy += sum(account.paths[block][number].energy for number in ran)
        expected.append(energy)
    np.testing.assert_allclose(account.energy(chosen), expected, rtol=1e-9)


@given(accounts_with_choices())
def test_each_choice_adds_what_extra_says(drawn: tuple[Account, np.ndarray]) -> None:
    account, chosen = drawn
    extra = account.extra()
    added = [sum(extra[block, choice] for block, choice in enumerate(row)) for row in chosen]
    np.testing.assert_allclose(account.share(chosen), account.least_share() + np.array(added), rtol=1e-9)


@given(accounts())
def test_no_choice_costs_less_than_the_least(account: Account) -> None:
    blocks, precisions = len(account.paths), len(account.paths[0])
    every = np.array([np.roll(np.arange(blocks) % precisions, turn) for turn in range(precisions)])
    assert (account.share(every) >= account.least_share() * (1 - 1e-12)).all()
    assert (account.extra() >= 0).all() and (account.extra()[:, 0] == 0).all()


@given(accounts())
def test_all_wide_costs_what_the_uniform_network_does_and_gates_and_narrow_paths(account: Account) -> None:
    widest = np.full((1, len(account.paths)), len(account.paths[0]) - 1)
    more = sum(gate.energy for gate in account.gates)
    if account.reads_low:
        more += sum(paths[0].energy for paths in account.paths)
    assert account.energy(widest)[0] == pytest.approx(account.uniform(-1).energy + more)


@given(accounts())
def test_gates_that_read_the_input_save_the_narrow_paths(account: Account) -> None:
    before = Account(account.always, account.gates, account.paths, reads_low=False)
    after = Account(account.always, account.gates, account.paths, reads_low=True)
    widest = np.full((1, len(account.paths)), len(account.paths[0]) - 1)
    saved = sum(paths[0].energy for paths in account.paths)
    assert after.energy(widest)[0] - before.energy(widest)[0] == pytest.approx(saved, rel=1e-6, abs=1e-6)
    assert before.least_share() == after.least_share()


@given(TABLE, WIDTHS, WIDTHS)
def test_the_order_of_weight_and_activation_does_not_matter(table: dict[float, float], one: float, two: float) -> None:
    assert energy_per_mac(table, one, two) == pytest.approx(energy_per_mac(table, two, one))


@given(TABLE, WIDTHS)
def test_any_table_holds_at_its_own_widths(table: dict[float, float], other: float) -> None:
    for width, energy in table.items():
        assert energy_per_mac(table, width, width) == pytest.approx(energy)
    assert energy_per_mac(table, other, other) > 0


@given(st.floats(1e-3, 1e3), WIDTHS, st.floats(1, 4))
def test_one_width_alone_makes_energy_bitops(energy: float, bits: float, factor: float) -> None:
    table = {4.0: energy}
    grown = energy_per_mac(table, factor * bits, bits)
    assert grown == pytest.approx(factor * energy_per_mac(table, bits, bits))


@given(WIDTHS, WIDTHS)
def test_wider_multiplications_cost_more_by_the_published_table(one: float, two: float) -> None:
    low, high = sorted((one, two))
    assert energy_per_mac(PUBLISHED, low, low) <= energy_per_mac(PUBLISHED, high, high) * (1 + 1e-12)


@given(TABLE)
def test_a_table_is_read_as_it_is_written(table: dict[float, float]) -> None:
    assert parse_table([f"{bits!r}:{energy!r}" for bits, energy in table.items()]) == table


@given(WORK, WORK, WORK)
def test_works_add_up_in_any_order(one: Work, two: Work, three: Work) -> None:
    assert one + two == two + one
    left, right = (one + two) + three, one + (two + three)
    for name in ("energy", "bitops", "macs"):
        assert getattr(left, name) == pytest.approx(getattr(right, name))
    assert one + Work() == one


def test_bits_that_are_not_given_are_float() -> None:
    nn.clear_parameters()
    network = trace(build("resnet_digits", nn.Variable((1, 1, 8, 8)), 10))
    found = work_of(network, {}, PUBLISHED)
    assert (found.bitops, found.macs) == (1024 * network.macs, network.macs)
    assert found.energy == pytest.approx(93.3 * network.macs)


def test_the_layers_add_up_to_the_network() -> None:
    nn.clear_parameters()
    network = trace(build("resnet_digits", nn.Variable((1, 1, 8, 8)), 10))
    bits = {site.name: 1 + number % 7 for number, site in enumerate(network.sites())}
    parts = [work_of(network, bits, PUBLISHED, [layer.name]) for layer in network.layers]
    whole, total = work_of(network, bits, PUBLISHED), sum(parts, Work())
    assert total.bitops == whole.bitops and total.macs == whole.macs
    assert total.energy == pytest.approx(whole.energy)
