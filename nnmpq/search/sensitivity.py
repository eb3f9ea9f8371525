"""Sensitivity: score every site once, then the best bits for any budget are a second's work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import nnabla as nn
import numpy as np

from nnmpq.cost import cost
from nnmpq.files import atomic_write
from nnmpq.graph.network import Network
from nnmpq.graph.schemes import Float
from nnmpq.policy import Policy
from nnmpq.search.allocate import allocate
from nnmpq.search.pieces import Pieces
from nnmpq.search.scores import ScoreGraphs, measure
from nnmpq.search.table import ScoreTable, TableError
from nnmpq.search.task import Row, SearchTask, make_policy
from nnmpq.training import train
from nnmpq.training.begin import BEST
from nnmpq.training.evaluate import Evaluation, evaluate
from nnmpq.training.graphs import build_evaluation
from nnmpq.training.identity import identity
from nnmpq.training.parameters import drop_unused, load_h5, load_weightfile

SCORES_FILE = "scores.csv"
# While a score is measured, what of it is there; then the trail's rows of it.
PARTIAL_FILE, ROWS_FILE = "scores.partial.json", "scores.trail.json"
FLOAT_FOLDER = "float"


def search(task: SearchTask) -> Policy:
    """Return the policy with the least sum of the sites' losses that meets the budget.

    The weights are those of the experiment's weightfile, else of a float network that is trained first as the
    experiment says. The scores stay in the run's folder as `scores.csv`: they serve every budget, see
    `python -m nnmpq pareto`. Every uniform policy that meets the budget is one of those that it is the best of, by the
    scores. The widest of them stands beside it on the validation images too, both as quantized, without any training:
    the one with the lower cross entropy is handed over.

    Args:
        task: what was asked for; with `resume`, scores and float weights that are there already are used.

    Returns:
        The policy; it meets the budget.

    Raises:
        BudgetError: the budget cannot be met; each limit is named with the least that is reachable.
        TableError: a score is not a number; the site is named.
        TrainingError: the weightfile does not fit.
    """
    seen: list[int] = [trained_images(task)]

    def report(row: Row) -> None:
        if "images" in row:
            seen.append(seen[0] + row["images"])
            row = {**row, "images": seen[-1]}
        task.report(row)

    table = score_table(attrs.evolve(task, report=report))
    kept, widths = task.kept(table.network), task.widths(table.network)
    for name, bits in uniform_bits(widths).items():
        _tell(task, table, name, {**kept, **bits}, {})
    bits = allocate(table.loss, table.network, task.budget, fixed=kept)
    fitting = [own for own in uniform_bits(widths).values() if task.budget.met_by(cost(table.network, {**kept, **own}))]
    candidates = {"sensitivity": bits}
    # Not even the narrowest of all need meet it, where sites that are kept are wide.
    if fitting:
        candidates["widest uniform"] = {**kept, **fitting[-1]}
    validated = validate(task, [{name: own[name] for name in widths} for own in candidates.values()])
    for (name, own), found in zip(candidates.items(), validated):
        errors = {"validation_error": found.error, "validation_cross_entropy": found.cross_entropy}
        _tell(task, table, name, own, {**errors, "images": seen[-1]})
    entropies = [found.cross_entropy for found in validated]
    best = list(candidates.values())[entropies.index(min(entropies))]
    return make_policy(task, table.network, best, "sensitivity")


def validate(task: SearchTask, policies: Sequence[Mapping[str, int]]) -> list[Evaluation]:
    """Return error and cross entropy on the validation images of the network of the current scope, as quantized.

    Grids are those of least squared error that the scores have; nothing is trained.

    Args:
        task: network, data, images that ranges are fitted on.
        policies: bits by site, each; the other sites are float.
    """
    graphs, found = ScoreGraphs.build(task), []
    for bits in policies:
        with graphs.quantized(bits):
            found.append(evaluate(graphs.probe, task.data, task.data.validation, task.machine.communicator))
    return found


def trained_images(task: SearchTask) -> int:
    """Return how many images the training of the float network saw, 0 where it starts from a file."""
    experiment = task.experiment
    if experiment.weightfile is not None:
        return 0
    return experiment.epochs * (len(task.data.train) // experiment.batch_size) * experiment.batch_size


def score_table(task: SearchTask) -> ScoreTable:
    """Return the scores; what of them a resumed run has in its folder is not measured again.

    Args:
        task: what was asked for; the rows of the trail come again too.
    """
    path, rows_path, partial = (task.folder / name for name in (SCORES_FILE, ROWS_FILE, PARTIAL_FILE))
    communicator = task.machine.communicator
    network = load_float(task)
    # All processes come to the same decision before the first one writes.
    there = task.resume and path.exists()
    communicator.barrier()
    if not task.resume and communicator.rank == 0:
        for old in (path, rows_path, partial):
            old.unlink(missing_ok=True)
    if there:
        table = ScoreTable.load(path, network)
        widths = {site: tuple(losses) for site, losses in table.loss.items()}
        found, wanted = (table.score, table.seed, widths), (task.score, task.seed, task.widths(network))
        for what, before, here in zip(("score", "seed", "widths"), found, wanted):
            if before != here:
                raise TableError(f"{path}: {what} {before}, this run's {here}: change it back, or start anew")
        for row in json.loads(rows_path.read_text(encoding="utf-8")) if rows_path.exists() else ():
            task.report(row)
        return table
    rows: list[Row] = []

    def report(row: Row) -> None:
        rows.append(row)
        task.report(row)

    pieces = Pieces.open(partial, _known(task, network), resume=task.resume, communicator=communicator)
    table = measure(attrs.evolve(task, report=report), ScoreGraphs.build(task, pieces))
    if communicator.rank == 0:
        atomic_write(rows_path, json.dumps([dict(row) for row in rows]))
        table.save(path)
        partial.unlink(missing_ok=True)
    return table


def _known(task: SearchTask, network: Network) -> dict[str, Any]:
    """What scores depend on."""
    digest = hashlib.sha256()
    for name, variable in sorted(nn.get_parameters(grad_only=False).items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(variable.d).tobytes())
    return {
        "score": task.score,
        "seed": task.seed,
        "score_images": task.score_images,
        "steps": task.steps,
        "widths": task.widths(network),
        "per_channel": task.experiment.per_channel,
        "parameters": digest.hexdigest(),
        "data": identity(task.experiment, task.data)["data"],
    }


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


def _tell(task: SearchTask, table: ScoreTable, name: str, bits: Mapping[str, int], more: Row) -> None:
    used = cost(table.network, bits)
    row = {"candidate": name, "loss": table.total(bits), "meets_budget": task.budget.met_by(used), **attrs.asdict(used)}
    task.report({**row, **more})
