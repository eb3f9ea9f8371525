from __future__ import annotations

import itertools
import logging
import sys
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from nnmpq.data import DataError
from nnmpq.data.colour import COLOURS
from nnmpq.data.corrupt import CorruptImages
from nnmpq.data.pipeline import file_evaluation_batches
from nnmpq.data.slots import image_generator
from nnmpq.data.transforms import CentreCrop, PadCrop, RandomResizedCrop, Stretch, apply
from nnmpq.data.worker_pool import WorkerPool
from tests.data.listed import (
    COUNT,
    Listed,
    assert_same,
    children,
    epoch,
    pixels,
    settings,
    spoil,
    write_files,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def files(tmp_path: Path) -> Listed:
    return write_files(tmp_path)


@pytest.mark.parametrize("chosen", [RandomResizedCrop(), PadCrop(resize=8), Stretch(mirror=0.5)])
def test_training_batches_are_what_the_generator_of_each_image_draws(files: Listed, chosen: Any) -> None:
    batches = epoch(files, settings(training=chosen), number=2)
    assert len(batches) == COUNT // 5
    order = np.random.default_rng((3, 2)).permutation(COUNT)
    assert [label for _, labels in batches for label in labels[:, 0]] == order[:20].tolist()
    for images, labels in batches:
        assert images.shape == (5, 3, 8, 9) and images.dtype == np.uint8
        assert labels.shape == (5, 1) and labels.dtype == np.int32
        for image, label in zip(images, labels[:, 0]):
            expected = apply(pixels(label), chosen, (8, 9), image_generator(3, 2, int(label)), fill=7)
            np.testing.assert_array_equal(image.transpose(1, 2, 0), expected)


def test_generators_of_images_epochs_and_the_order_are_all_different() -> None:
    makers = [image_generator(*key) for key in itertools.product((0, 1), (0, 1), (0, 1))]
    makers += [np.random.default_rng((seed, number)) for seed in (0, 1) for number in (0, 1)]
    assert len({maker.random() for maker in makers}) == 12


def test_any_number_of_workers_makes_the_same_batches(files: Listed) -> None:
    spoil(files, 4, 9)
    chosen = settings(corrupt_share=0.1)
    alone = epoch(files, chosen)
    for workers in (1, 3):
        assert_same(alone, epoch(files, chosen, workers=workers))
    assert not np.array_equal(alone[0][0], epoch(files, chosen, seed=4)[0][0])
    other = epoch(files, chosen, number=1)
    shown = [{int(t): x for xs, ts in batches for x, t in zip(xs, ts[:, 0])} for batches in (alone, other)]
    both = set(shown[0]) & set(shown[1])
    assert len(both) > 5 and all(not np.array_equal(shown[0][i], shown[1][i]) for i in both)


def test_the_batch_size_changes_no_image(files: Listed) -> None:
    def shown(size: int) -> dict[int, bytes]:
        batches = epoch(files, settings(), size=size)
        return {int(t): x.tobytes() for xs, ts in batches for x, t in zip(xs, ts[:, 0])}

    single, several = shown(1), shown(4)
    assert len(single) == COUNT and len(several) == 20
    assert all(single[index] == image for index, image in several.items())
    assert epoch(files, settings(), size=COUNT + 1) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_covers_all_in_order(files: Listed, workers: int) -> None:
    batches = list(file_evaluation_batches(files, settings(), 5, workers=workers))
    assert [count for _, _, count in batches] == [5, 5, 5, 5, 3]
    assert np.concatenate([labels[:count, 0] for _, labels, count in batches]).tolist() == list(range(COUNT))
    images = np.concatenate([images[:count] for images, _, count in batches])
    for index, image in enumerate(images):
        expected = apply(pixels(index), CentreCrop(9), (8, 9), np.random.default_rng(0))
        np.testing.assert_array_equal(image.transpose(1, 2, 0), expected)
    last, labels, _ = batches[-1]
    assert last.shape == (5, 3, 8, 9) and not last[3:].any() and not labels[3:].any()


def test_numbers_are_normalised_pixels_in_memory_of_their_own(files: Listed) -> None:
    pixel_batches = list(file_evaluation_batches(files, settings(), 4, workers=1))
    number_batches = list(file_evaluation_batches(files, settings(output="float32"), 4, workers=1))
    for (x, _, _), (y, _, _) in zip(pixel_batches, number_batches):
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y, COLOURS["imagenet"].apply(x))
    # All batches were kept: none was overwritten by a later one in the same slot.
    assert len({x.tobytes() for x, _, _ in pixel_batches}) == len(pixel_batches) > 3 + 2


