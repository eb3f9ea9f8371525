"""From any nnabla graph to its layers and activation sites."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import nnabla as nn

from nnmpq.graph.network import ACTIVATION, BIAS, WEIGHT, Layer, Network, Site

LAYER_KIND = {
    "Convolution": "convolution",
    "DepthwiseConvolution": "depthwise",
    "Deconvolution": "deconvolution",
    "DepthwiseDeconvolution": "deconvolution",
    "Affine": "affine",
}
# The axis of the output channels in each layer type's weight.
CHANNEL_AXIS = {
    "Convolution": 0,
    "DepthwiseConvolution": 0,
    "Deconvolution": 1,
    "DepthwiseDeconvolution": 0,
    "Affine": 1,
}
RECTIFIERS = {"ReLU", "ReLU6"}
UNSIGNED_NONLINEARITIES = {"Sigmoid", "HardSigmoid", "Softmax", "SoftPlus", "Abs"}
NONLINEARITIES = UNSIGNED_NONLINEARITIES | {
    "LeakyReLU",
    "PReLU",
    "ELU",
    "SELU",
    "CELU",
    "GELU",
    "Tanh",
    "HardTanh",
    "Swish",
    "Mish",
    "Sinc",
    "Sign",
}
SUMS = {"Add2", "AddN", "Sub2", "Mul2"}
POOLS = {"AveragePooling", "GlobalAveragePooling", "Mean", "SumPooling"}
# Functions whose output holds only numbers of their inputs, so that the tensor stored before them serves.
GRID_PRESERVING = {
    "MaxPooling",
    "Reshape",
    "Transpose",
    "Identity",
    "Pad",
    "Slice",
    "Split",
    "Flip",
    "Dropout",
    "Concatenate",
    "Stack",
    "Broadcast",
    "Unpooling",
    "Shift",
    "DepthToSpace",
    "SpaceToDepth",
}


def functions_of(outputs: Sequence[nn.Variable]) -> list:
    """Return the functions that compute the outputs, in execution order, each once."""
    seen: set = set()
    ordered: list = []

    def add(function: nn.function.Function) -> None:
        if function not in seen:
            seen.add(function)
            ordered.append(function)

    for output in outputs:
        output.visit(add)
    return ordered


def parameter_names() -> dict:
    """Return the names of the current scope's parameters by their data."""
    return {v.data: name for name, v in nn.get_parameters(grad_only=False).items()}


@attrs.define
class _Tracer:
    """What is known of the tensors met so far; lives for one call of `trace`."""

    names: dict
    producer: dict = attrs.field(factory=dict)
    nearest: dict = attrs.field(factory=dict)  # variable -> name of the layer upstream that ran last, and its order
    sites: dict = attrs.field(factory=dict)  # variable -> activation site
    order: dict = attrs.field(factory=dict)
    taken: set = attrs.field(factory=set)

    def parameter_name(self, variable: nn.Variable, fallback: str) -> str:
        """The name of a leaf: its parameter's, else its own, else one made from the place in the graph."""
        return self.names.get(variable.data) or variable.name or fallback

    def is_leaf(self, variable: nn.Variable) -> bool:
        return variable not in self.producer

    def stored(self, variable: nn.Variable) -> list:
        """The tensors whose numbers this one holds, found through grid-preserving functions."""
        function = self.producer.get(variable)
        if function is None or variable in self.sites:
            return [variable]
        name = function.info.type_name
        if name in GRID_PRESERVING:
            return [v for source in function.inputs for v in self.stored(source)]
        return [variable]

    def unique(self, name: str) -> str:
        candidate, number = name, 1
        while candidate in self.taken:
            number += 1
            candidate = f"{name}_{number}"
        self.taken.add(candidate)
        return candidate

    def add_site(self, variable: nn.Variable, kind: str, signed: bool) -> None:
        if variable in self.sites:
            return
        layer = self.nearest.get(variable, (-1, ""))[1]
        name = self.unique(f"{layer}/{kind}" if layer else kind)
        self.sites[variable] = Site(name, ACTIVATION, kind, variable.shape[1:], signed)

    def classify(self, variable: nn.Variable, reader: str) -> None:
        """Make the tensor a site of the kind that its producer says; `reader` is "layer", "sum" or "pool"."""
        function = self.producer.get(variable)
        if variable in self.sites:
            return
        if function is None:
            if variable.data not in self.names and not _is_constant(variable):
                self.add_site(variable, "input", True)
            return
        name = function.info.type_name
        if name == "Constant":
            return
        if name in RECTIFIERS:
            self.add_site(variable, "relu", False)
        elif name in SUMS and not self.is_scaling(function):
            self.add_site(variable, "sum", self.signed_result(function))
        elif name in POOLS:
            self.add_site(variable, "pool", self.signed_result(function))
        elif name in NONLINEARITIES:
            self.add_site(variable, "nonlinearity", name not in UNSIGNED_NONLINEARITIES)
        else:
            self.add_site(variable, "branch" if reader == "sum" else "linear", True)

    def is_scaling(self, function: nn.function.Function) -> bool:
        """Whether a sum or product has a parameter among its operands: a scale or shift, not a joining of branches."""
        return any(self.is_leaf(v) and v.data in self.names for v in function.inputs)

    def signed_result(self, function: nn.function.Function) -> bool:
        """Whether a sum or pool can be negative: it is when one of its sources can."""
        if function.info.type_name == "Sub2":
            return True
        return any(self.signed(v) for v in function.inputs)

    def signed(self, variable: nn.Variable) -> bool:
        sources = self.stored(variable)
        for source in sources:
            function = self.producer.get(source)
            if source in self.sites:
                if self.sites[source].signed:
                    return True
            elif function is None or function.info.type_name != "Constant":
                name = function.info.type_name if function is not None else ""
                if name in RECTIFIERS or name in UNSIGNED_NONLINEARITIES:
                    continue
                if name in POOLS or (name in SUMS and not self.is_scaling(function)):
                    if self.signed_result(function):
                        return True
                    continue
                return True
        return False


