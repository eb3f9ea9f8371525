"""A step's choice among candidates: as published, and by what each site's bits are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from nnmpq.quantizers.parameters import Values
from nnmpq.search.pieces import spread
from nnmpq.search.progressive_candidates import Bits, Space, jump, last_steps, random_subsets, sampled_subsets
from nnmpq.search.progressive_network import RuntimeNetwork
from nnmpq.search.table import TableError

Score = tuple[float, float]


@attrs.frozen(eq=False)
class Choice:
    """What a step does.

    Args:
        bits: of every searched site.
        values: raw values of the quantizers, those that were fitted anew among them.
        told: what the trail is told: number of candidates, the score now and the best one.
        scored: how often the calibration batch was run.
    """

    bits: Bits
    values: dict[str, Values]
    told: dict[str, Any]
    scored: int


@attrs.frozen(eq=False)
class Judge:
    """Scores the network at other bits than it has, each time from the same parameters.

    Args:
        net: the network.
        bits: that it has.
    """

    net: RuntimeNetwork
    bits: Bits
    _inputs: dict[str, np.ndarray] = attrs.field(init=False)
    _now: dict[str, Values] = attrs.field(init=False)
    _known: dict[tuple[str, int], Values] = attrs.field(factory=dict, init=False)

    @_inputs.default
    def _default_inputs(self) -> dict[str, np.ndarray]:
        return {} if self.net.settings.faithful else self.net.inputs()

    @_now.default
    def _default_now(self) -> dict[str, Values]:
        return self.net.values()

    def values(self, bits: Bits) -> dict[str, Values]:
        """Return the raw values at other bits: ranges of changed sites are fitted, the others stay as learned."""
        found = dict(self._now)
        for name, width in bits.items():
            if width == self.bits[name] or self.net.settings.faithful:
                continue
            if (name, width) not in self._known:
                self._known[name, width] = self.net.fitted(name, width, self._inputs)
            found[name] = {**found[name], **self._known[name, width]}
        return found

    def gradient(self, bits: Bits) -> float:
        """Return the score of bits on the calibration batch.

        Raises:
            TableError: it is not a finite number; the site is named.
        """
        return self._finite(bits, self._score(bits))

    def judge(self, bits: Bits) -> Score:
        """Return what candidates are compared by, the less the better: the score or, with `info = acc`, the error.

        Raises:
            TableError: it is not a finite number; the site is named.
        """
        if self.net.settings.info != "acc":
            return self.gradient(bits), 0.0
        self.net.apply(bits, self.values(bits))
        error, entropy = self.net.validate()
        self._finite(bits, entropy)
        return error, entropy

    def all(self, candidates: Sequence[Bits]) -> list[Score]:
        """Return what each candidate is compared by; processes take turns at them."""
        found = spread(candidates, self.judge, 2, self.net.communicator)
        return [(first, second) for first, second in found]

    def alone(self, bits: Mapping[str, Bits]) -> dict[str, float]:
        """Return the score of each of these; processes take turns at them.

        Args:
            bits: by any name.
        """
        found = spread(list(bits.values()), lambda own: [self.gradient(own)], 1, self.net.communicator)
        return {name: score for name, (score,) in zip(bits, found)}

    def _score(self, bits: Bits) -> float:
        self.net.apply(bits, self.values(bits))
        return self.net.score()

    def _finite(self, bits: Bits, found: float) -> float:
        if math.isfinite(found):
            return found
        if not math.isfinite(self._score(self.bits)):
            raise TableError(f"{self.net.culprit()}: the score is {found} before any bits are taken off")
        changed = [name for name, width in bits.items() if width != self.bits[name]]
        for name in changed:
            alone = self._score({**self.bits, name: bits[name]})
            if not math.isfinite(alone):
                raise TableError(f"{name} at {bits[name]} bits: the score is {alone}; a finite number is needed")
        said = ", ".join(f"{name} at {bits[name]}" for name in changed)
        raise TableError(f"{said} bits together: the score is {found}; a finite number is needed")


def published(net: RuntimeNetwork, space: Space, bits: Bits, rng: np.random.Generator) -> Choice:
    """Choose as published: subsets of all quantizers alike, the least score or the least error.

    Args:
        net: the network, at these bits.
        space: what may be lowered.
        bits: of every searched site.
        rng: source of chance.
    """
    settings, judge = net.settings, Judge(net, bits)
    subsets = random_subsets(list(bits), settings.ratio, settings.lam, rng)
    candidates = [space.lowered(bits, subset) for subset in subsets]
    scores = judge.all(candidates)
    best = min(range(len(scores)), key=scores.__getitem__)
    told = {"candidates": len(candidates), "score": scores[best][0]}
    return Choice(candidates[best], judge.values(candidates[best]), told, len(candidates))


def by_worth(net: RuntimeNetwork, space: Space, bits: Bits, rng: np.random.Generator, *, hurry: bool) -> Choice:
    """Choose by what lowering each site harms, and saves of what is beyond the budget.

    Args:
        net: the network, at these bits.
        space: what may be lowered; the budget is not met yet.
        bits: of every searched site.
        rng: source of chance.
        hurry: go down to the budget at once.
    """
    settings, judge = net.settings, Judge(net, bits)
    saved, base = space.savings(bits), judge.alone({"now": bits})["now"]
    alone = judge.alone({name: space.lowered(bits, [name]) for name in saved})
    harm = {name: max(score - base, 0.0) for name, score in alone.items()}
    scored = 1 + len(saved)
    if hurry:
        every = {name: harm.get(name, 0.0) for name in bits}
        chosen = jump(space, bits, every)
        return Choice(chosen, judge.values(chosen), {"candidates": 1, "base": base}, scored)
    prices = {name: harm[name] / saved[name] for name in saved}
    subsets = sampled_subsets(prices, settings.ratio, settings.lam, rng)
    candidates = [space.lowered(bits, subset) for subset in subsets]
    last = last_steps(space, bits, candidates, harm)
    candidates = last or candidates
    scores = judge.all(candidates)
    excess = space.excess(bits)
    # All that end at the budget save enough; of the others what they save counts too.
    saves = [1.0 if last else excess - space.excess(candidate) for candidate in candidates]
    error = settings.info == "acc"
    keys = [score if error else (_price(score[0] - base, save), 0.0) for score, save in zip(scores, saves)]
    best = min(range(len(keys)), key=keys.__getitem__)
    told = {"candidates": len(candidates), "base": base, "score": scores[best][0]}
    return Choice(candidates[best], judge.values(candidates[best]), told, scored + len(candidates))


def _price(harm: float, saved: float) -> float:
    """Harm for each unit saved; of candidates that do good instead, the one that saves more is the better one."""
    return harm / saved if harm > 0 and saved > 0 else harm * max(saved, 0.0)
