"""How far a run has come: which epoch is the best, what JSON keeps, what metrics.csv says."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnmpq.dynamic.progress import TOLERANCE, Progress, Row, write_metrics

FLOATS = [field.name for field in attrs.fields(Row) if field.name != "epoch"]


def row(epoch: int, error: float = 0.5, **changes: float) -> Row:
    values = {**dict.fromkeys(FLOATS, 0.25), "validation_error": error, **changes}
    return Row(epoch=epoch, **values)


def after(rows: list[Row], target: float | None = None, first: int = 0) -> tuple[Progress, list[bool]]:
    progress, better = Progress(0.1), []
    for one in rows:
        progress, new = progress.offer(one, target, first)
        better.append(new)
    return progress, better


def test_the_first_of_equal_epochs_is_the_best() -> None:
    progress, better = after([row(1, 0.4), row(2, 0.3), row(3, 0.3), row(4, 0.35)])
    assert better == [True, True, False, False]
    assert progress.best == 2
    assert progress.epoch == 4


def test_equal_errors_are_told_apart_by_their_cross_entropies() -> None:
    for first, second, best in ((0.9, 0.8, 2), (0.8, 0.9, 1), (0.8, 0.8, 1)):
        rows = [row(1, 0.3, validation_cross_entropy=first), row(2, 0.3, validation_cross_entropy=second)]
        assert after(rows)[0].best == best


@pytest.mark.parametrize(("beyond", "accepted"), [(0.0, True), (0.99, True), (1.01, False), (30.0, False)])
def test_energy_beyond_the_target_and_its_tolerance_is_never_the_best(beyond: float, accepted: bool) -> None:
    progress, better = after([row(1, 0.1, validation_energy=0.7 + beyond * TOLERANCE)], target=0.7)
    assert better == [accepted]
    assert progress.best == int(accepted)


def test_a_dear_epoch_with_fewer_errors_does_not_displace_a_cheap_one() -> None:
    rows = [row(1, 0.4, validation_energy=0.7), row(2, 0.1, validation_energy=0.9), row(3, 0.39, validation_energy=0.6)]
    progress, better = after(rows, target=0.7)
    assert better == [True, False, True]
    assert progress.best == 3


def test_without_a_target_energy_does_not_matter() -> None:
    assert after([row(1, 0.4, validation_energy=0.1), row(2, 0.3, validation_energy=5.0)])[0].best == 2


@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_epochs_of_the_warm_up_are_never_the_best(first: int) -> None:
    rows = [row(epoch, 0.1 * epoch) for epoch in (1, 2, 3)]
    assert after(rows, first=first)[0].best == (first + 1 if first < 3 else 0)


def test_offering_leaves_the_old_progress_alone() -> None:
    old = Progress(0.1)
    new, _ = old.offer(row(1), None)
    assert old.epoch == 0 and old.best == 0
    assert new.epoch == 1 and new.alpha == old.alpha


ROWS = st.builds(
    Row,
    epoch=st.integers(1, 10**6),
    **{name: st.floats(allow_nan=False, allow_infinity=False) for name in FLOATS},
)


@given(st.floats(0, 100), st.lists(ROWS, max_size=4), st.integers(0, 4))
def test_json_keeps_every_bit(alpha: float, rows: list[Row], best: int) -> None:
    progress = Progress(alpha, tuple(rows), best)
    assert Progress.from_json(json.loads(json.dumps(progress.to_json()))) == progress


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.5, 1.2)), min_size=1, max_size=12), st.floats(0.6, 1.0))
def test_the_best_is_the_least_error_of_those_that_meet_the_target(
    epochs: list[tuple[float, float]], target: float
) -> None:
    rows = [row(n, error, validation_energy=energy) for n, (error, energy) in enumerate(epochs, start=1)]
    progress, _ = after(rows, target=target)
    meeting = [(one.validation_error, one.epoch) for one in rows if one.validation_energy <= target + TOLERANCE]
    assert progress.best == (min(meeting)[1] if meeting else 0)


def test_metrics_hold_a_line_an_epoch_that_reads_back_as_it_was(tmp_path: Path) -> None:
    rows = [row(1, 1 / 3, loss=0.1 + 0.2), row(2, 2 / 7, price=-1e-17)]
    write_metrics(tmp_path / "metrics.csv", rows)
    found = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    assert [int(line["epoch"]) for line in found] == [1, 2]
    for line, one in zip(found, rows):
        assert {name: float(line[name]) for name in FLOATS} == {name: getattr(one, name) for name in FLOATS}


def test_metrics_are_written_whole_each_time(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    write_metrics(path, [row(1), row(2), row(3)])
    write_metrics(path, [row(1)])
    assert path.read_text().count("\n") == 2
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"], "nothing temporary is left"
