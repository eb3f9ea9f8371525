from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from nnmpq.export.c99 import arm
from nnmpq.export.c99.arm import BOARDS
from nnmpq.export.c99.target import verify, write
from nnmpq.export.command import CORES
from nnmpq.export.integer.program import ExportError
from nnmpq.export.integer.saved import run
from tests.export.networks import everything, small, trained

LACKING = arm.missing()
needs_cores = pytest.mark.skipif(bool(LACKING), reason=f"Debian's {', '.join(LACKING)} not installed")
SETTINGS = {
    "uniform 4": {"build": everything, "images": 3},
    "power of two": {"weight": "pow2_xmin_xmax", "activation": "pow2_xmin_xmax", "build": small, "images": 5},
    "8 bits": {"weight_bits": 8, "activation_bits": 8, "build": small, "images": 5},
    "3 bits a channel": {"weight_bits": 3, "per_channel": True, "build": small, "images": 5},
}


@needs_cores
@pytest.mark.parametrize("core", BOARDS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_number_is_the_references_on_every_core(core: str, settings: dict, tmp_path: Path) -> None:
    network = trained(**settings)
    write(network, tmp_path)
    program = network.program()
    wanted = run(program, network.images)
    found = arm.run(arm.build(tmp_path, core, tmp_path / "build" / "tracer"), core, program, network.images)
    assert len(found) == len(program.operations)
    for name, numbers in found.items():
        np.testing.assert_array_equal(numbers, wanted[name], err_msg=name)


@needs_cores
@pytest.mark.parametrize("flags", ["-Os", "-O3"])
def test_the_network_alone_needs_no_heap_and_no_floating_point(flags: str, tmp_path: Path) -> None:
    write(trained(build=everything), tmp_path)
    made = arm.build(tmp_path, "cortex-m4", tmp_path / "build" / "tracer", (flags,)).with_suffix(".o")
    listed = subprocess.run(["arm-none-eabi-nm", "-u", str(made)], capture_output=True, text=True, timeout=60).stdout
    wanted = {name for name in listed.split() if name != "U"}
    # What a compiler may call for plain C: copying and clearing. No division, no soft float, no malloc.
    assert wanted <= {"network_trace", "memcpy", "memset", "memmove"}


@needs_cores
def test_verify_on_a_core(tmp_path: Path) -> None:
    network = trained(build=small, images=5)
    write(network, tmp_path)
    found = verify(network, tmp_path, core="cortex-m4")
    assert found.passed and found.differing == 0 and found.images == 5
    assert "run on a cortex-m4 in QEMU, mps2-an386" in found.report()


@needs_cores
def test_a_network_that_ends_early_is_noticed(tmp_path: Path) -> None:
    network = trained(build=small, images=3)
    write(network, tmp_path)
    text = (tmp_path / "network.c").read_text()
    (tmp_path / "network.c").write_text(text.replace("    TRACE(", "    if (0) TRACE(", 1))
    program = network.program()
    executable = arm.build(tmp_path, "cortex-m3", tmp_path / "build" / "tracer")
    with pytest.raises(ExportError, match=r"cortex-m3 wrote \d+ bytes, not \d+"):
        arm.run(executable, "cortex-m3", program, network.images)
    (tmp_path / "network.c").write_text(text + "\nint broken(void) { return x; }\n")
    with pytest.raises(ExportError, match="undeclared"):
        arm.build(tmp_path, "cortex-m3", tmp_path / "build" / "tracer")


def test_missing_tools_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuple(BOARDS) == CORES
    monkeypatch.setenv("PATH", str(tmp_path))
    assert arm.missing() == ["gcc-arm-none-eabi", "qemu-system-arm", "libnewlib-arm-none-eabi"]
    with pytest.raises(ExportError, match="Debian's gcc-arm-none-eabi, qemu-system-arm, libnewlib-arm-none-eabi are"):
        arm.build(tmp_path, "cortex-m4", tmp_path / "tracer")
