"""The command line: `data`, from nothing over a faulty server to counts, and what it says where it cannot."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nnmpq import __version__
from nnmpq.cli import COMMANDS, main
from nnmpq.data import DATASETS, DataError, Split
from nnmpq.data import command as module
from nnmpq.data.sources import SOURCES, RemoteFile, Source
from tests.data.publisher import Publisher, publishing

TRAIN, TEST = [0] * 1200 + [1] * 7, [0, 1, 2]


def load_toy(data_dir: str | None = None) -> tuple[Split, Split, int, float, float]:
    """A data set of one text file with labels for each part."""
    folder = Path(data_dir or "") / "toy"
    if not folder.is_dir():
        raise DataError(f"toy: looked for {folder}")
    labels = {part: np.array((folder / f"{part}.txt").read_text().split(), np.int32) for part in ("train", "test")}
    train, test = (Split(np.zeros((len(v), 1, 2, 2), np.uint8), v) for v in labels.values())
    return train, test, 4, 0.0, 1.0


def archive(**files: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return stream.getvalue()


def words(labels: list[int]) -> str:
    return " ".join(map(str, labels))


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """A publisher of the toy set, in an archive and a plain file."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("NNMPQ_DATA", raising=False)
    monkeypatch.setattr(os, "sync", lambda: None)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with publishing() as server:
        server.files = {
            "/train.tgz": archive(**{"toy/train.txt": words(TRAIN)}),
            "/test.txt": words(TEST).encode(),
        }
        monkeypatch.setitem(DATASETS, "toy", load_toy)
        publish(server, monkeypatch)
        yield server


def publish(server: Publisher, monkeypatch: pytest.MonkeyPatch, note: str = "") -> None:
    """State the checksums of what the server has now."""
    files = tuple(
        RemoteFile(
            (server.address + path,),
            len(content),
            "sha256:" + hashlib.sha256(content).hexdigest(),
            "toy" if path.endswith("txt") else "",
        )
        for path, content in server.files.items()
    )
    monkeypatch.setitem(SOURCES, "toy", Source("toy", files, note))


def download(folder: Path) -> int:
    return main(["data", "toy", "--dir", str(folder), "--download", "--quiet"])


COUNTS = """toy: 4 classes
  train           1,207 images of 2 classes, 7 to 1,200 a class
  test                3 images of 3 classes, 1 a class
"""


def test_a_data_set_is_fetched_unpacked_and_counted(publisher: Publisher, tmp_path: Path, capsys) -> None:
    publisher.cuts = [50, 60]
    assert download(tmp_path / "new") == 0
    assert capsys.readouterr().out == COUNTS
    assert len(publisher.asked) == 4
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"toy", "downloads"}
    # What is there is only counted.
    publisher.asked.clear()
    shutil.rmtree(tmp_path / "new" / "downloads")
    assert download(tmp_path / "new") == 0
    assert main(["data", "toy", "--dir", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out == 2 * COUNTS
    assert publisher.asked == []


def test_archives_from_elsewhere_are_used(publisher: Publisher, tmp_path: Path, capsys) -> None:
    downloads = tmp_path / "downloads" / "toy"
    downloads.mkdir(parents=True)
    (downloads / "train.tgz").write_bytes(publisher.files["/train.tgz"])
    assert download(tmp_path) == 0
    assert [path for path, *_ in publisher.asked] == ["/test.txt"]


def test_a_wrong_checksum_leaves_nothing_for_a_loader(publisher: Publisher, tmp_path: Path, capsys) -> None:
    content = publisher.files["/test.txt"]
    publisher.files["/test.txt"] = content[:-1] + b"0"
    assert download(tmp_path) == 2
    assert "test.txt: what came is not the publisher's file" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["downloads"]
    # The good file stays; only the other is fetched again.
    assert [p.name for p in (tmp_path / "downloads" / "toy").iterdir()] == ["train.tgz"]
    publisher.files["/test.txt"] = content
    assert download(tmp_path) == 0


@pytest.mark.parametrize("name", ["../evil", "/evil", "toy/../../evil"])
def test_a_hostile_archive_leaves_nothing(publisher: Publisher, tmp_path: Path, monkeypatch, capsys, name: str) -> None:
    publisher.files["/train.tgz"] = archive(**{"toy/train.txt": "0", name: "evil"})
    publish(publisher, monkeypatch)
    assert download(tmp_path / "sets") == 2
    assert f"{name!r} leads out of the folder" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "sets").iterdir()] == ["downloads"]
    assert not list(tmp_path.rglob("*evil*"))


def test_a_stop_in_the_middle_leaves_nothing_for_a_loader(publisher: Publisher, tmp_path: Path, monkeypatch) -> None:
    unpack, seen = module.unpack, []

    def stopped(file: Path, folder: Path, limits: object) -> int:
        seen.append((tmp_path / "toy").exists())
        if len(seen) == 2:
            raise KeyboardInterrupt
        return unpack(file, folder, limits)

    monkeypatch.setattr(module, "unpack", stopped)
    assert download(tmp_path) == 130
    assert seen == [False, False]
    assert [p.name for p in tmp_path.iterdir()] == ["downloads"]


