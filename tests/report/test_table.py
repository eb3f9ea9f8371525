from __future__ import annotations

import pytest

from nnmpq.budget import Budget
from nnmpq.cost import cost
from nnmpq.graph.network import Network
from nnmpq.report.table import bits_table, number_text
from tests.report.networks import affine, chain, convolution


def rows_of(table: str) -> dict[str, list[str]]:
    """Cells of the table by the layer's name; no cell in it is empty but in the row of totals."""
    return {line.split()[0]: line.split()[1:] for line in table.split("\n\n")[0].splitlines()[1:]}


def costs_of(table: str) -> dict[str, str]:
    """Lines of the second part by what comes before the first two blanks."""
    return {line.split("  ")[0]: line for line in table.split("\n\n")[1].splitlines()}


def test_a_layer_shows_its_own_bits_and_those_of_what_it_reads() -> None:
    network = chain(3)
    bits = {
        "res1/layer0/conv/W": 2,
        "res1/layer1/conv/W": 5,
        "res1/layer0/conv/relu": 3,
        "fc/W": 8,
        "fc/b": 16,
    }
    rows = rows_of(bits_table(network, bits))
    assert rows["res1/layer0/conv"] == ["convolution", "2,304", "2,359,296", "2", "32", "0.562"]
    assert rows["res1/layer1/conv"] == ["convolution", "2,304", "2,359,296", "5", "3", "1.406"]
    # 640 weights of 8 bits and 10 biases of 16 are 5,280 bits.
    assert rows["fc"] == ["affine", "650", "640", "8", "32", "0.645"]


def test_totals_are_the_sums_of_the_columns() -> None:
    network = chain(4)
    bits = {layer.weight.name: 4 for layer in network.layers}
    rows = rows_of(bits_table(network, bits))
    parameters, macs, kib = rows["total"]
    assert parameters == f"{3 * 16 * 16 * 9 + 650:,}"
    assert macs == f"{3 * 16 * 16 * 9 * 1024 + 640:,}"
    assert float(kib) == pytest.approx(((3 * 2304 + 640) * 4 + 10 * 32) / 8192, abs=5e-4)


def test_total_kib_is_the_cost_that_the_budget_limits() -> None:
    network = chain(5)
    bits = {layer.weight.name: 3 for layer in network.layers}
    total = float(rows_of(bits_table(network, bits))["total"][-1])
    assert total == pytest.approx(float(cost(network, bits).weights_kib), abs=5e-4)


def test_a_shared_weight_counts_once() -> None:
    twice = Network((convolution(0), convolution(0)), ())
    assert rows_of(bits_table(twice, {}))["total"][0] == "2,304"
    assert rows_of(bits_table(twice, {}))["total"][1] == f"{2 * 2_359_296:,}"


def test_missing_sites_are_float() -> None:
    rows = rows_of(bits_table(Network((affine(),), ()), {}))
    assert rows["fc"][3:] == ["32", "32", f"{650 * 4 / 1024:.3f}"]


def test_budget_says_how_much_is_used_and_what_is_exceeded() -> None:
    network = chain(2)
    bits = {layer.weight.name: 4 for layer in network.layers} | {"fc/b": 4, "res1/layer0/conv/relu": 4}
    # Weights: (2304 + 640 + 10) x 4 bits = 1.442 KiB. The only activation: 16,384 x 4 bits = 8 KiB.
    table = bits_table(network, bits, budget=Budget(weights_kib=2.0, activations_sum_kib=4.0))
    lines = costs_of(table)
    assert lines["weights, KiB"].split()[2:] == ["1.442", "2.000", "72.1%", "met"]
    assert lines["activations, sum, KiB"].split()[3:] == ["8.000", "4.000", "200.0%", "EXCEEDED"]
    assert lines["activations, largest, KiB"].split()[3:] == ["8.000", "-"]


def test_without_budget_nothing_is_judged() -> None:
    lines = bits_table(chain(2), {}).split("\n\n")[1].splitlines()[1:]
    assert len(lines) == 6
    assert all(line.endswith(" -") for line in lines)


def test_fractional_bits_keep_two_decimals() -> None:
    rows = rows_of(bits_table(Network((convolution(0),), ()), {"res1/layer0/conv/W": 2.5}))
    assert rows["res1/layer0/conv"][3] == "2.50"


def test_columns_are_aligned() -> None:
    lines = bits_table(chain(12), {}).split("\n\n")[0].splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].endswith("KiB")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0.000"),
        (999_999.0, "999,999.000"),
        (1e6, "1.000 M"),
        (40_551_552 * 16.0, "648.825 M"),
        (4.15e10, "41.500 G"),
    ],
)
def test_number_text(number: float, text: str) -> None:
    assert number_text(number) == text
