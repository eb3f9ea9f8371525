"""Gates: small networks that look at a feature map and say which precision it deserves."""

from __future__ import annotations

import attrs
import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np

from nnmpq.dynamic.paths import Part, Renamed, at_precision
from nnmpq.graph.network import Network, Site
from nnmpq.graph.quantize import quantize
from nnmpq.graph.quantized import Quantized
from nnmpq.graph.schemes import Parametric, SiteSettings
from nnmpq.graph.settings import pinned
from nnmpq.graph.trace import trace_graph
from nnmpq.models.layers import convolution, normalised

# Largest magnitude of the maps that gates read that their quantizers start with.
START_RANGE = 4.0


def gate(
    x: nn.Variable,
    choices: int = 2,
    *,
    channels: int = 0,
    test: bool = False,
    rng: np.random.RandomState | None = None,
) -> nn.Variable:
    """Build a gate as published, in the current parameter scope.

    [1x1 convolution], 3x3 convolution of stride 2, batch normalization, ReLU, mean over the map, affine with bias (a
    1x1 convolution there).

    Args:
        x: feature map, shape (B, C, H, W).
        choices: number of precisions.
        channels: 1x1 convolution to so many channels first; 0 for none.
        test: batch normalization uses its running statistics.
        rng: source of the initial weights; nnabla's own if None.

    Returns:
        Logits, shape (B, choices); a softmax makes them probabilities, the last one that of the widest precision.

    Example:
        >>> gate(nn.Variable((4, 16, 8, 8))).shape
        (4, 2)

    Source:
        "FFGate-II" of Wang et al., "SkipNet", ECCV 2018, as the code of CAMP has it.
    """
    if channels:
        with nn.parameter_scope("reduce"):
            x = convolution(x, channels, 1, 1, rng)
    with nn.parameter_scope("look"):
        h = F.relu(normalised(convolution(x, x.shape[1], 3, 2, rng), test))
    h = F.global_average_pooling(h)
    with nn.parameter_scope("decide"):
        start = nn.initializer.NormalInitializer(float(h.shape[1]) ** -0.5, rng=rng)
        return PF.affine(h, choices, w_init=start, b_init=nn.initializer.ConstantInitializer(0))


@attrs.frozen(eq=False)
class _GateScheme:
    """Quantizers of a gate's weights and ReLU, and one for the map that it reads.

    Args:
        scheme: of all but that map.
        reads: settings for that map; None reads it as it is.
    """

    scheme: Parametric
    reads: SiteSettings | None

    def check(self, network: Network) -> None:
        """Nothing is asked of a gate."""

    def covers(self, site: Site) -> bool:
        return self.reads is not None if site.kind == "input" else self.scheme.covers(site)

    def weight(self, site: Site, w: nn.Variable) -> Quantized:
        return self.scheme.weight(site, w)

    def activation(self, site: Site, x: nn.Variable) -> Quantized:
        if site.kind != "input":
            return self.scheme.activation(site, x)
        return Parametric(activation=self.reads, kinds=("input",)).activation(site, x)


def build_gate(
    name: str,
    shape: tuple[int, ...],
    choices: int,
    scheme: Parametric,
    bits: int,
    *,
    channels: int = 0,
    quantize_input: bool = True,
    test: bool = False,
    rng: np.random.RandomState | None = None,
) -> Part:
    """Build a block's quantized gate in the scope "<block>/gate".

    Args:
        name: of the block.
        shape: of the map that it reads, (B, C, H, W).
        choices: number of precisions.
        scheme: quantizers of weights and ReLU, and their ranges.
        bits: their width.
        channels: as of `gate`.
        quantize_input: quantize what it reads too, signed, with a learned range; the published one reads floats.
        test: batch normalization uses its running statistics.
        rng: source of the initial weights.

    Returns:
        The gate on an input of its own.
    """
    entry = nn.Variable(shape, need_grad=True)
    inside = f"{name}/gate"
    with nn.parameter_scope(inside):
        logits = gate(entry, choices, channels=channels, test=test, rng=rng)
    reads = attrs.evolve(pinned(bits), step=START_RANGE / 2 ** (bits - 1)) if quantize_input else None
    named = {}
    for site in trace_graph(logits).network.activations:
        # A site before the first layer has no layer's scope in its name.
        full = site.name if site.name.startswith(inside) else f"{inside}/{site.name}"
        named[site.name] = attrs.evolve(site, name=full)
    renamed = Renamed(_GateScheme(at_precision(scheme, bits), reads), "", named)
    return Part(entry, quantize(logits, renamed), renamed)
