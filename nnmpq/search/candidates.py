"""The quantizers that a search's policies name, where the experiment asks for published ones."""

from __future__ import annotations

from collections.abc import Mapping

from nnmpq.config.experiment import Experiment
from nnmpq.graph.network import ACTIVATION, BIAS, WEIGHT, Network

LEARNED_RANGE = "uniform_b_xmax"


def searched_widths(
    experiment: Experiment, network: Network, widths: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Return the widths of the sites that get bits; beside a weight quantizer without a range, biases stay float.

    Args:
        experiment: its ``weight_candidate``.
        network: the network.
        widths: by site, from `SearchTask.widths`.
    """
    if experiment.weight_candidate == LEARNED_RANGE:
        return dict(widths)
    return {name: own for name, own in widths.items() if network.site(name).role != BIAS}


def candidate_quantizers(experiment: Experiment, network: Network, bits: Mapping[str, int]) -> dict[str, str]:
    """Return the registered quantizers of sites that a search gave bits, where they are not the usual ones.

    A quantizer that starts at zero cannot serve an activation with a sign: that one gets a learned range.

    Args:
        experiment: its ``weight_candidate`` and ``activation_candidate``.
        network: the network.
        bits: of the sites that were searched.
    """
    found = {}
    for name in bits:
        site = network.site(name)
        if site.role == WEIGHT:
            chosen = experiment.weight_candidate
        elif site.role == ACTIVATION and not site.signed:
            chosen = experiment.activation_candidate
        else:
            continue
        if chosen != LEARNED_RANGE:
            found[name] = chosen
    return found
