from __future__ import annotations

import os
from pathlib import Path

import pytest

from nnmpq.files import atomic_write, nearest


def test_text_and_bytes(tmp_path: Path) -> None:
    atomic_write(tmp_path / "new" / "a", "ä\n")
    atomic_write(tmp_path / "new" / "b", b"\x00\xff")
    assert (tmp_path / "new" / "a").read_bytes() == "ä\n".encode()
    assert (tmp_path / "new" / "b").read_bytes() == b"\x00\xff"


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    atomic_write(path, "old")

    def fails(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="no space"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nearest() -> None:
    assert nearest("epoch", ["epochs", "seed"]) == "epochs"
    assert nearest("anything", []) == ""
