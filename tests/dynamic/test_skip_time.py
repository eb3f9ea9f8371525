"""The benchmark of skipping measures what it says, at a small size."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import cast

import nnabla as nn
import numpy as np
import pytest

from benchmarks import skip_time
from nnmpq.dynamic.finished import load_gates
from nnmpq.export.trained import load_run

TINY = ["--batch", "3", "--side", "8", "--width", "0.25", "--rounds", "1"]


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_curve_goes_from_no_wide_path_to_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert skip_time.main([*TINY, "--out", str(tmp_path / "new")]) == 0
    rows = table(tmp_path / "new" / "skip_time.csv")
    shares = [float(row["share"]) for row in rows]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1
    assert len(rows) == len(skip_time.PRICES)
    assert all(float(row[name]) > 0 for row in rows for name in ("skipping", "mixed"))
    # A wide path is left out at no price below the one that it was left out at.
    assert (tmp_path / "new" / "skip_time.png").read_bytes().startswith(b"\x89PNG")
    prices = [float(row["price"]) for row in rows]
    assert prices[0] > 0 > prices[-1]
    assert capsys.readouterr().out.count("share ") == len(rows)


def test_both_curves_are_drawn_from_zero() -> None:
    rows = [{"share": 0.0, "skipping": 1.0, "mixed": 3.0}, {"share": 1.0, "skipping": 2.0, "mixed": 3.5}]
    (axes,) = skip_time.picture(rows, "a title").axes
    skipping, mixed = axes.lines
    np.testing.assert_array_equal(skipping.get_xydata(), [[0, 1], [1, 2]])
    np.testing.assert_array_equal(mixed.get_xydata(), [[0, 3], [1, 3.5]])
    assert axes.get_ylim()[0] == 0 and axes.get_title() == "a title"


def test_the_median_of_the_rounds_counts_and_the_first_does_not() -> None:
    calls: list[int] = []

    def action() -> None:
        calls.append(len(calls))

    found = skip_time.seconds([action, lambda: None], rounds=4)
    assert len(calls) == 5 and len(found) == 2
    assert all(0 <= value < 1 for value in found)


def test_runs_with_gates_and_uniform_ones_are_timed_on_test_images(runs: Path, tmp_path: Path) -> None:
    folders = [str(runs / name) for name in ("W4A4", "CAMP_SP")]
    arguments = ["--batch", "4", "--rounds", "1", "--out", str(tmp_path)]
    assert skip_time.main([*arguments, "--runs", *folders]) == 0
    rows = table(tmp_path / "skip_time_runs.csv")
    assert [row["name"] for row in rows] == ["W4A4", "CAMP_SP"]
    assert all(float(row[name]) > 0 for row in rows for name in ("one_ms", "batch_ms"))


def test_a_uniform_run_is_timed_doing_what_it_does(runs: Path) -> None:
    run, images = skip_time.classifier(runs / "W4A4", None, 8, fast=False)
    (found,) = cast("tuple[nn.NdArray]", run(images))
    _, logits = load_run(runs / "W4A4", images=8).run(sites=False)
    np.testing.assert_allclose(found.data, logits, atol=1e-4)


def test_a_trained_network_is_swept_on_its_test_images(runs: Path, tmp_path: Path) -> None:
    arguments = ["--batch", "4", "--rounds", "1", "--run", str(runs / "CAMP_SP"), "--out", str(tmp_path)]
    assert skip_time.main(arguments) == 0
    shares = [float(row["share"]) for row in table(tmp_path / "skip_time.csv")]
    assert shares[0] == 0 and shares[-1] == 1
    found = load_gates(runs / "CAMP_SP", batch=4)
    images = skip_time.images_of(found, 4)
    assert images.shape == (4, 1, 8, 8) and images.dtype == np.float32
    assert images.min() >= -1.01 and images.max() <= 1.01
