"""Attribution maps: which pixels of the last map speak for a class, and how well a student keeps a teacher's rank."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import nnabla as nn
import nnabla.functions as F

from nnmpq.cost import FLOAT_BITS, Bits
from nnmpq.graph.functions import functions_of
from nnmpq.graph.network import Layer
from nnmpq.graph.rewrite import RewriteError, copy_function
from nnmpq.quantizers.scalars import detached

# Keeps a map of zeros from dividing by zero; far below the squares of any other.
TINY = 1e-12
# Quantizers of activations, by the type names of their fused cores.
CORES = ("UniformQuantizerCore", "Pow2QuantizerCore", "MixtureCore")


def feature_map(logits: nn.Variable) -> nn.Variable:
    """Return the last map of more than one pixel in front of the logits, shape (B, C, H, W).

    Args:
        logits: of a float or quantized network, shape (B, classes).

    Raises:
        ValueError: there is none.

    Example:
        >>> import nnabla.parametric_functions as PF
        >>> x = nn.Variable((2, 3, 8, 6))
        >>> feature_map(PF.affine(F.global_average_pooling(F.relu(x)), 4)).shape
        (2, 3, 8, 6)
    """
    v = logits
    while v.ndim != 4 or v.shape[2] * v.shape[3] == 1:
        if v.parent is None:
            raise ValueError(
                "no feature map of more than one pixel lies in front of the logits: there is no attribution"
            )
        v = v.parent.inputs[0]
    return v


def attribution(logits: nn.Variable, labels: nn.Variable) -> nn.Variable:
    """Return the attribution map of each image's class.

    A = relu(sum_c w_c f_c), w_c = sum over pixels of d logit_label / d f_c

    with f the last feature map. Behind global average pooling and one affine layer w is that layer's row of the class,
    and no gradient graph is built; else one of the layers behind f alone is.

    Args:
        logits: shape (B, classes).
        labels: shape (B, 1), the classes that the maps speak for.

    Returns:
        Shape (B, H * W), at least 0; differentiable by everything that the map and the head depend on.

    Raises:
        ValueError: there is no feature map.

    Source:
        Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2; Wang et al., "Generalizable Mixed-Precision
        Quantization via Attribution Rank Preservation", ICCV 2021, section 3.2.
    """
    features = feature_map(logits)
    weight = _affine_weight(logits, features)
    return generic(logits, features, labels) if weight is None else closed_form(weight, features, labels)


def closed_form(weight: nn.Variable, features: nn.Variable, labels: nn.Variable) -> nn.Variable:
    """Return the attribution behind global average pooling and an affine layer.

    Args:
        weight: of the affine layer, shape (C, classes).
        features: the map, shape (B, C, H, W).
        labels: shape (B, 1).
    """
    return _weighted(F.affine(_one_hot(labels, weight.shape[1]), F.transpose(weight, (1, 0))), features)


def generic(logits: nn.Variable, features: nn.Variable, labels: nn.Variable) -> nn.Variable:
    """Return the attribution by the gradient's own graph, whatever lies between the map and the logits.

    Quantizers there are straight through: what is above their range has a gradient, what a ReLU cuts off has none.

    Args:
        logits: shape (B, classes).
        features: the map, shape (B, C, H, W).
        labels: shape (B, 1).
    """
    head = _straight(logits, features)
    score = F.sum(F.mul2(head, _one_hot(labels, logits.shape[1])))
    gradient = _standard(nn.grad([score], [features])[0])
    return _weighted(F.sum(gradient, axis=(2, 3)), features)


def imitation(student: nn.Variable, teacher: nn.Variable, power: nn.Variable | float) -> nn.Variable:
    """Return how far a student's attribution is from the teacher's, whose mass a power concentrates; shape ().

    mean over images and pixels of (n(A_student) - n(A_teacher^p))^2, n(A) = A / ||A||

    x^p rises with x for p > 0: the rank of the pixels is the teacher's at any p.

    Args:
        student: shape (B, pixels), at least 0.
        teacher: the same; it gets no gradient.
        power: p > 0, a number or a variable of shape (); it gets no gradient.

    Source:
        Wang et al., "Generalizable Mixed-Precision Quantization via Attribution Rank Preservation", equations 5 and 6.
    """
    # Their largest is 1 before the power: no power of it overflows, and n() does not care.
    largest = F.maximum_scalar(F.max(teacher, axis=1, keepdims=True), TINY)
    scaled = F.mul2(teacher, F.r_div_scalar(largest, 1.0))
    if isinstance(power, nn.Variable):
        exponent = F.broadcast(F.reshape(detached(power), (1, 1), inplace=False), scaled.shape)
        concentrated = F.pow2(scaled, exponent)
    else:
        concentrated = F.pow_scalar(scaled, power)
    difference = F.sub2(normalised(student), detached(normalised(concentrated)))
    return F.mean(F.mul2(difference, difference))


def normalised(maps: nn.Variable) -> nn.Variable:
    """Return each image's map divided by its length, shape (B, pixels); a map of zeros stays.

    Example:
        >>> y = normalised(nn.Variable.from_numpy_array([[3.0, 4.0], [0.0, 0.0]]))
        >>> y.forward()
        >>> y.d.round(4).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    squares = F.sum(F.mul2(maps, maps), axis=1, keepdims=True)
    return F.mul2(maps, F.pow_scalar(F.add_scalar(squares, TINY), -0.5))