def _is_constant(variable: nn.Variable) -> bool:
    return variable.parent is not None and variable.parent.info.type_name == "Constant"


def _macs(kind: str, inputs: Sequence[nn.Variable], output: nn.Variable, base_axis: int) -> int:
    """Multiplications and accumulations per image: every weight, once for each place it is used at."""
    weight = inputs[1].shape
    weights = 1
    for length in weight:
        weights *= length
    if kind == "affine":
        places = output.shape[1:base_axis]
    elif kind == "deconvolution":
        places = inputs[0].shape[base_axis + 1 :]
    else:
        places = output.shape[base_axis + 1 :]
    for length in places:
        weights *= length
    return weights


def trace_with_variables(
    outputs: nn.Variable | Sequence[nn.Variable],
) -> tuple[Network, dict[nn.Variable, Site], dict]:
    """Trace a graph; also return the activation site of each variable, and the layer of each function."""
    roots = [outputs] if isinstance(outputs, nn.Variable) else list(outputs)
    functions = functions_of(roots)
    tracer = _Tracer(parameter_names())
    kinds: list[tuple] = []
    for order, function in enumerate(functions):
        name = function.info.type_name
        for output in function.outputs:
            tracer.producer[output] = function
        upstream = max((tracer.nearest[v] for v in function.inputs if v in tracer.nearest), default=None)
        kind = LAYER_KIND.get(name)
        if kind is not None and all(tracer.is_leaf(v) for v in function.inputs[1:]):
            weight = function.inputs[1]
            weight_name = tracer.parameter_name(weight, f"{name.lower()}_{len(kinds) + 1}/W")
            layer_name = weight_name.rsplit("/", 1)[0] if "/" in weight_name else weight_name
            upstream = (order, layer_name)
            kinds.append((function, kind, layer_name, weight_name))
        if upstream is not None:
            for output in function.outputs:
                tracer.nearest[output] = upstream
    layer_functions = {function for function, *_ in kinds}
    for function in functions:
        name = function.info.type_name
        if function in layer_functions:
            for variable in tracer.stored(function.inputs[0]):
                tracer.classify(variable, "layer")
        elif name in SUMS and not tracer.is_scaling(function):
            for operand in function.inputs:
                for variable in tracer.stored(operand):
                    tracer.classify(variable, "sum")
        elif name in POOLS:
            for variable in tracer.stored(function.inputs[0]):
                tracer.classify(variable, "pool")
        elif name in RECTIFIERS:
            tracer.classify(function.outputs[0], "relu")
    return _assemble(tracer, functions, kinds, roots)


def _assemble(tracer: _Tracer, functions: list, kinds: list, roots: list) -> tuple[Network, dict, dict]:
    """Put layers and sites together, in execution order; what the network returns is no site."""
    for root in roots:
        tracer.sites.pop(root, None)
    readers: dict = {variable: [] for variable in tracer.sites}
    layers: list[Layer] = []
    layer_of: dict = {}
    for function, kind, layer_name, weight_name in kinds:
        weight = function.inputs[1]
        axis = CHANNEL_AXIS[function.info.type_name]
        weight_site = Site(weight_name, WEIGHT, kind, weight.shape, True, layer_name, axis)
        bias_site = None
        if len(function.inputs) > 2:
            bias = function.inputs[2]
            bias_name = tracer.parameter_name(bias, f"{layer_name}/b")
            bias_site = Site(bias_name, BIAS, kind, bias.shape, True, layer_name, 0)
        base_axis = function.info.args.get("base_axis", 1)
        sources = [v for v in tracer.stored(function.inputs[0]) if v in tracer.sites]
        for source in sources:
            readers[source].append(layer_name)
        layer = Layer(
            layer_name,
            kind,
            weight_site,
            bias_site,
            _macs(kind, function.inputs, function.outputs[0], base_axis),
            tracer.sites[sources[0]].name if sources else None,
            function.inputs[0].shape[1:],
            function.outputs[0].shape[1:],
        )
        layers.append(layer)
        layer_of[function] = layer
    place = {output: order for order, function in enumerate(functions) for output in function.outputs}
    ordered = sorted(tracer.sites, key=lambda variable: place.get(variable, -1))
    by_variable = {v: attrs.evolve(tracer.sites[v], readers=tuple(dict.fromkeys(readers[v]))) for v in ordered}
    return Network(tuple(layers), tuple(by_variable.values())), by_variable, layer_of


def trace(outputs: nn.Variable | Sequence[nn.Variable]) -> Network:
    """Find the layers and activation sites of a graph.

    A tensor that several functions read is one site. A site is what is stored: the tensor that a layer, a sum or an
    average pooling reads, followed upwards through functions that only move or pick numbers (max pooling, reshape,
    concatenation, padding), and the output of every ReLU. The network's own outputs are not sites.

    Args:
        outputs: output of a graph, or several; built here, by a user, or loaded with `NnpLoader`.

    Returns:
        Layers and activation sites in execution order.

    Example:
        >>> import nnabla.functions as F, nnabla.parametric_functions as PF
        >>> x = nn.Variable((4, 3, 8, 8))
        >>> y = PF.affine(F.relu(PF.convolution(x, 6, (3, 3), name="first")), 2, name="last")
        >>> [site.name for site in trace(y).activations]
        ['input', 'first/conv/relu']
        >>> [layer.macs for layer in trace(y).layers]
        [5832, 432]
    """
    return trace_with_variables(outputs)[0]
