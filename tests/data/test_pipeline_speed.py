from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.pipeline_speed import PLAIN, Measured, Timed, chunks, main, measure, read_plainly, table
from tests.data.made_up import imagenette


def test_ratios_are_those_of_the_same_round() -> None:
    plain = [Measured(rate, 1.0) for rate in (10, 20, 40)]
    other = [Measured(rate, cpu) for rate, cpu in ((30, 3.0), (20, 1.0), (20, 2.0))]
    assert table({PLAIN: plain, "other": other}) == [
        [PLAIN, "20", "1.00", "1.00", "1.00", "1.00"],
        ["other", "20", "0.50", "1.00", "3.00", "2.00"],
    ]


def test_contenders_take_turns_and_the_first_round_is_not_measured() -> None:
    turns: list[str] = []

    def contender(name: str, seconds: float):
        def run(epoch: int) -> int:
            turns.append(f"{name}{epoch}")
            time.sleep(seconds)
            return 100

        return run

    found = measure({"a": contender("a", 0.01), "b": contender("b", 0.04)}, 2)
    assert turns == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert [len(rounds) for rounds in found.values()] == [2, 2]
    assert max(one.rate for one in found["b"]) <= 100 / 0.04


def test_waiting_is_the_time_between_asking_and_getting() -> None:
    def slow():
        for number in range(3):
            time.sleep(0.02)
            yield number

    timed = Timed(slow())
    for _ in timed:
        time.sleep(0.05)
    assert 0.06 <= timed.waited < 0.15


def test_chunks_drop_what_is_left_over() -> None:
    assert list(chunks(iter(range(7)), 3)) == [[0, 1, 2], [3, 4, 5]]


def test_the_plain_reader_crops_resizes_and_mirrors(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(60, dtype=np.uint8) * 4, (50, 1))
    Image.fromarray(ramp).save(tmp_path / "a.png")
    shown = [read_plainly(str(tmp_path / "a.png"), 8, seed) for seed in range(40)]
    assert all(image.shape == (3, 8, 8) and image.dtype == np.uint8 for image in shown)
    rising = [bool(image[0, 0, -1] > image[0, 0, 0]) for image in shown]
    assert 8 < sum(rising) < 32
    assert len({image.tobytes() for image in shown}) > 30


def test_all_contenders_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imagenette(tmp_path)
    options = ["--images", "40", "--batch", "8", "--rounds", "1", "--size", "8", "--workers", "1"]
    assert main(["--data-dir", str(tmp_path), *options, "--csv", str(tmp_path / "speed.csv")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in printed[1:]] == [
        PLAIN,
        "Pillow, Pool(1)",
        "nnmpq, no workers",
        "nnmpq, 1 workers",
    ]
    assert (tmp_path / "speed.csv").read_text().count("\n") == 5
