from __future__ import annotations

import json
from pathlib import Path

import attrs
import numpy as np
import pytest

from nnmpq.data import load
from nnmpq.training.errors import CheckpointError
from nnmpq.training.identity import check_same, identity
from tests.data.made_up import image_folder
from tests.training.tiny import data, experiment

HERE = Path("runs/TINY/checkpoint/epoch-0001")


def stored(chosen, images):
    return json.loads(json.dumps(identity(chosen, images)))


def test_the_same_run_goes_on():
    chosen = experiment(keep=("conv1/*:8",), finetune_learning_rate=0.1 + 0.2)
    check_same(HERE, stored(chosen, data()), identity(chosen, data()))


def test_every_changed_key_is_named_with_both_values():
    before = stored(experiment(), data())
    now = identity(experiment(batch_size=16, seed=5), data())
    with pytest.raises(CheckpointError) as caught:
        check_same(HERE, before, now)
    message = str(caught.value)
    assert "batch_size was 32, is 16; seed was 313, is 5" in message and str(HERE) in message
    assert "momentum" not in message


def test_a_key_of_another_version_is_named():
    before = stored(experiment(), data())
    before["experiment"]["gone"] = 1
    with pytest.raises(CheckpointError, match="gone was 1, is None"):
        check_same(HERE, before, identity(experiment(), data()))


def test_the_data_may_move_but_not_change():
    before = stored(experiment(data_dir="old"), data())
    check_same(HERE, before, identity(experiment(data_dir="new"), data()))
    images = data()
    pixel = np.array(images.train.images)
    pixel[3, 0, 1, 1] ^= 1
    changed = attrs.evolve(images, train=attrs.evolve(images.train, images=pixel))
    with pytest.raises(CheckpointError, match="data are not those"):
        check_same(HERE, before, identity(experiment(), changed))


def test_a_checkpoint_that_is_older_than_a_key_had_its_default():
    before = stored(experiment(), data())
    for key in ("crop_to_box", "corrupt_share", "keep"):
        del before["experiment"][key]
    check_same(HERE, before, identity(experiment(), data()))
    with pytest.raises(CheckpointError, match="corrupt_share was 0.01, is 0.5"):
        check_same(HERE, before, identity(experiment(corrupt_share=0.5), data()))


def test_of_images_in_files_the_list_counts_and_not_the_place(tmp_path):
    for place in ("here", "there"):
        image_folder(tmp_path / place)
    first, second = (load("image_folder", data_dir=str(tmp_path / place)) for place in ("here", "there"))
    chosen = experiment(dataset="image_folder", augmentation="none")
    before = stored(chosen, first)
    check_same(HERE, before, identity(chosen, second))
    fewer = load("image_folder", data_dir=str(tmp_path / "here"), train_images=7)
    (tmp_path / "there" / "train" / "cat" / "cat_0.JPEG").rename(tmp_path / "there" / "train" / "cat" / "a.JPEG")
    renamed = load("image_folder", data_dir=str(tmp_path / "there"))
    relabelled = attrs.evolve(first, test=attrs.evolve(first.test, labels=1 - first.test.labels))
    boxed = attrs.evolve(first, test=attrs.evolve(first.test, boxes=np.ones((4, 4), np.int32)))
    for other in (fewer, renamed, relabelled, boxed):
        with pytest.raises(CheckpointError, match="data are not those"):
            check_same(HERE, before, identity(chosen, other))
