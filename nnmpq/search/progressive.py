"""Progressive: from 8 bits downwards, a step at a time with training in between, until the budget is met."""

from __future__ import annotations

import itertools
import time
from typing import Any

import attrs
import numpy as np

from nnmpq.cost import cost
from nnmpq.data.feed import Feed
from nnmpq.policy import Policy
from nnmpq.search.allocate import check_reachable
from nnmpq.search.progressive_candidates import Space
from nnmpq.search.progressive_choice import by_worth, published
from nnmpq.search.progressive_network import RuntimeNetwork
from nnmpq.search.progressive_settings import Settings
from nnmpq.search.progressive_start import load_start
from nnmpq.search.progressive_state import CHOOSE, DONE, TUNE, State, identity_of, load, save
from nnmpq.search.progressive_tuning import cosine_rate, search_solvers
from nnmpq.search.show import weight_ratio
from nnmpq.search.task import SearchTask, make_policy
from nnmpq.training.begin import BEST
from nnmpq.training.epoch import run_epoch
from nnmpq.training.errors import BudgetError, TrainingError
from nnmpq.training.parameters import assign, save_h5
from nnmpq.training.solvers import QUANTIZERS, WEIGHTS


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
        late = task.deadline is not None and self.seconds(state) >= task.deadline
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

    The weights that the search ends with stay in the run's folder as `best.h5`.

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
    save_h5(task.folder / BEST)
    quantizers = {name: site.quantizer_name for name, site in net.sites.items()}
    return make_policy(task, net.network, state.bits, "progressive", quantizers)


def _told(run: _Search, state: State) -> State:
    """Close a step: validate, tell the trail, and say what comes next."""
    space, settings = run.space, run.settings
    error, entropy = run.net.validate()
    every = {**space.fixed, **state.bits}
    met = space.met(state.bits)
    row = {
        "candidate": f"step {state.step}",
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
    state = attrs.evolve(state, phase=DONE if done else CHOOSE, choice={}, rows=(*state.rows, row))
    return run.save(state)


def _choose(run: _Search, state: State) -> State:
    """Choose the next bits, and set them."""
    settings, net, step = run.settings, run.net, state.step + 1
    net.check()
    rng = np.random.default_rng((run.task.seed, step))
    if settings.faithful:
        choice = published(net, run.space, state.bits, rng)
    else:
        hurry = run.out_of_time(state) or step >= settings.step
        choice = by_worth(net, run.space, state.bits, rng, hurry=hurry)
    net.apply(choice.bits, choice.values)
    lowered = sum(choice.bits[name] < bits for name, bits in state.bits.items())
    images = state.images + choice.scored * len(net.images)
    told = {**choice.told, "lowered": lowered}
    return run.save(attrs.evolve(state, phase=TUNE, step=step, epoch=0, bits=choice.bits, choice=told, images=images))


def _tune(run: _Search, state: State, kept: dict[str, np.ndarray]) -> State:
    """Train at the step's bits."""
    epochs, net = run.settings.search_epochs, run.net
    solvers = search_solvers(run.task.experiment, net.learnable())
    if kept:
        try:
            solvers.restore(kept)
        except ValueError as error:
            raise TrainingError(f"{run.task.folder}: {error}") from error
    while state.epoch < epochs and not run.out_of_time(state):
        for group in (WEIGHTS, QUANTIZERS):
            solvers.set_learning_rate(group, cosine_rate(state.epoch, epochs))
        number = (state.step - 1) * epochs + state.epoch
        left = None if run.task.steps is None else run.task.steps - state.updates
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
