from __future__ import annotations

import os
import sys
import time

import pytest

from benchmarks.line_protocol import Unavailable
from benchmarks.peer_process import Peer, PeerError, environment

SERVE = "import sys, time, os; from benchmarks.line_protocol import *; serve({prepare}, sys.stdin, sys.stdout)"


def peer(prepare: str, threads: int = 1) -> Peer:
    return Peer([sys.executable, "-c", SERVE.format(prepare=prepare)], threads)


def test_it_is_asked_and_answers() -> None:
    with peer("lambda: lambda: time.sleep(.02) or 1.5") as process:
        assert process.wait_until_ready(60)["ready"] is True
        assert process.ready["imported_mib"] > 0
        seconds = process.steps(3, 60)
        assert len(seconds) == 3 and all(0.02 <= second < 5 for second in seconds)
        assert process.ask("step 1", 60)["loss"] == 1.5
        assert process.peak_mib() > 1
    assert process.process.returncode == 0


def test_every_pool_has_its_threads_from_the_start_on() -> None:
    chosen = environment(3, {"OMP_NUM_THREADS": "8", "PATH": "/bin"})
    pools = [chosen[name] for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")]
    assert pools == ["3"] * 3 and "OMP_WAIT_POLICY" not in chosen and chosen["PATH"] == "/bin"
    with peer("lambda: lambda: float(os.environ['NUMBA_NUM_THREADS'])", threads=2) as process:
        process.wait_until_ready(60)
        assert process.ask("step 1", 60)["loss"] == 2.0


def test_an_idle_process_uses_no_time() -> None:
    with peer("lambda: lambda: time.process_time()") as process:
        process.wait_until_ready(60)
        first = process.ask("step 1", 60)["loss"]
        time.sleep(0.5)
        assert process.ask("step 1", 60)["loss"] - first < 0.1


def test_the_error_of_a_step_arrives() -> None:
    with peer("lambda: lambda: 1 / 0") as process:
        process.wait_until_ready(60)
        with pytest.raises(PeerError, match="ZeroDivisionError"):
            process.steps(1, 60)


def test_what_is_unavailable_is_told_apart() -> None:
    with peer("lambda: (_ for _ in ()).throw(Unavailable('no torch here'))") as process:
        with pytest.raises(Unavailable, match="no torch here"):
            process.wait_until_ready(60)


def test_a_process_that_dies_leaves_its_last_words() -> None:
    with Peer([sys.executable, "-c", "raise SystemExit('the disk is full')"], 1) as process:
        with pytest.raises(PeerError, match="status 1.*the disk is full"):
            process.wait_until_ready(60)
        with pytest.raises(PeerError, match="status 1"):
            process.steps(1, 60)


def test_one_that_hangs_is_given_up_and_killed() -> None:
    with peer("lambda: lambda: time.sleep(600)") as process:
        process.wait_until_ready(60)
        begin = time.monotonic()
        with pytest.raises(PeerError, match=r"no answer in 0\.2 s"):
            process.steps(1, 0.2)
        assert time.monotonic() - begin < 5
        process.process.kill()
    assert process.process.returncode is not None


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(PeerError, match="/no/such/python does not start"):
        Peer(["/no/such/python"], 1)


def test_closing_ends_the_process() -> None:
    process = peer("lambda: lambda: 0.0")
    process.wait_until_ready(60)
    process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process.process.pid, 0)
