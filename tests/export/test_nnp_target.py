from __future__ import annotations

from pathlib import Path

import numpy as np

from nnmpq.export.nnp_target import NAME, verify, write
from nnmpq.graph.network import WEIGHT
from tests.export.networks import small, trained


def test_the_file_computes_the_same_to_the_bit(tmp_path: Path) -> None:
    network = trained(build=small, weight_bits=3)
    assert write(network, tmp_path) == [tmp_path / NAME]
    found = verify(network, tmp_path)
    _, logits = network.run(sites=False)
    assert found.compared == logits.size and found.differing == 0 and found.passed
    weights = [s for s in network.quantized.network.sites() if s.role == WEIGHT]
    assert found.weight_bytes == found.promised_bytes == sum(s.elements for s in weights) * 3 / 8
    assert found.file_bytes == {NAME: (tmp_path / NAME).stat().st_size}


def test_another_networks_file_differs(tmp_path: Path) -> None:
    network = trained(build=small)
    write(network, tmp_path)
    changed = network.quantized.parameters()["a/conv/relu_quantizer/xmax"]
    changed.d = np.array(changed.d) / 4
    found = verify(network, tmp_path)
    assert found.differing > 0 and not found.passed and found.logits_difference > 0
