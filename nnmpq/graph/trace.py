"""From any nnabla graph to its layers and activation sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import nnabla as nn

from nnmpq.graph.functions import (
    JOINS,
    LAYER_KIND,
    MONOTONE_SCALARS,
    NEGATING_JOINS,
    NONLINEARITIES,
    POOLS,
    UNSIGNED_NONLINEARITIES,
    channel_axis,
    functions_of,
    moves,
    multiplications,
    parameter_names,
)
from nnmpq.graph.network import ACTIVATION, BIAS, WEIGHT, Layer, Network, Site
from nnmpq.graph.rewrite import unfuse

__all__ = ["Traced", "functions_of", "trace", "trace_graph"]

NO_LAYER = (-1, "")


@attrs.define
class _Tensor:
    """What is known of one variable.

    Args:
        function: what computes it; None for an input or parameter.
        name: name of the parameter that it is, or is computed from; empty for what depends on an input.
        constant: whether it depends on no input.
        signed: whether it can hold negative numbers.
        stored: the variables whose numbers it holds, found upwards through functions that only move numbers.
        layer: place and name of the layer upstream that runs last.
    """

    function: Any
    name: str
    constant: bool
    signed: bool
    stored: tuple[nn.Variable, ...]
    layer: tuple[int, str] = NO_LAYER


@attrs.define
class _Tracer:
    """What is known of a graph; lives for one call of `trace`."""

    names: dict[Any, str]
    tensors: dict[nn.Variable, _Tensor] = attrs.field(factory=dict)
    readers: dict[nn.Variable, list[Any]] = attrs.field(factory=dict)
    layers: dict[Any, Layer] = attrs.field(factory=dict)
    weights: dict[str, Any] = attrs.field(factory=dict)  # name of a parameter -> its data
    taken: dict[str, str] = attrs.field(factory=dict)  # name of a layer -> name of its weight
    sites: dict[nn.Variable, Site] = attrs.field(factory=dict)

    def leaf(self, variable: nn.Variable) -> _Tensor:
        """Look at an input or parameter."""
        name = self.names.get(variable.data, "")
        return _Tensor(None, name, bool(name), True, (variable,))

    def visit(self, order: int, function: Any) -> None:
        """Learn what there is to know of a function's outputs, and name it where it is a layer."""
        name = function.info.type_name
        for variable in function.inputs:
            self.readers.setdefault(variable, []).append(function)
            if variable not in self.tensors:
                self.tensors[variable] = self.leaf(variable)
        inputs = [self.tensors[v] for v in function.inputs]
        nearest = max((t.layer for t in inputs), default=NO_LAYER)
        if name in LAYER_KIND and all(t.constant or t.function is None for t in inputs[1:]):
            nearest = (order, self.add_layer(order, function).name)
        constant = all(t.constant for t in inputs)
        moved = moves(function)
        for variable in function.outputs:
            self.tensors[variable] = _Tensor(
                function,
                next((t.name for t in inputs if t.name), "") if constant else "",
                constant,
                self.result_signed(function, inputs),
                tuple(v for t in inputs for v in t.stored) if moved else (variable,),
                nearest,
            )

    def add_layer(self, order: int, function: Any) -> Layer:
        """Name a layer and its parameters; the activation that it reads is not known yet."""
        kind = LAYER_KIND[function.info.type_name]
        weight = function.inputs[1]
        weight_name = self.parameter_name(weight, f"{kind}_{len(self.layers) + 1}/W")
        scope = weight_name.rsplit("/", 1)[0]
        # Two weights in one scope are two layers: the second one goes by its weight's full name.
        name = scope if self.taken.setdefault(scope, weight_name) == weight_name else weight_name
        bias_site = None
        if len(function.inputs) > 2:
            bias = function.inputs[2]
            bias_site = Site(self.parameter_name(bias, f"{name}/b"), BIAS, kind, bias.shape, True, name)
        self.layers[function] = Layer(
            name,
            kind,
            Site(weight_name, WEIGHT, kind, weight.shape, True, name, channel_axis(function)),
            bias_site,
            multiplications(function),
            None,
            function.inputs[0].shape[1:],
            function.outputs[0].shape[1:],
        )
        return self.layers[function]

    def parameter_name(self, variable: nn.Variable, fallback: str) -> str:
        """Name a parameter: as the scope does, else as a loaded file did, else by its place in the graph."""
        name = self.tensors[variable].name or (variable.name if "/" in variable.name else fallback)
        candidate, number = name, 1
        while self.weights.setdefault(candidate, variable.data) != variable.data:
            number += 1
            candidate = f"{name}_{number}"
        return candidate

    def rectifies(self, function: Any) -> bool:
        """Whether a function is a ReLU, or clips one: max(x, 0), min(relu(x), 6)."""
        name = function.info.type_name
        if name in ("ReLU", "ReLU6"):
            return True
        if name == "MaximumScalar":
            return bool(function.info.args["val"] == 0)
        return name == "MinimumScalar" and self.clips(function)

    def clips(self, function: Any) -> bool:
        source = self.tensors[function.inputs[0]].function
        return function.info.args["val"] > 0 and source is not None and self.rectifies(source)

    def joins(self, function: Any) -> bool:
        """Whether a function joins branches; scaling or shifting by a parameter or constant does not."""
        if function.info.type_name not in JOINS:
            return False
        shape = function.outputs[0].shape
        # A leaf that is broadcast is a constant that the user did not register, such as the mean image.
        branches = [
            v
            for v in function.inputs
            if not self.tensors[v].constant and (self.tensors[v].function is not None or v.shape == shape)
        ]
        return len(branches) > 1

    def result_signed(self, function: Any, inputs: Sequence[_Tensor]) -> bool:
        """Whether a function's result can be negative."""
        name, arguments = function.info.type_name, function.info.args
        if self.rectifies(function) or name in UNSIGNED_NONLINEARITIES:
            return False
        if name == "MaximumScalar":
            return arguments["val"] < 0 and any(t.signed for t in inputs)
        if name == "Constant":
            return bool(arguments["val"] < 0)
        if name in MONOTONE_SCALARS:
            return arguments["val"] < 0 or any(t.signed for t in inputs)
        if moves(function) or name in POOLS or (name in JOINS and name not in NEGATING_JOINS):
            return any(t.signed for t in inputs)
        return True

    def kind(self, tensor: _Tensor, joined: bool) -> str:
        """The kind of a site, from what computes it and, for a layer's output, whether a sum reads it."""
        if tensor.function is None:
            return "input"
        name = tensor.function.info.type_name
        if self.rectifies(tensor.function):
            return "relu"
        if self.joins(tensor.function):
            return "sum"
        if name in POOLS:
            return "pool"
        if name in NONLINEARITIES:
            return "nonlinearity"
        if tensor.layer == NO_LAYER:
            return "input"
        return "branch" if joined else "linear"

    def read(self, variable: nn.Variable, joined: bool = False) -> None:
        """Make the tensors behind a variable sites."""
        for stored in self.tensors[variable].stored:
            tensor = self.tensors[stored]
            if stored in self.sites or tensor.constant:
                continue
            kind = self.kind(tensor, joined)
            _, layer = tensor.layer
            self.sites[stored] = Site(
                f"{layer}/{kind}" if layer else kind, ACTIVATION, kind, stored.shape[1:], tensor.signed
            )

    def find_sites(self, function: Any, roots: Sequence[nn.Variable]) -> None:
        """Make sites of what a function stores or reads."""
        if function in self.layers:
            self.read(function.inputs[0])
        elif self.joins(function):
            for operand in function.inputs:
                self.read(operand, joined=True)
        elif function.info.type_name in POOLS and not moves(function):
            self.read(function.inputs[0])
        elif self.rectifies(function):
            output = function.outputs[0]
            readers = self.readers.get(output, [])
            clipped = len(readers) == 1 and readers[0].info.type_name == "MinimumScalar" and self.clips(readers[0])
            # The network's own output is a site only where something inside reads it too.
            if not clipped and output not in roots:
                self.read(output)


