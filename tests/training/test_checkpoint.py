from __future__ import annotations

import json
import os
import shutil
from typing import Any

import numpy as np
import pytest

from nnmpq.training import checkpoint
from nnmpq.training.checkpoint import Checkpoint
from nnmpq.training.errors import CheckpointError

FILES = ("parameters.npz", "solvers.npz", "state.json", "manifest.json")


def last(run_folder):
    path = checkpoint.latest(run_folder)
    assert path is not None
    return path


def example(epoch=1):
    rng = np.random.default_rng(epoch)
    parameters = {
        "conv/W": rng.normal(size=(3, 2)).astype(np.float32),
        "file": np.array(np.nextafter(np.float32(1), np.float32(2))),
    }
    solvers: dict[str, Any] = {
        "weights|conv/W|t": np.array(7, np.int64),
        "weights|conv/W|m": np.array([np.inf, 1e-45], np.float32),
    }
    return Checkpoint(parameters, solvers, {"epoch": epoch, "loss": 0.1 + 0.2, "best": None})


def same(a, b):
    return a.keys() == b.keys() and all(
        np.asarray(a[k]).tobytes() == np.asarray(b[k]).tobytes() and np.shape(a[k]) == np.shape(b[k]) for k in a
    )


def test_round_trip_is_exact(tmp_path):
    path = checkpoint.save(tmp_path, 1, example())
    assert checkpoint.latest(tmp_path) == path
    found = checkpoint.read(path)
    assert same(found.parameters, example().parameters)
    assert same(found.solvers, example().solvers)
    assert found.state == example().state


def test_the_one_before_is_removed_only_after_the_new_is_in_place(tmp_path, monkeypatch):
    first = checkpoint.save(tmp_path, 1, example(1))
    seen, rename = [], os.rename

    def watched(source, target):
        seen.append(sorted(path.name for path in first.iterdir()))
        rename(source, target)

    monkeypatch.setattr(os, "rename", watched)
    second = checkpoint.save(tmp_path, 2, example(2))
    assert seen == [sorted(FILES)]
    assert [p.name for p in (tmp_path / "checkpoint").iterdir()] == [second.name]


def test_numbers_are_compared_as_numbers(tmp_path):
    for number in (9999, 10000):
        checkpoint.save(tmp_path, number, example(number))
    folder = tmp_path / "checkpoint"
    shutil.copytree(folder / "epoch-10000", folder / "epoch-0002")
    assert last(tmp_path).name == "epoch-10000"


class Killed(BaseException):
    """The process ends here."""


def killed_saves(tmp_path, monkeypatch):
    """Save once, then be killed at the first, second, ... call to the file system while saving the next."""
    for moment in range(100):
        folder = tmp_path / str(moment)
        checkpoint.save(folder, 1, example(1))
        calls = 0

        def counted(function, moment=moment):
            def call(*arguments, **keywords):
                nonlocal calls
                if calls == moment:
                    raise Killed
                calls += 1
                return function(*arguments, **keywords)

            return call

        with monkeypatch.context() as patch:
            for module, names in ((os, ("fsync", "rename", "open")), (shutil, ("rmtree",))):
                for name in names:
                    patch.setattr(module, name, counted(getattr(module, name)))
            try:
                checkpoint.save(folder, 2, example(2))
                return
            except Killed:
                pass
        yield folder


def test_killed_at_any_moment_there_is_always_a_whole_checkpoint(tmp_path, monkeypatch):
    found = []
    for folder in killed_saves(tmp_path, monkeypatch):
        path = checkpoint.latest(folder)
        assert path is not None
        state = checkpoint.read(path).state
        found.append(state["epoch"])
        assert not list((folder / "checkpoint").glob("*.partial"))
        checkpoint.save(folder, 3, example(3))
        assert checkpoint.read(last(folder)).state["epoch"] == 3
    assert set(found) == {1, 2} and found == sorted(found) and len(found) > 6


def test_half_written_folders_are_ignored_and_removed(tmp_path):
    path = checkpoint.save(tmp_path, 1, example())
    partial = path.with_name("epoch-0002.partial")
    shutil.copytree(path, partial)
    (partial / "manifest.json").unlink()
    assert checkpoint.latest(tmp_path) == path
    assert not partial.exists()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "empty"])
def test_damaged_files_are_refused_by_name(tmp_path, name, damage):
    path = checkpoint.save(tmp_path, 1, example()) / name
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        if damage == "truncated":
            content = content[: len(content) // 2]
        elif damage == "flipped":
            content[len(content) // 2] ^= 1
        else:
            content = bytearray()
        path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(path.parent)
    named = str(caught.value).split(":")[0]
    # A flipped bit in the manifest may also show up as the file whose checksum it changed.
    assert named == str(path) or (name == "manifest.json" and damage == "flipped")


def test_another_format_is_refused(tmp_path):
    path = checkpoint.save(tmp_path, 1, example()) / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(CheckpointError, match="format 2, this version reads 1"):
        checkpoint.read(path.parent)


def test_no_checkpoint_is_no_error(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "notes.txt").write_text("mine")
    assert checkpoint.latest(tmp_path) is None


def test_pickles_are_refused(tmp_path):
    path = checkpoint.save(tmp_path, 1, example()) / "parameters.npz"
    np.savez(path, **{"/a": np.array([{}], object)})
    with pytest.raises(CheckpointError):
        checkpoint.read(path.parent)
    with pytest.raises(ValueError, match="allow_pickle"):
        checkpoint._unpack(path.read_bytes())
