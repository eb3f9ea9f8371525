"""What a progressive search starts from: trained weights, every site at `k_bits`."""

from __future__ import annotations

import attrs
import nnabla as nn

from nnmpq.search.progressive_network import RuntimeNetwork
from nnmpq.search.progressive_settings import UNIFORM, Settings
from nnmpq.search.sensitivity import load_float
from nnmpq.search.table import TableError
from nnmpq.search.task import SearchTask
from nnmpq.training import train
from nnmpq.training.errors import TrainingError
from nnmpq.training.parameters import drop_unused, load_weightfile

BASELINE_FOLDER = "baseline"


def load_start(task: SearchTask, settings: Settings) -> RuntimeNetwork:
    """Build the graphs on the weights of the weightfile, else of a network that is trained first.

    That network is a float one, whose ranges are fitted afterwards, where all quantizers are uniform; else, as
    published, one with the search's quantizers at `k_bits`.

    Args:
        task: experiment and data; the current scope's parameters are cleared.
        settings: of the search.

    Raises:
        TableError: a number of a site is not finite; the site is named.
        TrainingError: the weightfile does not fit.
    """
    experiment = task.experiment
    nn.clear_parameters()
    loaded: list[str] = []
    if experiment.weightfile is not None:
        loaded = load_weightfile(experiment.weightfile)
    elif settings.weight == settings.activation == UNIFORM:
        load_float(attrs.evolve(task, experiment=attrs.evolve(experiment, archtype=None)))
    else:
        given = (experiment.w_quantize, experiment.a_quantize) != (None, None)
        first = attrs.evolve(experiment, archtype=None if given else "quant")
        folder = task.folder / BASELINE_FOLDER
        train(first, task.data, folder, resume=task.resume, quiet=True, machine=task.machine)
    try:
        net = RuntimeNetwork.build(task, settings)
    except TableError:
        raise
    except ValueError as error:
        raise TrainingError(f"{experiment.name} (weightfile = {experiment.weightfile}): {error}") from error
    if experiment.weightfile is not None:
        outputs = (net.training.loss, net.evaluation.cross_entropies, net.plain.cross_entropies)
        drop_unused(loaded, outputs, experiment.weightfile)
    return net
