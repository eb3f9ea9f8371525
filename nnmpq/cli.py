"""The command line, `python -m nnmpq COMMAND`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Callable

from nnmpq import __version__
from nnmpq.config.errors import ConfigError
from nnmpq.data import DataError
from nnmpq.data.command import data
from nnmpq.export.command import export, verify
from nnmpq.export.integer.program import ExportError
from nnmpq.policy import PolicyError
from nnmpq.search.command import pareto
from nnmpq.search.show import show
from nnmpq.search.table import TableError
from nnmpq.search.transfer import transfer_command
from nnmpq.training.errors import TrainingError

# Name -> function that adds the command's arguments to its parser and sets `run`, which takes them and returns the exit
# status. The first line of its docstring is the command's help.
COMMANDS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "data": data,
    "export": export,
    "pareto": pareto,
    "show": show,
    "transfer": transfer_command,
    "verify": verify,
}
# What a user's mistake or machine raises; anything else is ours, and shows where it happened.
MISTAKES = (DataError, ExportError, ConfigError, PolicyError, TableError, TrainingError, OSError)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="nnmpq", description="Mixed-precision quantization on nnabla.")
    parser.add_argument("--version", action="version", version=f"nnmpq {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, add in COMMANDS.items():
        about = (add.__doc__ or "").strip().split("\n")[0]
        add(commands.add_parser(name, help=about, description=about))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the command line without the program, default `sys.argv`.

    Returns:
        The exit status: 0, 2 when something given by the user was wrong, 130 when the user stopped it.

    Example:
        >>> main(["data", "digits"])
        digits: 10 classes
          train           1,437 images of 10 classes, 139 to 146 a class
          test              360 images of 10 classes, 35 to 37 a class
        0
    """
    arguments = build_parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except MISTAKES as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
