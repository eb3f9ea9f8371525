"""Progressive: from 8 bits downwards, a step at a time with training in between, until the budget is met."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from nnmpq.cost import cost
from nnmpq.data.feed import Feed
from nnmpq.policy import Policy
from nnmpq.search.allocate import check_reachable
from nnmpq.search.progressive_candidates import Space
from nnmpq.search.progressive_choice import Judge, by_worth, published
from nnmpq.search.progressive_network import RuntimeNetwork, without_bits
from nnmpq.search.progressive_settings import RuntimeBits, Settings
from nnmpq.search.progressive_start import load_start
from nnmpq.search.progressive_state import CHOOSE, DONE, FOLDER, TUNE, State, identity_of, load, save
from nnmpq.search.progressive_tuning import cosine_rate, search_solvers
from nnmpq.search.show import weight_ratio
from nnmpq.search.step_cost import plain
from nnmpq.search.task import SearchTask, make_policy
from nnmpq.search.uniform import widest_uniform
from nnmpq.training.begin import BEST
from nnmpq.training.epoch import run_epoch
from nnmpq.training.errors import BudgetError, TrainingError
from nnmpq.training.graphs import TrainingGraph, build_training
from nnmpq.training.parameters import assign, current, load_h5, save_h5
from nnmpq.training.solvers import QUANTIZERS, WEIGHTS, SolverGroups

# Beside the checkpoints: where the last step began, and what it came to.
BEFORE, OWN = "before.h5", "own.h5"


@attrs.frozen(eq=False)
class _Search:
    """What stays the same throughout a search."""

    task: SearchTask
    settings: Settings
    net: RuntimeNetwork
    space: Space
    feed: Feed
    identity: dict[str, Any]
    began: float = attrs.field(factory=time.perf_counter)

    def seconds(self, state: State) -> float:
        return state.seconds + time.perf_counter() - self.began

    def save(self, state: State, solvers: dict[str, np.ndarray] | None = None) -> State:
        kept = save(self.task, self.identity, attrs.evolve(state, seconds=self.seconds(state)), solvers or {})
        # In this process the clock goes on from where it began.
        return attrs.evolve(kept, seconds=state.seconds)

    def out_of_time(self, state: State) -> bool:
        task = self.task
        late = False
        if task.deadline is not None:
            # Every process must come to the same decision.
            late = self.seconds(state) >= task.deadline
            late = bool(task.machine.communicator.mean_numbers(np.array([float(late)]))[0] > 0)
        return late or (task.steps is not None and state.updates >= task.steps)


def search(task: SearchTask) -> Policy:
    """Return the policy at which a network arrives that is lowered step by step and trained in between.

    A step chooses, of `lam` candidates that lower a share `ratio` of the sites by `interval` bits each, the one that
    the network's loss is least sensitive to, and trains `search_epochs` epochs at its bits. Each site is lowered
    alone first: s = increase of the score / what it saves of the excess; candidates are drawn with p ~ exp(-s). The
    step that reaches the budget takes back what it lowered in vain: no site could be wider at the end. Bits are
    run-time parameters: the graphs are built once.

    With `faithful` as published: candidates drawn evenly, quantizers at their fewest bits among them; the gradient's L1
    norm on the first training images, clipped to a global norm of 5; weight memory the cost that is told, the step
    where the budget is met the last one.

    After the last step the widest uniform policy gets the same training from where that step began; the one of both
    with the lower cross entropy on the validation images is handed over. The published search ends without it.

    The weights of the policy stay in the run's folder as `best.h5`. Several processes take turns at the candidates,
    and train alike.

    Args:
        task: what was asked for; `steps` limits the updates, and with them or the `deadline` spent the policy goes
            down to the budget in one go.

    Returns:
        The policy; it meets the budget.

    Raises:
        BudgetError: the budget cannot be met, or not in `step` steps as published.
        TableError: a score is not a number; the site is named.
        TrainingError: the weightfile does not fit.

    Source:
        The published code of "Automatic Progressive Mixed-Precision Network Quantization" (ProQHA).
    """
    settings, known = Settings.of(task.experiment), identity_of(task)
    found = load(task, known)
    experiment = attrs.evolve(task.experiment, policy=None, target_weight_kbytes=-1.0, target_activation_kbytes=-1.0)
    task = attrs.evolve(task, experiment=experiment)
    net = load_start(task, settings)
    fixed = {name: bits for name, bits in task.kept(net.network).items() if name not in net.widths}
    space = Space(net.network, net.widths, fixed, task.budget, settings.interval)
    check_reachable(net.network, task.budget, space.narrowest)
    with Feed(
        task.data,
        experiment.batch_size,
        seed=task.seed,
        augmentation=experiment.augmentation,
        workers=task.machine.workers,
    ) as feed:
        run = _Search(task, settings, net, space, feed, known)
        if found is None:
            state = _told(run, State(TUNE, 0, settings.search_epochs, net.start))
        else:
            state = found[0]
            assign(found[1].parameters, str(task.folder))
            for row in state.rows:
                task.report(row)
        solvers = {} if found is None else dict(found[1].solvers)
        while state.phase != DONE:
            state = _choose(run, state) if state.phase == CHOOSE else _tune(run, state, solvers)
            solvers = {}
    if task.machine.communicator.rank == 0:
        save_h5(task.folder / BEST)
        for name in (BEFORE, OWN):
            (task.folder / FOLDER / name).unlink(missing_ok=True)
    quantizers = {name: site.quantizer_name for name, site in net.sites.items()}
    return make_policy(task, net.network, state.bits, "progressive", quantizers)


def _told(run: _Search, state: State) -> State:
    """Close a step: validate, tell the trail, and say what comes next."""
    space, settings = run.space, run.settings
    error, entropy = run.net.validate()
    every = {**space.fixed, **state.bits}
    met = space.met(state.bits)
    row = {
        "candidate": "widest uniform" if state.own else f"step {state.step}",
        **state.choice,
        "meets_budget": met,
        "validation_accuracy": 1.0 - error,
        "validation_cross_entropy": entropy,
        "computation_ratio": weight_ratio(space.network, every),
        **attrs.asdict(cost(space.network, every)),
        "updates": state.updates,
        "images": state.images,
        "bits": " ".join(str(bits) for bits in state.bits.values()),
    }
    run.task.report(row)
    # Without a limit the published search goes on to its last step; there is nothing to come down to for the other.
    endless = settings.faithful and not space.budget.limits()
    floor = all(space.lower(name, bits) == bits for name, bits in state.bits.items())
    done = floor or (state.step >= settings.step if endless else met)
    if not done and settings.faithful and state.step >= settings.step:
        over = space.budget.excess(cost(space.network, every))
        said = "; ".join(f"{name} is {value:g} above its limit" for name, value in over.items())
        raise BudgetError(f"step = {settings.step}: after the last step {said}; more steps or a larger ratio get there")
    state = attrs.evolve(state, choice={}, rows=(*state.rows, row))
    if state.own:
        if state.own["cross_entropy"] <= entropy:
            load_h5(_folder(run) / OWN)
            state = attrs.evolve(state, bits=state.own["bits"], updates=state.own["updates"])
        return run.save(attrs.evolve(state, phase=DONE, own={}))
    if done and state.rival:
        return _challenged(run, state, entropy)
    return run.save(attrs.evolve(state, phase=DONE if done else CHOOSE))


def _folder(run: _Search) -> Path:
    return run.task.folder / FOLDER


def _write(run: _Search, name: str) -> None:
    """Keep the parameters as they are in a file of all processes."""
    if run.task.machine.communicator.rank == 0:
        save_h5(_folder(run) / name)
    run.task.machine.communicator.barrier()


def _challenged(run: _Search, state: State, entropy: float) -> State:
    """Put the widest uniform bits where the last step began."""
    _write(run, OWN)
    load_h5(_folder(run) / BEFORE)
    before = {name: site.bit_number() for name, site in run.net.sites.items()}
    run.net.apply(state.rival, Judge(run.net, before).values(state.rival))
    own = {"bits": state.bits, "cross_entropy": entropy, "updates": state.updates}
    lowered = sum(state.rival[name] < bits for name, bits in before.items())
    state = attrs.evolve(state, phase=TUNE, epoch=0, updates=state.since, choice={"lowered": lowered})
    return run.save(attrs.evolve(state, bits=state.rival, rival={}, own=own))


def _choose(run: _Search, state: State) -> State:
    """Choose the next bits, and set them."""
    settings, net, step = run.settings, run.net, state.step + 1
    net.check()
    rng = np.random.default_rng((run.task.seed, step))
    rival: dict[str, int] = {}
    if settings.faithful:
        choice = published(net, run.space, state.bits, rng)
    else:
        before = current()
        hurry = run.out_of_time(state) or step >= settings.step
        choice = by_worth(net, run.space, state.bits, rng, hurry=hurry)
        if run.space.met(choice.bits):
            widest = widest_uniform(net.network, net.widths, run.space.fixed, run.task.budget)
            rival = widest if widest != choice.bits else {}
        if rival:
            assign(before, str(run.task.folder))
            _write(run, BEFORE)
    net.apply(choice.bits, choice.values)
    lowered = sum(choice.bits[name] < bits for name, bits in state.bits.items())
    images = state.images + choice.scored * len(net.images)
    told = {**choice.told, "lowered": lowered}
    state = attrs.evolve(state, phase=TUNE, step=step, epoch=0, bits=choice.bits, choice=told, images=images)
    return run.save(attrs.evolve(state, since=state.updates, rival=rival))


def _tune(run: _Search, state: State, kept: dict[str, np.ndarray]) -> State:
    """Train at the step's bits."""
    epochs, net = run.settings.search_epochs, run.net
    solvers = search_solvers(run.task.experiment, net.learnable())
    if kept:
        try:
            solvers.restore(kept)
        except ValueError as error:
            raise TrainingError(f"{run.task.folder}: {error}") from error
    while state.epoch < epochs and not _tuned(run, state):
        for group in (WEIGHTS, QUANTIZERS):
            solvers.set_learning_rate(group, cosine_rate(state.epoch, epochs))
        number = (state.step - 1) * epochs + state.epoch
        # What stands beside it gets the training that the last step itself got.
        most = state.own.get("updates", run.task.steps)
        left = None if most is None else most - state.updates
        batches = itertools.islice(run.feed.training(number), left)
        count = len(run.task.data.train) // run.task.experiment.batch_size
        count = count if left is None else min(count, left)
        means = run_epoch(net.training, solvers, batches, number + 1, scale=run.task.machine.scale)
        state = attrs.evolve(
            state,
            epoch=state.epoch + 1,
            updates=state.updates + count,
            images=state.images + count * run.task.experiment.batch_size,
            choice={**state.choice, "loss": means.loss, "training_error": means.error},
        )
        state = run.save(state, solvers.states())
    return _told(run, state)


def _tuned(run: _Search, state: State) -> bool:
    """Whether a step has no more training, before its epochs are over."""
    return state.updates >= state.own["updates"] if state.own else run.out_of_time(state)


def training_parts(task: SearchTask) -> tuple[TrainingGraph, SolverGroups]:
    """Return the training graph and its solvers in the current parameter scope, for timing a step."""
    experiment = plain(task.experiment)
    scheme = RuntimeBits.of(task.experiment, Settings.of(task.experiment))
    graph = build_training(experiment, task.data, scheme, accelerate=task.machine.accelerate)
    return graph, search_solvers(experiment, without_bits(graph.quantized.sites))
