from __future__ import annotations

import nnabla as nn
import numpy as np
import pytest
from scipy import stats

from nnmpq.models.truncated_normal import TruncatedNormalInitializer


@pytest.mark.parametrize("limit", [0.5, 2.0])
def test_it_has_the_distribution_of_scipy(limit: float) -> None:
    numbers = TruncatedNormalInitializer(0.1, limit, np.random.RandomState(0))((50, 40, 5))
    assert numbers.shape == (50, 40, 5) and numbers.dtype == np.float32
    expected = stats.truncnorm(-limit, limit, scale=0.1)
    assert stats.kstest(numbers.ravel(), expected.cdf).pvalue > 0.01
    assert numbers.std() == pytest.approx(expected.std(), rel=0.02)


def test_seeds() -> None:
    first, again, other = (TruncatedNormalInitializer(1.0, rng=np.random.RandomState(s))((9,)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    nn.seed(5)
    own = TruncatedNormalInitializer(1.0)((9,))
    nn.seed(5)
    np.testing.assert_array_equal(TruncatedNormalInitializer(1.0)((9,)), own)
