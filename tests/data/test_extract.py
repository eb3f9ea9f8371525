"""Unpacking: what a good archive gives, and what a hostile, huge or damaged one does not."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnmpq.data.extract import HEADER_BYTES, ArchiveError, Limits, safe_path, staging, unpack

FILES = {"set/train/a.txt": b"one", "set/train/b.txt": b"", "set/val/c.bin": bytes(range(256)) * 50}


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def good_tar(path: Path, mode: str = "w:gz") -> Path:
    folders = [(entry(name, tarfile.DIRTYPE), b"") for name in ("./", "set", "set/train")]
    return tar_of(path, *folders, *((entry(name), content) for name, content in FILES.items()), mode=mode)


def good_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("set/", b"")
        for name, content in FILES.items():
            archive.writestr(name, content)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "name,make",
    [
        ("a.tar", lambda path: good_tar(path, "w")),
        ("a.tar.gz", good_tar),
        ("a.TGZ", good_tar),
        ("a.tar.bz2", lambda path: good_tar(path, "w:bz2")),
        ("a.tar.xz", lambda path: good_tar(path, "w:xz")),
        ("a.zip", good_zip),
    ],
)
def test_a_good_archive_gives_its_files(tmp_path: Path, name: str, make: Callable[[Path], Path]) -> None:
    assert unpack(make(tmp_path / name), tmp_path / "out") == 3
    assert contents(tmp_path / "out") == FILES


@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_long_names_of_every_tar_format(tmp_path: Path, style: int) -> None:
    name = "/".join(["folder" * 8] * 3 + ["größe.jpg"])
    with tarfile.open(tmp_path / "a.tar", "w", format=style) as tar:
        info = entry(name)
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    unpack(tmp_path / "a.tar", tmp_path / "out")
    assert contents(tmp_path / "out") == {name: b"abc"}


def test_a_single_gzip_loses_its_ending_and_any_other_file_is_copied(tmp_path: Path) -> None:
    (tmp_path / "train-idx3-ubyte.gz").write_bytes(gzip.compress(b"pixels"))
    (tmp_path / "setid.mat").write_bytes(b"matrix")
    for name in ("train-idx3-ubyte.gz", "setid.mat"):
        assert unpack(tmp_path / name, tmp_path / "out" / "set") == 1
    assert contents(tmp_path / "out") == {"set/train-idx3-ubyte": b"pixels", "set/setid.mat": b"matrix"}


def test_modes_of_the_archive_are_not_taken_over(tmp_path: Path) -> None:
    info = entry("run.sh")
    info.mode = 0o6777
    unpack(tar_of(tmp_path / "a.tgz", (info, b"x")), tmp_path / "out")
    assert stat.S_IMODE((tmp_path / "out" / "run.sh").stat().st_mode) & 0o7111 == 0


OUTSIDE = ["../evil", "set/../../evil", "/evil", "//evil", "C:/evil", "C:evil", "..", "set\\..\\evil"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    archive = tmp_path / f"a.{kind}"
    if kind == "tar":
        tar_of(archive, (entry("good"), b"x"), (entry(name), b"evil"), mode="w")
    else:
        with zipfile.ZipFile(archive, "w") as content:
            content.writestr(name, b"evil")
    with pytest.raises(ArchiveError, match=r"leads out of the folder|no path on every system") as caught:
        unpack(archive, tmp_path / "deep" / "out")
    assert str(archive) in str(caught.value) and repr(name) in str(caught.value)
    assert not [path for path in tmp_path.rglob("*evil*")]


@pytest.mark.parametrize(
    "hostile,what",
    [
        (entry("out", tarfile.SYMTYPE, "/etc"), "a link to '/etc'"),
        (entry("out", tarfile.SYMTYPE, "../.."), "a link to '../..'"),
        (entry("out", tarfile.LNKTYPE, "/etc/passwd"), "a link to '/etc/passwd'"),
        (entry("out", tarfile.LNKTYPE, "good"), "a link to 'good'"),
        (entry("out", tarfile.CHRTYPE), "a device"),
        (entry("out", tarfile.BLKTYPE), "a device"),
        (entry("out", tarfile.FIFOTYPE), "a device"),
        (entry("out", tarfile.CONTTYPE), "no regular file"),
    ],
)
def test_what_is_no_file_or_folder_is_refused(tmp_path: Path, hostile: tarfile.TarInfo, what: str) -> None:
    # Were the link made, the file after it would be written through it.
    archive = tar_of(tmp_path / "a.tgz", (entry("good"), b"x"), (hostile, b""), (entry("out/evil"), b"evil"))
    with pytest.raises(ArchiveError, match=f"'out' is {what}"):
        unpack(archive, tmp_path / "unpacked")
    assert contents(tmp_path / "unpacked") == {"good": b"x"}


@pytest.mark.parametrize(
    "mode,what", [(stat.S_IFLNK, "a link"), (stat.S_IFCHR, "a device"), (stat.S_IFIFO, "a device")]
)
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, mode: int, what: str) -> None:
    info = zipfile.ZipInfo("out")
    info.create_system, info.external_attr = 3, (mode | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as content:
        content.writestr(info, "/etc")
    with pytest.raises(ArchiveError, match=f"'out' is {what}"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert not os.path.lexists(tmp_path / "out" / "out")


@pytest.mark.parametrize("name", ["a.tgz", "a.zip", "a.gz"])
def test_a_bomb_stops_at_the_limit(tmp_path: Path, name: str) -> None:
    archive, zeros = tmp_path / name, bytes(3_000_000)
    if name.endswith("tgz"):
        tar_of(archive, (entry("zeros"), zeros))
    elif name.endswith("zip"):
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as content:
            content.writestr("zeros", zeros)
    else:
        archive.write_bytes(gzip.compress(zeros))
    assert archive.stat().st_size < 10_000
    unpack(archive, tmp_path / "whole", Limits(total_bytes=3_000_000))
    with pytest.raises(ArchiveError, match="more than 2999999 bytes"):
        unpack(archive, tmp_path / "out", Limits(total_bytes=2_999_999))
    assert sum(map(len, contents(tmp_path / "out").values())) <= 2_999_999


@pytest.mark.parametrize("make,name", [(good_tar, "a.tgz"), (good_zip, "a.zip")])
def test_too_many_members_stop_at_the_limit(tmp_path: Path, make: Callable[[Path], Path], name: str) -> None:
    archive = make(tmp_path / name)
    members = 6 if name == "a.tgz" else 4
    unpack(archive, tmp_path / "whole", Limits(members=members))
    with pytest.raises(ArchiveError, match=f"more than {members - 1} files and folders"):
        unpack(archive, tmp_path / "out", Limits(members=members - 1))


def test_a_header_cannot_fill_the_memory(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tgz", "w:gz", format=tarfile.PAX_FORMAT) as tar:
        info = entry("a")
        info.pax_headers = {"comment": "x" * (HEADER_BYTES + 1)}
        tar.addfile(info)
    with pytest.raises(ArchiveError, match=f"more than {HEADER_BYTES} bytes between two files"):
        unpack(tmp_path / "a.tgz", tmp_path / "out")


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    archive = good_tar(tmp_path / "a.tar", "w")
    content = bytearray(archive.read_bytes())
    second = content.index(b"set/train/b.txt")
    content[second + 3] ^= 1
    archive.write_bytes(content)
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(archive, tmp_path / "out")
    # Cut where a header would begin: tarfile itself sees nothing wrong.
    archive.write_bytes(content[:second])
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(archive, tmp_path / "other")


@settings(deadline=None, max_examples=150)
@given(
    name=st.sampled_from(["a.tar", "a.tgz", "a.tar.bz2", "a.tar.xz", "a.zip"]),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=3),
)
def test_damage_is_an_archive_error_or_nothing_leads_out(
    tmp_path_factory: pytest.TempPathFactory, name: str, cut: float, flips: list[tuple[float, int]]
) -> None:
    parent = tmp_path_factory.mktemp("damage")
    mode = {"a.tar": "w", "a.tgz": "w:gz", "a.tar.bz2": "w:bz2", "a.tar.xz": "w:xz"}.get(name)
    archive = good_zip(parent / name) if mode is None else good_tar(parent / name, mode)
    content = bytearray(archive.read_bytes())
    for share, change in flips:
        content[int(share * len(content))] ^= change
    archive.write_bytes(content[: int(cut * len(content))])
    try:
        unpack(archive, parent / "out")
    except ArchiveError as error:
        assert str(archive) in str(error)
    assert {path.name for path in parent.iterdir()} <= {name, "out"}


@settings(max_examples=300)
@given(st.text(st.sampled_from("a./\\:C~ \0"), max_size=12))
def test_a_safe_path_stays_inside(name: str) -> None:
    try:
        path = safe_path(name)
    except ArchiveError:
        return
    inside = os.path.normpath(os.path.join("/base/folder", path))
    assert inside == "/base/folder" or inside.startswith("/base/folder/")


def test_a_staging_folder_is_gone_whatever_happens(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staging(tmp_path / "data") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "half").write_bytes(b"x")
        assert folder.parent == tmp_path
        raise KeyboardInterrupt
    with staging(tmp_path / "data") as folder:
        (folder / "whole").mkdir()
        os.rename(folder / "whole", tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
