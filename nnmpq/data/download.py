"""Fetching a file over HTTP: continued where it was cut, checked, and there only when it is whole and right."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
from tqdm import tqdm

from nnmpq import __version__
from nnmpq.data.errors import DataError
from nnmpq.files import atomic_write

CHUNK = 2**18
# Answers that may be another a moment later; every other error of 400 and more is final for its address.
PASSING = {408, 425, 429, 500, 502, 503, 504}


class DownloadError(DataError):
    """A file that cannot be fetched, or is not the publisher's."""


class _Cut(Exception):
    """The connection failed or ended early: worth another attempt."""


class _Refused(Exception):
    """This address does not have the file."""


@attrs.frozen
class _Part:
    """What is known of a partial download: whose bytes they are.

    Args:
        url: where they came from.
        version: the server's ETag or Last-Modified; None where it names neither.
        total: bytes of the whole file; None where the server does not say.
    """

    url: str
    version: str | None
    total: int | None


def checksum_of(path: Path, algorithm: str) -> str:
    """Return the checksum of a file, in hexadecimal digits.

    Args:
        path: the file.
        algorithm: "sha256" or "md5".

    Example:
        >>> checksum_of(Path(os.devnull), "md5")
        'd41d8cd98f00b204e9800998ecf8427e'
    """
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(CHUNK), b""):
            digest.update(block)
    return digest.hexdigest()


def _difference(path: Path, size: int | None, checksum: str | None) -> str:
    """What is wrong with a whole file; nothing where it is right."""
    found = path.stat().st_size
    if size is not None and found != size:
        return f"{found} bytes where the publisher has {size}"
    if checksum is not None:
        algorithm, _, expected = checksum.partition(":")
        actual = checksum_of(path, algorithm)
        if actual != expected.lower():
            return f"its {algorithm.upper()} is {actual} where the publisher's is {expected}"
    return ""


def _read_part(part: Path, note: Path) -> _Part | None:
    """What is known of the part; None where there is none to go on with."""
    try:
        known = json.loads(note.read_text())
        return _Part(known["url"], known["version"], known["total"]) if part.stat().st_size else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _version(headers: Any) -> str | None:
    etag = headers.get("ETag")
    # A weak ETag promises the same meaning, not the same bytes.
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _same_version(headers: Any, version: str | None) -> bool:
    if version is None:
        return True
    return headers.get("ETag" if version.startswith('"') else "Last-Modified") in (version, None)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _open(url: str, headers: dict[str, str], timeout: float) -> Any:
    request = urllib.request.Request(
        url, headers={"User-Agent": f"nnmpq/{__version__}", "Accept-Encoding": "identity", **headers}
    )
    try:
        return urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            return error
        error.close()
        said = f"the server says {error.code} {error.reason}"
        raise (_Cut if error.code in PASSING else _Refused)(said) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise (_Refused if isinstance(reason, ssl.SSLCertVerificationError) else _Cut)(str(reason)) from error


def _blocks(response: Any) -> Iterator[bytes]:
    while True:
        try:
            block = response.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _Cut(f"the connection broke: {error}") from error
        if not block:
            return
        yield block