def capacity_power(
    layers: tuple[Layer, ...], bits: Bits, product: float = 24.0, *, by_macs: bool = True
) -> nn.Variable | float:
    """Return the power for a student of these expected bits: the less it can hold, the more is concentrated.

    p = product * sum_l m_l / (E[w_l] E[a_l]), m_l the layer's share of the MACs, or 1 / L each as published

    Args:
        layers: those that are searched.
        bits: by site, expected bits as graph variables or numbers.
        product: bits of weight times bits of activation at which p is 1.
        by_macs: False counts each layer the same.

    Returns:
        p, shape (), or a number where no variable decides it.

    Raises:
        ValueError: there is no layer.

    Example:
        >>> from nnmpq.graph.network import Site
        >>> weight = Site("fc/W", "weight", "affine", (8, 4), True, layer="fc")
        >>> layer = Layer("fc", "affine", weight, None, 32, "x", (8,), (4,))
        >>> [round(capacity_power((layer,), {"fc/W": b, "x": b}), 2) for b in (2, 3, 4, 6)]
        [6.0, 2.67, 1.5, 0.67]

    Source:
        Wang et al., "Generalizable Mixed-Precision Quantization via Attribution Rank Preservation", equation 7, as the
        published code has it.
    """
    if not layers:
        raise ValueError("no layer's weight is searched: nothing has a capacity")
    total = sum(layer.macs for layer in layers)
    terms = []
    for layer in layers:
        factor = product * (layer.macs / total if by_macs else 1.0 / len(layers))
        read: Any = _widest([bits.get(name, FLOAT_BITS) for name in layer.inputs] or [FLOAT_BITS])
        area = bits.get(layer.weight.name, FLOAT_BITS) * read
        terms.append(F.mul_scalar(F.pow_scalar(area, -1.0), factor) if isinstance(area, nn.Variable) else factor / area)
    variables = [term for term in terms if isinstance(term, nn.Variable)]
    constant = float(sum(term for term in terms if not isinstance(term, nn.Variable)))
    return F.add_scalar(F.sum(F.stack(*variables)), constant) if variables else constant


def both_searched(layers: tuple[Layer, ...], sites: Collection[str]) -> tuple[Layer, ...]:
    """Return the layers that read searched activations too; all of them where none does."""
    return tuple(layer for layer in layers if layer.inputs and all(name in sites for name in layer.inputs)) or layers


