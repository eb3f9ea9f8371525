"""The command line of the ``train_*.py`` scripts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnmpq.config.document import describe_keys
from nnmpq.config.errors import ConfigError
from nnmpq.config.reader import list_experiments

_EPILOG = """examples:
  {program} DEFAULT --cfg cfgs/train_resnet_quant_fp.cfg --data-dir DATA
  {program} DIGITS_MIXED --cfg cfgs/train_resnet_digits.cfg --set seed=1 --set epochs=20
  {program} --cfg cfgs/train_resnet_digits.cfg --list
"""


class _HelpKeys(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(describe_keys())
        parser.exit()


class _Gpu(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option: str | None = None,
    ) -> None:
        namespace.context, namespace.device_id = "cudnn", values


def build_parser(program: str, cfg: Path | None = None) -> argparse.ArgumentParser:
    """Return the parser of a ``train_*.py`` script.

    Args:
        program: name of the script.
        cfg: the ``.cfg`` file where the command line names none; without, it must name one.
    """
    default = "compulsory" if cfg is None else f"default: {cfg.name}"
    parser = argparse.ArgumentParser(
        prog=program,
        description="Run one experiment, a section of a .cfg file, and fill its run folder.",
        epilog=_EPILOG.format(program=program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("experiment", nargs="?", metavar="EXPERIMENT", help="section of the .cfg file; DEFAULT is one")
    add(
        "--cfg",
        metavar="FILE",
        default=None if cfg is None else str(cfg),
        help=f"the .cfg file with the experiments ({default})",
    )
    add(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change a key for this run; may be repeated",
    )
    add("--list", action="store_true", help="list the experiments of the .cfg file, then stop")
    add("--help-keys", action=_HelpKeys, nargs=0, help="explain every key of a .cfg file, then stop")
    add("--resume", action="store_true", help="continue from the last checkpoint of the run folder")
    add("--data-dir", metavar="DIR", help="folder of the data set; same as --set data_dir=DIR")
    add(
        "-o",
        "--model-save-path",
        metavar="DIR",
        default="runs",
        help="folder of the run folders; this run fills DIR/EXPERIMENT (default: runs)",
    )
    add(
        "-m",
        "--monitor-path",
        metavar="DIR",
        help="folder of the monitor's series files (default: monitor in the run folder)",
    )
    add("--quiet", action="store_true", help="no progress bar")
    device = parser.add_argument_group("device")
    device.add_argument(
        "-c",
        "--context",
        choices=("cpu", "cudnn"),
        default="cpu",
        help="where nnabla computes (default: cpu)",
    )
    device.add_argument(
        "-d", "--device-id", metavar="N", type=_device, default="0", help="number of the GPU (default: 0)"
    )
    device.add_argument("--gpu", metavar="N", type=_device, action=_Gpu, help="same as -c cudnn -d N")
    device.add_argument(
        "-t",
        "--type-config",
        choices=("float", "half", "mixed_half"),
        default="float",
        help="number format of the computation (default: float)",
    )
    device.add_argument(
        "--threads",
        metavar="N",
        type=_count,
        help="threads of the CPU functions (default: all cores that this process may use)",
    )
    device.add_argument(
        "--processes",
        metavar="N",
        type=_count,
        default=1,
        help="train in N processes that share each batch and the cores; several times faster than threads where "
        "other work takes some of the cores (default: 1)",
    )
    device.add_argument(
        "--workers",
        metavar="N",
        type=_number,
        help="processes that decode images, of each training process; 0: none, the training process decodes "
        "(default: half of its cores; the result is the same)",
    )
    device.add_argument(
        "--no-accelerate",
        dest="accelerate",
        action="store_false",
        help="on a CPU, run nnabla's own functions: the same results, many times slower",
    )
    return parser


def parse_arguments(program: str, argv: Sequence[str] | None = None, cfg: Path | None = None) -> argparse.Namespace:
    """Read the command line; ``--help``, ``--help-keys`` and ``--list`` print and leave.

    Args:
        program: name of the script.
        argv: the command line without the program; default `sys.argv`.
        cfg: the file where the command line names none.

    Returns:
        experiment, cfg, overrides (``--data-dir`` among them), resume, quiet, model_save_path, monitor_path,
        context, device_id (text) and type_config.

    Raises:
        SystemExit: status 2 when the command line is wrong, with a message.
    """
    parser = build_parser(program, cfg)
    arguments = parser.parse_args(argv)
    if arguments.cfg is None:
        parser.error(f"which .cfg file? {_available()}")
    if arguments.list:
        try:
            print(list_experiments(arguments.cfg))
        except ConfigError as error:
            parser.error(str(error))
        sys.exit(0)
    if arguments.experiment is None:
        parser.error(f"which experiment? {program} --cfg {arguments.cfg} --list shows those of the file")
    if arguments.data_dir is not None:
        arguments.overrides.append(f"data_dir={arguments.data_dir}")
    return arguments


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not int(text):
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 1 on is needed")
    return int(text)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 0 on is needed")
    return int(text)


def _device(text: str) -> str:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text}: a device is a whole number, for instance 0")
    return text


def _available() -> str:
    files = sorted(Path("cfgs").glob("*.cfg"))
    listed = "".join(f"\n  --cfg {file}" for file in files)
    return f"These are in cfgs/:{listed}" if files else "Give one with --cfg FILE"
