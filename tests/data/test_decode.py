from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nnmpq.data import DataError
from nnmpq.data.decode import read_image, read_view
from nnmpq.data.views import View


def picture(height: int = 6, width: int = 9) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """No sharp edges, other values at every place."""
    down, across = np.mgrid[0:height, 0:width] / 40
    waves = [np.sin(down + c) + np.cos(across * (c + 1)) for c in range(3)]
    return (127 + 60 * np.stack(waves, -1)).astype(np.uint8)


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "ppm", "webp"])
def test_lossless_kinds_keep_every_pixel(ending: str, tmp_path: Path) -> None:
    pixels = picture()
    options = {"lossless": True} if ending == "webp" else {}
    path = saved(tmp_path / f"a.{ending}", Image.fromarray(pixels), **options)
    np.testing.assert_array_equal(read_image(path), pixels)
    # ITU-R BT.601 luma.
    grey = pixels @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(read_image(path, 1)[:, :, 0], grey, atol=1)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_greyscale_becomes_three_equal_channels(ending: str, tmp_path: Path) -> None:
    path = saved(tmp_path / f"a.{ending}", Image.fromarray(smooth(20, 30)[:, :, 0]), **{"quality": 95})
    pixels = read_image(path)
    assert pixels.shape == (20, 30, 3)
    assert (pixels == pixels[:, :, :1]).all()
    np.testing.assert_array_equal(read_image(path, 1), pixels[:, :, :1])
    np.testing.assert_allclose(pixels[:, :, 0], smooth(20, 30)[:, :, 0], atol=8)


@pytest.mark.parametrize("ending", ["tiff", "jpg"])
def test_cmyk_is_ink_and_not_light(ending: str, tmp_path: Path) -> None:
    # Magenta and yellow ink are red, all black ink is black, no ink is white.
    for ink, light in (((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 255), (0, 0, 0)), ((0, 0, 0, 0), (255, 255, 255))):
        path = saved(tmp_path / f"a.{ending}", Image.new("CMYK", (16, 16), ink))
        np.testing.assert_allclose(read_image(path), np.broadcast_to(light, (16, 16, 3)), atol=3)


