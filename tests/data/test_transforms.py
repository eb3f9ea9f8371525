from __future__ import annotations

import math

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nnmpq.data import DataError
from nnmpq.data.colour import COLOURS, ColourStatistics, colours
from nnmpq.data.image_settings import ImageSettings
from nnmpq.data.transforms import (
    TRANSFORMS,
    CentreCrop,
    PadCrop,
    RandomResizedCrop,
    Stretch,
    Transform,
    apply,
    transform,
)
from nnmpq.data.views import View, render, within

SIZES = st.tuples(st.integers(1, 400), st.integers(1, 400))


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, channels)).astype(np.uint8)


def draws(chosen: Transform, size: tuple[int, int], output: tuple[int, int], count: int) -> list[View]:
    return [chosen.view(size, output, np.random.default_rng(seed)) for seed in range(count)]


@settings(deadline=None, max_examples=100)
@given(
    SIZES, st.tuples(st.integers(5, 300), st.integers(5, 300)), st.sampled_from(sorted(TRANSFORMS)), st.integers(0, 10)
)
def test_views_lie_in_the_image_and_in_the_output(
    size: tuple[int, int], output: tuple[int, int], name: str, seed: int
) -> None:
    view = transform(name).view(size, output, np.random.default_rng(seed))
    left, top, right, bottom = view.box
    assert 0 <= left < right <= size[1] + 1e-9 and 0 <= top < bottom <= size[0] + 1e-9
    y, x, height, width = view.place
    assert y >= 0 and x >= 0 and height >= 1 and width >= 1 and y + height <= output[0] and x + width <= output[1]
    image = np.zeros((*size, 1), np.uint8)
    assert apply(image, transform(name), output, np.random.default_rng(seed)).shape == (*output, 1)


def test_random_resized_crops_have_the_published_distribution() -> None:
    views = draws(RandomResizedCrop(), (1000, 1000), (224, 224), 3000)
    boxes = np.array([view.box for view in views])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area, ratio = width * height / 1e6, width / height
    assert 0.079 < area.min() and area.max() <= 1
    assert 0.74 < ratio.min() and ratio.max() < 1.35
    # The logarithm of the ratio is uniform from -log(4/3) to log(4/3), where the crop is small enough to fit.
    small = np.log(ratio[area < 0.7])
    assert abs(small.mean()) < 0.02
    assert abs(small.std() - 2 * math.log(4 / 3) / math.sqrt(12)) < 0.01
    # The area is uniform where every ratio fits: the mean from .08 to .7 is .39.
    assert abs(area[area < 0.7].mean() - 0.39) < 0.015
    # Corners are uniform over what is free.
    free = (1000 - width) > 200
    assert abs((boxes[free, 0] / (1000 - width[free])).mean() - 0.5) < 0.02
    assert 0.47 < np.mean([view.mirrored for view in views]) < 0.53


def test_what_fits_no_crop_gives_the_middle() -> None:
    # 10 pixels high: no crop of at least .5 of the area is at most 4:3 wide.
    view = RandomResizedCrop(area=(0.5, 1)).view((10, 1001), (8, 8), np.random.default_rng(0))
    assert view.box == (494, 0, 507, 10)  # 13 = round(10 * 4 / 3) wide
    view = RandomResizedCrop(area=(0.5, 1)).view((1001, 10), (8, 8), np.random.default_rng(0))
    assert view.box == (0, 494, 10, 507)  # 10 / (3 / 4) high
    assert RandomResizedCrop(area=(1, 1), ratio=(1, 1)).view((9, 9), (4, 4), np.random.default_rng(0)).box == (
        0,
        0,
        9,
        9,
    )


def test_mirroring_is_switched_on_and_off() -> None:
    for name in ("random_resized_crop", "pad_crop", "stretch"):
        never = TRANSFORMS[name](mirror=0)  # type: ignore[call-arg]
        always = TRANSFORMS[name](mirror=1)  # type: ignore[call-arg]
        image = noise(12, 12)
        plain, mirrored = (apply(image, t, (8, 8), np.random.default_rng(3)) for t in (never, always))
        np.testing.assert_array_equal(plain[:, ::-1], mirrored)
        assert not np.array_equal(plain, mirrored)


def test_pad_and_crop_shows_windows_of_the_padded_image() -> None:
    image = noise(7, 9)
    padded = np.full((11, 13, 3), 77, np.uint8)
    padded[2:9, 2:11] = image
    windows = {padded[t : t + 7, s : s + 9].tobytes(): (t, s) for t in range(5) for s in range(5)}
    seen = set()
    for seed in range(300):
        found = apply(image, PadCrop(pad=2, mirror=0), (7, 9), np.random.default_rng(seed), fill=77)
        seen.add(windows[found.tobytes()])
    assert len(seen) == 25  # every shift happens, and nothing else


