from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from nnmpq.export.c99 import host
from nnmpq.export.c99.source import source
from nnmpq.export.c99.target import verify, write
from nnmpq.export.integer.lower import lower
from nnmpq.export.integer.program import ExportError
from nnmpq.export.integer.saved import run
from nnmpq.graph.network import WEIGHT
from tests.export.networks import pixels, prepare, quantized, small, trained

needs_compiler = pytest.mark.skipif(host.compiler() is None, reason="no C compiler (cc, gcc or clang) is installed")
SETTINGS = {
    "uniform 4": {},
    "power of two": {"weight": "pow2_xmin_xmax", "activation": "pow2_xmin_xmax"},
    "8 bits": {"weight_bits": 8, "activation_bits": 8},
    "3 bits a channel": {"weight_bits": 3, "per_channel": True},
    "2 bits": {"weight": "uniform_b_xmax", "weight_bits": 2, "activation": "uniform_b_xmax", "activation_bits": 2},
    "1 bit": {"weight": "sign_mean", "weight_bits": 1, "build": small},
    "5 bits, mid-rise": {"weight": "gaussian", "weight_bits": 5, "build": small},
}


@needs_compiler
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_number_is_the_references(settings: dict, tmp_path: Path) -> None:
    network = trained(**settings)
    write(network, tmp_path)
    program = network.program()
    wanted = run(program, network.images)
    # Sanitizers stop the program at the first thing that C does not define.
    for flags in (("-O3",), ("-O1", "-g", *host.SANITIZERS)):
        found = host.run(host.build(tmp_path, flags, tmp_path / "build" / "tracer"), program, network.images)
        for name, numbers in found.items():
            np.testing.assert_array_equal(numbers, wanted[name], err_msg=name)
        assert len(found) == len(program.operations)


@needs_compiler
def test_the_folder_compiles_and_tests_itself(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    network = trained(build=small)
    write(network, tmp_path)
    done = subprocess.run(["make", "test"], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 of 16 logits differ" in done.stdout
    _, logits = network.run()
    assert f"vector 3: class {logits[3].argmax()}" in done.stdout
    # A wrong network must fail its own test.
    text = (tmp_path / "network.c").read_text()
    place = text.index("layer1_bias[6] = {") + len("layer1_bias[6] = {")
    (tmp_path / "network.c").write_text(text[:place] + text[place:].replace("INT64_C(", "INT64_C(1", 1))
    done = subprocess.run(["make", "test"], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode != 0


@needs_compiler
def test_verify_passes_and_notices_another_model(tmp_path: Path) -> None:
    network = trained(build=small)
    write(network, tmp_path)
    found = verify(network, tmp_path)
    assert found.passed and found.differing == 0 and found.compared == sum(v.size for v in network.run()[0].values())
    (tmp_path / "network.c").write_text((tmp_path / "network.c").read_text() + "\n")
    with pytest.raises(ExportError, match="written from another model"):
        verify(network, tmp_path)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
def test_flash_of_the_weights_is_the_policys(bits: int) -> None:
    weight = "uniform_b_xmax" if bits > 1 else "sign_mean"
    network = quantized(weight=weight, weight_bits=bits)
    made = source(lower(network, prepare))
    sites = [site for site in network.network.sites() if site.role == WEIGHT]
    promised = sum(site.elements * bits for site in sites) / 8
    assert promised <= made.weight_bytes <= promised + len(sites)
    count = sum(text.count(",") + 1 for text in _tables(made.code, "_weights"))
    assert count == made.weight_bytes


def _tables(code: str, suffix: str) -> list[str]:
    parts = code.split("static const uint8_t ")
    return [part.split("{")[1].split("}")[0] for part in parts[1:] if part.split("[")[0].endswith(suffix)]


def test_the_code_has_no_float_no_heap_and_no_library() -> None:
    made = source(lower(quantized(), prepare))
    body = made.code.split("*/", 1)[1]
    for word in ("float", "double", "malloc", "#include <", "memcpy", "printf"):
        assert word not in body
    assert "static const uint8_t layer" in body and made.header.count("#include <std") == 2


@needs_compiler
def test_weights_and_tables_are_constant_and_memory_is_as_counted(tmp_path: Path) -> None:
    size = shutil.which("size")
    if size is None:
        pytest.skip("size (binutils) is not installed")
    network = trained()
    write(network, tmp_path)
    made = source(network.program())
    flags = ["-std=c99", "-Os", "-fno-pie", "-c", "network.c"]
    subprocess.run([str(host.compiler()), *flags], cwd=tmp_path, check=True, timeout=100)
    fields = subprocess.run([size, "network.o"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=100)
    text, data, bss = (int(v) for v in fields.stdout.splitlines()[1].split()[:3])
    assert data == 0
    assert made.ram_bytes <= bss <= made.ram_bytes + 32
    assert made.weight_bytes + made.table_bytes <= text


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(ExportError, match="no C compiler"):
        host.build(tmp_path)


@needs_compiler
def test_a_broken_network_is_reported(tmp_path: Path) -> None:
    network = trained(build=small)
    write(network, tmp_path)
    (tmp_path / "network.c").write_text('#include "network.h"\nint network_class(const int32_t *l) { return x; }\n')
    with pytest.raises(ExportError, match="undeclared"):
        host.build(tmp_path)
    (tmp_path / "network.c").write_text('#include "network.h"\nvoid network_run(const uint8_t *p, int32_t *l) {}\n')
    with pytest.raises(ExportError, match="unused parameter"):
        host.build(tmp_path)
    executable = tmp_path / "silent"
    executable.write_text("#!/bin/sh\n")
    executable.chmod(0o755)
    with pytest.raises(ExportError, match="wrote 0 bytes"):
        host.run(executable, network.program(), pixels(2))
