from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from benchmarks import step_report
from benchmarks.step_contenders import ACCELERATED, NETWORKS, PLAIN, TORCH, Contender, Race, contenders
from benchmarks.step_race import Memory, Result

OURS, SLOW = Contender(ACCELERATED, "accelerated", 1), Contender(PLAIN, "plain", 1)
NCHW, LAST = Contender(TORCH, "nchw", 1), Contender(TORCH, "channels_last", 1)
COMPILED = Contender(TORCH, "compiled", 1)


def result(kind: str = "float", network: str = "resnet20", batch: int = 128, **changes: Any) -> Result:
    seconds = {
        SLOW: {0: 1.8, 2: 2.0},
        OURS: {0: 0.2, 1: 0.2, 2: 0.4},
        NCHW: {0: 0.2, 1: 0.5, 2: 0.5},
        LAST: {0: 0.4, 1: 0.25, 2: 0.4},
    }
    seconds.update(changes.get("seconds", {}))
    memory = {contender: Memory(100.0, 300.0) for contender in seconds}
    return Result(Race(network, kind, batch, 32), seconds, memory, {COMPILED: "no compiler"})


def test_speed_ups_and_shares_by_round() -> None:
    found = {c.other: c for c in step_report.comparisons(result())}
    assert found[SLOW].spread == pytest.approx((5.0, 7.0, 9.0)) and found[SLOW].faster
    assert found[NCHW].spread == pytest.approx((0.4, 0.8, 1.0)) and not found[NCHW].faster
    assert found[LAST].spread == pytest.approx((0.5, 0.8, 1.0))
    assert [found[c].of_least for c in (SLOW, NCHW, LAST)] == pytest.approx([1.8 / 0.2, 0.2 / 0.2, 0.2 / 0.25])


def test_only_the_best_layout_has_a_target() -> None:
    found = {c.other: c for c in step_report.comparisons(result())}
    assert found[LAST].best and found[LAST].target == 0.9 and found[LAST].holds is True
    assert not found[NCHW].best and found[NCHW].target is None and found[NCHW].holds is None


@pytest.mark.parametrize(("kind", "plain", "peer"), [("float", 8, 0.9), ("quantized", 20, 0.65), ("mixture", 10, 0.6)])
def test_targets_are_those_of_one_thread(kind: str, plain: float, peer: float) -> None:
    found = {c.other: c for c in step_report.comparisons(result(kind))}
    assert found[SLOW].target == plain and found[SLOW].holds is False
    assert found[LAST].target == peer and found[LAST].holds is (0.8 <= peer)


@pytest.mark.parametrize(("kind", "plain"), [("float", 24), ("quantized", 60), ("mixture", 25)])
def test_targets_at_four_threads_are_against_the_one_thread_of_nnabla(kind: str, plain: float) -> None:
    four = Contender(ACCELERATED, "accelerated", 4)
    found = list(step_report.comparisons(result(kind, seconds={four: {0: 0.02, 2: 0.02}})))
    of_four = [c for c in found if c.ours == four]
    assert [c.other for c in of_four] == [SLOW]  # nobody of PyTorch ran with four
    assert of_four[0].target == plain and of_four[0].spread.median == pytest.approx(95.0)
    assert of_four[0].holds is True


@pytest.mark.parametrize(("network", "batch"), [("mobilenet_v2", 128), ("resnet20", 16)])
def test_elsewhere_there_is_no_target(network: str, batch: int) -> None:
    assert {c.target for c in step_report.comparisons(result(network=network, batch=batch))} == {None}


def test_the_table_says_ratios_verdicts_memory_and_who_was_absent() -> None:
    lines = step_report.table([result(), result("quantized")]).splitlines()
    assert any(
        "plain nnabla, 1 thread" in s and "5.00    7.00    9.00    9.00" in s and ">= 8: MISSED" in s for s in lines
    )
    assert any("channels_last, 1 thread (its best)" in s and "<= 0.9: holds" in s for s in lines)
    assert any("plain nnabla, 1 thread" in s and "1900.0" in s and s.split()[-2:] == ["300", "200"] for s in lines)
    assert any("PyTorch compiled, 1 thread" in s and s.endswith("no compiler") for s in lines)
    assert sum("quantized" in s for s in lines) == 3 + 4 + 1


def test_the_csv_files_hold_every_time_and_every_ratio() -> None:
    times = list(csv.DictReader(io.StringIO(step_report.times_csv([result()]))))
    assert len(times) == 2 + 3 * 3
    assert times[1] == {
        "network": "resnet20",
        "kind": "float",
        "batch": "128",
        "size": "32",
        "library": PLAIN,
        "layout": "plain",
        "threads": "1",
        "round": "2",
        "seconds": "2.000000",
        "imported_mib": "100.0",
        "peak_mib": "300.0",
    }
    rows = {row["layout"]: row for row in csv.DictReader(io.StringIO(step_report.ratios_csv([result()])))}
    assert (rows["plain"]["ratio"], rows["plain"]["median"], rows["plain"]["holds"]) == ("theirs/ours", "7.0000", "no")
    assert rows["plain"]["of_least"] == "9.0000"
    best = rows["channels_last"]
    assert (best["ratio"], best["best"], best["target"], best["holds"]) == ("ours/theirs", "yes", "0.9", "yes")
    assert (rows["nchw"]["target"], rows["nchw"]["holds"], rows["nchw"]["against"]) == ("", "", TORCH)


def test_contenders_and_their_commands() -> None:
    field = contenders([1, 4])
    assert len(field) == len(set(field)) == 1 + 2 * (1 + 3)
    assert [c.threads for c in field if c.library == PLAIN] == [1]
    race = Race("resnet20", "mixture", *NETWORKS["resnet20"])
    command = Contender(TORCH, "nchw", 4).command(race, "/a/python")
    assert command[:3] == ["/a/python", "-m", "benchmarks.torch_peer.worker"]
    given = dict(zip(command[3::2], command[4::2]))
    assert given == {
        "--network": "resnet20",
        "--kind": "mixture",
        "--layout": "nchw",
        "--batch": "128",
        "--size": "32",
        "--threads": "4",
    }
    assert OURS.command(race, "/a/python")[2] == "benchmarks.nnabla_worker"
    assert NETWORKS["mobilenet_v2"] == (32, 96)
