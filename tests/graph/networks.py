"""Small networks for the tests of the graph passes."""

from __future__ import annotations

from pathlib import Path

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
from nnabla.utils.nnp_graph import NnpLoader
from nnabla.utils.save import save


def plain(x: nn.Variable, test: bool = False) -> nn.Variable:
    """Convolution, batch normalization, ReLU, max pooling, affine with bias."""
    with nn.parameter_scope("first"):
        h = PF.convolution(x, 4, (3, 3), pad=(1, 1), with_bias=False)
        h = F.relu(PF.batch_normalization(h, batch_stat=not test))
    h = F.max_pooling(h, (2, 2))
    return PF.affine(h, 3, name="last")


def residual(x: nn.Variable, test: bool = False) -> nn.Variable:
    """Two blocks with a sum each; the second shortcut is subsampled and padded with zeros."""
    with nn.parameter_scope("stem"):
        h = F.relu(
            PF.batch_normalization(PF.convolution(x, 4, (3, 3), pad=(1, 1), with_bias=False), batch_stat=not test)
        )
    for name, channels, stride in (("block1", 4, 1), ("block2", 8, 2)):
        with nn.parameter_scope(name):
            s = h
            if stride > 1:
                s = F.average_pooling(s, (1, 1), (stride, stride))
                s = F.pad(s, (0, channels - s.shape[1], 0, 0, 0, 0))
            h = PF.convolution(h, channels, (3, 3), pad=(1, 1), stride=(stride, stride), with_bias=False, name="a")
            h = F.relu(PF.batch_normalization(h, batch_stat=not test, name="a"))
            h = PF.convolution(h, channels, (3, 3), pad=(1, 1), with_bias=False, name="b")
            h = F.relu(F.add2(PF.batch_normalization(h, batch_stat=not test, name="b"), s))
    return PF.affine(F.average_pooling(h, h.shape[2:]), 5, name="classes")


def varied(x: nn.Variable, test: bool = False) -> nn.Variable:
    """Depthwise convolution, deconvolution, concatenation, ReLU6, sigmoid and a residual sum."""
    h = F.relu(PF.convolution(x, 4, (3, 3), pad=(1, 1), name="stem"))
    d = PF.depthwise_convolution(h, (3, 3), pad=(1, 1), name="depthwise")
    d = F.relu6(PF.batch_normalization(d, batch_stat=not test, name="depthwise"))
    s = F.add2(d, h)
    u = F.relu(PF.deconvolution(s, 2, (2, 2), stride=(2, 2), name="up"))
    w = F.unpooling(h, (2, 2))
    c = F.concatenate(u, w, axis=1)
    g = F.sigmoid(PF.convolution(c, 4, (1, 1), name="gate"))
    return PF.affine(F.global_average_pooling(g), 3, name="last")


def foreign(folder: Path, batch: int = 2) -> tuple[nn.Variable, nn.Variable]:
    """Save `varied` as an .nnp, forget it, and load it as a user would; return its input and output."""
    x = nn.Variable((batch, 3, 8, 8))
    y = varied(x, test=True)
    path = str(folder / "foreign.nnp")
    save(
        path,
        {
            "networks": [{"name": "net", "batch_size": batch, "outputs": {"y": y}, "names": {"x": x}}],
            "executors": [{"name": "run", "network": "net", "data": ["x"], "output": ["y"]}],
        },
    )
    nn.clear_parameters()
    network = NnpLoader(path).get_network("net", batch_size=batch)
    return next(iter(network.inputs.values())), next(iter(network.outputs.values()))
