"""What the step-time benchmark says: ratios against their targets, times and memory, as text and CSV."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Iterator, Sequence

import attrs

from benchmarks.round_robin import Spread, fastest, ratios, spread
from benchmarks.step_contenders import ACCELERATED, PLAIN, TORCH, Contender, Race
from benchmarks.step_race import Result

# At this size the targets hold or do not; elsewhere they say nothing.
TARGET_NETWORK, TARGET_BATCH = "resnet20", 128
# Least speed-up over plain nnabla by number of threads, and largest share of the time of PyTorch's best layout.
TARGETS: dict[str, tuple[dict[int, float], float]] = {
    "float": ({1: 8.0, 4: 24.0}, 0.9),
    "quantized": ({1: 20.0, 4: 60.0}, 0.65),
    "mixture": ({1: 10.0, 4: 25.0}, 0.6),
}


@attrs.frozen
class Comparison:
    """The accelerated step against another.

    Args:
        race: what was trained.
        ours: the accelerated contender.
        other: the other one.
        faster: the other's time over ours (plain nnabla), else ours over the other's (PyTorch).
        spread: of that ratio over the rounds that both ran in.
        of_least: that ratio of each one's least time of all rounds: what others' work on the machine disturbs least.
        best: whether `other` is the fastest layout of PyTorch.
        target: least ratio where `faster`, else the largest; None for none.
    """

    race: Race
    ours: Contender
    other: Contender
    faster: bool
    spread: Spread
    of_least: float
    best: bool = False
    target: float | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the median is on the right side of the target; None without one."""
        if self.target is None:
            return None
        return self.spread.median >= self.target if self.faster else self.spread.median <= self.target

    def text(self) -> str:
        """Return a line of the table."""
        unit = "x faster" if self.faster else "of its time"
        numbers = "  ".join(f"{number:6.2f}" for number in (*self.spread, self.of_least))
        against = self.other.name + (" (its best)" if self.best else "")
        goal = ""
        if self.target is not None:
            goal = f"  {'>=' if self.faster else '<='} {self.target:g}: {'holds' if self.holds else 'MISSED'}"
        place = f"{self.race.network} {self.race.kind} {self.ours.threads}"
        return f"{place:27} {against:45} {numbers}    {unit:11}{goal}"


def _target(race: Race, threads: int, faster: bool) -> float | None:
    if (race.network, race.batch) != (TARGET_NETWORK, TARGET_BATCH):
        return None
    plain, peer = TARGETS[race.kind]
    return plain.get(threads) if faster else peer


def _compare(result: Result, ours: Contender, other: Contender, best: bool, target: float | None) -> Comparison:
    mine, theirs = result.seconds[ours], result.seconds[other]
    faster = other.library == PLAIN
    above, below = (theirs, mine) if faster else (mine, theirs)
    least = min(above.values()) / min(below.values())
    return Comparison(result.race, ours, other, faster, spread(ratios(above, below)), least, best, target)


def comparisons(result: Result) -> Iterator[Comparison]:
    """Yield the accelerated contender of each number of threads against plain nnabla and every layout of PyTorch."""
    race, seconds = result.race, result.seconds
    for ours in (c for c in seconds if c.library == ACCELERATED):
        for plain in (c for c in seconds if c.library == PLAIN):
            yield _compare(result, ours, plain, False, _target(race, ours.threads, True))
        peers = {c.name: c for c in seconds if c.library == TORCH and c.threads == ours.threads}
        best = fastest({name: seconds[c] for name, c in peers.items()})
        for name, peer in peers.items():
            target = _target(race, ours.threads, False) if name == best else None
            yield _compare(result, ours, peer, name == best, target)


def table(results: Sequence[Result]) -> str:
    """Return the ratios of all races, then each contender's time and memory, then who was absent and why."""
    lines = [f"{'network, kind, threads':27} {'nnmpq accelerated against':45}    min  median     max  of least"]
    lines += [comparison.text() for result in results for comparison in comparisons(result)]
    lines += ["", f"{'network, kind':23} {'contender':35} {'ms a step':>10} {'peak MiB':>9} {'above imports':>14}"]
    for result in results:
        place = f"{result.race.network} {result.race.kind}"
        for contender, times in result.seconds.items():
            memory = result.memory[contender]
            milliseconds = 1e3 * statistics.median(times.values())
            lines.append(
                f"{place:23} {contender.name:35} {milliseconds:10.1f} {memory.peak:9.0f} "
                f"{memory.peak - memory.imported:14.0f}"
            )
        for contender, reason in result.absent.items():
            lines.append(f"{place:23} {contender.name:35} {reason}")
    return "\n".join(lines)


def _csv(rows: Iterable[Sequence[object]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def times_csv(results: Sequence[Result]) -> str:
    """Return every contender's seconds a step in every round, and its memory, as CSV."""
    head = "network kind batch size library layout threads round seconds imported_mib peak_mib".split()
    rows: list[Sequence[object]] = [head]
    for result in results:
        for contender, times in result.seconds.items():
            memory = result.memory[contender]
            for turn, second in sorted(times.items()):
                held = (f"{memory.imported:.1f}", f"{memory.peak:.1f}")
                rows.append((*attrs.astuple(result.race), *attrs.astuple(contender), turn, f"{second:.6f}", *held))
    return _csv(rows)


def ratios_csv(results: Sequence[Result]) -> str:
    """Return the ratios and their targets as CSV; `ratio` says which time is divided by which."""
    head = "network kind batch size threads against layout ratio min median max of_least best target holds".split()
    rows: list[Sequence[object]] = [head]
    for comparison in (c for result in results for c in comparisons(result)):
        ratio = "theirs/ours" if comparison.faster else "ours/theirs"
        other, target = comparison.other, "" if comparison.target is None else comparison.target
        holds = {None: "", True: "yes", False: "no"}[comparison.holds]
        numbers = [f"{number:.4f}" for number in (*comparison.spread, comparison.of_least)]
        place = (*attrs.astuple(comparison.race), comparison.ours.threads, other.library, other.layout)
        rows.append((*place, ratio, *numbers, "yes" if comparison.best else "no", target, holds))
    return _csv(rows)
