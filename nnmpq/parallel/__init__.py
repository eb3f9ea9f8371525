"""Several processes train one model: on the cores of one machine, or on several GPUs."""

from __future__ import annotations

from nnmpq.parallel.communicator import ALONE, Alone, Communicator

__all__ = ["ALONE", "Alone", "Communicator"]