def _named(sites: dict[nn.Variable, Site], place: dict[nn.Variable, int]) -> dict[nn.Variable, Site]:
    """Put sites in execution order and make their names unique."""
    taken: set[str] = set()
    named = {}
    for variable in sorted(sites, key=lambda v: place.get(v, -1)):
        site, number = sites[variable], 1
        name = site.name
        while name in taken:
            number += 1
            name = f"{site.name}_{number}"
        taken.add(name)
        named[variable] = attrs.evolve(site, name=name)
    return named


@attrs.frozen
class Traced:
    """A network with the graph that it was found in.

    Args:
        network: its layers and sites.
        outputs: outputs of the graph, with fused functions taken apart.
        sites: the activation site of each variable that is one.
        layers: the layer of each function that is one.
    """

    network: Network
    outputs: tuple[nn.Variable, ...]
    sites: dict[nn.Variable, Site]
    layers: dict[Any, Layer]


def trace_graph(outputs: nn.Variable | Sequence[nn.Variable]) -> Traced:
    """Trace a graph as `trace` does, and keep which variable and function is which site and layer."""
    roots = unfuse([outputs] if isinstance(outputs, nn.Variable) else list(outputs))
    functions = functions_of(roots)
    tracer = _Tracer(parameter_names())
    for order, function in enumerate(functions):
        tracer.visit(order, function)
    for function in functions:
        tracer.find_sites(function, roots)
    place = {output: order for order, function in enumerate(functions) for output in function.outputs}
    sites = _named(tracer.sites, place)
    layers = {}
    readers: dict[nn.Variable, list[str]] = {variable: [] for variable in sites}
    for function, layer in tracer.layers.items():
        read = [v for v in dict.fromkeys(tracer.tensors[function.inputs[0]].stored) if v in sites]
        for variable in read:
            if layer.name not in readers[variable]:
                readers[variable].append(layer.name)
        names = tuple(sites[v].name for v in read)
        layers[function] = attrs.evolve(layer, input=names[0] if names else None, inputs=names)
    sites = {v: attrs.evolve(site, readers=readers[v]) for v, site in sites.items()}
    return Traced(Network(layers.values(), sites.values()), tuple(roots), sites, layers)


def trace(outputs: nn.Variable | Sequence[nn.Variable]) -> Network:
    """Find the layers and activation sites of a graph.

    A site is a tensor that is stored: what a layer, a sum or an average pooling reads, followed upwards
    through functions that only move or pick numbers (max pooling, reshape, concatenation, padding with
    zeros), and the output of every ReLU. A tensor that several functions read is one site. Arithmetic on the
    network's input is preparation: the site "input" is what the first layer reads. The network's own output
    is no site.

    Args:
        outputs: output of a graph, or several; built here, by a user, or loaded with `NnpLoader`.

    Returns:
        Layers and activation sites in execution order.

    Raises:
        RewriteError: the graph holds a fused function that cannot be taken apart.

    Example:
        >>> import nnabla.functions as F, nnabla.parametric_functions as PF
        >>> x = nn.Variable((4, 3, 8, 8))
        >>> y = PF.affine(F.relu(PF.convolution(x, 6, (3, 3), name="first")), 2, name="last")
        >>> [site.name for site in trace(y).activations]
        ['input', 'first/conv/relu']
        >>> [layer.macs for layer in trace(y).layers]
        [5832, 432]
    """
    return trace_graph(outputs).network
