"""`nnmpq export` and `nnmpq verify`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

# The keys of `nnmpq.export.targets.TARGETS`, which is not loaded to print a help text.
TARGET_NAMES = ("c99", "nnp", "nnb", "csrc", "integer", "onnx", "tflite")
# The keys of `nnmpq.export.c99.arm.BOARDS`.
CORES = ("cortex-m3", "cortex-m4", "cortex-m7")
IMAGES = 256


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run_folder", metavar="RUN", type=Path, help="folder of a finished run, such as runs/DIGITS_EXPORT"
    )
    parser.add_argument("--to", choices=TARGET_NAMES, required=True, help="what to write")
    parser.add_argument("-o", "--output", type=Path, default=None, help="folder for it, default RUN/export/TARGET")
    parser.add_argument("--images", type=int, default=IMAGES, help="test images to compare on (default %(default)s)")
    parser.add_argument("--data-dir", default=None, help="folder of the data set, default the run's")


def export(parser: argparse.ArgumentParser) -> None:
    """Write a trained run as C99, .nnp, .nnb, ONNX, TensorFlow Lite or integer program, and verify it."""
    _common(parser)
    parser.add_argument("--api", type=int, default=None, help="nnb: API level that the runtime accepts (default 44)")
    parser.add_argument(
        "--pack-activations", action="store_true", help="c99: pack maps of at most 4 bits: less memory, more time"
    )
    parser.add_argument("--no-verify", action="store_true", help="do not compare what was written")
    parser.set_defaults(run=_export)


def verify(parser: argparse.ArgumentParser) -> None:
    """Compare an exported run with the trained network on real images."""
    _common(parser)
    parser.add_argument(
        "--core", choices=CORES, default=None, help="c99: run on this core in QEMU, not on this machine"
    )
    parser.set_defaults(run=_verify)


def _folder(arguments: argparse.Namespace) -> Path:
    return arguments.output or arguments.run_folder / "export" / arguments.to


def _export(arguments: argparse.Namespace) -> int:
    from nnmpq.export.integer.program import ExportError
    from nnmpq.export.targets import TARGETS
    from nnmpq.export.trained import load_run

    options: dict[str, Any] = {}
    if arguments.api is not None:
        if arguments.to != "nnb":
            raise ExportError(f"--api {arguments.api}: nnb alone has an API level, not {arguments.to}")
        options["api"] = arguments.api
    if arguments.pack_activations:
        if arguments.to != "c99":
            raise ExportError(f"--pack-activations: c99 alone packs maps, not {arguments.to}")
        options["pack_activations"] = True
    trained = load_run(arguments.run_folder, images=arguments.images, data_dir=arguments.data_dir)
    folder = _folder(arguments)
    for path in TARGETS[arguments.to].write(trained, folder, **options):
        print(path)
    if arguments.no_verify:
        return 0
    found = TARGETS[arguments.to].verify(trained, folder)
    print(found.report())
    return 0 if found.passed else 1


def _verify(arguments: argparse.Namespace) -> int:
    from nnmpq.export.integer.program import ExportError
    from nnmpq.export.targets import TARGETS
    from nnmpq.export.trained import load_run

    options = {} if arguments.core is None else {"core": arguments.core}
    if options and arguments.to != "c99":
        raise ExportError(f"--core {arguments.core}: c99 alone runs on cores, not {arguments.to}")
    trained = load_run(arguments.run_folder, images=arguments.images, data_dir=arguments.data_dir)
    found = TARGETS[arguments.to].verify(trained, _folder(arguments), **options)
    print(found.report())
    return 0 if found.passed else 1
