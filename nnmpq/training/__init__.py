"""Training: the loop, solvers, projection onto a budget, checkpoints."""

from nnmpq.training.errors import BudgetError, CheckpointError, NonFiniteLoss, TrainingError
from nnmpq.training.loop import train
from nnmpq.training.result import Result

__all__ = ["BudgetError", "CheckpointError", "NonFiniteLoss", "Result", "TrainingError", "train"]
