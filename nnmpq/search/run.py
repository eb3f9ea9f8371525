"""One search from an experiment to its run folder; ``search.py`` calls it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import attrs

from nnmpq.budget import Budget
from nnmpq.config.errors import ConfigError
from nnmpq.config.experiment import Experiment
from nnmpq.config.reader import to_cfg
from nnmpq.cost import Cost, cost
from nnmpq.files import atomic_write, nearest
from nnmpq.graph.network import Network
from nnmpq.policy import Policy
from nnmpq.report import bits_table
from nnmpq.runs import load_data
from nnmpq.search import SEARCHES, edmips, gmpq, learned, progressive
from nnmpq.search.device import device
from nnmpq.search.layers_plot import layers_plot
from nnmpq.search.step_cost import StepParts, step_ratio
from nnmpq.search.task import SearchTask, network_of
from nnmpq.search.trail import TRAIL, Trail
from nnmpq.training.errors import BudgetError
from nnmpq.training.machine import Machine

# Of the methods that train mixtures or quantizers: what builds their step, to be timed.
STEPS: dict[str, StepParts] = {
    "learned": learned.training_parts,
    "edmips": edmips.training_parts,
    "gmpq": gmpq.training_parts,
    "progressive": progressive.training_parts,
}
# What a finished search leaves; a search that begins anew removes it, so that nobody takes it for its own.
OUTPUTS = ("policy.yaml", "bits.txt", "bits.png", "result.json")


def search_budget(experiment: Experiment) -> Budget:
    """Return the limits of an experiment's search.

    Example:
        >>> search_budget(Experiment("X", mean_bits=3.0, weights_kib=70.0)).limits()
        {'weights_kib': 70.0, 'mean_bits': 3.0}
    """
    return Budget(**{field.name: getattr(experiment, field.name) for field in attrs.fields(Budget)})


def search_experiment(
    experiment: Experiment,
    runs_dir: Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    monitor_path: str | None = None,
    machine: Machine | None = None,
) -> Policy:
    """Search an experiment's policy and fill its run folder.

    The folder gets ``config.cfg``, ``trail.csv`` while it goes on, and at the end ``policy.yaml``, ``bits.txt``,
    ``bits.png`` and ``result.json``. ``--set policy=FOLDER/policy.yaml`` trains it.

    Args:
        experiment: what to search, and by which ``method``; its weightfile is already resolved to a path.
        runs_dir: folder of all runs; this one writes into ``runs_dir/<name>``.
        resume: go on from what a killed search left there.
        quiet: print nothing but errors.
        monitor_path: not used: the trail has what a monitor would.
        machine: what it runs on; fast CPU functions in one process if None.

    Returns:
        The policy.

    Raises:
        ConfigError: there is no such method, or none is named.
        BudgetError: the budget cannot be met, or the method's policy does not meet it.
    """
    method = experiment.method or ""
    if method not in SEARCHES:
        near = nearest(method, SEARCHES)
        raise ConfigError(
            f"[{experiment.name}] method = {method}: one of {', '.join(SEARCHES)} is needed; nearest: {near}"
        )
    folder = runs_dir / experiment.name
    folder.mkdir(parents=True, exist_ok=True)
    machine = machine or Machine()
    leads = machine.communicator.rank == 0
    if leads:
        for name in () if resume else OUTPUTS:
            (folder / name).unlink(missing_ok=True)
        if not (resume and (folder / "config.cfg").exists()):
            atomic_write(folder / "config.cfg", to_cfg(experiment))
    trail = Trail(folder / TRAIL, resume=resume, writes=leads)
    task = SearchTask(
        experiment,
        load_data(experiment),
        search_budget(experiment),
        folder,
        resume=resume,
        report=trail.report,
        machine=machine,
    )
    policy = SEARCHES[method](task)
    network = network_of(experiment, task.data.shape, task.data.classes)
    used = check_policy(policy, network, task.budget)
    seconds = trail.seconds
    ratio = step_ratio(task, STEPS[method]) if method in STEPS and machine.communicator.size == 1 else None
    if leads:
        summary = {
            "experiment": experiment.name,
            "method": method,
            "seed": task.seed,
            "seconds": round(seconds, 2),
            "device": device(machine),
            "images_seen": trail.images,
            "step_over_float_step": ratio,
            "budget": task.budget.limits(),
            "budget_met": True,
            "cost": attrs.asdict(used),
            "mean_bits_inner": mean_bits_inner(network, used),
        }
        table = _write(folder, task, network, policy, summary)
        if not quiet:
            print(table)
        print(f"{experiment.name}: {method} in {seconds:.1f} s; train it with --set policy={folder / 'policy.yaml'}")
    return policy


def check_policy(policy: Policy, network: Network, budget: Budget) -> Cost:
    """Hold a policy against its network and its budget; return what it costs.

    Raises:
        PolicyError: it is not this network's.
        BudgetError: a limit is exceeded; named with what is used.
    """
    policy.check(network)
    used = cost(network, policy.bits())
    over = budget.excess(used)
    if over:
        said = "; ".join(f"{name} {getattr(used, name):g}, limit {budget.limits()[name]:g}" for name in over)
        raise BudgetError(f"the policy of {policy.method} exceeds its budget: {said}")
    return used


def mean_bits_inner(network: Network, used: Cost) -> float:
    """Return sqrt(BitOps / MACs) without the first and the last layer: the "bit" of EdMIPS' tables."""
    macs = sum(layer.macs for layer in network.layers[1:-1])
    return float((used.bitops_inner / macs) ** 0.5) if macs else 0.0


def _write(folder: Path, task: SearchTask, network: Network, policy: Policy, summary: Mapping[str, object]) -> str:
    """Write what a finished search hands over, `result.json` last; return the table of bits per layer."""
    bits = policy.bits()
    table = bits_table(network, bits, cost(network, bits), task.budget)
    atomic_write(folder / "bits.txt", table + "\n")
    layers_plot(folder / "bits.png", network, bits, title=f"{policy.network}, {policy.method}")
    policy.save(folder / "policy.yaml")
    atomic_write(folder / "result.json", json.dumps(summary, indent=2) + "\n")
    return table