def test_grey_images_and_bounding_boxes(files: Listed) -> None:
    boxes = np.tile(np.array([[2, 3, 11, 11]], np.int32), (COUNT, 1))
    boxed = attrs.evolve(files, boxes=boxes)
    chosen = settings(training=Stretch(), evaluation=Stretch(), crop_to_box=True)
    images = np.concatenate([x[:n] for x, _, n in file_evaluation_batches(boxed, chosen, 5, workers=1)])
    for index, image in enumerate(images):  # the box has the size of the output: nothing is resized
        np.testing.assert_array_equal(image.transpose(1, 2, 0), pixels(index)[3:11, 2:11])
    grey = settings(channels=1, colour=COLOURS["half"])
    assert next(file_evaluation_batches(files, grey, 5))[0].shape == (5, 1, 8, 9)
    boxes[7] = [50, 50, 60, 60]
    with pytest.raises(DataError, match=r"image7.png: bounding box .* holds nothing"):
        list(file_evaluation_batches(boxed, chosen, 5))


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_training_images_are_replaced_named_and_counted(
    files: Listed, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(files, 6, 7, COUNT - 1)
    chosen = settings(training=Stretch())
    corrupt = CorruptImages(COUNT, share=0.2)
    order = np.random.default_rng((3, 0)).permutation(COUNT)
    with caplog.at_level(logging.WARNING, "nnmpq"):
        batches = epoch(files, chosen, size=1, workers=workers, corrupt=corrupt)
    replaced = {6: 8, 7: 8, COUNT - 1: 0}
    labels = [int(t[0, 0]) for _, t in batches]
    assert labels == [replaced.get(int(index), int(index)) for index in order]
    for (images, _), label in zip(batches, labels):
        expected = apply(pixels(label), Stretch(), (8, 9), np.random.default_rng(0))
        np.testing.assert_array_equal(images[0].transpose(1, 2, 0), expected)
    assert sorted(corrupt.found) == [6, 7, COUNT - 1]
    for index in (6, 7, COUNT - 1):
        assert sum(f"image{index}.png" in record.message for record in caplog.records) == 1
    caplog.clear()
    epoch(files, chosen, number=1, workers=workers, corrupt=corrupt)
    assert not caplog.records  # known ones are not read again


@pytest.mark.parametrize("workers", [0, 2])
def test_more_corrupt_images_than_the_share_stop_the_run(files: Listed, workers: int) -> None:
    spoil(files, 1, 2, 3)
    with pytest.raises(DataError, match=r"3 of 23 images.*share of 0.1.*image1.png.*image2.png.*image3.png"):
        epoch(files, settings(corrupt_share=0.1), size=1, workers=workers)
    everything = Listed(files.paths[1:4], files.labels[1:4])
    with pytest.raises(DataError, match="3 of 3 images"):
        epoch(everything, settings(corrupt_share=1), size=1, workers=workers)
    assert CorruptImages(1000, 0.0025).allowed == 2
    with pytest.raises(ValueError):
        CorruptImages(10, 1.5)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_in_evaluation_is_an_error_at_its_place(files: Listed, workers: int) -> None:
    spoil(files, 7, 8)
    files.paths[13].unlink()
    batches = file_evaluation_batches(files, settings(), 5, workers=workers)
    assert next(batches)[2] == 5
    with pytest.raises(DataError, match="image7.png"):
        next(batches)
    assert not children()


def test_wrong_arguments_are_told(files: Listed) -> None:
    with pytest.raises(DataError, match="batch size 0"):
        epoch(files, settings(), size=0)
    with pytest.raises(DataError, match="-1 workers"):
        epoch(files, settings(), workers=-1)
    with pytest.raises(DataError, match="at least 1"):
        WorkerPool(settings(), 5, 0)
    with WorkerPool(settings(), 5, 1) as pool, pytest.raises(DataError, match="other settings or another batch size"):
        epoch(files, settings(), size=4, workers=pool)
    with pytest.raises(DataError, match="longer than 4096"):
        list(file_evaluation_batches(Listed([Path("x" * 5000)], files.labels[:1]), settings(), 1))
