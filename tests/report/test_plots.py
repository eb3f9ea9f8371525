from __future__ import annotations

import io
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest
from matplotlib.image import imread

from nnmpq.graph.network import Network
from nnmpq.report import bits_plot
from nnmpq.report.plots import ACTIVATION_COLOUR, WEIGHT_COLOUR
from tests.report.networks import chain


def pixels_of(picture: Path, colour: str) -> int:
    """How many pixels of a picture have exactly that colour."""
    wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
    image = np.rint(imread(picture)[..., :3] * 255).astype(int)
    return int((image == wanted).all(axis=-1).sum())


def test_picture_grows_with_the_layers_and_stays_a_png(tmp_path: Path) -> None:
    sizes = []
    for length in (2, 40, 110):
        bits_plot(tmp_path / "bits.png", chain(length), {})
        assert (tmp_path / "bits.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        sizes.append(imread(tmp_path / "bits.png").shape[1])
    assert sizes[0] < sizes[1] < sizes[2] < 3000


def test_bars_are_as_high_as_their_bits(tmp_path: Path) -> None:
    network = chain(6)
    areas = []
    for count in (2, 4, 8):
        bits = {layer.weight.name: count for layer in network.layers}
        bits_plot(tmp_path / "bits.png", network, bits)
        areas.append(pixels_of(tmp_path / "bits.png", WEIGHT_COLOUR))
    assert areas[1] / areas[0] == pytest.approx(2, rel=0.05)
    assert areas[2] / areas[0] == pytest.approx(4, rel=0.05)


def test_float_is_drawn_in_neither_colour(tmp_path: Path) -> None:
    network = chain(4)
    bits_plot(tmp_path / "bits.png", network, {})
    assert pixels_of(tmp_path / "bits.png", WEIGHT_COLOUR) == 0
    assert pixels_of(tmp_path / "bits.png", ACTIVATION_COLOUR) == 0
    bits_plot(tmp_path / "bits.png", network, {site.name: 3 for site in network.activations})
    assert pixels_of(tmp_path / "bits.png", WEIGHT_COLOUR) == 0
    assert pixels_of(tmp_path / "bits.png", ACTIVATION_COLOUR) > 1000


def test_a_failed_drawing_leaves_the_old_picture_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "bits.png"
    picture.write_bytes(b"old")

    def fail(self: matplotlib.figure.Figure, stream: io.BytesIO, **options: str) -> None:
        stream.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        bits_plot(picture, chain(2), {})
    assert picture.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [picture]


def test_a_network_without_layers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without layers"):
        bits_plot(tmp_path / "bits.png", Network((), ()), {})
