"""Writing files so that nothing is ever half-written, and naming the nearest valid word."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path


def atomic_write(path: str | Path, content: str | bytes) -> None:
    """Write a file under a temporary name, flush it to disk, then rename it: a reader sees the old one or the new one.

    Args:
        path: file to write; its folder is made where it is missing.
        content: text (UTF-8) or bytes.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     atomic_write(Path(folder) / "a.txt", "words")
        ...     (Path(folder) / "a.txt").read_text()
        'words'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return the choice most like a word; empty without choices.

    Example:
        >>> nearest("wieghts", ["weights", "activations"])
        'weights'
    """
    found = difflib.get_close_matches(word, list(choices), 1, 0)
    return found[0] if found else ""
