"""Fast CPU functions for any graph: oneDNN's convolutions, numba's loops."""

from __future__ import annotations

from nnmpq.graph.accelerate.apply import Accelerated, accelerate
from nnmpq.graph.accelerate.memory import reserve
from nnmpq.graph.accelerate.possible import accelerate_where_possible
from nnmpq.graph.accelerate.weights import WeightClock

__all__ = ["Accelerated", "WeightClock", "accelerate", "accelerate_where_possible", "reserve"]
