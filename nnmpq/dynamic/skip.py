"""Inference that leaves out what no gate chose: graphs of the parts, run by Python, with the mixed network's result."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.dynamic.blocks import on_other_input
from nnmpq.dynamic.network import DynamicNetwork
from nnmpq.graph.accelerate import accelerate_where_possible
from nnmpq.graph.functions import functions_of
from nnmpq.nnabla_imports import alias_modules


@attrs.define(eq=False)
class Stage:
    """A part of a network as a graph of its own, for any number of rows.

    Args:
        entry: its input.
        outputs: what it computes.
        run: its forward pass computes all of them.
        functions: all of them, in execution order.
        promise: that no weight changes, which spares fast functions to reorder them; ends with the stage.
    """

    entry: nn.Variable
    outputs: tuple[nn.Variable, ...]
    run: nn.Variable
    functions: list[Any]
    promise: ExitStack

    @classmethod
    def of(cls, entry: nn.Variable, outputs: Sequence[nn.Variable], fast: bool = False) -> Stage:
        """Make a stage of a graph.

        Args:
            entry: the graph's input.
            outputs: its outputs.
            fast: on fast CPU functions where this machine has them.
        """
        for output in outputs:
            output.persistent = True
        accelerated = accelerate_where_possible(list(outputs)) if fast else None
        made = tuple(outputs) if accelerated is None else accelerated.outputs
        run = F.sink(*made)
        # The quantizers are written in Python: its calls are most of an image's time without this.
        alias_modules()
        promise = ExitStack()
        if accelerated is not None:
            promise.enter_context(accelerated.clock.stopped())
        return cls(entry, made, run, functions_of([run]), promise)

    def __call__(self, x: nn.NdArray) -> tuple[nn.NdArray, ...]:
        """Compute the outputs for the rows of x, which is not copied; they last until the next call."""
        if self.entry.shape != x.shape:
            # The array of the last call may be another stage's output, which must keep its shape.
            self.entry.data = nn.NdArray(self.entry.shape)
            self.entry.reset_shape(x.shape, True)
            # nnabla would do it by itself, but prints a line a function.
            for function in self.functions:
                function.setup(function.inputs, function.outputs)
        self.entry.data = x
        self.run.forward(clear_buffer=True)
        return tuple(output.data for output in self.outputs)


@attrs.frozen(eq=False)
class BlockStages:
    """The stages of one block.

    Args:
        before: from the block before; None where nothing is in between.
        first: the narrowest path and what the gate chose by it; with gates that read the block's input, the choice
            alone.
        paths: of the other precisions; with gates that read the block's input, of all.
    """

    before: Stage | None
    first: Stage
    paths: tuple[Stage, ...]


@attrs.frozen(eq=False)
class SkippingNetwork:
    """A network with gates that computes what was chosen and nothing else.

    Args:
        stem: up to the first block.
        blocks: in execution order.
        tail: from the last block.
        reads_low: gates read their block's narrowest path, which then always runs.
    """

    stem: Stage
    blocks: tuple[BlockStages, ...]
    tail: Stage
    reads_low: bool

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Classify images.

        Args:
            images: float32, shape (B, C, H, W), any B.

        Returns:
            Logits, shape (B, classes), and the number of the precision of each block, shape (B, N); both copies.
        """
        (h,) = self.stem(nn.NdArray.from_numpy_array(np.ascontiguousarray(images, np.float32)))
        taken = []
        for block in self.blocks:
            if block.before is not None:
                (h,) = block.before(h)
            h, choice = self._block(block, h)
            taken.append(choice)
        (logits,) = self.tail(h)
        return logits.data.copy(), np.stack(taken, axis=1)

    def _block(self, block: BlockStages, x: nn.NdArray) -> tuple[nn.NdArray, np.ndarray]:
        *low, chosen = block.first(x)
        choice = np.argmax(chosen.data, axis=1)
        first = len(low)
        result = low[0] if low else None
        for number, path in enumerate(block.paths, start=first):
            rows = np.flatnonzero(choice == number)
            if len(rows) == len(choice):
                return path(x)[0], choice
            if not len(rows):
                continue
            (wide,) = path(nn.NdArray.from_numpy_array(x.data[rows]))
            if result is None:
                result = nn.NdArray((len(choice), *wide.shape[1:]))
            result.data[rows] = wide.data
        assert result is not None
        return result, choice


def mixed_with_constants(network: DynamicNetwork) -> tuple[nn.Variable, nn.Variable]:
    """Return input and logits of the mixed network, all paths computed, its weights quantized once.

    What `skipping` is to be compared with: the same but for what is left out.

    Args:
        network: built for evaluation.
    """
    constants: dict[nn.Variable, nn.Variable] = {}
    for block in network.blocks:
        for part in (*block.paths, block.gate):
            constants.update(part.constants())
    images = nn.Variable(network.images.shape)
    return images, on_other_input(network.output, network.images, images, constants)[0]


def skipping(network: DynamicNetwork, *, fast: bool = False) -> SkippingNetwork:
    """Return the network that computes what its gates choose and nothing else.

    For one image the parts' graphs hand their buffers on without a copy. Of a batch the rows that chose a path are
    gathered, run through it, and written over those of the narrow path. The result is the mixed network's, bit for bit.

    Weights are quantized once, now, and so are ranges: after they change, make it again. The price is shared.

    Args:
        network: built for evaluation.
        fast: on fast CPU functions where this machine has them.
    """
    settings = network.settings
    stages = []
    before = None
    for number, built in enumerate(network.blocks):
        between = None
        if before is not None and before != built.block.entry:
            entry = nn.Variable(before.shape)
            between = Stage.of(entry, [on_other_input(built.block.entry, before, entry)[0]], fast)
        entry = nn.Variable(built.block.entry.shape)
        if settings.pre_gate:
            outputs = [network.decide(number, built.gate.on(entry, frozen=True)).chosen]
        else:
            low = built.paths[0].on(entry, frozen=True)
            outputs = [low, network.decide(number, built.gate.on(low, frozen=True)).chosen]
        others = []
        for path in built.paths if settings.pre_gate else built.paths[1:]:
            own = nn.Variable(built.block.entry.shape)
            others.append(Stage.of(own, [path.on(own, frozen=True)], fast))
        stages.append(BlockStages(between, Stage.of(entry, outputs, fast), tuple(others)))
        before = built.block.exit
    stem_entry = nn.Variable(network.images.shape)
    stem = on_other_input(network.blocks[0].block.entry, network.images, stem_entry)[0]
    assert before is not None
    tail_entry = nn.Variable(before.shape)
    tail = on_other_input(network.float_output, before, tail_entry)[0]
    return SkippingNetwork(
        Stage.of(stem_entry, [stem], fast),
        tuple(stages),
        Stage.of(tail_entry, [tail], fast),
        reads_low=not settings.pre_gate,
    )
