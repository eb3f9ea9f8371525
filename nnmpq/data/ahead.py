"""Making things in a thread ahead of their use."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
_END = object()


def ahead(items: Iterable[Item], count: int = 2) -> Iterator[Item]:
    """Yield what an iterable yields, the next ones made in a thread while the last one is in use.

    The iterable lives in that thread alone: it is begun, run and closed there. An error comes out where its item would
    have. Closing the iterator waits for the item that is being made.

    Args:
        items: what to go through.
        count: items that are kept ready, at least 1.

    Example:
        >>> list(ahead(iter("abc")))
        ['a', 'b', 'c']
    """
    if count < 1:
        raise ValueError(f"{count} items ahead: at least 1 is needed")
    ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(count)
    stopped = threading.Event()
    thread = threading.Thread(target=_make, args=(items, ready, stopped), name="nnmpq-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        while thread.is_alive():
            try:
                ready.get(timeout=0.05)  # room for a thread that waits with its last item
            except queue.Empty:
                pass
        thread.join()


def _make(items: Iterable[Any], ready: queue.Queue, stopped: threading.Event) -> None:
    iterator = iter(items)
    try:
        for item in iterator:
            if stopped.is_set():
                return
            ready.put((item, None))
        ready.put((_END, None))
    except BaseException as error:
        ready.put((None, error))
    finally:
        if isinstance(iterator, Generator):
            iterator.close()
