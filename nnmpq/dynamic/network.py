"""The network with gates: every block in several precisions, mixed by what its gate decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.dynamic.blocks import Block, find_blocks, on_other_input
from nnmpq.dynamic.decide import Decision, take
from nnmpq.dynamic.energy import FLOAT_BITS, Account, work_of
from nnmpq.dynamic.gates import build_gate
from nnmpq.dynamic.paths import Part, build_path
from nnmpq.graph.functions import functions_of, parameter_names
from nnmpq.graph.network import Network
from nnmpq.graph.quantize import QuantizedNetwork
from nnmpq.graph.quantized import Quantized
from nnmpq.graph.schemes import Parametric
from nnmpq.graph.settings import Patterns
from nnmpq.graph.trace import trace_graph

# From the block's number and its gate's logits to a decision.
Decide = Callable[[int, nn.Variable], Decision]
KIB = 8 * 1024


def _ascending(instance: Any, attribute: Any, value: tuple[int, ...]) -> None:
    if len(value) < 2 or list(value) != sorted(set(value)) or value[0] < 1:
        raise ValueError(f"{attribute.name} = {value}: two or more widths are needed, the narrowest first")


@attrs.frozen
class DynamicSettings:
    """How blocks and gates are quantized.

    Args:
        scheme: quantizers of weights and activations, their ranges; each precision takes its own bits.
        precisions: widths of weights and activations, ascending; 32 is float.
        gate_bits: width of the gates.
        pre_gate: gates read what enters the block, not what its narrowest path gives: that path can be left out too.
        gate_channel: channels that a gate first reduces its map to; 0 for none.
        detach: no gradient flows from the gates into the maps that they read.
        quantize_gate_input: the map that a gate reads is quantized; the published gates read floats.
    """

    scheme: Parametric
    precisions: tuple[int, ...] = attrs.field(default=(1, 4), validator=_ascending)
    gate_bits: int = 4
    pre_gate: bool = False
    gate_channel: int = 0
    detach: bool = True
    quantize_gate_input: bool = True


@attrs.frozen(eq=False)
class DynamicBlock:
    """A block as it was built.

    Args:
        block: its part of the float graph.
        paths: one a precision, the narrowest first.
        gate: what chooses between them.
        decision: what it decided in this graph.
    """

    block: Block
    paths: tuple[Part, ...]
    gate: Part
    decision: Decision


@attrs.frozen(eq=False)
class DynamicNetwork:
    """A network whose blocks choose their precision for every sample.

    Args:
        output: logits, shape (B, classes).
        float_output: the float graph that it was made from.
        network: layers and sites of the float graph.
        blocks: in execution order.
        settings: how they were quantized.
        images: the input, shape (B, C, H, W).
        decide: how gates decide in this graph.
    """

    output: nn.Variable
    float_output: nn.Variable
    network: Network
    blocks: tuple[DynamicBlock, ...]
    settings: DynamicSettings
    images: nn.Variable
    decide: Decide

    def sites(self) -> dict[str, Quantized]:
        """Return what stands at each quantized site of all paths and gates, by name."""
        parts = [part for block in self.blocks for part in (*block.paths, block.gate)]
        return {name: found for part in parts for name, found in part.sites().items()}

    def as_quantized(self) -> QuantizedNetwork:
        """Return output and sites as the ordinary quantize pass does; costs per choice are `account`'s."""
        return QuantizedNetwork(self.output, self.network, self.sites(), (self.output,), (self.float_output,))

    def fixed_layers(self) -> list[str]:
        """Return the layers of stem and tail, which stay float."""
        inside = {layer.name for block in self.blocks for layer in block.paths[0].quantized.network.layers}
        return [layer.name for layer in self.network.layers if layer.name not in inside]

    def account(self, table: Mapping[float, float]) -> Account:
        """Return what stem, tail, gates and paths cost.

        A gate's map that stays float counts at the gate's bits, as in the published results.
        """
        gates, paths = [], []
        for block in self.blocks:
            bits: dict[str, float] = {**block.gate.quantized.bit_numbers()}
            for site in block.gate.quantized.network.activations:
                if site.kind == "input":
                    bits.setdefault(site.name, float(self.settings.gate_bits))
            gates.append(work_of(block.gate.quantized.network, bits, table))
            paths.append([work_of(p.quantized.network, p.quantized.bit_numbers(), table) for p in block.paths])
        always = work_of(self.network, {}, table, self.fixed_layers())
        return Account(always, gates, paths, reads_low=not self.settings.pre_gate)

    def size(self) -> dict[str, float]:
        """Return KiB of what is stored: "blocks", "gates", "stem_and_tail", "normalization" and "total".

        Signs of DoReFa weights are those of the widest precision, which is stored alone; other weights are stored
        once a precision.
        """
        found = {"blocks": 0.0, "gates": 0.0, "stem_and_tail": 0.0, "normalization": 0.0}
        for block in self.blocks:
            found["gates"] += _kib(block.gate)
            sizes = [_kib(path) for path in block.paths]
            weight = self.settings.scheme.weight_settings
            found["blocks"] += max(sizes) if weight is not None and weight.quantizer == "dorefa" else sum(sizes)
        for name in self.fixed_layers():
            layer = self.network.layer(name)
            sites = [site for site in (layer.weight, layer.bias) if site is not None]
            found["stem_and_tail"] += sum(site.elements for site in sites) * FLOAT_BITS / KIB
        # Scale and shift of each normalization, every precision's and the gates'.
        normalised = {
            v.data: v.size
            for f in functions_of([self.output])
            if f.info.type_name == "BatchNormalization"
            for v in f.inputs[1:3]
        }
        found["normalization"] = sum(normalised.values()) * FLOAT_BITS / KIB
        found["total"] = sum(found.values())
        return found


