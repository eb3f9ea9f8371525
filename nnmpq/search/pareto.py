"""The front over all budgets from one table of scores, as a file, a picture and policies."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nnmpq.budget import Budget
from nnmpq.cost import Cost, cost
from nnmpq.files import atomic_write
from nnmpq.policy import Policy
from nnmpq.report.table import COST_LABELS
from nnmpq.search.allocate import worthwhile
from nnmpq.search.dominance import non_dominated
from nnmpq.search.front import sweep
from nnmpq.search.sensitivity import uniform_bits
from nnmpq.search.table import ScoreTable
from nnmpq.search.task import policy_cost, policy_sites
from nnmpq.training.errors import BudgetError

POINTS = 32
METHOD = "sensitivity"
COSTS = tuple(field.name for field in attrs.fields(Cost))
COLUMNS = ("method", "name", "target", "limit", "loss", *COSTS, "dominated", "policy")
COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b83280", "#4a5568")


@attrs.frozen
class Point:
    """An allocation with what it costs and loses.

    Args:
        method: what found it.
        name: its own among the method's.
        bits: by site.
        loss: sum of its sites' losses in the table.
        cost: what it costs.
        limit: of the target, that it was found for; None for others' points.
    """

    method: str
    name: str
    bits: Mapping[str, int]
    loss: float
    cost: Cost
    limit: float | None = None


def limits_between(
    table: ScoreTable, target: str, points: int, budget: Budget, fixed: Mapping[str, int]
) -> list[float]:
    """Return limits in equal ratios, from the least that is reachable to what the best bits of all use.

    Raises:
        BudgetError: the other limits cannot be met.
    """
    least = cost(table.network, {**fixed, **{site: min(losses) for site, losses in table.loss.items()}})
    others = attrs.evolve(budget, **{target: None})
    if not others.met_by(least):
        over = ", ".join(f"{name} {getattr(least, name):g}" for name in others.excess(least))
        raise BudgetError(f"the limits beside {target} are out of reach: the least is {over}")
    best = {site: widths[-1] for site, widths in worthwhile(table.loss, table.network, others).items()}
    low, high = float(getattr(least, target)), float(getattr(cost(table.network, {**fixed, **best}), target))
    limits = np.geomspace(low, max(low, high), points)
    limits[0], limits[-1] = low, max(low, high)
    return [float(limit) for limit in limits]


def front(
    table: ScoreTable,
    target: str,
    *,
    points: int = POINTS,
    budget: Budget | None = None,
    fixed: Mapping[str, int] | None = None,
) -> list[Point]:
    """Return the best allocation at each of many limits of one cost, without those that another one dominates.

    Args:
        table: the losses.
        target: a limit of `Budget`: what the front is drawn over.
        points: number of limits, in equal ratios over the whole range.
        budget: further limits, that all points meet.
        fixed: bits of sites that have no choice.

    Raises:
        BudgetError: the further limits cannot be met.
    """
    budget, fixed = budget or Budget(), dict(fixed or {})
    limits = limits_between(table, target, points, budget, fixed)
    found = [
        point_of(table, METHOD, f"{number:02d}", bits, limit)
        for number, (limit, bits) in enumerate(
            zip(limits, sweep(table.loss, table.network, target, limits, budget=budget, fixed=fixed)), 1
        )
    ]
    kept = non_dominated(coordinates(found, target))
    return [point for point, stays in zip(found, kept) if stays]


def uniform_points(table: ScoreTable, fixed: Mapping[str, int]) -> list[Point]:
    """Return the uniform allocations of the table's widths."""
    widths = {site: tuple(losses) for site, losses in table.loss.items()}
    return [point_of(table, "uniform", name, {**fixed, **bits}) for name, bits in uniform_bits(widths).items()]


def policy_point(table: ScoreTable, policy: Policy, name: str) -> Point:
    """Return another method's policy as a point.

    Raises:
        PolicyError: the policy is another network's.
        TableError: the table has no loss for one of its widths.
    """
    policy.check(table.network)
    return point_of(table, policy.method or "policy", name, policy.bits())