def _widest(bits: list[Any]) -> Any:
    """The width that a layer reads at: of a concatenation the widest part's."""
    if len(bits) == 1 or not any(isinstance(b, nn.Variable) for b in bits):
        return max(bits) if len(bits) > 1 else bits[0]
    return F.max(F.stack(*(b if isinstance(b, nn.Variable) else F.constant(float(b), ()) for b in bits)))


def _one_hot(labels: nn.Variable, classes: int) -> nn.Variable:
    wanted = F.one_hot(labels, (classes,))
    wanted.need_grad = False
    return wanted


def _weighted(weights: nn.Variable, features: nn.Variable) -> nn.Variable:
    """relu(sum_c w_c f_c) of weights (B, C) as products of matrices, shape (B, pixels)."""
    images, channels, height, width = features.shape
    flat = F.reshape(features, (images, channels, height * width), inplace=False)
    row = F.reshape(weights, (images, 1, channels), inplace=False)
    return F.relu(F.reshape(F.batch_matmul(row, flat), (images, height * width), inplace=False))


def _affine_weight(logits: nn.Variable, features: nn.Variable) -> nn.Variable | None:
    """The weight of an affine layer that alone, but for a quantizer, follows global average pooling; else None."""
    affine = logits.parent
    if affine.info.type_name != "Affine" or affine.info.args["base_axis"] != 1:
        return None
    pooled = affine.inputs[0]
    while pooled.parent is not None and pooled.parent.info.type_name in CORES:
        pooled = pooled.parent.inputs[0]
    pooling = pooled.parent
    if pooling is None or pooling.info.type_name != "GlobalAveragePooling" or pooling.inputs[0] != features:
        return None
    return affine.inputs[1]


def _straight(logits: nn.Variable, features: nn.Variable) -> nn.Variable:
    """Copy what lies between a map and the logits, with quantizers that `nn.grad` can go through."""
    new = {features: features}
    for function in functions_of([logits]):
        if not any(v in new for v in function.inputs):
            continue
        inputs = [new.get(v, v) for v in function.inputs]
        if function.info.type_name in CORES:
            x, value = inputs[0], function.outputs[0]
            smooth = x if _signed(function) else F.relu(x)
            new[value] = F.add2(smooth, detached(F.sub2(value, smooth)))
        else:
            new.update(zip(function.outputs, copy_function(function, inputs)))
    return new[logits]


def _standard(gradient: nn.Variable) -> nn.Variable:
    """Rebuild what `nn.grad` wrote in Python of standard functions, as far as there are any: passes can copy those."""
    new: dict[nn.Variable, nn.Variable] = {}
    for function in functions_of([gradient]):
        name = function.info.type_name
        if name != "GradEndFunction" and not any(v in new for v in function.inputs):
            continue
        inputs, y = [new.get(v, v) for v in function.inputs], function.outputs[0]
        if name == "GradEndFunction":
            new[y] = F.constant(1.0, y.shape)
        elif name == "AffineDataGrad":
            new[y] = _affine_gradient(inputs[0], inputs[1], y.shape)
        elif name == "GlobalAveragePoolingDataGrad":
            new[y] = F.broadcast(F.mul_scalar(inputs[0], 1.0 / (y.shape[2] * y.shape[3])), y.shape)
        else:
            try:
                new.update(zip(function.outputs, copy_function(function, inputs)))
            except RewriteError:
                return gradient
    return new[gradient]


def _affine_gradient(g: nn.Variable, weight: nn.Variable, shape: tuple[int, ...]) -> nn.Variable:
    """The product g W^T, in the shape of what the layer reads."""
    matrix = F.reshape(weight, (weight.shape[0], weight.size // weight.shape[0]), inplace=False)
    rows = F.reshape(g, (g.size // matrix.shape[1], matrix.shape[1]), inplace=False)
    return F.reshape(F.affine(rows, F.transpose(matrix, (1, 0))), shape, inplace=False)


def _signed(core: Any) -> bool:
    arguments = core.info.args
    return min(arguments["grids"].low) < 0 if "grids" in arguments else bool(arguments["signed"])
