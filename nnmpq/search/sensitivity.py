"""Sensitivity: score every site once, then the best bits for any budget are a second's work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import nnabla as nn

from nnmpq.cost import cost
from nnmpq.graph.network import Network
from nnmpq.graph.schemes import Float
from nnmpq.policy import Policy
from nnmpq.search.allocate import allocate
from nnmpq.search.scores import measure
from nnmpq.search.table import ScoreTable, TableError
from nnmpq.search.task import SearchTask, make_policy
from nnmpq.training import train
from nnmpq.training.begin import BEST
from nnmpq.training.graphs import build_evaluation
from nnmpq.training.parameters import drop_unused, load_h5, load_weightfile

SCORES_FILE = "scores.csv"
FLOAT_FOLDER = "float"


def search(task: SearchTask) -> Policy:
    """Return the policy with the least sum of the sites' losses that meets the budget.

    The weights are those of the experiment's weightfile, else of a float network that is trained first as the
    experiment says. The scores stay in the run's folder as `scores.csv`: they serve every budget, see
    `python -m nnmpq pareto`. Every uniform policy that meets the budget is one of those that it is the best of.

    Args:
        task: what was asked for; with `resume`, scores and float weights that are there already are used.

    Returns:
        The policy; it meets the budget.

    Raises:
        BudgetError: the budget cannot be met; each limit is named with the least that is reachable.
        TableError: a score is not a number; the site is named.
        TrainingError: the weightfile does not fit.
    """
    table = score_table(task)
    kept = task.kept(table.network)
    for name, bits in uniform_bits(task.widths(table.network)).items():
        _tell(task, table, name, {**kept, **bits})
    bits = allocate(table.loss, table.network, task.budget, fixed=kept)
    _tell(task, table, "sensitivity", bits)
    return make_policy(task, table.network, bits, "sensitivity")


def score_table(task: SearchTask) -> ScoreTable:
    """Return the scores, from the run's folder where a resumed run has them."""
    path = task.folder / SCORES_FILE
    network = load_float(task)
    if task.resume and path.exists():
        table = ScoreTable.load(path, network)
        widths = {site: tuple(losses) for site, losses in table.loss.items()}
        found, wanted = (table.score, table.seed, widths), (task.score, task.seed, task.widths(network))
        for what, there, here in zip(("score", "seed", "widths"), found, wanted):
            if there != here:
                raise TableError(f"{path}: {what} {there}, this run's {here}: change it back, or start anew")
        return table
    table = measure(task)
    table.save(path)
    return table


def load_float(task: SearchTask) -> Network:
    """Put a trained float network's parameters into the current scope, cleared first, and return the network."""
    plain = attrs.evolve(
        task.experiment,
        w_quantize=None,
        a_quantize=None,
        policy=None,
        target_weight_kbytes=-1.0,
        target_activation_kbytes=-1.0,
    )
    nn.clear_parameters()
    if plain.weightfile is None:
        folder = task.folder / FLOAT_FOLDER
        result = train(plain, task.data, folder, resume=task.resume, quiet=True, machine=task.machine)
        load_h5(folder / BEST)
        return result.quantized.network
    loaded = load_weightfile(plain.weightfile)
    graph = build_evaluation(attrs.evolve(plain, batch_size=1), task.data, Float(plain.activation_sites))
    drop_unused(loaded, [graph.cross_entropies], plain.weightfile)
    return graph.quantized.network


def uniform_bits(widths: Mapping[str, Sequence[int]]) -> dict[str, dict[str, int]]:
    """Return the uniform allocations, by names such as "uniform 4".

    Args:
        widths: what each site may get; it takes the narrowest from the uniform width on, else its widest.

    Example:
        >>> uniform_bits({"conv/W": (1, 4), "conv/relu": (4,)})
        {'uniform 1': {'conv/W': 1, 'conv/relu': 4}, 'uniform 4': {'conv/W': 4, 'conv/relu': 4}}
    """
    return {
        f"uniform {bits}": {site: min((w for w in own if w >= bits), default=max(own)) for site, own in widths.items()}
        for bits in sorted({bits for own in widths.values() for bits in own})
    }


def _tell(task: SearchTask, table: ScoreTable, name: str, bits: Mapping[str, int]) -> None:
    used = cost(table.network, bits)
    row = {"candidate": name, "loss": table.total(bits), "meets_budget": task.budget.met_by(used), **attrs.asdict(used)}
    task.report(row)
