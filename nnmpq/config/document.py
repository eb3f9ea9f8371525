"""The keys of a ``.cfg``, explained: the text of ``--help-keys`` and the tables of docs/configuration.md.

``python -m nnmpq.config.document docs/configuration.md`` brings that page up to date.
"""

from __future__ import annotations

import sys
from pathlib import Path

from nnmpq.config.experiment import Experiment
from nnmpq.config.keys import keys_of

BEGIN = "<!-- keys: begin; written by python -m nnmpq.config.document -->"
END = "<!-- keys: end -->"


def describe_keys() -> str:
    """Return the text of ``--help-keys``: every key with its type, default and meaning."""
    lines: list[str] = []
    title = None
    for key in keys_of(Experiment):
        if key.group != title:
            title = key.group
            lines += ["", f"{title}:"]
        lines.append(f"  {key.name}  ({key.kind.name}; default {key.default})")
        lines.append(f"      {key.meaning}")
    return "\n".join(lines[1:])


def markdown_table() -> str:
    """Return the tables of docs/configuration.md, one for each group of keys."""
    lines: list[str] = []
    title = None
    for key in keys_of(Experiment):
        if key.group != title:
            title = key.group
            lines += ["", f"### {title.capitalize()}", "", "| key | type | default | meaning |"]
            lines.append("| --- | --- | --- | --- |")
        lines.append(f"| `{key.name}` | {key.kind.name} | {key.default} | {key.meaning} |")
    return "\n".join(lines[1:])


def updated(page: str) -> str:
    """Return a page with the tables between its two markers replaced by those of today.

    Args:
        page: text with `BEGIN` and `END` in it.

    Raises:
        ValueError: a marker is missing.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {BEGIN} and {END}")
    return f"{before}{begin}\n\n{markdown_table()}\n\n{end}{after}"


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        Path(argument).write_text(updated(Path(argument).read_text(encoding="utf-8")), encoding="utf-8")
