"""What the rules of the pass work with: layouts of variables, shared memory, chains."""

from __future__ import annotations

from typing import Any

import attrs
import nnabla as nn

from nnmpq.graph.accelerate import layout
from nnmpq.graph.accelerate.base import Scratch
from nnmpq.graph.accelerate.patterns import Chain
from nnmpq.graph.accelerate.weights import WeightClock


@attrs.define(eq=False)
class Work:
    """State of one run of the pass.

    Args:
        chains: by each of its functions, the chain that a function belongs to.
        absorbed: new inputs of functions that run later as part of a chain.
    """

    chains: dict[Any, Chain]
    absorbed: dict[Any, list[nn.Variable]] = attrs.field(factory=dict)
    scratch: Scratch = attrs.field(factory=Scratch)
    clock: WeightClock = attrs.field(factory=WeightClock)
    last_ones: set[nn.Variable] = attrs.field(factory=set)
    moved: dict[nn.Variable, nn.Variable] = attrs.field(factory=dict)

    def is_last(self, v: nn.Variable) -> bool:
        """Whether a new variable has its channels last."""
        return v in self.last_ones

    def mark(self, v: nn.Variable) -> nn.Variable:
        """Note that a new variable has its channels last; return it."""
        self.last_ones.add(v)
        return v

    def last(self, v: nn.Variable) -> nn.Variable:
        """Return a new 4-D variable with its channels last, moved at most once."""
        if self.is_last(v):
            return v
        if v not in self.moved:
            self.moved[v] = layout.to_last(self.scratch, v)
            self.mark(self.moved[v])
        return self.moved[v]

    def first(self, v: nn.Variable) -> nn.Variable:
        """Return a new variable with its channels first, moved at most once."""
        if not self.is_last(v):
            return v
        if v not in self.moved:
            self.moved[v] = layout.to_first(self.scratch, v)
        return self.moved[v]
