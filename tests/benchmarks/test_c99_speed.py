from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks import c99_speed
from nnmpq.export.c99 import host


@pytest.mark.skipif(host.compiler() is None, reason="no C compiler (cc, gcc or clang) is installed")
def test_a_timed_network_runs(tmp_path: Path) -> None:
    made = c99_speed.network(4, blocks=1)
    timer = c99_speed.build(made, tmp_path, ("-O1",))
    done = subprocess.run([str(timer), "2"], capture_output=True, text=True, check=True, timeout=60)
    assert float(done.stdout) > 0
    # 16 stem, 6 blocks' convolutions of 16, 32 and 64 channels, 10 classes, at 4 bits.
    count = 27 * 16 + 9 * (2 * 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 640
    assert made.weight_bytes == count // 2


def test_float_inference_is_timed() -> None:
    assert c99_speed.float_milliseconds(blocks=1, images=2) > 0