def test_pad_and_crop_after_resizing() -> None:
    # 600x400 with the short side brought to 40: 60x40; a 32x32 window starts at 0..28 and 0..8.
    views = draws(PadCrop(resize=40, pad=0), (400, 600), (32, 32), 400)
    corners = np.array([view.box[:2] for view in views]) / 10
    np.testing.assert_allclose(corners, np.round(corners), atol=1e-9)
    assert corners.min(0).tolist() == [0, 0] and np.round(corners.max(0)).tolist() == [28, 8]
    assert all(abs(v.box[2] - v.box[0] - 320) < 1e-9 and v.place == (0, 0, 32, 32) for v in views)
    with pytest.raises(DataError, match="pad 4: from 0 to 3"):
        PadCrop().view((32, 32), (4, 8), np.random.default_rng(0))
    with pytest.raises(DataError, match="resize 20 and pad 2.*32x32"):
        PadCrop(resize=20, pad=2).view((400, 600), (32, 32), np.random.default_rng(0))


@pytest.mark.parametrize("size,box", [((375, 500), (58, 16)), ((500, 375), (16, 58)), ((256, 256), (16, 16))])
def test_the_centre_crop_is_resize_256_crop_224(size: tuple[int, int], box: tuple[int, int]) -> None:
    image = np.asarray(Image.fromarray(noise(*size)).resize((size[1], size[0]), Image.Resampling.BOX))
    resized = Image.fromarray(image).resize(
        (int(256 * size[1] / min(size)), int(256 * size[0] / min(size))), Image.Resampling.BILINEAR
    )
    expected = np.asarray(resized)[box[1] : box[1] + 224, box[0] : box[0] + 224]
    found = apply(image, CentreCrop(256), (224, 224), np.random.default_rng(0))
    assert np.abs(found.astype(int) - expected).max() <= 1  # two ways to round
    np.testing.assert_array_equal(found, apply(image, CentreCrop(), (224, 224), np.random.default_rng(9)))


def test_a_centre_crop_larger_than_what_is_resized_is_refused() -> None:
    with pytest.raises(DataError, match="resize 200 gives less than the output of 224x224"):
        CentreCrop(200).view((300, 300), (224, 224), np.random.default_rng(0))
    assert apply(noise(50, 50), CentreCrop(), (20, 80), np.random.default_rng(0)).shape == (20, 80, 3)


def test_stretching_takes_all() -> None:
    image = noise(10, 30)
    expected = np.asarray(Image.fromarray(image).resize((5, 6), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(apply(image, Stretch(), (6, 5), np.random.default_rng(0)), expected)


def test_a_view_of_a_shrunk_image_is_the_same_part() -> None:
    large = np.kron(noise(20, 30), np.ones((4, 4, 1), np.uint8))
    view = View((8, 16, 72, 48), (0, 0, 8, 16))
    small = render(Image.fromarray(noise(20, 30)), view, (8, 16), shrunk=4)
    np.testing.assert_array_equal(small, noise(20, 30)[4:12, 2:18])
    np.testing.assert_array_equal(render(Image.fromarray(large), view, (8, 16), resample="nearest"), small)


def test_boxes_are_cut_to_the_image() -> None:
    assert within((2, 3, 10, 9), (20, 30)) == (2, 3, 10, 9)
    assert within((-5, -5, 99, 99), (20, 30)) == (0, 0, 30, 20)
    for empty in ((30, 0, 40, 9), (0, 20, 5, 25), (5, 5, 5, 9), (9, 5, 3, 9)):
        with pytest.raises(DataError, match="20x30"):
            within(empty, (20, 30))
    with pytest.raises(DataError, match="is no box"):
        within((0, 0, math.nan, 5), (20, 30))
    assert View((1, 2, 3, 4), (0, 0, 1, 1)).moved(10, 20).box == (11, 22, 13, 24)


def test_colour_is_the_published_formula() -> None:
    images = noise(5, 7).transpose(2, 0, 1)[None]
    # pixel / 255, minus mean, over standard deviation
    expected = (images / 255 - np.reshape([0.485, 0.456, 0.406], (3, 1, 1))) / np.reshape(
        [0.229, 0.224, 0.225], (3, 1, 1)
    )
    found = colours("imagenet").apply(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    half = COLOURS["half"].apply(images)
    np.testing.assert_allclose(half, images / 127.5 - 1, atol=1e-6)


def test_wrong_names_and_settings_are_told() -> None:
    with pytest.raises(DataError, match="'random_resized_crop'"):
        transform("random_crop_resized")
    with pytest.raises(DataError, match="'imagenet'"):
        colours("imagenette")
    with pytest.raises(DataError, match="2 channels"):
        ColourStatistics((0.5, 0.5), (0.5,))
    with pytest.raises(DataError, match="2 channels"):
        ColourStatistics((0.5, 0.5), (0.5, 0.0))
    with pytest.raises(DataError, match="images have 1"):
        ImageSettings(channels=1)
    with pytest.raises(DataError, match="resize 100"):
        ImageSettings(evaluation=CentreCrop(100))
    for wrong in ({"height": 0}, {"channels": 4}, {"margin": 0.5}, {"prefetch": 0}, {"resample": "x"}, {"fill": 256}):
        with pytest.raises(ValueError):
            ImageSettings(**wrong)
    assert attrs.evolve(ImageSettings(), height=96, width=64).size == (96, 64)
