"""Runs with gates beside uniform ones: a table, and accuracy drawn against energy.

python -m nnmpq.dynamic.compare RUN_FOLDER ... --out FOLDER [--times skip_time_runs.csv]
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from matplotlib.figure import Figure

from nnmpq.config.errors import ConfigError
from nnmpq.data import DataError
from nnmpq.dynamic.energy import Work, work_of
from nnmpq.dynamic.finished import experiment_of, load_gates
from nnmpq.dynamic.graphs import table_of
from nnmpq.dynamic.report import FAR, Point, mark_uniform, save_figure
from nnmpq.files import atomic_write
from nnmpq.graph.network import Network
from nnmpq.policy import Policy, PolicyError
from nnmpq.training.errors import TrainingError


@attrs.frozen
class Row:
    """A run in the table.

    Args:
        name: of its folder.
        test_accuracy: 0 to 1.
        validation_accuracy: 0 to 1.
        energy: of an image, as share of the uniform network's at the widest precision.
        bitops: of an image.
        widest_share: of blocks and images on the widest path; None without gates.
        spread_within: deviation of P(widest) between images within a block; None without gates.
        spread_between: the same between blocks' means; None without gates.
        one_ms: milliseconds an image, one at a time; None where it was not measured.
        batch_ms: milliseconds an image, in batches; None where it was not measured.
    """

    name: str
    test_accuracy: float
    validation_accuracy: float
    energy: float
    bitops: float
    widest_share: float | None = None
    spread_within: float | None = None
    spread_between: float | None = None
    one_ms: float | None = None
    batch_ms: float | None = None


def uniform_work(folder: Path, network: Network, table: Mapping[float, float]) -> tuple[Work, dict[str, Any]]:
    """Return what a finished run without gates costs, and its result.json.

    Args:
        folder: of the run.
        network: layers and sites, which must be those of its policy.
        table: energy of a multiplication by width.

    Raises:
        PolicyError: the run is of another network.
        OSError: it is not finished.
    """
    policy = Policy.load(folder / "policy.yaml")
    policy.check(network)
    result = json.loads((folder / "result.json").read_text())
    return work_of(network, {name: site.bits for name, site in policy.sites.items()}, table), result


def compare(folders: Iterable[str | Path], *, data_dir: str | None = None) -> list[Row]:
    """Read runs of one network with and without gates.

    Args:
        folders: of finished runs, at least one of them with gates; energies are shares of the uniform network's at its
            widest precision.
        data_dir: folder of the data set; the runs' own if None.

    Returns:
        A row a folder, in that order.

    Raises:
        TrainingError: a folder is not that of a finished run, or none has gates.
        PolicyError: a run is of another network than the first one with gates.
    """
    paths = [Path(folder) for folder in folders]
    gated = [path for path in paths if experiment_of(path).gate_training is not None]
    if not gated:
        raise TrainingError(f"none of {', '.join(path.name for path in paths)} has gates; give one run that has")
    first = load_gates(gated[0], data_dir=data_dir)
    network, table = first.evaluation.network.network, table_of(first.experiment)
    whole = first.account.uniform(-1).energy
    rows = []
    for path in paths:
        if path in gated:
            found = json.loads((path / "result.json").read_text())
            keys = [field.name for field in attrs.fields(Row) if field.name in found]
            rows.append(Row(path.name, **{key: found[key] for key in keys}))
        else:
            work, found = uniform_work(path, network, table)
            accuracies = (found["test_accuracy"], found["validation_accuracy"])
            rows.append(Row(path.name, *accuracies, work.energy / whole, work.bitops))
    return rows


def with_times(rows: Sequence[Row], path: Path) -> list[Row]:
    """Add the times that `benchmarks/skip_time.py --runs` wrote; rows that are not in the file stay without."""
    with open(path, newline="") as stream:
        times = {line["name"]: line for line in csv.DictReader(stream)}
    return [
        attrs.evolve(row, one_ms=float(times[row.name]["one_ms"]), batch_ms=float(times[row.name]["batch_ms"]))
        if row.name in times
        else row
        for row in rows
    ]


def markdown(rows: Sequence[Row]) -> str:
    """Return the table as Markdown.

    Example:
        >>> print(markdown([Row("W4A4", 0.9, 0.895, 1.0, 1.1e9)]).splitlines()[2])
        | `W4A4` | 90.00 | 89.50 | 1.000 | 1.100 | | | |
    """
    lines = [
        "| | test, % | validation, % | energy | BitOps, G | wide paths | deviation within / between | ms an image, "
        "one / batch |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = [
            f"`{row.name}`",
            f"{100 * row.test_accuracy:.2f}",
            f"{100 * row.validation_accuracy:.2f}",
            f"{row.energy:.3f}",
            f"{row.bitops / 1e9:.3f}",
            "" if row.widest_share is None else f"{row.widest_share:.3f}",
            "" if row.spread_within is None else f"{row.spread_within:.3f} / {row.spread_between:.3f}",
            "" if row.one_ms is None else f"{row.one_ms:.2f} / {row.batch_ms:.2f}",
        ]
        lines.append(("| " + " | ".join(cells) + " |").replace("|  |", "| |").replace("|  |", "| |"))
    return "\n".join(lines) + "\n"


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Draw test accuracy against energy, runs with gates beside uniform ones.

    Args:
        path: the picture.
        rows: of one network.
    """
    figure = Figure(figsize=(6, 4), layout="tight")
    axes = figure.add_subplot()
    gated = [row for row in rows if row.widest_share is not None]
    near = [row for row in rows if row.widest_share is None and row.energy <= FAR]
    for label, marker, members in (("gates", "o", gated), ("uniform", "s", near)):
        axes.plot([r.energy for r in members], [100 * r.test_accuracy for r in members], marker, label=label)
        for row in members:
            axes.annotate(
                row.name,
                (row.energy, 100 * row.test_accuracy),
                textcoords="offset points",
                xytext=(5, 4),
                fontsize=6,
            )
    for row in rows:
        if row not in gated and row not in near:
            mark_uniform(axes, Point(row.name, row.energy, row.test_accuracy), FAR)
    axes.margins(x=0.15, y=0.1)
    axes.set_xlabel("energy of an image, share of the widest uniform network's")
    axes.set_ylabel("test accuracy, %")
    axes.legend(fontsize=8)
    save_figure(figure, path)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write the table as a CSV; what a row does not have stays empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [field.name for field in attrs.fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(attrs.asdict(row) for row in rows)
    atomic_write(path, stream.getvalue())


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the folders of the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m nnmpq.dynamic.compare", description="Runs with gates beside others"
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_FOLDER", help="of one network, finished")
    parser.add_argument("--out", type=Path, required=True, help="folder for compare.csv, compare.md and compare.png")
    parser.add_argument("--data-dir", help="folder of the data set")
    parser.add_argument("--times", type=Path, help="what benchmarks/skip_time.py --runs wrote")
    given = parser.parse_args(arguments)
    try:
        rows = compare(given.runs, data_dir=given.data_dir)
        if given.times is not None:
            rows = with_times(rows, given.times)
    except (TrainingError, PolicyError, ConfigError, DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    given.out.mkdir(parents=True, exist_ok=True)
    write_rows(given.out / "compare.csv", rows)
    atomic_write(given.out / "compare.md", markdown(rows))
    draw(given.out / "compare.png", rows)
    print(markdown(rows), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
