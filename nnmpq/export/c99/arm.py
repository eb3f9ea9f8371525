"""The C network on bare-metal Cortex-M cores, in QEMU: cross-compile it, run it on images, get every tensor back."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnmpq.export.c99.example import TRACER, channels_last
from nnmpq.export.c99.host import LIMIT, WARNINGS, numbers_of
from nnmpq.export.integer.program import ExportError, Program

# Core -> QEMU's board: 4 MiB for code at 0 and 4 MiB of memory at 0x20000000 on each.
BOARDS = {"cortex-m3": "mps2-an385", "cortex-m4": "mps2-an386", "cortex-m7": "mps2-an500"}
COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
PACKAGES = {COMPILER: "gcc-arm-none-eabi", EMULATOR: "qemu-system-arm", "newlib": "libnewlib-arm-none-eabi"}
LINKER = """ENTRY(reset)
MEMORY
{
    flash (rx) : ORIGIN = 0x00000000, LENGTH = 4M
    ram (rwx) : ORIGIN = 0x20000000, LENGTH = 4M
}
SECTIONS
{
    .text : {
        KEEP(*(.vectors)) *(.text*) *(.rodata*) KEEP(*(.init)) KEEP(*(.fini))
        *(.init_array*) *(.fini_array*) *(.eh_frame*)
    } > flash
    .ARM.exidx : { *(.ARM.exidx*) } > flash
    .data : { data_start = .; *(.data*) data_end = .; } > ram AT > flash
    data_load = LOADADDR(.data);
    .bss (NOLOAD) : { __bss_start__ = .; *(.bss*) *(COMMON) __bss_end__ = .; } > ram
    end = .;
    __end__ = .;
    __stack = ORIGIN(ram) + LENGTH(ram);
}
"""
START = """#include <stdint.h>
#include <string.h>

extern uint8_t data_start[], data_end[], data_load[];
extern uint32_t __stack;
extern void _start(void);

/* newlib's own start clears memory and opens the files; constants with an address are copied here. */
void reset(void)
{
    memcpy(data_start, data_load, (size_t)(data_end - data_start));
    _start();
}

__attribute__((section(".vectors"), used)) static const void *const vectors[2] = {&__stack, (const void *)reset};
"""


def missing() -> list[str]:
    """Return the Debian packages that are needed and not installed."""
    lacking = [PACKAGES[tool] for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]
    if shutil.which(COMPILER) is None:
        return [*lacking, PACKAGES["newlib"]]
    found = subprocess.run([COMPILER, "-print-file-name=rdimon.specs"], capture_output=True, text=True, timeout=LIMIT)
    return lacking if Path(found.stdout.strip()).is_file() else [*lacking, PACKAGES["newlib"]]


def build(folder: str | Path, core: str, output: str | Path, flags: Sequence[str] = ("-O2",)) -> Path:
    """Cross-compile a written network with a main that writes out every tensor.

    Args:
        folder: with network.c and network.h.
        core: of `BOARDS`.
        output: the program.
        flags: for the compiler; its warnings are errors in the network.

    Raises:
        ExportError: a tool is missing, or the compiler complains.
    """
    lacking = missing()
    if lacking:
        raise ExportError(f"Debian's {', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not installed")
    made = Path(output)
    made.parent.mkdir(parents=True, exist_ok=True)
    # Files of the host, by semihosting, in place of standard input and output.
    files = '    freopen("pixels", "rb", stdin);\n    freopen("numbers", "wb", stdout);\n'
    texts = {"start.c": START, "tracer.c": TRACER.replace("    while (", files + "    while (", 1), "board.ld": LINKER}
    for name, text in texts.items():
        (made.parent / name).write_text(text)
    common = [COMPILER, f"-mcpu={core}", "-mthumb", "-std=c99", *flags, "-DNETWORK_TRACE", f"-I{folder}"]
    network, parts = made.with_suffix(".o"), [str(made.parent / name) for name in ("start.c", "tracer.c")]
    link = ["--specs=rdimon.specs", f"-T{made.parent / 'board.ld'}"]
    _compile([*common, *WARNINGS, "-c", str(Path(folder) / "network.c"), "-o", str(network)])
    _compile([*common, *parts, str(network), *link, "-o", str(made)])
    return made


def _compile(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        raise ExportError(f"{' '.join(command)}: {done.stderr.strip()[:2000]}")


def run(
    executable: str | Path, core: str, program: Program, images: np.ndarray, pack_activations: bool = False
) -> dict[str, np.ndarray]:
    """Run a built network on images in QEMU; arguments, result and errors as of `nnmpq.export.c99.host.run`.

    Args:
        executable: from `build`.
        core: the same one.
        program: what the network was written from.
        images: uint8, shape (N, C, H, W).
        pack_activations: as of `nnmpq.export.c99.source.source`.

    Raises:
        ExportError: it fails, or writes less than it should.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pixels").write_bytes(channels_last(images).tobytes())
        board = ["-M", BOARDS[core], "-display", "none", "-serial", "none", "-monitor", "none"]
        command = [EMULATOR, *board, "-semihosting-config", "enable=on,target=native"]
        command += ["-kernel", str(Path(executable).resolve())]
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT)
        if done.returncode:
            raise ExportError(f"{core}: ended with {done.returncode}: {done.stderr.decode(errors='replace')[:2000]}")
        written = Path(folder) / "numbers"
        output = written.read_bytes() if written.is_file() else b""
        return numbers_of(output, program, len(images), core, pack_activations)
