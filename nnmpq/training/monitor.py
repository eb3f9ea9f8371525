"""What a run shows: metrics.csv, nnabla's Monitor series and a progress bar."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
from nnabla.monitor import Monitor, MonitorSeries
from tqdm import tqdm

from nnmpq.files import atomic_write
from nnmpq.training.progress import PROJECT, Row

METRICS = "metrics.csv"
SERIES = {
    "loss": "loss",
    "cross_entropy": "cross entropy",
    "training_error": "training error",
    "validation_error": "validation error",
    "weights_kib": "weights KiB",
    "activations_sum_kib": "activations sum KiB",
    "activations_max_kib": "activations max KiB",
    "learning_rate": "learning rate",
}


def write_metrics(path: Path, history: Sequence[Row]) -> None:
    """Write every epoch so far, whole: a resumed run has no row twice.

    Args:
        path: the file.
        history: a row an epoch; None becomes an empty cell.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [field.name for field in attrs.fields(Row)], lineterminator="\n")
    writer.writeheader()
    for row in history:
        writer.writerow({name: _cell(value) for name, value in attrs.asdict(row).items()})
    atomic_write(path, stream.getvalue())


def _cell(value: Any) -> Any:
    return repr(value) if isinstance(value, float) else value


class Series:
    """nnabla's Monitor series, one file a quantity; begins anew with the history of a resumed run."""

    def __init__(self, folder: Path, history: Iterable[Row]) -> None:
        """Open the files in `folder` and write `history`."""
        folder.mkdir(parents=True, exist_ok=True)
        monitor = Monitor(str(folder))
        self._series = {key: MonitorSeries(title, monitor, interval=1, verbose=False) for key, title in SERIES.items()}
        for row in history:
            self.add(row)

    def add(self, row: Row) -> None:
        """Append an epoch; the projection, which is none, is left to metrics.csv."""
        if row.phase == PROJECT:
            return
        for key, series in self._series.items():
            value = getattr(row, key)
            if value is not None:
                series.add(row.epoch, value)


def progress_bar(batches: Iterable[Any], total: int, title: str, quiet: bool) -> Iterable[Any]:
    """Show a bar while batches are taken; none when quiet or where nobody looks.

    Args:
        batches: what to go through.
        total: how many there are.
        title: stands before the bar.
        quiet: no bar.
    """
    hidden = quiet or not sys.stderr.isatty()
    return tqdm(batches, total=total, desc=title, disable=hidden, leave=False, file=sys.stderr)