def test_palettes_give_their_colours(tmp_path: Path) -> None:
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    colours = np.array([[255, 0, 0], [0, 0, 255], [9, 8, 7]], np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    assert image.mode == "P"
    for options in ({}, {"transparency": b"\x00\x80\xff"}):
        path = saved(tmp_path / "a.png", image, **options)
        np.testing.assert_array_equal(read_image(path), colours[indices])
        np.testing.assert_allclose(read_image(path, 1)[:, :, 0], (colours @ [0.299, 0.587, 0.114])[indices], atol=1)


def test_alpha_is_left_out_and_few_or_many_bits_are_scaled(tmp_path: Path) -> None:
    pixels = picture()
    alpha = np.concatenate([pixels, pixels[:, :, :1]], -1)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.png", Image.fromarray(alpha))), pixels)
    deep = (pixels[:, :, 0].astype(np.uint16) << 8) + 0x7F
    np.testing.assert_array_equal(read_image(saved(tmp_path / "b.png", Image.fromarray(deep)), 1), pixels[:, :, :1])
    bits = pixels[:, :, 0] > 127
    np.testing.assert_array_equal(read_image(saved(tmp_path / "c.png", Image.fromarray(bits)), 1)[:, :, 0], bits * 255)


# Exif 2.3, table "Orientation": what is to be done to the stored picture.
EXIF: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", [*EXIF, 0, 9])
@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_exif_rotation_is_undone(orientation: int, ending: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = picture()
    path = saved(tmp_path / f"a.{ending}", Image.fromarray(stored), exif=exif)
    np.testing.assert_array_equal(read_image(path), EXIF.get(orientation, EXIF[1])(stored))


@pytest.mark.parametrize("margin", [None, 1.0])
def test_a_view_lies_in_the_upright_image(margin: float | None, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = smooth(240, 320)
    path = saved(tmp_path / "a.jpg", Image.fromarray(stored), exif=exif, quality=95, subsampling=0)
    sizes = []

    def upper_left(size: tuple[int, int]) -> View:
        sizes.append(size)
        return View((0, 0, 120, 80), (0, 0, 20, 30))

    found = read_view(path, upper_left, (20, 30), margin=margin)
    assert sizes == [(320, 240)]
    upright = np.rot90(stored, -1)[:80, :120].astype(float)
    expected = upright.reshape(20, 4, 30, 4, 3).mean((1, 3))
    assert np.abs(found - expected).mean() < 2


@pytest.mark.parametrize("channels", [1, 3])
def test_decoding_smaller_changes_little_and_happens(channels: int, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(smooth(403, 517)), quality=95)
    view = View((5, 3, 511, 400), (0, 0, 40, 50))
    exact, one, two = (read_view(path, lambda _: view, (40, 50), channels=channels, margin=m) for m in (None, 1.0, 2.0))
    assert exact.shape == one.shape == (40, 50, channels)
    for other in (one, two):
        assert not np.array_equal(exact, other)  # 1/8 and 1/4 of the pixels are others than all
        assert np.abs(exact.astype(int) - other).mean() < 1.5
    far = read_view(path, lambda _: view, (40, 50), channels=channels, margin=6.0)
    np.testing.assert_array_equal(exact, far)  # below twice the size nothing is gained


def test_cameras_that_save_two_pictures_show_the_first(tmp_path: Path) -> None:
    first, second = Image.fromarray(smooth(160, 240)), Image.new("RGB", (240, 160))
    path = saved(tmp_path / "a.jpg", first, format="MPO", save_all=True, append_images=[second], quality=95)
    assert np.abs(read_image(path).astype(int) - smooth(160, 240)).mean() < 3
    view = View((0, 0, 240, 160), (0, 0, 40, 60))
    assert np.abs(read_view(path, lambda _: view, (40, 60), margin=1.0).mean() - smooth(160, 240).mean()) < 2


def test_a_thin_image_is_not_shrunk_to_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.new("RGB", (1, 100), (200, 10, 10)))
    found = read_view(path, lambda size: View((0, 0, 1, 100), (0, 0, 4, 4)), (4, 4), margin=1.0)
    np.testing.assert_allclose(found, np.broadcast_to([200, 10, 10], (4, 4, 3)), atol=3)


def content(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(smooth(60, 80)).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0, 0.02, 0.4, 0.8])
def test_truncated_files_are_named(kind: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / "cut.img"
    whole = content(kind)
    path.write_bytes(whole)
    assert read_image(path).shape == (60, 80, 3)
    path.write_bytes(whole[: int(len(whole) * share)])
    for read in (read_image, lambda p: read_view(p, lambda s: View((0, 0, 64, 48), (0, 0, 8, 8)), (8, 8), margin=1.0)):
        with pytest.raises(DataError, match="cut.img"):
            read(path)


@pytest.mark.parametrize(
    "text", [b"no image at all" * 20, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\x00" * 99]
)
def test_what_is_no_image_says_what_is_read(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "n01440764_1.JPEG"
    path.write_bytes(text)
    with pytest.raises(DataError, match="n01440764_1.JPEG: no image.*JPEG, PNG"):
        read_image(path)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone.jpg: cannot be read: No such file"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_image(tmp_path)


def test_an_image_of_absurd_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", Image.new("L", (30, 30)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)  # Pillow warns above that
    assert read_image(path).shape == (30, 30, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # and refuses above twice that
    with pytest.raises(DataError, match="a.png: damaged: DecompressionBombError"):
        read_image(path)


@settings(deadline=None, max_examples=60)
@given(
    places=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
    kind=st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"]),
)
def test_damage_never_raises_anything_else(
    places: list[tuple[float, int]], kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "a"
    damaged = bytearray(content(kind))
    for where, value in places:
        damaged[int(where * len(damaged))] = value
    path.write_bytes(damaged)
    try:
        assert read_image(path).ndim == 3
    except DataError as error:
        assert str(path) in str(error)


def test_an_error_in_choosing_the_part_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.new("L", (4, 4)))
    with pytest.raises(ZeroDivisionError):
        read_view(path, lambda size: 1 // 0, (4, 4))  # type: ignore[return-value]
    with pytest.raises(MemoryError):
        read_view(path, lambda size: (_ for _ in ()).throw(MemoryError()), (4, 4))
