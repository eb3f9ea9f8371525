"""Accelerate a graph where it can be, and say once why not where it cannot."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence

import nnabla as nn

from nnmpq.graph.accelerate.apply import Accelerated, accelerate
from nnmpq.graph.rewrite import RewriteError
from nnmpq.onednn.library import missing
from nnmpq.quantizers.buffers import on_cpu

logger = logging.getLogger("nnmpq")


@functools.lru_cache(maxsize=16)
def _say_once(message: str) -> None:
    logger.warning("%s", message)


def accelerate_where_possible(outputs: Sequence[nn.Variable]) -> Accelerated | None:
    """Return the accelerated graph; None on a GPU, and, said once, where oneDNN is missing or the graph is not ours.

    Args:
        outputs: as of `accelerate`.
    """
    if not on_cpu(nn.get_current_context()):
        return None
    reason = missing()
    if not reason:
        try:
            return accelerate(outputs)
        except RewriteError as error:
            reason = str(error)
    _say_once(f"not accelerated, nnabla's own CPU functions run: {reason}")
    return None