def test_all_is_on_disk_before_the_name_is(publisher: Publisher, tmp_path: Path, monkeypatch) -> None:
    there: list[tuple[bool, list[str]]] = []

    def sync() -> None:
        made = tmp_path.glob(".toy.unpacking-*/toy/*")
        there.append(((tmp_path / "toy").exists(), sorted(path.name for path in made)))

    monkeypatch.setattr(os, "sync", sync)
    assert download(tmp_path) == 0
    assert there == [(False, ["test.txt", "train.txt"])]


def test_a_folder_with_something_else_in_it_is_not_touched(publisher: Publisher, tmp_path: Path, capsys) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "train.txt").write_text("0 1")
    (tmp_path / ".toy.unpacking-abc").mkdir()

    def broken(_: str | None) -> None:
        raise DataError("toy: test.txt is missing")

    DATASETS["toy"] = broken
    assert download(tmp_path) == 2
    assert f"test.txt is missing; move {tmp_path / 'toy'} away" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "toy").iterdir()] == ["train.txt"]
    assert publisher.asked == []


def test_an_empty_folder_is_filled_and_leftovers_are_named(publisher: Publisher, tmp_path: Path, capsys) -> None:
    left = tmp_path / ".toy.unpacking-abc"
    left.mkdir()
    (tmp_path / "toy").mkdir()
    DATASETS["toy"] = lambda folder: load_toy(folder if list((tmp_path / "toy").iterdir()) else "nowhere")
    assert download(tmp_path) == 0
    assert f"note: {left} is left from a killed run" in capsys.readouterr().err
    assert left.exists()


def test_what_is_not_the_expected_folder_is_said(publisher: Publisher, tmp_path: Path, monkeypatch, capsys) -> None:
    publisher.files = {"/train.tgz": archive(**{"other/train.txt": "0"})}
    publish(publisher, monkeypatch)
    assert download(tmp_path) == 2
    assert "train.tgz: no folder toy came out" in capsys.readouterr().err


def test_a_gone_publisher_says_how_to_go_on_by_hand(publisher: Publisher, tmp_path: Path, monkeypatch, capsys) -> None:
    publish(publisher, monkeypatch, note="gone; where you have its files")
    publisher.files.clear()
    assert download(tmp_path) == 2
    told = capsys.readouterr().err
    assert "404" in told and f"where you have its files, put them into {tmp_path / 'downloads' / 'toy'}" in told


def test_imagenet_says_how_to_get_it(publisher: Publisher, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(DATASETS, "imagenet", load_toy)
    assert main(["data", "imagenet", "--dir", str(tmp_path), "--download"]) == 2
    assert "image-net.org" in capsys.readouterr().err


def test_mistakes_say_what_would_be_right(publisher: Publisher, tmp_path: Path, capsys) -> None:
    assert main(["data", "cifra10"]) == 2
    assert "no data set 'cifra10'; the nearest is 'cifar10'" in capsys.readouterr().err
    assert main(["data", "toy", "--download"]) == 2
    assert "--dir or the environment variable NNMPQ_DATA" in capsys.readouterr().err
    assert main(["data", "toy", "--dir", str(tmp_path)]) == 2
    assert f"toy: looked for {tmp_path / 'toy'}" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert download(tmp_path / "file") == 2
    assert "error: " in capsys.readouterr().err


def test_the_folder_may_come_from_the_environment(publisher: Publisher, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("NNMPQ_DATA", str(tmp_path))
    assert main(["data", "toy", "--download", "--quiet"]) == 0
    assert main(["data", "toy"]) == 0
    assert capsys.readouterr().out == 2 * COUNTS


def test_digits_need_no_download(tmp_path: Path, capsys) -> None:
    assert main(["data", "digits", "--dir", str(tmp_path), "--download"]) == 0
    # 1,797 images in all: UCI Machine Learning Repository, data set 80.
    counts = [int(line.split()[1].replace(",", "")) for line in capsys.readouterr().out.splitlines()[1:]]
    assert sum(counts) == 1797
    assert list(tmp_path.iterdir()) == []


def test_every_command_is_in_the_help(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for name, add in COMMANDS.items():
        assert f"{name} {add.__doc__.splitlines()[0]}" in shown
    with pytest.raises(SystemExit) as caught:
        main(["dta"])
    assert caught.value.code == 2


def test_python_m_nnmpq_runs_it() -> None:
    output = subprocess.run([sys.executable, "-m", "nnmpq", "--version"], capture_output=True, text=True, check=True)
    assert output.stdout == f"nnmpq {__version__}\n"
