from __future__ import annotations

from nnmpq.export.integer.lower import lower
from nnmpq.export.integer.plan import plan
from nnmpq.export.integer.sheet import COLUMNS, rows, sheet
from nnmpq.graph.network import WEIGHT
from tests.export.networks import prepare, quantized, small


def test_every_layer_has_its_bytes() -> None:
    network = quantized(small, weight_bits=3)
    program = lower(network, prepare)
    found = {row[0]: dict(zip(COLUMNS, row)) for row in rows(program)}
    assert set(found) == {layer.name for layer in network.network.layers}
    for layer in network.network.layers:
        row, count = found[layer.name], layer.weight.elements
        assert row["weights"] == row["8 bits"] == count and row["float"] == 4 * count
        assert row["packed"] == -(-3 * count // 8)
        # int32 multiplier, int64 bias and uint8 shift for every output channel.
        assert row["tables"] == 13 * layer.output_shape[0]


def test_the_sheet_ends_with_totals_and_memory() -> None:
    network = quantized(small, weight_bits=3)
    program = lower(network, prepare)
    lines = sheet(program).splitlines()
    count = sum(site.elements for site in network.network.sites() if site.role == WEIGHT)
    total = next(line for line in lines if line.startswith("total")).split()
    assert total[1] == f"{count:,}" and total[-1] == f"{4 * count:,}"
    assert lines[-1].startswith(f"tensors in memory: {plan(program).bytes:,} bytes planned")
