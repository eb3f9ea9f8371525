from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest

from benchmarks import step_chart, step_contenders, step_race, step_time
from benchmarks.step_contenders import ACCELERATED, PLAIN, TORCH, Contender, Race, contenders
from benchmarks.step_race import Effort, Memory, Result, run

RACE = Race("resnet20", "float", 8, 32)
# A worker of so many milliseconds a step.
PROGRAM = "import sys, time; from benchmarks.line_protocol import *; "
SLEEPS = PROGRAM + "serve(lambda: lambda: time.sleep({}) or 1.0, sys.stdin, sys.stdout)"
CANNOT = PROGRAM + "serve(lambda: exec('raise Unavailable(\"not built\")'), sys.stdin, sys.stdout)"
DIES = "raise SystemExit('out of memory')"


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What each library's process runs instead of training."""
    chosen = {PLAIN: SLEEPS.format(0.05), ACCELERATED: SLEEPS.format(0.01), TORCH: SLEEPS.format(0.02)}
    monkeypatch.setattr(Contender, "command", lambda self, race, python: [sys.executable, "-c", chosen[self.library]])
    return chosen


def test_all_take_part_and_are_compared(programs: Mapping[str, str]) -> None:
    said: list[str] = []
    result = run(RACE, contenders([1], ["nchw"]), Effort(4, 2, 2), "python", said.append)
    assert {c.library: len(times) for c, times in result.seconds.items()} == {PLAIN: 2, ACCELERATED: 4, TORCH: 4}
    assert not result.absent and result.memory.keys() == result.seconds.keys()
    assert all(memory.peak >= memory.imported > 0 for memory in result.memory.values())
    assert "3 processes ready" in said[0]
    assert all(0.01 <= second < 0.05 for second in result.seconds[Contender(ACCELERATED, "accelerated", 1)].values())


def test_who_cannot_take_part_says_why_and_the_others_go_on(programs: dict[str, str]) -> None:
    programs[PLAIN], programs[TORCH] = DIES, CANNOT
    result = run(RACE, contenders([1], ["nchw"]), Effort(1, 1, 1), "python", lambda text: None)
    assert [c.library for c in result.seconds] == [ACCELERATED]
    reasons = {c.library: reason for c, reason in result.absent.items()}
    assert reasons[TORCH] == "not built" and "out of memory" in reasons[PLAIN]


def test_without_an_interpreter_the_rows_of_pytorch_say_so(
    programs: Mapping[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert step_time.main("--networks resnet20 --kinds float --threads 1 --rounds 1".split()) == 0
    absent = [line for line in capsys.readouterr().out.splitlines() if "--torch-python" in line]
    assert len(absent) == 3 and all("PyTorch" in line for line in absent)


def test_quick_is_small_and_files_are_written(programs: Mapping[str, str], tmp_path: Path) -> None:
    assert step_time.main(["--quick", "--torch-python", "python", "-o", str(tmp_path)]) == 0
    with open(tmp_path / "step_time.csv") as lines:
        rows = list(csv.DictReader(lines))
    assert {(row["network"], row["kind"], row["batch"]) for row in rows} == {
        (network, kind, batch)
        for network, batch in (("resnet20", "16"), ("mobilenet_v2", "4"))
        for kind in ("float", "quantized", "mixture")
    }
    assert {row["threads"] for row in rows} == {"1"}
    assert (tmp_path / "step_time_ratios.csv").read_text().count("\n") == 1 + 6 * 2
    assert matplotlib.image.imread(tmp_path / "step_time.png").shape[0] > 300
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step_time.csv",
        "step_time.png",
        "step_time_ratios.csv",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--networks resnet2", "nearest is 'resnet20'"),
        ("--kinds float,mixtures", "'mixtures': the nearest is 'mixture'"),
        ("--threads 1,0", "'0': a whole number above 0"),
        ("--rounds few", "'few': a whole number above 0"),
        ("--layouts channelslast", "nearest is 'channels_last'"),
    ],
)
def test_wrong_options_are_named(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        step_time.main(words.split())
    assert message in capsys.readouterr().err


def test_races_are_at_the_published_sizes_unless_told() -> None:
    made = step_time.races(step_time.parser().parse_args([]))
    assert Race("resnet20", "quantized", 128, 32) in made and Race("mobilenet_v2", "mixture", 32, 96) in made
    assert len(made) == len(step_contenders.NETWORKS) * len(step_contenders.KINDS)
    assert {race.batch for race in step_time.races(step_time.parser().parse_args(["--batch", "5"]))} == {5}


def results(seconds: dict[Contender, dict[int, float]]) -> list[Result]:
    return [Result(RACE, seconds, {c: Memory(1.0, 2.0) for c in seconds}, {})]


def test_bars_are_times_over_the_accelerated_of_as_many_threads() -> None:
    seconds: dict[Any, Any] = {
        Contender(PLAIN, "plain", 1): {0: 8.0},
        Contender(ACCELERATED, "accelerated", 1): {0: 2.0, 1: 2.0},
        Contender(ACCELERATED, "accelerated", 4): {0: 1.0, 1: 1.0},
        Contender(TORCH, "nchw", 1): {0: 3.0, 1: 5.0},
        Contender(TORCH, "nchw", 4): {0: 0.5, 1: 0.7},
    }
    found = step_chart.bars(results(seconds)[0], 4)
    assert {name: numbers.median for name, numbers in found.items()} == pytest.approx(
        {"plain nnabla": 8.0, "PyTorch nchw": 0.6}
    )
    assert step_chart.bars(results(seconds)[0], 1)["PyTorch nchw"] == (1.5, 2.0, 2.5)
    assert step_chart.draw(results(seconds))[:4] == b"\x89PNG"


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(ValueError, match="nobody ran beside"):
        step_chart.draw(results({Contender(ACCELERATED, "accelerated", 1): {0: 1.0}}))
    assert step_race.READY_LIMIT > 60
