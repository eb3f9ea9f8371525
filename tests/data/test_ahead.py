from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from nnmpq.data.ahead import ahead


def happens(condition) -> bool:
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "nnmpq-ahead"]


def counting(made: list[int], last: int = 100) -> Iterator[int]:
    try:
        for number in range(last):
            made.append(number)
            yield number
    finally:
        made.append(-1)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_all_come_in_order(count: int) -> None:
    assert list(ahead(range(20), count)) == list(range(20))
    assert list(ahead([], count)) == [] and not threads()


@pytest.mark.parametrize("count", [1, 3])
def test_so_many_are_made_while_one_is_in_use_and_no_more(count: int) -> None:
    made: list[int] = []
    items = ahead(counting(made), count)
    assert next(items) == 0
    # The ones that are ready, and one that waits for room.
    assert happens(lambda: len(made) == count + 2)
    time.sleep(0.05)
    assert made == list(range(count + 2))
    items.close()


def test_they_are_made_in_another_thread_from_beginning_to_end() -> None:
    where: list[int] = []

    def items() -> Iterator[int]:
        try:
            where.append(threading.get_ident())
            yield 1
        finally:
            where.append(threading.get_ident())

    assert list(ahead(items())) == [1]
    assert len(set(where)) == 1 and threading.get_ident() not in where


def test_an_error_comes_out_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("second")

    found = ahead(items(), 5)
    assert next(found) == 1
    with pytest.raises(KeyError, match="second"):
        next(found)
    assert not threads()


@pytest.mark.parametrize("taken", [1, 2])
def test_leaving_early_closes_the_source_and_ends_the_thread(taken: int) -> None:
    made: list[int] = []
    items = ahead(counting(made), 1)
    for _ in range(taken):
        next(items)
    items.close()
    assert made[-1] == -1 and not threads()


def test_nothing_runs_before_the_first_is_asked_for() -> None:
    made: list[int] = []
    ahead(counting(made))
    time.sleep(0.02)
    assert made == [] and not threads()


def test_at_least_one_is_kept_ready() -> None:
    with pytest.raises(ValueError, match="0 items ahead"):
        next(ahead([1], 0))
