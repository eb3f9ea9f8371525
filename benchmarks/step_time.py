"""How long a training step takes: plain nnabla, accelerated, and PyTorch at the same work.

    python benchmarks/step_time.py [--torch-python PATH] [--threads 1,4] [--quick]

A step is forward, backward and update on one random batch. Every contender is a process of its own, with its number
of threads from its start on, that waits asleep until it is its turn; they take turns in every round, so that what
else the machine does falls on all alike, and a ratio is taken between times of the same round. Ratios compare
between machines, milliseconds do not. PyTorch is no dependency: its own networks and quantizers, in
benchmarks/torch_peer, run in whatever interpreter has it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import step_contenders, step_race, step_report  # noqa: E402
from benchmarks.step_chart import draw  # noqa: E402
from nnmpq.files import atomic_write, nearest  # noqa: E402
from nnmpq.threads import available_threads  # noqa: E402

QUICK = {"rounds": 3, "steps": 1, "plain_rounds": 1, "threads": [1], "layouts": ["channels_last"]}
QUICK_SHARE = 8  # of the batch


def positive(text: str) -> int:
    """Read a whole number above 0."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number above 0 is needed")
    return int(text)


def numbers(text: str) -> list[int]:
    """Read whole numbers above 0, separated by commas; each counts once.

    Example:
        >>> numbers("1,4,1")
        [1, 4]
    """
    return list(dict.fromkeys(positive(word) for word in text.split(",")))


class Words:
    """Reads words of a choice, separated by commas."""

    def __init__(self, choices: Sequence[str]) -> None:
        self.choices = tuple(choices)

    def __call__(self, text: str) -> list[str]:
        """Return the words; argparse reports one that is none of the choice."""
        words = list(dict.fromkeys(text.split(",")))
        for word in words:
            if word not in self.choices:
                raise argparse.ArgumentTypeError(f"{word!r}: the nearest is {nearest(word, self.choices)!r}")
        return words


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    made = argparse.ArgumentParser(description="Step times of plain nnabla, nnmpq accelerated and PyTorch, as ratios.")
    default = [1, available_threads()] if available_threads() > 1 else [1]
    made.add_argument("--torch-python", metavar="PATH", help="interpreter that has PyTorch; without it none takes part")
    made.add_argument("--threads", type=numbers, default=default, help="1,4 for both (default: one and all cores)")
    made.add_argument(
        "--networks",
        type=Words(list(step_contenders.NETWORKS)),
        default=list(step_contenders.NETWORKS),
        help=",".join(step_contenders.NETWORKS),
    )
    made.add_argument(
        "--kinds",
        type=Words(step_contenders.KINDS),
        default=list(step_contenders.KINDS),
        help=",".join(step_contenders.KINDS),
    )
    made.add_argument(
        "--layouts",
        type=Words(step_contenders.TORCH_LAYOUTS),
        default=list(step_contenders.TORCH_LAYOUTS),
        help="of PyTorch: " + ",".join(step_contenders.TORCH_LAYOUTS),
    )
    made.add_argument("--rounds", type=positive, default=9, help="rounds of turns (default: 9)")
    made.add_argument("--steps", type=positive, default=3, help="steps of a turn (default: 3)")
    made.add_argument("--plain-rounds", type=positive, default=3, help="rounds with plain nnabla (default: 3)")
    made.add_argument("--batch", type=positive, help="images a step instead of the network's own number")
    made.add_argument("--quick", action="store_true", help="small batches, few rounds, one thread: does it run at all?")
    made.add_argument("-o", "--output", type=Path, help="folder for step_time.csv, step_time_ratios.csv, step_time.png")
    return made


def races(options: argparse.Namespace) -> list[step_contenders.Race]:
    """Return the races that the options ask for."""
    found = []
    for network in options.networks:
        batch, size = step_contenders.NETWORKS[network]
        batch = options.batch or (batch // QUICK_SHARE if options.quick else batch)
        found += [step_contenders.Race(network, kind, batch, size) for kind in options.kinds]
    return found


def write(folder: Path, results: Sequence[step_race.Result]) -> None:
    """Write times, ratios and, where there are any, bars."""
    atomic_write(folder / "step_time.csv", step_report.times_csv(results))
    atomic_write(folder / "step_time_ratios.csv", step_report.ratios_csv(results))
    if any(True for result in results for _ in step_report.comparisons(result)):
        atomic_write(folder / "step_time.png", draw(results))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all races, print the table, write the files."""
    options = parser().parse_args(arguments)
    for name, value in QUICK.items() if options.quick else ():
        setattr(options, name, value)
    effort = step_race.Effort(options.rounds, options.steps, options.plain_rounds)
    field = step_contenders.contenders(options.threads, options.layouts)
    results = []
    for race in races(options):
        results.append(step_race.run(race, field, effort, options.torch_python, say=print_now))
        print_now(step_report.table(results[-1:]) + "\n")
        if options.output is not None:
            write(options.output, results)
    if len(results) > 1:
        print_now("all\n\n" + step_report.table(results))
    return 0


def print_now(text: str) -> None:
    """Print without delay: races take minutes."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
