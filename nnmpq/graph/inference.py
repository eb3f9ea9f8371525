"""The evaluation graph of a training graph, for networks that come as one graph, such as those of an `.nnp`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nnabla as nn
import nnabla.function_bases as function_bases

from nnmpq.graph.rewrite import rewrite


def inference(outputs: Sequence[nn.Variable]) -> list[nn.Variable]:
    """Rebuild a graph for evaluation: batch normalization uses its running statistics, dropout is left out.

    Args:
        outputs: outputs of a float training graph.

    Returns:
        The outputs of the evaluation graph, which shares every parameter with the training graph.

    Raises:
        RewriteError: a function that was written in Python stands behind one that changes.

    Example:
        >>> import nnabla.functions as F, nnabla.parametric_functions as PF
        >>> y = F.dropout(PF.batch_normalization(nn.Variable((2, 3, 4, 4)), batch_stat=True))
        >>> inference([y])[0].parent.info.args["batch_stat"]
        False
    """

    def replace(function: Any, inputs: Sequence[nn.Variable]) -> list[nn.Variable] | None:
        name = function.info.type_name
        if name == "Dropout":
            return [inputs[0]]
        if name not in ("BatchNormalization", "FusedBatchNormalization") or not function.info.args["batch_stat"]:
            return None
        arguments = {**function.info.args, "batch_stat": False}
        build = getattr(function_bases.F, name)(nn.get_current_context(), **arguments)
        made = build(*inputs, n_outputs=1, auto_forward=False)
        return list(made) if isinstance(made, (tuple, list)) else [made]

    return rewrite(outputs, replace)[0]
