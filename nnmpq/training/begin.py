"""How a run begins: from a checkpoint or anew, with its two graphs."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import nnabla as nn

from nnmpq.config.experiment import Experiment
from nnmpq.config.scheme import build_scheme
from nnmpq.data import DataSet
from nnmpq.parallel import Communicator
from nnmpq.training import checkpoint as checkpoints
from nnmpq.training import parameters
from nnmpq.training.errors import TrainingError
from nnmpq.training.graphs import EvaluationGraph, TrainingGraph, build_evaluation, build_training
from nnmpq.training.identity import check_same

logger = logging.getLogger("nnmpq")

BEST = "best.h5"


def checkpoint_of(
    folder: Path, known: dict[str, Any], resume: bool, communicator: Communicator
) -> checkpoints.Checkpoint | None:
    """Find the checkpoint to go on from; a run that begins anew removes what it would mistake for its own.

    Args:
        folder: the run's.
        known: identity of the run.
        resume: whether to go on.
        communicator: only its first process removes anything.

    Raises:
        CheckpointError: the checkpoint is damaged or another run's.
    """
    path = checkpoints.latest(folder) if resume else None
    # Everybody has looked before the first one removes or writes anything.
    communicator.barrier()
    if path is None and communicator.rank > 0:
        return None
    if path is None:
        if resume:
            logger.info("%s: no checkpoint, starting from the beginning", folder)
        shutil.rmtree(folder / checkpoints.FOLDER, ignore_errors=True)
        (folder / BEST).unlink(missing_ok=True)
        return None
    found = checkpoints.read(path)
    check_same(path, found.state["identity"], known)
    logger.info("%s: going on", path)
    return found


def build_graphs(experiment: Experiment, data: DataSet, accelerate: bool) -> tuple[TrainingGraph, EvaluationGraph]:
    """Build both graphs in the current parameter scope, cleared first, from the weightfile where there is one.

    Args:
        experiment: what to train, with one process' batch size.
        data: shape and number of classes.
        accelerate: run on fast CPU functions where this machine has them.

    Raises:
        TrainingError: the weightfile or the scheme does not fit the network.
    """
    nn.clear_parameters()
    loaded = [] if experiment.weightfile is None else parameters.load_weightfile(experiment.weightfile)
    scheme = build_scheme(experiment)
    try:
        training = build_training(experiment, data, scheme, accelerate=accelerate)
        evaluation = build_evaluation(experiment, data, scheme, accelerate=accelerate)
    except ValueError as error:
        source = "" if experiment.weightfile is None else f" (weightfile = {experiment.weightfile})"
        raise TrainingError(f"{experiment.name}{source}: {error}") from error
    if experiment.weightfile is not None:
        outputs = (training.loss, evaluation.cross_entropies)
        unused = parameters.drop_unused(loaded, outputs, experiment.weightfile)
        logger.info("%s: %d parameters used, %d not", experiment.weightfile, len(loaded) - len(unused), len(unused))
    return training, evaluation