def point_of(table: ScoreTable, method: str, name: str, bits: Mapping[str, int], limit: float | None = None) -> Point:
    """Return an allocation with its loss and cost."""
    return Point(method, name, dict(bits), table.total(bits), cost(table.network, bits), limit)


def coordinates(points: Sequence[Point], target: str) -> np.ndarray:
    """Return cost and loss of each point, shape (N, 2)."""
    return np.array([(getattr(point.cost, target), point.loss) for point in points], np.float64).reshape(-1, 2)


def save(
    folder: Path, table: ScoreTable, target: str, points: Sequence[Point], *, name: str = "", title: str = ""
) -> None:
    """Write `front.csv`, `front.png`, and a policy for each point that was found for a limit, into a folder.

    Args:
        folder: is made where it is missing.
        table: the losses.
        target: what the front is drawn over.
        points: of all methods.
        name: of the network, for the policies.
        title: above the picture.
    """
    stays = non_dominated(coordinates(points, target))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for point, kept in zip(points, stays):
        file = ""
        if point.limit is not None:
            file = f"policies/{point.name}.yaml"
            _policy(table, point, target, name).save(folder / file)
        costs = [repr(float(getattr(point.cost, cost_name))) for cost_name in COSTS]
        limit = "" if point.limit is None else repr(point.limit)
        dominated = "no" if kept else "yes"
        writer.writerow((point.method, point.name, target, limit, repr(point.loss), *costs, dominated, file))
    plot(folder / "front.png", points, target, title, f"sum of losses ({table.score})")
    # The table comes last: what it names is there.
    atomic_write(folder / "front.csv", text.getvalue())


def _policy(table: ScoreTable, point: Point, target: str, name: str) -> Policy:
    sites = policy_sites(table.network, point.bits)
    budget = {} if point.limit is None else {target: point.limit}
    return Policy(name, point.method, table.seed, budget, policy_cost(table.network, sites), sites)


def plot(path: Path, points: Sequence[Point], target: str, title: str = "", label: str = "loss") -> None:
    """Draw loss over cost, both on logarithmic scales, one colour a method; points with a limit are joined."""
    figure = Figure(figsize=(7.2, 4.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    labels: list[tuple[str, float, float, str]] = []
    for colour, method in zip(_colours(points), dict.fromkeys(point.method for point in points)):
        own = [point for point in points if point.method == method]
        x, y = coordinates(own, target).T
        joined = all(point.limit is not None for point in own)
        axes.plot(
            x, y, "o-" if joined else "s", color=colour, label=method, markersize=4 if joined else 6, linewidth=1.2
        )
        labels += [] if joined else [(point.name, at, height, colour) for point, at, height in zip(own, x, y)]
    axes.set_xscale("log")
    losses = [point.loss for point in points if point.loss > 0]
    if len(losses) == len(points):
        axes.set_yscale("log")
    elif losses:
        # Zero has no logarithm: below the least loss the scale is linear.
        axes.set_yscale("symlog", linthresh=min(losses))
    _name_points(axes, labels)
    axes.set_xlabel(COST_LABELS[target])
    axes.set_ylabel(label)
    axes.grid(True, which="both", color="#e2e8f0", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    if title:
        axes.set_title(title, fontsize=11)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    atomic_write(path, picture.getvalue())


def _name_points(axes: Any, labels: Sequence[tuple[str, float, float, str]]) -> None:
    """Write each name beside its point, below those of its near neighbours that are there already."""
    shown: list[tuple[float, float]] = []
    for name, x, y, colour in labels:
        left, height = axes.transData.transform((x, y))
        # In pixels at 100 dots an inch a name is about 80 wide and 13 high.
        lowest = height + 7
        while any(abs(at - left) < 80 and abs(below - lowest) < 13 for at, below in shown):
            lowest -= 1
        offset = (7, (lowest - height) * 72 / 100)
        axes.annotate(name, (x, y), offset, textcoords="offset points", fontsize=8, color=colour)
        shown.append((left, lowest))


def _colours(points: Sequence[Point]) -> list[str]:
    methods = len({point.method for point in points})
    return [COLOURS[index % len(COLOURS)] for index in range(methods)]
