from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from nnmpq.export.c99 import host
from nnmpq.export.c99.forms import Form, form_of, forms, sizes
from nnmpq.export.c99.source import source
from nnmpq.export.c99.target import verify, write
from nnmpq.export.integer.plan import busiest, plan
from nnmpq.export.integer.program import Tensor
from nnmpq.export.integer.saved import run
from tests.export.networks import small, trained

needs_compiler = pytest.mark.skipif(host.compiler() is None, reason="no C compiler (cc, gcc or clang) is installed")


def _tensor(low: int, high: int) -> Tensor:
    return Tensor("t", (3, 2, 5), low, high, 1.0, 4, True)


@pytest.mark.parametrize(
    ("low", "high", "bits"),
    [(0, 1, 1), (0, 3, 2), (-1, 1, 2), (0, 7, 3), (-3, 3, 3), (-7, 7, 4), (0, 15, 4), (5, 5, 1)],
)
def test_levels_take_as_many_bits_as_they_need(low: int, high: int, bits: int) -> None:
    form = form_of(_tensor(low, high), True)
    assert (form.type, form.bits, form.low) == ("uint8", bits, low)
    assert form.bytes(30) == -(-30 * bits // 8)
    assert form_of(_tensor(low, high), False).bits == 0


@pytest.mark.parametrize(("low", "high", "type_"), [(0, 16, "uint8"), (-8, 8, "int8"), (0, 1024, "int16")])
def test_wider_maps_stay_as_they_are(low: int, high: int, type_: str) -> None:
    assert form_of(_tensor(low, high), True) == Form(type_)


# Writes numbers in an order of its own into memory full of ones, reads all, writes the bytes out.
STORES = """#include <stdint.h>
#include <stdio.h>
{code}
int main(void)
{{
    static const int8_t numbers[{count}] = {{{numbers}}};
    uint8_t memory[{bytes} + 1];
    int i;
    for (i = 0; i <= {bytes}; ++i) {{ memory[i] = 255; }}
    for (i = 0; i < {count}; ++i) {{ store_{form}(memory, i * 7 % {count}, numbers[i * 7 % {count}]); }}
    for (i = 0; i < {count}; ++i) {{ printf("%d\\n", (int)load_{form}(memory, i)); }}
    printf("%d\\n", memory[{bytes}]);
    return 0;
}}
"""


@needs_compiler
@pytest.mark.parametrize(("bits", "low"), [(1, 0), (2, -1), (3, -3), (3, 0), (4, -8)])
def test_stored_numbers_keep_their_neighbours(bits: int, low: int, tmp_path: Path) -> None:
    count = 37
    numbers = np.random.RandomState(bits).randint(0, 2**bits, count) + low
    form = Form("uint8", bits, low)
    text = STORES.format(
        code=form.code,
        form=form.name,
        count=count,
        bytes=form.bytes(count),
        numbers=", ".join(map(str, numbers)),
    )
    (tmp_path / "stores.c").write_text(text)
    command = [str(host.compiler()), *host.WARNINGS, *host.SANITIZERS, "stores.c", "-o", "stores"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=100)
    done = subprocess.run(["./stores"], cwd=tmp_path, check=True, timeout=100, capture_output=True, text=True)
    *found, guard = map(int, done.stdout.split())
    assert found == numbers.tolist() and guard == 255


SETTINGS = {
    "uniform 4": {"activation_bits": 4},
    "uniform 3": {"activation_bits": 3},
    "2 bits": {"weight": "uniform_b_xmax", "weight_bits": 2, "activation": "uniform_b_xmax", "activation_bits": 2},
    "power of two": {"weight": "pow2_xmin_xmax", "activation": "pow2_xmin_xmax", "activation_bits": 3},
}


@needs_compiler
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_network_with_packed_maps_is_the_reference(settings: dict, tmp_path: Path) -> None:
    network = trained(20, **settings)
    program = network.program()
    made = source(program, pack_activations=True)
    (tmp_path / "network.c").write_text(made.code)
    (tmp_path / "network.h").write_text(made.header)
    wanted = run(program, network.images)
    assert sum(form.bits > 0 for form in forms(program, True).values()) > 5
    for flags in (("-O3",), ("-O1", "-g", *host.SANITIZERS)):
        found = host.run(host.build(tmp_path, flags, tmp_path / "tracer"), program, network.images, True)
        for name, numbers in found.items():
            np.testing.assert_array_equal(numbers, wanted[name], err_msg=name)


@needs_compiler
def test_memory_falls_and_the_sheet_and_verify_say_so(tmp_path: Path) -> None:
    network = trained(5, build=small, activation_bits=3, keep=())
    sheets, memory = {}, {}
    for pack in (False, True):
        write(network, tmp_path / str(pack), pack_activations=pack)
        found = verify(network, tmp_path / str(pack))
        assert found.passed and found.differing == 0
        assert ("maps of at most 4 bits packed" in found.report()) == pack
        sheets[pack] = (tmp_path / str(pack) / "sizes.txt").read_text()
        memory[pack] = source(network.program(), pack).ram_bytes
    program = network.program()
    packed = plan(program, sizes(program, forms(program, True))).bytes
    assert f"tensors in memory: {packed:,} bytes planned" in sheets[True]
    # Three maps of 216 numbers of 3 bits, 81 bytes and so 84, are the busiest; the input has 432, 162 bytes.
    assert busiest(program, sizes(program, forms(program, True))) == 3 * 84
    assert packed < 0.6 * plan(program).bytes
    assert memory[True] < memory[False]
