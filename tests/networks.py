"""Small networks for the tests, built from plain nnabla calls as a user would."""

from __future__ import annotations

from pathlib import Path

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
from nnabla.utils.save import save

SHAPE = (3, 8, 8)


def residual(x: nn.Variable, test: bool = False) -> nn.Variable:
    """Convolution, a residual block whose sum has a ReLU, max and average pooling, affine with bias."""

    def normalised(h: nn.Variable, name: str) -> nn.Variable:
        return PF.batch_normalization(h, batch_stat=not test, name=name)

    h = F.relu(normalised(PF.convolution(x, 6, (3, 3), pad=(1, 1), with_bias=False, name="first"), "first"))
    s = normalised(PF.convolution(h, 6, (3, 3), pad=(1, 1), with_bias=False, name="second"), "second")
    h = F.relu(F.add2(h, s, inplace=True), inplace=True)
    h = F.max_pooling(h, (2, 2))
    h = F.average_pooling(h, h.shape[2:])
    return PF.affine(h, 4, name="last")


def foreign(x: nn.Variable, test: bool = False) -> nn.Variable:
    """Depthwise convolution, linear bottleneck, ReLU6, deconvolution, concatenation and a residual sum."""

    def normalised(h: nn.Variable, name: str) -> nn.Variable:
        return PF.batch_normalization(h, batch_stat=not test, name=name)

    h = F.relu(normalised(PF.convolution(x, 8, (3, 3), pad=(1, 1), name="stem"), "stem"))
    d = F.relu6(normalised(PF.depthwise_convolution(h, (3, 3), pad=(1, 1), name="depth"), "depth"))
    bottleneck = normalised(PF.convolution(d, 8, (1, 1), name="project"), "project")
    h = F.add2(h, bottleneck)
    small = F.relu(normalised(PF.convolution(h, 8, (3, 3), pad=(1, 1), stride=(2, 2), name="down"), "down"))
    large = F.relu(PF.deconvolution(small, 4, (2, 2), stride=(2, 2), name="up"))
    h = F.concatenate(h, large, axis=1)
    h = F.relu(normalised(PF.convolution(h, 8, (3, 3), pad=(1, 1), group=2, name="merge"), "merge"))
    return PF.affine(F.global_average_pooling(h), 4, name="head")


def images(batch: int = 4, seed: int = 0) -> nn.Variable:
    """An input Variable with numbers in it."""
    return nn.Variable.from_numpy_array(np.random.RandomState(seed).randn(batch, *SHAPE).astype(np.float32))


def save_foreign(path: Path, batch: int = 4) -> None:
    """Write the foreign network as a user's own `.nnp`."""
    x = nn.Variable((batch, *SHAPE))
    y = foreign(x)
    contents = {
        "networks": [{"name": "net", "batch_size": batch, "names": {"x": x}, "outputs": {"y": y}}],
        "executors": [{"name": "run", "network": "net", "data": ["x"], "output": ["y"]}],
    }
    save(str(path), contents)
