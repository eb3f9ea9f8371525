"""Networks in small of the kinds that the pass must take whole, from plain nnabla calls."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF


def _normalised(h: nn.Variable, test: bool) -> nn.Variable:
    return PF.batch_normalization(h, batch_stat=not test)


def _layer(h: nn.Variable, channels: int, kernel: int, name: str, test: bool, stride: int = 1) -> nn.Variable:
    with nn.parameter_scope(name):
        pad = (kernel // 2, kernel // 2)
        h = PF.convolution(h, channels, (kernel, kernel), pad=pad, stride=(stride, stride), with_bias=False)
        return _normalised(h, test)


def _inverted(h: nn.Variable, channels: int, stride: int, name: str, test: bool) -> nn.Variable:
    """Expand, depthwise, project; a sum without nonlinearity where the shape stays."""
    with nn.parameter_scope(name):
        e = F.relu6(_layer(h, 3 * h.shape[1], 1, "expand", test))
        with nn.parameter_scope("depthwise"):
            d = PF.depthwise_convolution(e, (3, 3), pad=(1, 1), stride=(stride, stride), with_bias=False)
            d = F.relu6(_normalised(d, test))
        p = _layer(d, channels, 1, "project", test)
        return F.add2(h, p) if h.shape == p.shape else p


def mobile(x: nn.Variable, test: bool = False) -> nn.Variable:
    """Inverted residual blocks with ReLU6, as MobileNetV2."""
    h = F.relu6(_layer(x, 8, 3, "stem", test, 2))
    h = _inverted(h, 8, 1, "block1", test)
    h = _inverted(h, 12, 2, "block2", test)
    h = _inverted(h, 12, 1, "block3", test)
    h = F.relu6(_layer(h, 24, 1, "head", test))
    return PF.affine(F.global_average_pooling(h), 5, name="classes")


def _inception(h: nn.Variable, name: str, test: bool) -> nn.Variable:
    with nn.parameter_scope(name):
        one = F.relu(_layer(h, 6, 1, "one", test))
        three = F.relu(_layer(F.relu(_layer(h, 4, 1, "three_reduce", test)), 8, 3, "three", test))
        five = F.relu(_layer(F.relu(_layer(h, 3, 1, "five_reduce", test)), 5, 5, "five", test))
        pooled = F.relu(_layer(F.max_pooling(h, (3, 3), (1, 1), pad=(1, 1)), 4, 1, "pool", test))
        return F.concatenate(one, three, five, pooled, axis=1)


def inception(x: nn.Variable, test: bool = False) -> nn.Variable:
    """Branches side by side and overlapping pooling that hangs over the border, as GoogLeNet."""
    h = F.relu(_layer(x, 8, 3, "stem", test))
    h = F.max_pooling(h, (3, 3), (2, 2), ignore_border=False)
    h = _inception(h, "a", test)
    h = F.max_pooling(h, (3, 3), (2, 2), ignore_border=False)
    h = _inception(h, "b", test)
    h = F.average_pooling(h, h.shape[2:])
    return PF.affine(h, 5, name="classes")


def _preactivated(h: nn.Variable, channels: int, stride: int, name: str, test: bool) -> nn.Variable:
    with nn.parameter_scope(name):
        with nn.parameter_scope("first"):
            a = F.relu(_normalised(h, test))
        s = h
        if s.shape[1] != channels:
            s = PF.convolution(a, channels, (1, 1), stride=(stride, stride), with_bias=False, name="shortcut")
        pads = dict(pad=(1, 1), with_bias=False)
        h = PF.convolution(a, channels, (3, 3), stride=(stride, stride), name="first", **pads)
        with nn.parameter_scope("second"):
            h = F.relu(_normalised(h, test))
        return F.add2(PF.convolution(h, channels, (3, 3), name="second", **pads), s)


def preactivated(x: nn.Variable, test: bool = False) -> nn.Variable:
    """Batch normalization and ReLU before each convolution; sums that are read raw."""
    h = PF.convolution(x, 8, (3, 3), pad=(1, 1), with_bias=False, name="stem")
    for number, (channels, stride) in enumerate(((8, 1), (16, 2), (16, 1))):
        h = _preactivated(h, channels, stride, f"block{number}", test)
    with nn.parameter_scope("last"):
        h = F.relu(_normalised(h, test))
    return PF.affine(F.global_average_pooling(h), 5, name="classes")


def transposed(x: nn.Variable, test: bool = False) -> list[nn.Variable]:
    """An encoder and decoder with a skip, grouped and dilated convolutions; logits and a map as outputs."""
    h = F.relu(_layer(x, 8, 3, "stem", test))
    small = F.relu(_layer(h, 16, 3, "down", test, 2))
    with nn.parameter_scope("wide"):
        wide = PF.convolution(small, 16, (3, 3), pad=(2, 2), dilation=(2, 2), group=4, with_bias=False)
        wide = F.relu(_normalised(wide, test))
    up = F.relu(PF.deconvolution(wide, 8, (2, 2), stride=(2, 2), name="up"))
    both = F.concatenate(h, F.sigmoid(up), axis=1)
    picture = PF.convolution(both, 3, (1, 1), name="picture")
    return [PF.affine(F.global_average_pooling(wide), 5, name="classes"), picture]


NETWORKS = {"mobile": mobile, "inception": inception, "preactivated": preactivated}
