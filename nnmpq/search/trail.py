"""The trail of a search: every candidate or epoch that it saw, as a CSV that is always whole."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnmpq.files import atomic_write

TRAIL = "trail.csv"
SECONDS = "seconds"


class Trail:
    """Rows with the seconds of searching before each; a resumed search's clock goes on where it was stopped.

    A search reports all its rows in order, a resumed one also those from before: they stay as they are.

    Args:
        path: the file.
        resume: whether what is there is this search's beginning; else it is removed.
        writes: False keeps the rows and writes nothing, in all processes but the first.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trail = Trail(Path(folder) / "trail.csv")
        ...     trail.report({"epoch": 1, "loss": 0.5})
        ...     len(trail.path.read_text().splitlines())
        2
    """

    def __init__(self, path: Path, *, resume: bool = False, writes: bool = True) -> None:
        self.path = path
        self.rows: list[dict[str, str]] = []
        self._writes = writes
        self._before = _read(path) if resume and path.exists() else []
        if writes and not self._before:
            path.unlink(missing_ok=True)
        self._earlier = max((float(row[SECONDS] or 0) for row in self._before), default=0.0)
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of searching, those before a kill up to the last row then included."""
        return self._earlier + time.perf_counter() - self._start

    @property
    def images(self) -> int:
        """Training images that the rows say were seen, those seen again included."""
        return max((int(float(row["images"])) for row in self.rows if row.get("images")), default=0)

    def report(self, row: Mapping[str, Any]) -> None:
        """Add a row and write the file."""
        cells = {name: _cell(value) for name, value in row.items()}
        place = len(self.rows)
        known = place < len(self._before) and _same(self._before[place], cells)
        cells[SECONDS] = self._before[place][SECONDS] if known else f"{self.seconds:.2f}"
        self.rows.append(cells)
        if self._writes and not known:
            atomic_write(self.path, self.text())

    def text(self) -> str:
        """Return the rows as CSV; a column that a row lacks is empty."""
        names = [name for name in dict.fromkeys(name for row in self.rows for name in row) if name != SECONDS]
        stream = io.StringIO()
        writer = csv.DictWriter(stream, [*names, SECONDS], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return stream.getvalue()


def _cell(value: Any) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def _read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return [{name: value or "" for name, value in row.items()} for row in csv.DictReader(stream)]


def _same(before: Mapping[str, str], cells: Mapping[str, str]) -> bool:
    names = (before.keys() | cells.keys()) - {SECONDS}
    return all(before.get(name, "") == cells.get(name, "") for name in names)
