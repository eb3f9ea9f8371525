"""Where a network with gates starts: from nothing, a uniform network, or one with gates."""

from __future__ import annotations

import logging

import nnabla as nn
import numpy as np

from nnmpq.config.experiment import Experiment
from nnmpq.data import DataSet
from nnmpq.dynamic.graphs import DynamicEvaluation, DynamicTraining, build_evaluation, build_training
from nnmpq.dynamic.network import drop_unread
from nnmpq.dynamic.paths import scope_of
from nnmpq.training import parameters
from nnmpq.training.errors import TrainingError

logger = logging.getLogger("nnmpq")

FRESH = {"/bn/gamma": 1.0, "/bn/beta": 0.0, "/bn/mean": 0.0, "/bn/var": 1.0}


def build_graphs(
    experiment: Experiment, data: DataSet, accelerate: bool = False
) -> tuple[DynamicTraining, DynamicEvaluation]:
    """Build both graphs in the current parameter scope, cleared first, from the weightfile where there is one.

    Weights of a uniform network become the shared ones, and its normalization and ranges every precision's first ones.
    With ``faithful`` the narrowest precision alone takes its normalization, as in the published code.

    Args:
        experiment: network, gates, weightfile.
        data: shape and number of classes.
        accelerate: run on fast CPU functions where this machine has them.

    Raises:
        TrainingError: the weightfile or the network does not fit.
    """
    nn.clear_parameters()
    source = experiment.weightfile
    loaded = [] if source is None else parameters.load_weightfile(source)
    if loaded and not any(name.startswith("precision") for name in loaded):
        _share(loaded, experiment)
    try:
        training = build_training(experiment, data, accelerate=accelerate)
        evaluation = build_evaluation(experiment, data, accelerate=accelerate)
    except ValueError as error:
        where = "" if source is None else f" (weightfile = {source})"
        raise TrainingError(f"{experiment.name}{where}: {error}") from error
    unread = set(drop_unread([training.network.output, evaluation.network.output, training.graph.loss]))
    unread -= {name for name in unread if name not in loaded}
    if loaded:
        used = nn.get_parameters(grad_only=False).keys() & set(loaded)
        if not used:
            raise TrainingError(f"weightfile = {source}: none of its {len(loaded)} parameters is this network's")
        logger.info("%s: %d parameters used as they are", source, len(used))
    return training, evaluation


def _share(loaded: list[str], experiment: Experiment) -> None:
    """Give every precision what a uniform network has once."""
    own = nn.get_parameters(grad_only=False)
    for name in loaded:
        values, need_grad = np.array(own[name].d, np.float32), own[name].need_grad
        suffix = next((s for s in FRESH if name.endswith(s)), None)
        if suffix is not None and experiment.faithful:
            if name.startswith("last/"):
                own[name].d = FRESH[suffix]
            for bits in experiment.precisions[1:]:
                _set(f"{scope_of(bits)}/{name}", np.full_like(values, FRESH[suffix]), need_grad)
        elif "_quantizer/" in name and not name.endswith("/bits"):
            for bits in experiment.precisions:
                _set(f"{scope_of(bits)}/{name}", values, need_grad)


def _set(name: str, values: np.ndarray, need_grad: bool) -> None:
    variable = nn.Variable.from_numpy_array(values)
    variable.need_grad = need_grad
    nn.parameter.set_parameter(name, variable)
