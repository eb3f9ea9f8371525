"""What each site loses at each width, as a file that is computed once and serves every budget."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path

import attrs

from nnmpq.cost import FLOAT_BITS
from nnmpq.files import atomic_write, nearest
from nnmpq.graph.network import Network
from nnmpq.training.errors import TrainingError

COLUMNS = ("score", "seed", "images", "site", "bits", "loss")
Losses = Mapping[str, Mapping[int, float]]


class TableError(TrainingError, ValueError):
    """Losses that are no numbers, or a file that is not a table of this network."""


def check_losses(loss: Losses) -> None:
    """Refuse losses that no sum can be made of.

    Args:
        loss: harm of each site at each width.

    Raises:
        TableError: names a site, its bits, and what is wrong.

    Example:
        >>> check_losses({"fc/W": {2: float("nan")}})
        Traceback (most recent call last):
        ...
        nnmpq.search.table.TableError: fc/W at 2 bits: the loss is nan; a finite number from 0 on is needed
    """
    for site, by_bits in loss.items():
        if not by_bits:
            raise TableError(f"{site}: it has no width at all")
        for bits, value in by_bits.items():
            if not 1 <= bits <= 32:
                raise TableError(f"{site}: {bits} bits: widths are 1 to 32")
            if not math.isfinite(value) or value < 0:
                raise TableError(f"{site} at {bits} bits: the loss is {value}; a finite number from 0 on is needed")


def _copied(loss: Losses) -> dict[str, dict[int, float]]:
    return {site: {int(b): float(v) for b, v in sorted(by_bits.items())} for site, by_bits in loss.items()}


@attrs.frozen(eq=False)
class ScoreTable:
    """The harm that each site does at each width, alone; harms of several sites add up.

    Args:
        score: name of the score, a key of `nnmpq.search.scores.SCORES`.
        network: the sites' network.
        loss: by site name and bits, >= 0; what its unit is, the score says.
        seed: of the images and of what else was random.
        images: how many training images it was measured on; 0 for none.

    Raises:
        TableError: a loss is not a finite number from 0 on, or a site is not the network's.
    """

    score: str
    network: Network
    loss: dict[str, dict[int, float]] = attrs.field(converter=_copied)
    seed: int = 0
    images: int = 0

    def __attrs_post_init__(self) -> None:
        """Refuse what is not this network's, or no number."""
        check_losses(self.loss)
        known = [site.name for site in self.network.sites()]
        for name in self.loss.keys() - set(known):
            raise TableError(f"no site {name!r} in this network; the nearest is {nearest(name, known)!r}")

    def total(self, bits: Mapping[str, int]) -> float:
        """Return the sum of the losses of these bits, over the sites of the table; a site in float loses nothing.

        Raises:
            TableError: a site has a width here that the table has no loss for.
        """
        quantized = {site: v for site, v in self.loss.items() if bits.get(site) != FLOAT_BITS or FLOAT_BITS in v}
        for site, by_bits in quantized.items():
            if bits.get(site) not in by_bits:
                raise TableError(f"{site} at {bits.get(site)} bits: the table has {', '.join(map(str, by_bits))}")
        return math.fsum(by_bits[bits[site]] for site, by_bits in quantized.items())

    def save(self, path: str | Path) -> None:
        """Write the table as CSV, whole or not at all; numbers come back to the last bit."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for site, by_bits in self.loss.items():
            for bits, value in by_bits.items():
                writer.writerow((self.score, self.seed, self.images, site, bits, repr(value)))
        atomic_write(path, text.getvalue())

    @classmethod
    def load(cls, path: str | Path, network: Network) -> ScoreTable:
        """Read a table, strictly.

        Args:
            path: a file that `save` wrote.
            network: the network that it is of.

        Raises:
            TableError: the file is no such table, or another network's; the message names file, line and value.
        """
        try:
            rows = list(csv.reader(io.StringIO(Path(path).read_text(encoding="utf-8"), newline="")))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise TableError(f"{path}: cannot be read as a table of scores: {error}") from error
        if not rows or tuple(rows[0]) != COLUMNS:
            found = ",".join(rows[0])[:80] if rows else "nothing"
            raise TableError(f"{path}: line 1 is {found!r}; {','.join(COLUMNS)!r} is needed")
        loss: dict[str, dict[int, float]] = {}
        origins: set[tuple[str, int, int]] = set()
        for number, row in enumerate(rows[1:], 2):
            where = f"{path}: line {number}"
            if len(row) != len(COLUMNS):
                raise TableError(f"{where}: {len(row)} columns; {len(COLUMNS)} are needed")
            score, seed, images, site, bits, value = row
            try:
                origins.add((score, int(seed), int(images)))
                width, harm = int(bits), float(value)
            except ValueError as error:
                raise TableError(f"{where}: {error}") from error
            if width in loss.setdefault(site, {}):
                raise TableError(f"{where}: {site} at {width} bits stands twice")
            loss[site][width] = harm
        if len(origins) != 1:
            raise TableError(f"{path}: {len(origins)} different sets of score, seed and images; one is needed")
        ((score, seed_number, image_number),) = origins
        try:
            return cls(score, network, loss, seed_number, image_number)
        except TableError as error:
            raise TableError(f"{path}: {error}") from error
