"""The documentation of the keys is that of the code."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from nnmpq.config.choices import ACTIVATION_QUANTIZERS, WEIGHT_QUANTIZERS
from nnmpq.config.document import BEGIN, END, markdown_table, updated
from nnmpq.config.experiment import Experiment
from nnmpq.config.keys import keys_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def test_the_page_is_up_to_date():
    text = PAGE.read_text(encoding="utf-8")
    assert updated(text) == text, "run: python -m nnmpq.config.document docs/configuration.md"


def test_the_page_names_every_quantizer():
    text = PAGE.read_text(encoding="utf-8")
    for name in (*WEIGHT_QUANTIZERS, *ACTIVATION_QUANTIZERS):
        assert f"`{name}`" in text


def test_every_key_has_one_row_with_its_default():
    rows = [line.split(" | ") for line in markdown_table().splitlines() if line.startswith("| `")]
    names = [row[0].strip("| `") for row in rows]
    assert sorted(names) == sorted({field.name for field in attrs.fields(Experiment)} - {"name"} | {"inherit"})
    assert all(len(row) == 4 and all(cell.strip("| ") for cell in row) for row in rows)


def test_written_defaults_are_the_real_ones():
    default = Experiment("X")
    for key in keys_of(Experiment):
        if key.name not in ("inherit", "milestones"):
            text = "" if key.default == "empty" else key.default
            assert key.kind.parse(text) == getattr(default, key.name)


def test_only_what_lies_between_the_markers_changes():
    page = updated(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert page.startswith(f"before\n{BEGIN}\n") and page.endswith(f"{END}\nafter\n")
    assert "\nold\n" not in page and "| `epochs` |" in page
    with pytest.raises(ValueError, match="the page needs the lines"):
        updated("no markers")