def _kib(part: Part) -> float:
    bits = part.quantized.bit_numbers()
    stored = [site for site in part.quantized.network.sites() if site.role != "activation"]
    return sum(site.elements * bits.get(site.name, FLOAT_BITS) for site in stored) / KIB


def _check_keep(keep: Patterns, network: Network, parts: Sequence[Part]) -> None:
    """Raise ValueError for a pattern that fits no site of network or parts."""
    own = [p.scheme.site(site) for p in parts for site in p.quantized.network.activations]
    own += [p.scheme.site(layer.weight) for p in parts for layer in p.quantized.network.layers]
    keep.check(attrs.evolve(network, activations=(*network.activations, *own)))


def build_dynamic(
    y: nn.Variable,
    settings: DynamicSettings,
    decide: Decide,
    *,
    test: bool = False,
    rng: np.random.RandomState | None = None,
) -> DynamicNetwork:
    """Give every residual block of a float network several precisions and a gate, in the current parameter scope.

    y = sum over k of gate_k * path_k, block by block. All paths are computed for every sample; `nnmpq.dynamic.skip`
    leaves out what was not chosen, with the same result.

    Args:
        y: logits of a float graph.
        settings: quantizers, precisions and gates.
        decide: from a block's number and its gate's logits to a decision.
        test: evaluation graph; must be what `y` was built for.
        rng: source of the gates' initial weights.

    Returns:
        The network. Parameters that the float graph alone reads are still in the scope: `drop_unread` removes them.

    Raises:
        ValueError: the network has no residual block, or a pattern of `keep` fits nothing.

    Example:
        >>> from nnmpq.dynamic.decide import greedy
        >>> from nnmpq.graph.schemes import SiteSettings
        >>> from nnmpq.models import build
        >>> y = build("preact_resnet", nn.Variable((2, 3, 32, 32)), 10, num_layers=20)
        >>> scheme = Parametric(weight=SiteSettings("dorefa"), activation=SiteSettings("pact", 4, 1 / 15))
        >>> even = lambda block, logits: greedy(logits, np.array([0.0, 1.0]), F.constant(0, (1, 1)))
        >>> found = build_dynamic(y, DynamicSettings(scheme), even, test=True)
        >>> found.output.shape, len(found.blocks), found.blocks[8].paths[1].sites().keys() <= found.sites().keys()
        ((2, 10), 9, True)
    """
    whole = trace_graph(y)
    parts: list[Part] = []
    built = []
    h, before = None, None
    for number, block in enumerate(find_blocks(whole.outputs[0])):
        h = block.entry if before is None else on_other_input(block.entry, before, h)[0]
        paths = tuple(build_path(block, whole, settings.scheme, bits) for bits in settings.precisions)
        low = paths[0].on(h)
        seen = h if settings.pre_gate else low
        gate = build_gate(
            block.name,
            seen.shape,
            len(paths),
            settings.scheme,
            settings.gate_bits,
            channels=settings.gate_channel,
            quantize_input=settings.quantize_gate_input,
            test=test,
            rng=rng,
        )
        looked_at = F.identity(seen).apply(need_grad=False) if settings.detach else seen
        decision = decide(number, gate.on(looked_at))
        h = take([low, *(path.on(h) for path in paths[1:])], decision)
        before = block.exit
        parts += [*paths, gate]
        built.append(DynamicBlock(block, paths, gate, decision))
    _check_keep(settings.scheme.keep, whole.network, parts)
    output = on_other_input(whole.outputs[0], before, h)[0]
    images = input_of(built[0].block.entry)
    return DynamicNetwork(output, whole.outputs[0], whole.network, tuple(built), settings, images, decide)


def input_of(tensor: nn.Variable) -> nn.Variable:
    """Return the leaf that a tensor is computed from and that is no parameter.

    Raises:
        ValueError: there is none, or there are several.
    """
    known = parameter_names()
    leaves = {v for f in functions_of([tensor]) for v in f.inputs if v.parent is None and v.data not in known}
    if len(leaves) != 1:
        raise ValueError(f"the network has {len(leaves)} inputs: one is needed, the images")
    return leaves.pop()


def drop_unread(outputs: Sequence[nn.Variable]) -> list[str]:
    """Remove the parameters of the current scope that no graph reads; return their names.

    Args:
        outputs: of all graphs.
    """
    read = {v.data for function in functions_of(outputs) for v in function.inputs}
    unread = [name for name, v in nn.get_parameters(grad_only=False).items() if v.data not in read]
    for name in unread:
        nn.parameter.pop_parameter(name)
    return unread
