"""What reports say of choices that were made up by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from nnmpq.dynamic.evaluate import Choices
from nnmpq.dynamic.report import (
    Point,
    draw_energy,
    draw_examples,
    draw_shares,
    shares,
    write_points,
    write_shares,
)

BLOCKS = ["res1/block1", "res2/block1"]


def made(labels: list[int], chosen: list[list[int]], energy: list[float] | None = None, precisions: int = 2) -> Choices:
    """Choices with P(widest) 0.9 where the widest path was taken and 0.2 elsewhere."""
    taken = np.array(chosen)
    widest = np.where(taken == precisions - 1, 0.9, 0.2)
    probabilities = np.zeros((*taken.shape, precisions))
    probabilities[:, :, -1] = widest
    probabilities[:, :, 0] += 1 - widest
    count = len(labels)
    return Choices(
        np.array(labels),
        np.array(labels),
        np.zeros(count),
        taken,
        probabilities,
        np.array(energy if energy is not None else np.ones(count)),
        np.ones(count),
    )


FOUND = made([0, 0, 0, 2, 2], [[1, 0], [1, 1], [0, 0], [0, 1], [0, 1]])


def test_shares_are_counted_by_class_and_block() -> None:
    table = shares(FOUND, 4)
    np.testing.assert_allclose(table[0], [2 / 3, 1 / 3])
    np.testing.assert_allclose(table[2], [0, 1])


def test_a_class_without_images_has_no_share() -> None:
    table = shares(FOUND, 4)
    assert table.shape == (4, 2)
    assert np.isnan(table[[1, 3]]).all() and not np.isnan(table[[0, 2]]).any()


def test_of_three_precisions_only_the_widest_counts() -> None:
    np.testing.assert_allclose(shares(made([0, 0, 0, 0], [[0], [1], [2], [2]], precisions=3), 1), [[0.5]])


def test_the_file_has_a_line_a_block(tmp_path: Path) -> None:
    write_shares(tmp_path / "choices.csv", FOUND, BLOCKS, 4)
    lines = list(csv.DictReader((tmp_path / "choices.csv").read_text().splitlines()))
    assert [line["block"] for line in lines] == BLOCKS
    first, second = lines
    assert float(first["widest"]) == pytest.approx(2 / 5)
    # Two images of 0.9 and three of 0.2.
    assert float(first["probability"]) == pytest.approx((2 * 0.9 + 3 * 0.2) / 5, abs=1e-4)
    assert float(first["deviation"]) == pytest.approx(0.7 * np.sqrt(2 / 5 * 3 / 5), abs=1e-4)
    assert float(second["class_0"]) == pytest.approx(1 / 3, abs=1e-4)
    assert float(second["class_2"]) == 1.0
    assert second["class_1"] == "nan"


def pixels(path: Path) -> np.ndarray:
    return np.asarray(imread(path))[:, :, :3]


def test_the_shares_are_drawn_in_their_colours(tmp_path: Path) -> None:
    none, every = made([0, 1], [[0, 0]] * 2), made([0, 1], [[1, 1]] * 2)
    for name, found in (("none", none), ("every", every)):
        draw_shares(tmp_path / f"{name}.png", found, BLOCKS, 2)
    first, second = pixels(tmp_path / "none.png"), pixels(tmp_path / "every.png")
    # The colour map runs from dark violet to yellow; most of the picture is the table.
    dark, bright = np.array([0.267, 0.005, 0.329]), np.array([0.993, 0.906, 0.144])
    assert (np.abs(first - dark).max(axis=2) < 0.02).mean() > 0.2
    assert (np.abs(second - bright).max(axis=2) < 0.02).mean() > 0.2


def test_the_cheap_row_is_above_the_dear_one(tmp_path: Path) -> None:
    images = np.zeros((4, 3, 8, 8), np.uint8)
    # The dearest image is red, the cheapest blue; the others stay black.
    images[1, 2], images[3, 0] = 255, 255
    found = made([0] * 4, [[0, 0]] * 4, energy=[0.7, 0.6, 0.8, 0.9])
    draw_examples(tmp_path / "examples.png", found, images, count=1)
    drawn = pixels(tmp_path / "examples.png")
    half = len(drawn) // 2
    blue = (drawn - [0, 0, 1]).__abs__().max(axis=2) < 0.05
    red = (drawn - [1, 0, 0]).__abs__().max(axis=2) < 0.05
    assert blue[:half].any() and not blue[half:].any()
    assert red[half:].any() and not red[:half].any()


@pytest.mark.parametrize("channels", [1, 3])
def test_fewer_images_than_places_are_all_drawn(channels: int, tmp_path: Path) -> None:
    images = np.full((2, channels, 8, 8), 255, np.uint8)
    images[0] = 0
    found = made([0, 0], [[0, 0], [1, 1]], energy=[0.6, 0.9])
    draw_examples(tmp_path / "examples.png", found, images, count=10)
    drawn = pixels(tmp_path / "examples.png")
    assert drawn.shape[0] == 260
    assert (drawn.max(axis=2) < 0.05).sum() > 100


CURVE = [Point("price 1", 0.7, 0.8), Point("price 0", 0.9, 0.9), Point("price -1", 1.1, 0.85)]


def test_the_order_of_the_curve_does_not_change_the_picture(tmp_path: Path) -> None:
    for name, curve in (("a", CURVE), ("b", CURVE[::-1])):
        draw_energy(tmp_path / f"{name}.png", curve, [Point("W4A4", 1.0, 0.92)])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_every_uniform_network_is_in_the_picture(tmp_path: Path) -> None:
    draw_energy(tmp_path / "without.png", CURVE, [])
    draw_energy(tmp_path / "with.png", CURVE, [Point("W4A4", 1.0, 0.92), Point("W1A1", 0.55, 0.6)])

    def colours(path: Path) -> set[tuple[int, ...]]:
        found, counts = np.unique((pixels(path) * 255).astype(int).reshape(-1, 3), axis=0, return_counts=True)
        return {tuple(c) for c, n in zip(found.tolist(), counts) if n > 20 and max(c) - min(c) > 40}

    # matplotlib's second and third colour stand for the two.
    new = colours(tmp_path / "with.png") - colours(tmp_path / "without.png")
    assert {(255, 127, 14), (44, 160, 44)} <= new


def test_a_float_network_far_to_the_right_does_not_squeeze_the_rest(tmp_path: Path) -> None:
    draw_energy(tmp_path / "near.png", CURVE, [])
    draw_energy(tmp_path / "far.png", CURVE, [Point("FLOAT", 46.5, 0.86)])

    def width(path: Path) -> int:
        blue = np.argwhere(np.abs(pixels(path) * 255 - [31, 119, 180]).max(axis=2) < 3)
        # Below the legend, which has the colour too.
        return int(np.ptp(blue[blue[:, 0] > 120][:, 1]))

    assert width(tmp_path / "far.png") > 0.9 * width(tmp_path / "near.png") > 100
    gray = np.abs(pixels(tmp_path / "far.png") * 255 - 128).max(axis=2) < 3
    assert gray.sum(axis=1).max() > 50, "a level line stands for it"


def test_the_points_are_written_by_kind(tmp_path: Path) -> None:
    write_points(tmp_path / "energy.csv", {"gates": CURVE, "uniform": [Point("W4A4", 1.0, 0.123456)]})
    lines = list(csv.DictReader((tmp_path / "energy.csv").read_text().splitlines()))
    assert [line["kind"] for line in lines] == ["gates"] * 3 + ["uniform"]
    assert [float(line["energy"]) for line in lines] == [0.7, 0.9, 1.1, 1.0]
    assert lines[-1] == {"kind": "uniform", "name": "W4A4", "energy": "1.00000", "accuracy": "0.12346"}


def test_names_with_commas_read_back(tmp_path: Path) -> None:
    write_points(tmp_path / "energy.csv", {"uniform": [Point('W4, "A4"', 1.0, 0.5)]})
    (line,) = csv.DictReader((tmp_path / "energy.csv").read_text().splitlines())
    assert line["name"] == 'W4, "A4"'
