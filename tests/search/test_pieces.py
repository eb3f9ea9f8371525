"""Pieces of work spread over processes: here threads that average as processes do."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnmpq.search.pieces import Pieces, spread
from nnmpq.search.table import TableError


class Together:
    """One of several threads that stand at the same place."""

    def __init__(self, rank: int, size: int, meeting: threading.Barrier, board: list) -> None:
        self.rank, self.size, self._meeting, self._board = rank, size, meeting, board

    def mean(self, arrays) -> None:
        raise AssertionError("no parameters are averaged here")

    def mean_numbers(self, numbers) -> np.ndarray:
        self._board[self.rank] = np.array(numbers, np.float64)
        self._meeting.wait()
        mean = np.mean(np.stack(self._board), axis=0)
        self._meeting.wait()
        return mean

    def barrier(self) -> None:
        self._meeting.wait()


def in_threads(size, work):
    """Run work(communicator) in each; return results, or what was raised."""
    meeting = threading.Barrier(size, timeout=20)
    board: list = [None] * size
    found: list = [None] * size

    def run(rank):
        try:
            found[rank] = work(Together(rank, size, meeting, board))
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@settings(max_examples=25)
@given(st.lists(st.lists(st.floats(-1e6, 1e6), max_size=4), max_size=9), st.integers(1, 4))
def test_every_process_gets_the_numbers_of_all(pieces, size):
    for found in in_threads(size, lambda c: list(spread(pieces, list, 4, c))):
        assert len(found) == len(pieces)
        for numbers, piece in zip(found, pieces):
            assert numbers == pytest.approx(piece, rel=1e-12, abs=1e-12)


def test_each_piece_is_computed_once():
    computed: list[int] = []

    def square(piece):
        computed.append(piece)
        return [piece**2]

    found = in_threads(3, lambda c: list(spread(range(8), square, 1, c)))
    assert sorted(computed) == list(range(8))
    assert found[0] == found[1] == found[2] == [[pytest.approx(n**2)] for n in range(8)]


@pytest.mark.parametrize("bad", [3, 4])
def test_what_fails_in_one_process_fails_in_all_with_its_words(bad):
    def compute(piece):
        if piece == bad:
            raise TableError(f"piece {piece} is none")
        return [piece]

    for found in in_threads(2, lambda c: list(spread(range(6), compute, 1, c))):
        assert isinstance(found, TableError) and str(found) == f"piece {bad} is none"


@pytest.mark.parametrize("size", [1, 2])
def test_numbers_that_are_not_finite_come_back_as_they_are(size):
    for found in in_threads(size, lambda c: list(spread([np.inf, 2.0, np.nan], lambda piece: [piece], 1, c))):
        assert found[0] == [np.inf] and found[1] == [2.0] and np.isnan(found[2][0])


def test_the_first_process_keeps_what_all_go_on_from(tmp_path):
    path = tmp_path / "pieces.json"

    def begin(communicator):
        pieces = Pieces.open(path, {"a": (1, 2)}, resume=False, communicator=communicator)
        each = pieces.each(["x", "y", "z"], lambda name: [float(ord(name))], 1)
        return [next(each), next(each)]

    for found in in_threads(2, begin):
        assert found == [("x", [120.0]), ("y", [121.0])]

    computed: list[str] = []

    def go_on(communicator):
        pieces = Pieces.open(path, {"a": (1, 2)}, resume=True, communicator=communicator)
        return dict(pieces.each(["x", "y", "z"], lambda name: computed.append(name) or [122.0], 1))

    for found in in_threads(2, go_on):
        assert found == {"x": [120.0], "y": [121.0], "z": [122.0]}
    assert computed == ["z"]
