"""The keys of networks that choose their precision for every sample, and what they ask of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from nnmpq.config import checks
from nnmpq.config.errors import InvalidValue
from nnmpq.config.keys import group
from nnmpq.config.values import BOOLEAN, INTEGER, INTEGERS, NUMBER, TEXT, WORDS, optional

if TYPE_CHECKING:
    from nnmpq.config.experiment import Experiment

SUPERVISED, REINFORCEMENT = "supervised", "reinforcement"
BASELINES = ("none", "batch", "greedy")
# The published flags whose names say what they are: alpha, rl_weight, gamma, pre_gate, gate_channel.
_gates = group("precision per sample")


def _energies(words: tuple[str, ...]) -> str | None:
    from nnmpq.dynamic.energy import parse_table

    try:
        parse_table(words)
    except ValueError as error:
        return f"{error}; nearest valid: 32:93.3, 4:1, 1:0.075"
    return None


def _ascending(widths: tuple[int, ...]) -> str | None:
    near = ", ".join(map(str, sorted(set(widths)))) if len(set(widths)) > 1 else "1, 4"
    return None if len(widths) > 1 and list(widths) == sorted(set(widths)) else f"ascending; nearest valid: {near}"


@attrs.frozen(kw_only=True)
class GateKeys:
    """The keys that say how gates choose between precisions, and how they learn it."""

    gate_training: str | None = _gates(
        None,
        optional(TEXT),
        "what gates learn from: supervised (straight through) or reinforcement; none: no gates",
        checks.one_of((SUPERVISED, REINFORCEMENT)),
    )
    precisions: tuple[int, ...] = _gates(
        (1, 4),
        INTEGERS,
        "widths of weights and activations that gates choose from, ascending; w_bitwidth and a_bitwidth do not count",
        _ascending,
        checks.each(checks.between(1, 32)),
    )
    pre_gate: bool = _gates(
        False, BOOLEAN, "gates read what enters the block, and not what its narrowest path makes of it"
    )
    gate_channel: int = _gates(
        0, INTEGER, "channels that a gate first reduces its map to; 0: as many as it has", checks.at_least(0)
    )
    gate_bits: int = _gates(4, INTEGER, "width of the gates' weights and activations", checks.between(2, 8))
    gate_warmup_epochs: int = _gates(
        0, INTEGER, "epochs at the start in which paths are drawn by lot, for all to be trained", checks.at_least(0)
    )
    alpha: float = _gates(
        0.1, NUMBER, "worth of all blocks on their narrowest path, in cross entropy", checks.at_least(0)
    )
    rl_weight: float = _gates(0.01, NUMBER, "weight of the rewards in the loss", checks.at_least(0))
    gamma: float = _gates(1.0, NUMBER, "discount of later blocks' rewards", checks.between(0, 1))
    gate_entropy: float = _gates(
        0.02, NUMBER, "weight of the gates' entropy, which keeps them undecided for longer", checks.at_least(0)
    )
    gate_diversity: float = _gates(
        0.1,
        NUMBER,
        "weight of what choices say about their samples, which keeps gates from being constant",
        checks.at_least(0),
    )
    gate_exploration: float = _gates(
        0.02, NUMBER, "least probability of each precision while choices are drawn", checks.between(0, 0.25)
    )
    baseline: str = _gates(
        "greedy",
        TEXT,
        "what is subtracted from a reward: none, the batch's mean, or that of the same sample without drawing (greedy)",
        checks.one_of(BASELINES),
    )
    energy_target: float | None = _gates(
        None,
        optional(NUMBER),
        "energy as share of the network's at the widest precision throughout; adapts alpha. none: alpha stays",
        checks.above(0),
    )
    energy_target_rate: float = _gates(
        0.05, NUMBER, "what alpha changes by each update, times the share that is too much", checks.above(0)
    )
    energy_per_mac: tuple[str, ...] = _gates(
        ("32:93.3", "4:1", "1:0.075"), WORDS, "BITS:ENERGY of one multiplication, for several widths", _energies
    )
    learning_rate_decays: tuple[str, ...] = _gates(
        (),
        WORDS,
        "factor on the learning rate at each milestone, one each; empty: learning_rate_decay at all",
        checks.each(checks.factor),
    )


def own_first(cls: type, fields: list[Any]) -> list[Any]:
    """Put a class' own keys before those that it inherits, as the documentation has them."""
    return [f for f in fields if not f.inherited] + [f for f in fields if f.inherited]


def check_gates(experiment: Experiment) -> None:
    """Check what the keys of the gates ask of the others.

    Raises:
        InvalidValue: naming the key to change.
    """
    decays, milestones = experiment.learning_rate_decays, experiment.milestones
    if decays and len(decays) != len(milestones):
        reason = f"{len(decays)} factors for the {len(milestones)} milestones {milestones}; one each is needed"
        raise InvalidValue("learning_rate_decays", ", ".join(decays), reason)
    if experiment.gate_training is None:
        if experiment.energy_target is not None:
            raise InvalidValue("energy_target", experiment.energy_target, "without gate_training; nearest valid: none")
        return
    for key in ("w_quantize", "a_quantize"):
        if getattr(experiment, key) is None:
            near = "dorefa" if key == "w_quantize" else "fp_relu"
            raise InvalidValue(key, None, f"the paths need a quantizer; nearest valid: {near}")
    for key, near in (("policy", "none"), ("target_weight_kbytes", "-1"), ("target_activation_kbytes", "-1")):
        value = getattr(experiment, key)
        if value is not None and value != -1:
            raise InvalidValue(key, value, f"gates choose the bits; nearest valid: {near}")
    if experiment.gate_warmup_epochs >= experiment.epochs:
        reason = f"no epoch of {experiment.epochs} is left for the gates; nearest valid: {experiment.epochs - 1}"
        raise InvalidValue("gate_warmup_epochs", experiment.gate_warmup_epochs, reason)
    if experiment.gate_exploration * len(experiment.precisions) >= 1:
        reason = f"times {len(experiment.precisions)} precisions it leaves nothing to choose; nearest valid: 0.02"
        raise InvalidValue("gate_exploration", experiment.gate_exploration, reason)
