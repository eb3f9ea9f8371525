"""Start the processes of a run and end them together."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from typing import Any

from nnmpq.parallel.shared_memory import Board, PeerLost, SharedMemoryCommunicator, make_board

JOIN_SECONDS = 10

Work = Callable[..., int]


def _child(work: Work, arguments: tuple[Any, ...], board: Board, rank: int) -> None:
    communicator = SharedMemoryCommunicator(board, rank)
    try:
        status = work(*arguments, communicator)
    except PeerLost:
        sys.exit(1)
    except BaseException:
        communicator.fail()
        raise
    if status:
        communicator.fail()
    sys.exit(status)


def run_processes(count: int, work: Work, arguments: tuple[Any, ...]) -> int:
    """Run `work(*arguments, communicator)` in several processes, rank 0 in this one.

    Args:
        count: processes, at least 2.
        work: a function of a module; returns an exit status.
        arguments: what it gets; they are pickled.

    Returns:
        The exit status of rank 0, or 1 where another one failed.
    """
    context = multiprocessing.get_context("spawn")
    board = make_board(count)
    others = [
        context.Process(target=_child, args=(work, arguments, board, rank), daemon=True) for rank in range(1, count)
    ]
    for process in others:
        process.start()
    communicator = SharedMemoryCommunicator(board, 0, lambda: all(p.exitcode in (None, 0) for p in others))
    status = 1
    try:
        status = work(*arguments, communicator)
    except PeerLost as error:
        print(f"error: {error}", file=sys.stderr)
    finally:
        if status:
            communicator.fail()
        for process in others:
            process.join(JOIN_SECONDS)
            if process.is_alive():
                process.terminate()
                process.join()
    return status or int(any(process.exitcode for process in others))
