"""Downloads: continued, begun anew where they must be, checked, and never half there."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from nnmpq.data import DataError
from nnmpq.data import download as module
from nnmpq.data.download import DownloadError, checksum_of, fetch
from nnmpq.data.sources import SOURCES
from tests.data.publisher import Publisher, publishing

CONTENT = random.Random(0).randbytes(700_001)
OTHER = random.Random(1).randbytes(700_001)
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with publishing() as server:
        server.files["/a.tgz"] = CONTENT
        yield server


def get(publisher: Publisher, folder: Path, *, checksum: str | None = SHA256, attempts: int = 3, **how: object) -> Path:
    path = folder / "a.tgz"
    fetch([f"{publisher.address}/a.tgz"], path, checksum=checksum, attempts=attempts, wait=0.0, quiet=True, **how)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stop_after(publisher: Publisher, folder: Path, count: int, **how: object) -> None:
    """Leave a part of so many bytes, as a run that was given up does."""
    publisher.cuts = [count]
    with pytest.raises(DownloadError, match="run the same command to go on"):
        get(publisher, folder, attempts=1, **how)
    assert (folder / "a.tgz.part").read_bytes() == publisher.files["/a.tgz"][:count]
    assert not (folder / "a.tgz").exists()
    publisher.asked.clear()


@pytest.mark.parametrize("checksum", [SHA256, "md5:" + hashlib.md5(CONTENT).hexdigest().upper()])
def test_a_whole_file_in_one_go(publisher: Publisher, tmp_path: Path, checksum: str) -> None:
    path = get(publisher, tmp_path / "new", checksum=checksum, size=len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["a.tgz"]
    assert publisher.asked == [("/a.tgz", None, None)]


def test_cut_connections_are_continued_in_one_run(publisher: Publisher, tmp_path: Path) -> None:
    publisher.cuts = [1000, 0, 300_000, 1]
    assert get(publisher, tmp_path).read_bytes() == CONTENT
    starts = [0, 1000, 1000, 301_000, 301_001]
    assert publisher.asked == [("/a.tgz", f"bytes={n}-" if n else None, '"1"' if n else None) for n in starts]


def test_a_given_up_download_is_continued_by_the_next_run(publisher: Publisher, tmp_path: Path) -> None:
    stop_after(publisher, tmp_path, 400_000)
    assert get(publisher, tmp_path).read_bytes() == CONTENT
    assert publisher.asked == [("/a.tgz", "bytes=400000-", '"1"')]
    assert names(tmp_path) == ["a.tgz"]


def test_a_part_that_is_whole_is_only_checked(publisher: Publisher, tmp_path: Path) -> None:
    stop_after(publisher, tmp_path, 1)
    (tmp_path / "a.tgz.part").write_bytes(CONTENT)
    assert get(publisher, tmp_path).read_bytes() == CONTENT
    assert publisher.asked == []


def test_an_address_is_given_up_after_attempts_that_bring_nothing(publisher: Publisher, tmp_path: Path) -> None:
    publisher.cuts = [500, 0, 0, 0, 0]
    with pytest.raises(DownloadError, match="ended after 500 of 700001 bytes"):
        get(publisher, tmp_path, attempts=3)
    assert len(publisher.asked) == 3


def test_a_server_that_ignores_ranges_sends_all_again(publisher: Publisher, tmp_path: Path, capsys) -> None:
    publisher.ranges = "ignored"
    stop_after(publisher, tmp_path, 400_000)
    assert get(publisher, tmp_path).read_bytes() == CONTENT
    assert "from its beginning" in capsys.readouterr().err


@pytest.mark.parametrize("ranges", ["yes", "careless", "ignored"])
@pytest.mark.parametrize("size", [700_001, 650_000, 100])
def test_a_changed_file_is_fetched_anew(publisher: Publisher, tmp_path: Path, ranges: str, size: int) -> None:
    stop_after(publisher, tmp_path, 400_000)
    publisher.files["/a.tgz"], publisher.etag, publisher.ranges = OTHER[:size], '"2"', ranges
    # No checksum: nothing else would notice bytes of two versions in one file.
    assert get(publisher, tmp_path, checksum=None).read_bytes() == OTHER[:size]


def test_an_unnamed_version_is_continued_only_where_a_checksum_tells(publisher: Publisher, tmp_path: Path) -> None:
    publisher.etag = None
    stop_after(publisher, tmp_path / "known", 1000)
    assert get(publisher, tmp_path / "known").read_bytes() == CONTENT
    assert publisher.asked == [("/a.tgz", "bytes=1000-", None)]
    stop_after(publisher, tmp_path / "unknown", 1000, checksum=None)
    assert get(publisher, tmp_path / "unknown", checksum=None).read_bytes() == CONTENT
    assert publisher.asked == [("/a.tgz", None, None)]


def test_another_total_is_another_file(publisher: Publisher, tmp_path: Path) -> None:
    publisher.etag = None
    stop_after(publisher, tmp_path, 1000)
    publisher.files["/a.tgz"] = OTHER + CONTENT
    checksum = "sha256:" + hashlib.sha256(OTHER + CONTENT).hexdigest()
    assert get(publisher, tmp_path, checksum=checksum).read_bytes() == OTHER + CONTENT


def test_a_part_is_not_continued_from_another_address(publisher: Publisher, tmp_path: Path) -> None:
    stop_after(publisher, tmp_path, 1000)
    publisher.files["/b/a.tgz"] = CONTENT
    fetch([f"{publisher.address}/b/a.tgz"], tmp_path / "a.tgz", quiet=True)
    assert publisher.asked == [("/b/a.tgz", None, None)]


def test_a_weak_etag_names_no_version(publisher: Publisher, tmp_path: Path) -> None:
    publisher.etag = 'W/"1"'
    stop_after(publisher, tmp_path, 1000)
    get(publisher, tmp_path)
    assert publisher.asked == [("/a.tgz", "bytes=1000-", None)]


@pytest.mark.parametrize("note", ["", "{}", "[1]", '{"url": 3'])
def test_a_part_of_unknown_origin_is_not_continued(publisher: Publisher, tmp_path: Path, note: str) -> None:
    (tmp_path / "a.tgz.part").write_bytes(OTHER[:1000])
    (tmp_path / "a.tgz.part.json").write_text(note)
    assert get(publisher, tmp_path).read_bytes() == CONTENT
    assert publisher.asked == [("/a.tgz", None, None)]


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_wrong_checksum_removes_the_part_and_says_so(publisher: Publisher, tmp_path: Path, algorithm: str) -> None:
    wrong, right = (hashlib.new(algorithm, content).hexdigest() for content in (OTHER, CONTENT))
    with pytest.raises(DownloadError, match=f"{algorithm.upper()} is {right} where.* {wrong}; it is removed"):
        get(publisher, tmp_path, checksum=f"{algorithm}:{wrong}")
    assert names(tmp_path) == []


def test_a_part_of_another_file_is_found_by_the_checksum(publisher: Publisher, tmp_path: Path) -> None:
    stop_after(publisher, tmp_path, 1000)
    (tmp_path / "a.tgz.part").write_bytes(OTHER[:1000])
    with pytest.raises(DownloadError, match="it is removed"):
        get(publisher, tmp_path)
    assert get(publisher, tmp_path).read_bytes() == CONTENT


def test_a_wrong_size_is_refused_before_it_is_fetched(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="has 700001 bytes where the publisher's has 5"):
        get(publisher, tmp_path, size=5)
    publisher.length = False
    with pytest.raises(DownloadError, match="more than 5 bytes"):
        get(publisher, tmp_path, size=5)
    assert names(tmp_path) == []


def test_a_server_that_says_no_length_is_checked_at_the_end(publisher: Publisher, tmp_path: Path) -> None:
    publisher.length = False
    assert get(publisher, tmp_path / "a").read_bytes() == CONTENT
    assert get(publisher, tmp_path / "b", size=len(CONTENT), checksum=None).read_bytes() == CONTENT
    publisher.cuts = [10]
    with pytest.raises(DownloadError, match="it is removed"):
        get(publisher, tmp_path / "c")


def test_passing_troubles_are_tried_again_and_final_ones_are_not(publisher: Publisher, tmp_path: Path) -> None:
    publisher.statuses = [503, 429]
    assert get(publisher, tmp_path / "a").read_bytes() == CONTENT
    publisher.asked.clear()
    publisher.statuses = [403]
    with pytest.raises(DownloadError, match="a.tgz: the server says 403"):
        get(publisher, tmp_path / "b")
    assert len(publisher.asked) == 1


def test_mirrors_are_asked_in_turn_and_the_one_with_the_part_first(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["/mirror/a.tgz"] = CONTENT
    urls = [f"{publisher.address}/{path}" for path in ("gone/a.tgz", "a.tgz", "mirror/a.tgz")]
    how = {"checksum": SHA256, "attempts": 1, "wait": 0.0, "quiet": True}
    publisher.statuses, publisher.cuts = [404, 500], [1000]
    with pytest.raises(DownloadError) as caught:
        fetch(urls, tmp_path / "a.tgz", **how)
    assert all(url in str(caught.value) for url in urls)
    publisher.asked.clear()
    fetch(urls, tmp_path / "a.tgz", **how)
    assert publisher.asked == [("/mirror/a.tgz", "bytes=1000-", '"1"')]


def test_no_server_at_all(tmp_path: Path) -> None:
    with publishing() as gone:
        pass
    with pytest.raises(DownloadError, match="refused"):
        get(gone, tmp_path, attempts=2)
    assert names(tmp_path) == []


def test_a_file_that_is_there_is_checked_and_kept(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(CONTENT)
    get(publisher, tmp_path, size=len(CONTENT))
    (tmp_path / "a.tgz").write_bytes(OTHER)
    with pytest.raises(DownloadError, match="delete it to fetch it anew"):
        get(publisher, tmp_path)
    assert (tmp_path / "a.tgz").read_bytes() == OTHER
    assert publisher.asked == []


def test_an_unknown_checksum_is_said(publisher: Publisher, tmp_path: Path, capsys) -> None:
    get(publisher, tmp_path / "a")
    assert "no checksum" not in capsys.readouterr().err
    get(publisher, tmp_path / "b", checksum=None)
    assert "a.tgz: no checksum is published" in capsys.readouterr().err


def test_a_full_disk_is_said_beforehand(publisher: Publisher, tmp_path: Path, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 5, 5))
    with pytest.raises(DownloadError, match="700001 bytes are to come, and the disk has 5 left"):
        get(publisher, tmp_path)


def test_the_bytes_are_on_disk_before_the_name(publisher: Publisher, tmp_path: Path, monkeypatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(module.os, "fsync", lambda handle: (order.append("fsync"), fsync(handle)))
    monkeypatch.setattr(module.os, "replace", lambda *paths: (order.append(Path(paths[1]).name), replace(*paths)))
    get(publisher, tmp_path)
    assert order == ["fsync", "a.tgz.part.json", "fsync", "a.tgz"]


def test_progress_shows_where_it_goes_on(publisher: Publisher, tmp_path: Path, monkeypatch) -> None:
    bars: list[dict[str, object]] = []
    shown = module.tqdm
    monkeypatch.setattr(
        module,
        "tqdm",
        type("Bar", (shown,), {"__init__": lambda self, **how: (bars.append(how), shown.__init__(self, **how))[0]}),
    )
    stop_after(publisher, tmp_path, 1000)
    get(publisher, tmp_path)
    assert [(bar["initial"], bar["total"], bar["desc"]) for bar in bars] == [
        (0, 700001, "a.tgz"),
        (1000, 700001, "a.tgz"),
    ]


def test_published_vectors_of_the_checksums(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # RFC 1321, section A.5, and FIPS 180-2, appendix B.1.
    assert checksum_of(tmp_path / "abc", "md5") == "900150983cd24fb0d6963f7d28e17f72"
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert checksum_of(tmp_path / "abc", "sha256") == expected


def test_every_source_is_complete() -> None:
    digits = {"sha256": 64, "md5": 32}
    for name, source in SOURCES.items():
        assert source.files or source.note, name
        assert len({file.name for file in source.files}) == len(source.files)
        for file in source.files:
            assert all(url.startswith("http") and url.endswith(f"/{file.name}") for url in file.urls)
            assert file.into in ("", source.folder)
            algorithm, _, value = (file.checksum or "md5:" + "0" * 32).partition(":")
            assert len(value) == digits[algorithm] and int(value, 16) >= 0
            assert file.size is None or file.size > 0
    assert issubclass(DownloadError, DataError)