def _continues(response: Any, known: _Part, have: int) -> bool:
    """Whether an answer goes on exactly where the part ends, in the same version of the file."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    return (
        response.status == 206
        and found is not None
        and int(found[1]) == have
        and _number(found[2]) in (known.total, None)
        and _same_version(response.headers, known.version)
    )


def _attempt(url: str, part: Path, note: Path, size: int | None, provable: bool, timeout: float, quiet: bool) -> None:
    """Ask once, from where the part ends; come back when the file is whole.

    Raises:
        _Cut: the connection ended before the file did; what came is in the part.
        _Refused: this address has no such file.
    """
    known = _read_part(part, note)
    have = part.stat().st_size if known else 0
    headers = {}
    # Bytes of an unknown version are joined only where a checksum will tell whether they belong together.
    if known and known.url == url and (known.version or provable):
        if have == known.total:
            return
        headers["Range"] = f"bytes={have}-"
        if known.version:
            headers["If-Range"] = known.version
    with _open(url, headers, timeout) as response:
        resumed = bool(headers) and known is not None and _continues(response, known, have)
        if not resumed:
            if response.status != 200:
                # An answer to another question than was asked: the next attempt starts from nothing.
                _discard(part, note)
                raise _Cut(f"the server answers {response.status} to a request for the rest of the file")
            if headers:
                tqdm.write(f"{part.name}: the server sends the file from its beginning", file=sys.stderr)
            have = 0
            known = _Part(url, _version(response.headers), _number(response.headers.get("Content-Length")))
            if size is not None and known.total not in (size, None):
                raise _Refused(f"the file there has {known.total} bytes where the publisher's has {size}")
            _discard(part, note)
            atomic_write(note, json.dumps(attrs.asdict(known)))
        assert known is not None
        total = known.total if known.total is not None else size
        _check_space(part, total, have)
        bar = tqdm(
            desc=part.stem,
            total=total,
            initial=have,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            disable=True if quiet else None,
        )
        with part.open("ab") as stream, bar:
            for block in _blocks(response):
                stream.write(block)
                have += len(block)
                bar.update(len(block))
                if total is not None and have > total:
                    break
            stream.flush()
            os.fsync(stream.fileno())
    if total is not None and have > total:
        _discard(part, note)
        raise _Refused(f"more than {total} bytes come from there")
    if total is not None and have < total:
        raise _Cut(f"the connection ended after {have} of {total} bytes")


def _check_space(part: Path, total: int | None, have: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - have > free:
        raise DownloadError(f"{part}: {total - have} bytes are to come, and the disk has {free} left")


def _discard(part: Path, note: Path) -> None:
    part.unlink(missing_ok=True)
    note.unlink(missing_ok=True)


def _from_one(
    url: str, part: Path, note: Path, size: int | None, provable: bool, attempts: int, wait: float, **how: Any
) -> None:
    """Ask one address until the file is whole; give up after so many attempts in a row that brought nothing."""
    failures, before = 0, -1
    while True:
        try:
            return _attempt(url, part, note, size, provable, **how)
        except _Cut as error:
            have = part.stat().st_size if part.exists() else 0
            failures = 1 if have > before else failures + 1
            before = max(before, have)
            if failures >= attempts:
                raise
            tqdm.write(f"{part.stem}: {error}; going on", file=sys.stderr)
            time.sleep(wait * 2 ** (failures - 1))


def fetch(
    urls: Sequence[str],
    path: Path,
    *,
    size: int | None = None,
    checksum: str | None = None,
    attempts: int = 4,
    wait: float = 1.0,
    timeout: float = 60.0,
    quiet: bool = False,
) -> None:
    """Fetch a file; `path` is there only when the file is whole and its checksum right.

    Until then its bytes are in `path` + ".part", which a later call goes on with where the server still has the same
    version of the file, and starts anew where it has not.

    Args:
        urls: addresses of the same bytes, asked in turn.
        path: the file to write; where it is there already, it is only checked.
        size: bytes that it must have; unknown if None.
        checksum: "sha256:..." or "md5:..."; unknown if None, and then said so.
        attempts: attempts in a row that bring nothing before an address is given up.
        wait: seconds before the second attempt, then doubled.
        timeout: seconds without a byte.
        quiet: no progress bar.

    Raises:
        DownloadError: no address has it, the disk is too small, or what came is not the publisher's file; says which,
            and what happens to the part.
    """
    part, note = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")
    if path.exists():
        wrong = _difference(path, size, checksum)
        if wrong:
            raise DownloadError(f"{path}: not the publisher's file: {wrong}; delete it to fetch it anew")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    known = _read_part(part, note)
    # The address that the part came from goes first: only there can it be continued.
    problems = []
    for url in sorted(urls, key=lambda url: known is None or url != known.url):
        try:
            _from_one(url, part, note, size, checksum is not None, attempts, wait, timeout=timeout, quiet=quiet)
            break
        except (_Cut, _Refused) as error:
            problems.append(f"{url}: {error}")
    else:
        kept = f"; {part} is kept, run the same command to go on" if part.exists() else ""
        raise DownloadError(f"{path.name} cannot be fetched: {'; '.join(problems)}{kept}")
    wrong = _difference(part, size, checksum)
    if wrong:
        _discard(part, note)
        raise DownloadError(f"{path.name}: what came is not the publisher's file: {wrong}; it is removed")
    if checksum is None:
        tqdm.write(f"{path.name}: no checksum is published; nothing but its size was checked", file=sys.stderr)
    os.replace(part, path)
    note.unlink(missing_ok=True)
