"""Atomic writes and nearest words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nnmpq.files import atomic_write, nearest


@pytest.mark.parametrize("content", ["größe: 3\n", b"\x00\xff\r\n", ""])
def test_writes_text_and_bytes_as_given(tmp_path: Path, content):
    path = tmp_path / "new" / "folder" / "file"
    atomic_write(path, content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode("utf-8"))


def test_leaves_no_other_file(tmp_path: Path):
    atomic_write(tmp_path / "a", "one")
    atomic_write(tmp_path / "a", "two")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "two"


def test_failure_keeps_the_old_file_and_no_half_one(tmp_path: Path, monkeypatch):
    atomic_write(tmp_path / "a", "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(tmp_path / "a", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_data_is_on_disk_before_the_name_changes(tmp_path: Path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *names: (order.append("replace"), replace(*names)))
    atomic_write(tmp_path / "a", "x")
    assert order == ["fsync", "replace"]


def test_others_may_read_it(tmp_path: Path):
    atomic_write(tmp_path / "a", "x")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_nearest():
    assert nearest("pow_b_xmax", ["pow2_b_xmax", "uniform_b_xmax", "pact"]) == "pow2_b_xmax"
    assert nearest("conv1", ["conv1"]) == "conv1"
    assert nearest("anything", []) == ""
