"""Scores: how much harm quantizing one site alone does; one file a score, `SCORES` names them all.

A score takes the task and the graphs, and returns a loss >= 0 for each site and width; losses of several sites add up.
A new one is a file with such a function and a line here; the tests take it up by themselves.
"""

from __future__ import annotations

from typing import Callable

from nnmpq.files import nearest
from nnmpq.search.scores import fisher, gradient, hutchinson, kl, learned_step, snr
from nnmpq.search.scores.graphs import ScoreGraphs
from nnmpq.search.table import ScoreTable
from nnmpq.search.task import SearchTask

Score = Callable[[SearchTask, ScoreGraphs], "dict[str, dict[int, float]]"]

SCORES: dict[str, Score] = {
    "snr": snr.score,
    "kl": kl.score,
    "gradient": gradient.score,
    "fisher": fisher.score,
    "hutchinson": hutchinson.score,
    "learned_step": learned_step.score,
}


def measure(task: SearchTask, graphs: ScoreGraphs | None = None) -> ScoreTable:
    """Score every site at every width that it may get.

    Args:
        task: names the score and the number of images; the network's parameters are in the current scope.
        graphs: those of the task; built here if None.

    Raises:
        ValueError: no score has that name; the nearest is named.
        TableError: a loss is not a number; the site is named.
    """
    if task.score not in SCORES:
        raise ValueError(f"score = {task.score}: the nearest is {nearest(task.score, SCORES)!r}")
    graphs = ScoreGraphs.build(task) if graphs is None else graphs
    loss = SCORES[task.score](task, graphs)
    return ScoreTable(task.score, graphs.network, loss, task.seed, graphs.images)


__all__ = ["SCORES", "Score", "ScoreGraphs", "measure"]
