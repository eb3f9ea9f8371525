from __future__ import annotations

import json

from nnmpq.training.progress import FINETUNE, Best, Progress, Row


def row(epoch, error, cross_entropy=1.0, phase="learn"):
    return Row(epoch, phase, 1.0, 1.0, 0.5, error, cross_entropy, 10.0, 2.0, 1.0, 0.1, None)


def test_json_gives_back_the_same_floats():
    progress, _ = Progress(phase=FINETUNE, epoch=3).offer(row(1, 0.1 + 0.2, 1 / 3), {"a/W": 4}, True)
    assert Progress.from_json(json.loads(json.dumps(progress.to_json()))) == progress


def test_the_lowest_validation_error_is_the_best():
    progress, flags = Progress(), []
    for epoch, error in enumerate((0.5, 0.3, 0.4, 0.3, 0.2), start=1):
        progress, better = progress.offer(row(epoch, error), {"a/W": epoch}, True)
        flags.append(better)
    assert flags == [True, True, False, False, True]
    assert progress.best == Best(5, "learn", 0.2, 1.0, {"a/W": 5})
    assert [r.epoch for r in progress.history] == [1, 2, 3, 4, 5]


def test_equal_errors_are_decided_by_cross_entropy():
    progress, _ = Progress().offer(row(1, 0.3, 1.0), {}, True)
    assert progress.offer(row(2, 0.3, 0.9), {}, True)[1]
    assert not progress.offer(row(2, 0.3, 1.1), {}, True)[1]


def test_what_misses_the_budget_is_never_the_best():
    progress, better = Progress().offer(row(1, 0.0), {}, False)
    assert not better and progress.best is None and len(progress.history) == 1
    progress, better = progress.offer(row(2, 0.9), {}, True)
    assert better and progress.best is not None and progress.best.epoch == 2
