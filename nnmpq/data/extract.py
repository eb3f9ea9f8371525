"""Unpacking archives without trusting them: only files and folders, only inside, and no more than a limit."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

import attrs

from nnmpq.data.errors import DataError

CHUNK = 2**18
# What a tar may hold between two files: a header, a long name, padding.
HEADER_BYTES = 2**20
COMPRESSIONS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
DAMAGE = (
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


class ArchiveError(DataError):
    """An archive that is damaged or would do harm."""


@attrs.frozen
class Limits:
    """How much an archive may unpack to. The largest here, Food-101, is 101,000 files and 5 GB.

    Args:
        total_bytes: bytes of all files together.
        members: files and folders.
    """

    total_bytes: int = 16 * 2**30
    members: int = 500_000


LIMITS = Limits()


def safe_path(name: str) -> PurePosixPath:
    """Return the path of a member inside the folder that it is unpacked to.

    Args:
        name: as the archive has it.

    Raises:
        ArchiveError: it is absolute, leads out of the folder or is no path on some system.

    Example:
        >>> safe_path("./a/b.txt")
        PurePosixPath('a/b.txt')
        >>> safe_path("a/../../b")
        Traceback (most recent call last):
            ...
        nnmpq.data.extract.ArchiveError: 'a/../../b' leads out of the folder
    """
    path = PurePosixPath(name)
    # A Windows path has an anchor where a POSIX one has, and with a drive too.
    if PureWindowsPath(name).anchor or ".." in path.parts:
        raise ArchiveError(f"{name!r} leads out of the folder")
    if "\0" in name or "\\" in name:
        raise ArchiveError(f"{name!r} is no path on every system")
    return path


class _Budget:
    """Counts what is unpacked, and stops at the limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.bytes = self.members = self.files = 0

    def member(self) -> None:
        self.members += 1
        if self.members > self.limits.members:
            raise ArchiveError(f"more than {self.limits.members} files and folders")

    def write(self, source: IO[bytes] | gzip.GzipFile, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            for block in iter(lambda: source.read(CHUNK), b""):
                self.bytes += len(block)
                if self.bytes > self.limits.total_bytes:
                    raise ArchiveError(f"unpacks to more than {self.limits.total_bytes} bytes")
                stream.write(block)
        self.files += 1


class _Metered:
    """A stream that gives no more than was allowed, so that a tar's headers cannot fill the memory."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.left = HEADER_BYTES

    def allow(self, count: int) -> None:
        self.left = count + HEADER_BYTES

    def read(self, count: int) -> bytes:
        block = self.stream.read(count)
        self.left -= len(block)
        if self.left < 0:
            raise ArchiveError(f"more than {HEADER_BYTES} bytes between two files")
        return block


class _StrictHeader(tarfile.TarInfo):
    """A header that is an error where it is damaged or missing; tarfile takes it for the archive's end."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Any:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise ArchiveError(f"damaged: {error}") from error


def _unpack_tar(archive: Path, folder: Path, budget: _Budget) -> None:
    with archive.open("rb") as raw:
        start = raw.read(6)
        raw.seek(0)
        opener = next((use for magic, use in COMPRESSIONS.items() if start.startswith(magic)), None)
        metered = _Metered(opener(raw) if opener else raw)
        with tarfile.open(fileobj=metered, mode="r|", tarinfo=_StrictHeader) as tar:  # type: ignore[call-overload]
            while (member := tar.next()) is not None:
                budget.member()
                path = folder / safe_path(member.name)
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                elif member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    metered.allow(member.size)
                    budget.write(tar.extractfile(member), path)
                else:
                    raise ArchiveError(f"{member.name!r} is {_kind(member)}; only files and folders are unpacked")
                metered.allow(0)
                # tarfile remembers every member; a hundred thousand of them are not needed again.
                tar.members = []


def _kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"a link to {member.linkname!r}"
    return "a device" if member.isdev() else "no regular file"


def _unpack_zip(archive: Path, folder: Path, budget: _Budget) -> None:
    with zipfile.ZipFile(archive) as content:
        for member in content.infolist():
            budget.member()
            path = folder / safe_path(member.filename)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                what = "a link" if kind == stat.S_IFLNK else "a device or the like"
                raise ArchiveError(f"{member.filename!r} is {what}; only files and folders are unpacked")
            if member.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            with content.open(member) as source:
                budget.write(source, path)


def _unpack_gzip(archive: Path, folder: Path, budget: _Budget) -> None:
    with gzip.open(archive) as source:
        budget.write(source, folder / archive.stem)


def _copy(file: Path, folder: Path, budget: _Budget) -> None:
    with file.open("rb") as source:
        budget.write(source, folder / file.name)


UNPACKERS = {
    ".tar": _unpack_tar,
    ".tar.gz": _unpack_tar,
    ".tgz": _unpack_tar,
    ".tar.bz2": _unpack_tar,
    ".tar.xz": _unpack_tar,
    ".zip": _unpack_zip,
    ".gz": _unpack_gzip,
}


def unpack(archive: Path, folder: Path, limits: Limits = LIMITS) -> int:
    """Unpack a tar, zip or gzip file into a folder; a file of another kind is copied there.

    Links, devices and everything else that is no file or folder are refused, and so are names that lead out of the
    folder. Owners, modes and times of the archive are not taken over.

    Args:
        archive: the file; its ending says what it is.
        folder: where to; made where it is missing. After an error it holds what came before.
        limits: the most that it may unpack to.

    Returns:
        Number of files written.

    Raises:
        ArchiveError: the archive is damaged, does harm or is larger than the limits; names it and the member.
    """
    use = next((use for ending, use in UNPACKERS.items() if archive.name.lower().endswith(ending)), _copy)
    budget = _Budget(limits)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        use(archive, folder, budget)
    except ArchiveError as error:
        raise ArchiveError(f"{archive}: {error}") from error
    except DAMAGE as error:
        raise ArchiveError(f"{archive}: cannot be unpacked: {error}") from error
    return budget.files


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A temporary folder beside a target, gone at the end whatever happens; what is to stay is moved out of it.

    Args:
        target: file or folder that is being made; on the same disk, so that moving it there is one step.

    Example:
        >>> with tempfile.TemporaryDirectory() as parent, staging(Path(parent) / "data") as folder:
        ...     folder.parent == Path(parent), folder.name.startswith(".data.unpacking-")
        (True, True)
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.unpacking-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
