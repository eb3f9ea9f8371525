"""Weights in the order of elements that oneDNN wants, reordered again only when they may have changed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from nnmpq.graph.accelerate.base import pointer
from nnmpq.onednn.convolution import WeightLayout
from nnmpq.onednn.primitive import buffer_of


class WeightClock:
    """Says whether weights may have changed since a stamp; one serves all functions of a graph."""

    def __init__(self) -> None:
        self.stamp = 0
        self.running = True

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Promise that no weight changes inside, as in an evaluation; each is reordered once.

        A promise inside another one adds nothing, and leaves the outer one as it was.
        """
        if not self.running:
            yield
            return
        self.stamp += 1
        self.running = False
        try:
            yield
        finally:
            self.running = True
            self.stamp += 1


class BlockedWeight:
    """A reordered copy of one weight."""

    def __init__(self, clock: WeightClock) -> None:
        self.clock = clock
        self.layout: WeightLayout | None = None
        self.stamp = -1
        self.memory: Any = None
        self.address = 0

    def pointer(self, layout: WeightLayout, weight: Any) -> int:
        """Return the address of the weight in a layout.

        Args:
            layout: the plan's.
            weight: Variable in the plain order.
        """
        if layout.move is None:
            return pointer(weight.data)
        if self.layout is not layout:
            self.memory, self.address = buffer_of(layout.wanted)
            self.layout, self.stamp = layout, -1
        if self.clock.running or self.stamp != self.clock.stamp:
            layout.move(pointer(weight.data), self.address)
            self.stamp = self.clock.stamp
        return self.address
