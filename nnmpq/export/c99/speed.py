"""Time of the C network on this machine, operation by operation, beside the same network with weights of 8 bits."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import attrs

from nnmpq.export.c99 import host
from nnmpq.export.c99.source import Source, source
from nnmpq.export.integer.program import Convolve, ExportError, Program, kind_of
from nnmpq.files import atomic_write

FLAGS = ("-O3",)
TURNS = 3
# A turn takes about this long, so that the clock's grain does not matter.
SECONDS = 0.05
TIMER = """#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "network.h"

#define OPERATIONS {operations}

static uint8_t pixels[NETWORK_PIXELS];
static int32_t logits[NETWORK_CLASSES];
static double total[OPERATIONS];
static clock_t last;
static int place;

void network_trace(const void *numbers, size_t bytes)
{{
    const clock_t now = clock();

    (void)numbers;
    (void)bytes;
    total[place++] += (double)(now - last) / CLOCKS_PER_SEC;
    last = clock();
}}

int main(void)
{{
    int i, images = 0;
    const clock_t start = clock();

    for (i = 0; i < NETWORK_PIXELS; ++i) {{
        pixels[i] = (uint8_t)(i * 31 % 256);
    }}
    do {{
        place = 0;
        last = clock();
        network_run(pixels, logits);
        ++images;
    }} while ((double)(clock() - start) / CLOCKS_PER_SEC < {seconds});
    for (i = 0; i < OPERATIONS; ++i) {{
        printf("%.9f\\n", total[i] / images);
    }}
    return 0;
}}
"""


def eight_bits(program: Program) -> Program:
    """Return the same program with every weight in 8 bits, levels and all else as they are."""
    wider = [attrs.evolve(op, bits=8) if isinstance(op, Convolve) else op for op in program.operations]
    return attrs.evolve(program, operations=tuple(wider))


def _build(made: Source, operations: int, folder: Path) -> Path:
    text = TIMER.format(operations=operations, seconds=SECONDS)
    for name, content in (("network.h", made.header), ("network.c", made.code), ("timer.c", text)):
        atomic_write(folder / name, content)
    files = [str(folder / name) for name in ("timer.c", "network.c")]
    command = [str(host.compiler()), *host.WARNINGS, *FLAGS, "-DNETWORK_TRACE", *files, "-o", str(folder / "timer")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=host.LIMIT)
    if done.returncode:
        raise ExportError(f"{' '.join(command)}: {done.stderr.strip()[:2000]}")
    return folder / "timer"


def milliseconds(programs: dict[str, Program], pack_activations: bool = False) -> dict[str, list[float]]:
    """Measure programs side by side.

    They take turns, and the fastest turn of each operation counts: other work on the machine makes times longer, never
    shorter.

    Args:
        programs: by any name.
        pack_activations: as of `nnmpq.export.c99.source.source`.

    Returns:
        Milliseconds an image of every operation, in order, by name.

    Raises:
        ExportError: there is no C compiler, or it complains.
    """
    if host.compiler() is None:
        raise ExportError(f"no C compiler: none of CC, {', '.join(host.COMPILERS)} is installed")
    best: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        timers = {
            name: _build(source(program, pack_activations), len(program.operations), Path(temporary) / str(place))
            for place, (name, program) in enumerate(programs.items())
        }
        for _ in range(TURNS):
            for name, timer in timers.items():
                done = subprocess.run([str(timer)], capture_output=True, text=True, check=True, timeout=host.LIMIT)
                found = [1e3 * float(line) for line in done.stdout.split()]
                best[name] = [min(pair) for pair in zip(found, best.get(name, found))]
    return best


def sheet(program: Program, pack_activations: bool = False) -> str:
    """Return the times of all operations as text, or what is missing to measure them.

    Args:
        program: the integer program.
        pack_activations: as of `nnmpq.export.c99.source.source`.
    """
    if host.compiler() is None:
        return f"\ntimes: not measured, no C compiler ({', '.join(host.COMPILERS)}) is installed\n"
    both = {"this": program, "eight": eight_bits(program)}
    times = milliseconds(both, pack_activations)
    rows = [("ms an image", "this", "8 bits", "ratio")]
    lines = [*zip(map(_title, program.operations), times["this"], times["eight"])]
    for title, this, eight in [*lines, ("total", sum(times["this"]), sum(times["eight"]))]:
        rows.append((title, f"{this:.4f}", f"{eight:.4f}", f"{this / eight:.2f}" if eight > 0 else ""))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    text = ["", f"time on the machine that exported, {' '.join(FLAGS)}, beside the same weights in 8 bits:"]
    text += ["  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3))]) for row in rows]
    return "\n".join(text) + "\n"


def _title(operation: object) -> str:
    if isinstance(operation, Convolve):
        return operation.layer
    return f"{operation.output} ({kind_of(operation).replace('_', ' ')})"  # type: ignore[attr-defined, arg-type]
