from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import line_protocol
from benchmarks.line_protocol import Unavailable, memory_mib, serve
from benchmarks.peer_process import ROOT


def served(prepare: Callable[[], Callable[[], Any]], *lines: str) -> tuple[int, list[dict[str, Any]]]:
    answers = io.StringIO()
    status = serve(prepare, lines, answers)
    return status, [json.loads(line) for line in answers.getvalue().splitlines()]


def test_steps_are_counted_timed_and_their_last_loss_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 10.5, 20.0, 22.0])
    losses = iter([3.0, 2.0])
    monkeypatch.setattr(line_protocol.time, "perf_counter", lambda: next(now))
    status, (ready, answer) = served(lambda: lambda: next(losses), "step 2\n", "quit\n")
    assert status == 0 and ready["ready"] is True
    assert answer == {"seconds": [0.5, 2.0], "loss": 2.0}


def test_quit_ends_and_so_do_no_more_lines() -> None:
    calls: list[int] = []

    def step() -> float:
        calls.append(1)
        return 0.0

    assert served(lambda: step, "quit", "step 1")[0] == 0
    assert served(lambda: step)[0] == 0
    assert not calls


@pytest.mark.parametrize("line", ["step", "step 0", "step -1", "step x", "peak now", "stop", ""])
def test_other_lines_end_it_with_what_was_expected(line: str) -> None:
    status, answers = served(lambda: lambda: 0.0, line, "step 1")
    assert status == 1 and len(answers) == 2
    assert repr(line) in answers[1]["error"] and "'step COUNT', 'peak' or 'quit'" in answers[1]["error"]


def test_what_cannot_be_built_is_said_and_is_no_error() -> None:
    def prepare() -> Callable[[], float]:
        raise Unavailable("no such library")

    assert served(prepare, "step 1") == (0, [{"unavailable": "no such library"}])


def test_errors_of_building_and_of_stepping_are_answers() -> None:
    def broken() -> Any:
        raise KeyError("weight")

    assert served(broken) == (1, [{"error": "KeyError: 'weight'"}])
    status, answers = served(lambda: broken, "step 1", "step 1")
    assert status == 1 and answers[1:] == [{"error": "KeyError: 'weight'"}]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_an_error(loss: float) -> None:
    status, answers = served(lambda: lambda: loss, "step 1")
    assert status == 1 and str(loss) in answers[1]["error"]


def test_peak_memory_counts_what_was_held_and_dropped() -> None:
    before = memory_mib()
    held = bytearray(b"x") * (64 * 2**20)
    del held
    _, answers = served(lambda: lambda: 0.0, "peak")
    assert answers[1]["peak_mib"] >= before + 48 or answers[1]["peak_mib"] >= memory_mib("VmRSS") + 48


def test_a_child_does_not_inherit_its_parents_peak() -> None:
    held = bytearray(b"x") * (256 * 2**20)
    program = "from benchmarks.line_protocol import memory_mib; print(memory_mib())"
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert len(held) and float(said) < 150


def test_without_proc_the_systems_own_count_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    precise = memory_mib()
    monkeypatch.setattr(line_protocol, "STATUS", "/does/not/exist")
    assert memory_mib() >= 0.8 * precise


def test_prints_do_not_mix_with_answers() -> None:
    program = (
        "import sys; from benchmarks.line_protocol import answers_only, serve\n"
        "answers = answers_only(); print('words of a library', flush=True)\n"
        "sys.exit(serve(lambda: lambda: 1.0, sys.stdin, answers))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, input="step 1\n", capture_output=True, text=True)
    assert [sorted(json.loads(line)) for line in done.stdout.splitlines()] == [
        ["imported_mib", "ready"],
        ["loss", "seconds"],
    ]
    assert "words of a library" in done.stderr
