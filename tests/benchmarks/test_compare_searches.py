from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import compare_searches
from benchmarks.compare_chart import accuracy_chart
from benchmarks.compare_searches import Comparison, lines, main, run_all, same_bits, table
from nnmpq.config.reader import read_experiment
from nnmpq.config.sections import read_sections
from nnmpq.policy import Policy, SitePolicy
from nnmpq.search import SEARCHES


def policy(folder: Path, bits: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    sites = {"fc/W": SitePolicy("weight", bits, "uniform_b_xmax", True), "fc/b": bias(folder.name)}
    Policy(network="resnet", method="x", seed=1, budget={}, cost={}, sites=sites).save(folder / "policy.yaml")


def bias(name: str) -> SitePolicy:
    """Of uniform in bits, of the others float: what a bias has makes no other policy."""
    return SitePolicy("bias", *((3, "uniform_b_xmax") if "UNIFORM" in name else (32, "float")), True)


def searched(folder: Path, bits: int, **found: Any) -> None:
    policy(folder, bits)
    cost = {"mean_bits": float(bits), "weights_kib": 10.0 * bits, "activations_sum_kib": 5.0 * bits}
    result = {"cost": cost, "seconds": 90.0, "images_seen": 1200, "step_over_float_step": None, **found}
    (folder / "result.json").write_text(json.dumps(result))


def trained(folder: Path, test: float) -> None:
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"test_accuracy": test, "validation_accuracy": test + 0.01}))


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    """Uniform and edmips at budget 3 with two seeds each, gmpq with uniform's bits, learned searched alone."""
    found = Comparison(tmp_path, seeds=(1, 2))
    for method, bits in (("uniform", 3), ("learned", 4), ("edmips", 5), ("gmpq", 3)):
        searched(found.search(method, "3"), bits, **({"step_over_float_step": 1.3} if method == "edmips" else {}))
    for seed, uniform, edmips in ((1, 0.80, 0.84), (2, 0.82, 0.83)):
        trained(found.training("uniform", "3", seed), uniform)
        trained(found.training("edmips", "3", seed), edmips)
    return found


def test_the_table_sets_means_beside_uniform(comparison: Comparison) -> None:
    found = {line.method: line for line in lines(comparison, compare_searches.METHODS, ("3",))}
    assert set(found) == {"uniform", "learned", "edmips", "gmpq"}, "what was not searched has no row"
    assert found["gmpq"].alike == "uniform" and found["gmpq"].test == (0.80, 0.82)
    assert found["learned"].test == ()
    rows = {row.split(" | ")[1].split()[0]: row for row in table(list(found.values())).splitlines()[2:]}
    # Means 81 and 83.5; deviations of two values a, b are |a - b| / sqrt 2.
    assert "| 81.00 ± 1.41 |  | 2 |" in rows["uniform"] and "| 83.50 ± 0.71 | +2.50 | 2 |" in rows["edmips"]
    assert "| 5.000 | 50.0 | 25.0 | 1.5 | 1,200 | 1.30 |" in rows["edmips"]
    assert "gmpq (bits of uniform)" in rows["gmpq"] and "+0.00" in rows["gmpq"]
    assert len({row.count("|") for row in table(list(found.values())).splitlines()}) == 1


def test_the_same_bits_are_trained_once_and_finished_runs_not_again(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    monkeypatch.setattr(compare_searches.subprocess, "run", lambda line, check: ran.append(line))
    assert same_bits(comparison, "gmpq", "3") == "uniform" and same_bits(comparison, "edmips", "3") == "edmips"
    run_all(comparison, ("uniform", "learned", "edmips", "gmpq"), ("3",))
    assert [Path(line[1]).name + " " + line[2] for line in ran] == [
        "train_resnet.py FLOAT",
        "train_resnet.py LEARNED_3_TRAIN",
        "train_resnet.py LEARNED_3_TRAIN",
    ]
    assert [part for line in ran for part in line if part.startswith("seed=")] == ["seed=1", "seed=2"]
    assert f"policy={comparison.search('learned', '3').resolve() / 'policy.yaml'}" in ran[1]


def test_a_search_that_fails_ends_the_comparison(tmp_path: Path) -> None:
    with pytest.raises(compare_searches.subprocess.CalledProcessError):
        run_all(Comparison(tmp_path, tmp_path / "no data"), ("uniform",), ("3",))


def test_the_table_is_printed_and_kept(comparison: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(comparison.out), "--seeds", "1", "--budgets", "3", "--table"]) == 0
    assert capsys.readouterr().out == (comparison.out / "table.md").read_text()
    assert "| 80.00 |" in (comparison.out / "table.md").read_text()
    assert (comparison.out / "table.png").read_bytes().startswith(b"\x89PNG")


def test_the_chart_leaves_out_what_has_no_accuracy() -> None:
    chosen = {"3": {"uniform": (0.8, 0.82), "gmpq": ()}, "2": {"uniform": ()}}
    width = int.from_bytes(accuracy_chart(chosen)[16:20], "big")
    both = int.from_bytes(accuracy_chart({**chosen, "2": {"uniform": (0.7,)}})[16:20], "big")
    assert width < both, "a panel for each budget that has any"
    with pytest.raises(ValueError, match="no policy has been trained"):
        accuracy_chart({"2": {"uniform": ()}})


def test_the_file_has_every_search_at_both_budgets_with_a_training() -> None:
    names = read_sections(compare_searches.CFG).names()
    assert set(compare_searches.METHODS) == set(SEARCHES)
    for method in compare_searches.METHODS:
        for budget in compare_searches.BUDGETS:
            assert {f"{method.upper()}_{budget}", f"{method.upper()}_{budget}_TRAIN"} <= set(names)
            chosen = read_experiment(compare_searches.CFG, f"{method.upper()}_{budget}")
            assert chosen.method == method and chosen.mean_bits == pytest.approx(float(budget), abs=0.05)
