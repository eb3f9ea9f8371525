from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest

from nnmpq.export.integer.program import ExportError
from nnmpq.export.nnablart.standard import EQUAL, RUNS, standard
from nnmpq.graph.functions import functions_of

SHAPE = (2, 3, 4, 6)
# Comparisons at these: ties, both zeros, the smallest numbers and what lies beside them.
EDGES = np.array([0.0, -0.0, 1.5, -1.5, np.nextafter(np.float32(1.5), np.float32(9)), 1e-45, -1e-45, 3e38], np.float32)


def _numbers() -> nn.Variable:
    values = np.random.RandomState(3).randint(-40, 90, SHAPE).astype(np.float32) / 8
    values.flat[: len(EDGES)] = EDGES
    return nn.Variable.from_numpy_array(values)


@pytest.mark.parametrize(
    "build",
    [
        F.relu6,
        F.global_average_pooling,
        lambda x: F.mean(x, (2, 3)),
        lambda x: F.mean(x, (-1, -2), keepdims=True),
        lambda x: F.add_n(x, F.relu(x), F.abs(x)),
        lambda x: F.greater_equal_scalar(x, 1.5),
        lambda x: F.less_scalar(x, 1.5),
        lambda x: F.greater_equal_scalar(x, 0.0),
        lambda x: F.less_scalar(x, 1e-45),
    ],
    ids=["ReLU6", "GlobalAveragePooling", "Mean", "Mean kept", "AddN", "at least", "less", "at least 0", "less tiny"],
)
def test_what_the_runtime_lacks_is_computed_by_what_it_has(build) -> None:
    y = build(_numbers())
    assert any(f.info.type_name in EQUAL for f in functions_of([y]))
    (made,) = standard([y])
    assert {f.info.type_name for f in functions_of([made])} <= RUNS
    y.forward()
    made.forward()
    assert made.shape == y.shape
    np.testing.assert_array_equal(made.d, y.d)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (F.sigmoid, "Sigmoid: nnabla-c-runtime does not have it"),
        (lambda x: F.fixed_point_quantize(x, True, 4, 0.5), "FixedPointQuantize: .* the target c99"),
        (lambda x: F.max_pooling(x, (3, 3), (2, 2), ignore_border=False), "MaxPooling: ignore_border = False"),
        (lambda x: F.mean(x, 1), r"Mean over axes \[1\]"),
        (lambda x: F.pad(x, (1, 1), "reflect"), "Pad: mode = reflect"),
        (lambda x: PF.batch_normalization(x, batch_stat=True), "BatchNormalization: batch_stat = True"),
        (lambda x: PF.affine(x, 2, base_axis=2), "Affine: base_axis = 2"),
    ],
)
def test_what_has_no_equal_is_refused_by_name(build, message: str) -> None:
    nn.clear_parameters()
    with pytest.raises(ExportError, match=message):
        standard([build(nn.Variable(SHAPE))])
