from __future__ import annotations

import numpy as np
import pytest

from nnmpq.data import ImageOptions, load
from nnmpq.data.batches import numbers_of
from nnmpq.data.colour import COLOURS, ColourStatistics, colours
from nnmpq.data.errors import DataError
from tests.data.made_up import real_folder


@pytest.mark.parametrize("name", COLOURS)
def test_numbers_are_pixels_less_mean_over_deviation(name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 4, 5)).astype(np.uint8)
    mean, deviation = (np.reshape(v, (-1, 1, 1)) for v in (COLOURS[name].mean, COLOURS[name].deviation))
    found = COLOURS[name].apply(pixels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, (pixels / 255.0 - mean) / deviation, atol=2e-6)


def test_one_number_serves_all_channels() -> None:
    grey = ColourStatistics((0.1307,), (0.3081,))
    white = np.full((1, 1, 2, 2), 255, np.uint8)
    np.testing.assert_allclose(grey.apply(white), (1 - 0.1307) / 0.3081, rtol=1e-6)
    np.testing.assert_allclose(grey.apply(white.repeat(3, 1)), (1 - 0.1307) / 0.3081, rtol=1e-6)


@pytest.mark.parametrize("deviation", [(0.5,), (0.5, 0.0), (0.5, -1.0), (0.5, float("inf"))])
def test_deviations_are_positive_and_one_a_channel(deviation: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="one positive number for each of 2 channels"):
        ColourStatistics((0.5, 0.5), deviation)


def test_an_unknown_name_has_a_nearest() -> None:
    with pytest.raises(DataError, match="'imagenet'"):
        colours("image_net")


def test_images_in_memory_take_statistics_by_name() -> None:
    plain = load("digits")
    coloured = load("digits", options=ImageOptions(colour="half"))
    images = plain.test.images[:4]
    np.testing.assert_allclose(numbers_of(plain, images), images / 8.0 - 1, atol=1e-6)
    np.testing.assert_allclose(numbers_of(coloured, images), images / 127.5 - 1, atol=1e-6)


def test_real_cifar10_has_mean_zero_and_deviation_one_with_its_own() -> None:
    data = load("cifar10", data_dir=str(real_folder("cifar-10-batches-py")), options=ImageOptions(colour="cifar10"))
    numbers = numbers_of(data, data.train.images[:10000]).astype(np.float64)
    np.testing.assert_allclose(numbers.mean((0, 2, 3)), 0, atol=0.02)
    np.testing.assert_allclose(numbers.std((0, 2, 3)), 1, atol=0.02)
