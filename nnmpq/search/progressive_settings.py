"""What steers a progressive search: the published keys, and what stands at the sites meanwhile."""

from __future__ import annotations

import attrs
import nnabla as nn

from nnmpq.config.choices import ACTIVATION_QUANTIZERS, WEIGHT_QUANTIZERS
from nnmpq.config.experiment import Experiment
from nnmpq.config.scheme import published_settings
from nnmpq.graph.network import ACTIVATION, Network, Site
from nnmpq.graph.quantized import Quantized
from nnmpq.graph.schemes import Parametric
from nnmpq.graph.settings import Patterns, SiteSettings
from nnmpq.quantizers import quantizer_class

# Below it nothing is ever lowered, as published.
FLOOR = 2
UNIFORM = "uniform_b_xmax"


@attrs.frozen
class Settings:
    """The keys of a progressive search.

    Args:
        ratio: share of the sites that a candidate lowers.
        interval: bits that a site is lowered by.
        lam: candidates a step.
        step: most steps.
        search_epochs: epochs of training after each step.
        info: what chooses among candidates: hession (the gradient), acc (validation accuracy) or loss.
        k_bits: bits at the start.
        faithful: the published search, else the repaired one.
        weight: quantizer of weights, a key of `nnmpq.quantizers.QUANTIZERS`.
        activation: the same for activations.

    Example:
        >>> Settings.of(Experiment("X", faithful=True)).weight
        'dorefa'
    """

    ratio: float = 0.5
    interval: int = 1
    lam: int = 32
    step: int = 25
    search_epochs: int = 2
    info: str = "hession"
    k_bits: int = 8
    faithful: bool = False
    weight: str = UNIFORM
    activation: str = UNIFORM

    @classmethod
    def of(cls, experiment: Experiment) -> Settings:
        """Return what an experiment says; quantizers without a word on them are the published ones or uniform."""
        names = ("ratio", "interval", "lam", "step", "search_epochs", "info", "k_bits", "faithful")
        published = experiment.faithful or experiment.archtype == "quant"
        weight, activation = ("dorefa", "pact") if published else (UNIFORM, UNIFORM)
        if experiment.w_quantize is not None:
            weight = quantizer_class(WEIGHT_QUANTIZERS[experiment.w_quantize].quantizer).at_fixed_bits  # type: ignore[attr-defined]
        if experiment.a_quantize is not None:
            chosen = ACTIVATION_QUANTIZERS[experiment.a_quantize].quantizer
            activation = quantizer_class(chosen).at_fixed_bits  # type: ignore[attr-defined]
        return cls(**{name: getattr(experiment, name) for name in names}, weight=weight, activation=activation)


@attrs.frozen
class RuntimeBits:
    """The scheme whose bits are set from outside, between two runs of the same graph; no solver moves them.

    Args:
        weight_quantizer: of weights and, where it serves them, biases.
        activation_quantizer: of activations from zero on; signed ones get a uniform one.
        bits: at the start, and most.
        kinds: kinds of activations that are quantized.
        keep: sites that stay float, or at so many bits.
        per_channel: one range an output channel of each weight.
        fused: use the fused cores, else standard functions.

    Example:
        >>> import nnabla.parametric_functions as PF
        >>> from nnmpq.graph.quantize import quantize
        >>> network = quantize(PF.affine(nn.Variable((4, 3)), 2, name="fc"), RuntimeBits())
        >>> network.sites["fc/affine/W"].parameters["bits"].d = 3
        >>> network.bit_numbers()["fc/affine/W"], list(nn.get_parameters())[2:]
        (3, ['fc/affine/W_quantizer/xmax', 'fc/affine/b_quantizer/xmax'])
    """

    weight_quantizer: str = UNIFORM
    activation_quantizer: str = UNIFORM
    bits: int = 8
    kinds: tuple[str, ...] = ("relu",)
    keep: tuple[str, ...] = ()
    per_channel: bool = False
    fused: bool = True

    @classmethod
    def of(cls, experiment: Experiment, settings: Settings) -> RuntimeBits:
        """Return what stands at an experiment's sites when a search begins."""
        kinds, keep = experiment.activation_sites, experiment.keep
        return cls(settings.weight, settings.activation, settings.k_bits, kinds, keep, experiment.per_channel)

    def check(self, network: Network) -> None:
        """Raise ValueError where a pattern takes no site."""
        Patterns(self.keep).check(network)

    def covers(self, site: Site) -> bool:
        """Return whether a site counts."""
        return Parametric(kinds=self.kinds, keep=self.keep).covers(site)

    def weight(self, site: Site, w: nn.Variable) -> Quantized:
        """Quantize a weight or bias."""
        return _given(site, self._scheme(site).weight(site, w))

    def activation(self, site: Site, x: nn.Variable) -> Quantized:
        """Quantize an activation."""
        return _given(site, self._scheme(site).activation(site, x))

    def _scheme(self, site: Site) -> Parametric:
        # A quantizer that starts at zero serves no signed activation.
        activation = UNIFORM if site.signed and site.role == ACTIVATION else self.activation_quantizer
        return Parametric(
            weight=self._settings(self.weight_quantizer, True),
            activation=self._settings(activation, False),
            kinds=self.kinds,
            keep=self.keep,
            fused=self.fused,
        )

    def _settings(self, quantizer: str, weight: bool) -> SiteSettings:
        settings = published_settings(quantizer, self.bits, FLOOR)
        return attrs.evolve(settings, per_channel=weight and self.per_channel)


def _given(site: Site, quantized: Quantized) -> Quantized:
    """Take the bits from solvers and gradients: the graph's variable, and the scope's, which is another one."""
    if "bits" in quantized.parameters:
        quantized.parameters["bits"].need_grad = False
        nn.parameter.get_parameter(f"{site.name}_quantizer/bits").need_grad = False
    return quantized
