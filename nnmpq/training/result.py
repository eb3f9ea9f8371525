"""What a finished run hands over."""

from __future__ import annotations

import attrs

from nnmpq.cost import Cost
from nnmpq.graph.quantize import QuantizedNetwork
from nnmpq.policy import Policy
from nnmpq.training.progress import Row


@attrs.frozen
class Result:
    """What a finished run hands over; the current parameter scope holds its best parameters.

    Args:
        test_accuracy: share of the test images that the best model classifies right, read once.
        validation_accuracy: the same of the validation images, which picked it.
        best_epoch: number of epochs after which it stood.
        cost: what it costs.
        policy: its bits.
        quantized: the evaluation network.
        history: a row an epoch.
    """

    test_accuracy: float
    validation_accuracy: float
    best_epoch: int
    cost: Cost
    policy: Policy
    quantized: QuantizedNetwork
    history: tuple[Row, ...]
