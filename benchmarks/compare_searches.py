"""Every search at the same budgets, every policy trained alike, in one table: which is better than uniform?

    python -m benchmarks.compare_searches --data-dir DATA --out FOLDER [--seeds 313,1,2] [--threads 1] [--table]

Runs what cfgs/search_compare.cfg says: the float network, a search for each method and budget, and the training of
each policy with each seed, one seed after the other. What has its result.json is not run again, so a killed comparison
goes on, and two of them may share a folder with different seeds. ``--table`` runs nothing and prints what is there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks.compare_chart import accuracy_chart
from nnmpq.files import atomic_write
from nnmpq.graph.network import BIAS
from nnmpq.policy import Policy

ROOT = Path(__file__).resolve().parents[1]
CFG = ROOT / "cfgs" / "search_compare.cfg"
METHODS = ("uniform", "learned", "edmips", "progressive", "gmpq", "sensitivity")
# Mean bits of the uniform policy whose costs are the limits; between two widths the nearest to uniform.
BUDGETS = ("3", "2.5", "2")
HEADINGS = (
    *("budget", "method", "test accuracy %", "over uniform", "seeds", "validation %"),
    *("mean bits", "weights KiB", "activations KiB", "search minutes", "images seen", "step / float step"),
)


@attrs.frozen
class Comparison:
    """What is compared, and where.

    Args:
        out: folder of all runs.
        data_dir: folder of CIFAR-10.
        seeds: of the trainings; each search has its section's seed.
        threads: of each run.
    """

    out: Path
    data_dir: Path | None = None
    seeds: tuple[int, ...] = (313, 1, 2)
    threads: int = 1

    def search(self, method: str, budget: str) -> Path:
        """Folder of a search."""
        return self.out / f"{method.upper()}_{budget}"

    def training(self, method: str, budget: str, seed: int) -> Path:
        """Folder of the training of what a search found."""
        return self.out / f"seed{seed}" / f"{method.upper()}_{budget}_TRAIN"


def same_bits(comparison: Comparison, method: str, budget: str, methods: Sequence[str] = METHODS) -> str:
    """Return the first method that found the very same bits, biases aside: they need no second training."""
    own = _bits(comparison.search(method, budget))
    for other in methods:
        folder = comparison.search(other, budget)
        if other == method or ((folder / "policy.yaml").exists() and _bits(folder) == own):
            return other
    return method


def _bits(folder: Path) -> dict[str, int]:
    """The bits of weights and activations that a search found."""
    return {name: site.bits for name, site in Policy.load(folder / "policy.yaml").sites.items() if site.role != BIAS}


def run_all(comparison: Comparison, methods: Sequence[str], budgets: Sequence[str]) -> None:
    """Run what has no result yet: float, searches, then the trainings, a seed after the other."""
    _run(comparison, "train_resnet.py", "FLOAT", comparison.out)
    for budget in budgets:
        for method in methods:
            _run(comparison, "search.py", comparison.search(method, budget).name, comparison.out)
    weights = (comparison.out / "FLOAT" / "best.h5").resolve()
    for seed in comparison.seeds:
        for budget in budgets:
            for method in methods:
                if same_bits(comparison, method, budget) != method:
                    continue
                folder = comparison.training(method, budget, seed)
                policy = (comparison.search(method, budget) / "policy.yaml").resolve()
                settings = {"policy": policy, "weightfile": weights, "seed": seed}
                _run(comparison, "train_resnet.py", folder.name, folder.parent, settings)


def _run(
    comparison: Comparison, script: str, section: str, runs: Path, settings: Mapping[str, object] | None = None
) -> None:
    """Run a script on a section unless its result is there; what was killed goes on."""
    if (runs / section / "result.json").exists():
        return
    print(f"{script} {section} in {runs}", flush=True)
    keys = {**(settings or {}), **({} if comparison.data_dir is None else {"data_dir": comparison.data_dir})}
    given = [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]
    options = ["--cfg", str(CFG), "-o", str(runs), "--threads", str(comparison.threads), "--quiet", "--resume"]
    subprocess.run([sys.executable, str(ROOT / script), section, *options, *given], check=True)


@attrs.frozen
class Line:
    """One policy of the table.

    Args:
        budget: mean bits of the uniform policy whose costs are the limits.
        method: who found it.
        cost: by the cost's names.
        search: the search's result.json.
        alike: the method whose policy has the same bits; its own name where none has.
        test: test accuracies, one a seed.
        validation: those on the validation images.
    """

    budget: str
    method: str
    cost: Mapping[str, float]
    search: Mapping[str, Any]
    alike: str
    test: tuple[float, ...]
    validation: tuple[float, ...]


def lines(comparison: Comparison, methods: Sequence[str], budgets: Sequence[str]) -> Iterator[Line]:
    """Yield what is there of each method at each budget."""
    for budget in budgets:
        for method in methods:
            path = comparison.search(method, budget) / "result.json"
            if not path.exists():
                continue
            found = json.loads(path.read_text())
            alike = same_bits(comparison, method, budget)
            results = [comparison.training(alike, budget, seed) / "result.json" for seed in comparison.seeds]
            ends = [json.loads(result.read_text()) for result in results if result.exists()]
            test, validation = (tuple(end[key] for end in ends) for key in ("test_accuracy", "validation_accuracy"))
            yield Line(budget, method, found["cost"], found, alike, test, validation)


def percent(values: Sequence[float]) -> str:
    """Return the mean of shares in percent with its standard deviation, as far as there are values.

    Example:
        >>> percent([0.85, 0.87]), percent([0.85]), percent([])
        ('86.00 ± 1.41', '85.00', '')
    """
    if len(values) < 2:
        return "".join(f"{100 * value:.2f}" for value in values)
    return f"{100 * statistics.mean(values):.2f} ± {100 * statistics.stdev(values):.2f}"


def table(found: Sequence[Line]) -> str:
    """Return the table in Markdown; the difference to uniform is that of the means."""
    uniform = {line.budget: statistics.mean(line.test) for line in found if line.method == "uniform" and line.test}
    rows = ["| " + " | ".join(HEADINGS) + " |", "| --- " * len(HEADINGS) + "|"]
    for line in found:
        over = ""
        if line.test and line.budget in uniform and line.method != "uniform":
            over = f"{100 * (statistics.mean(line.test) - uniform[line.budget]):+.2f}"
        ratio = line.search["step_over_float_step"]
        cells = [
            f"uniform {line.budget}",
            line.method if line.alike == line.method else f"{line.method} (bits of {line.alike})",
            percent(line.test),
            over,
            str(len(line.test)),
            percent(line.validation),
            f"{line.cost['mean_bits']:.3f}",
            f"{line.cost['weights_kib']:.1f}",
            f"{line.cost['activations_sum_kib']:.1f}",
            f"{line.search['seconds'] / 60:.1f}",
            f"{line.search['images_seen']:,}",
            "" if ratio is None else f"{ratio:.2f}",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison and print its table, which is also in FOLDER/table.md and, drawn, table.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seeds", default="313,1,2", help="of the trainings (default: %(default)s)")
    parser.add_argument("--methods", default=",".join(METHODS), help="default: %(default)s")
    parser.add_argument("--budgets", default=",".join(BUDGETS), help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="run nothing, print what is there")
    chosen = parser.parse_args(argv)
    seeds = tuple(int(seed) for seed in chosen.seeds.split(","))
    budgets = tuple(chosen.budgets.split(","))
    methods = tuple(chosen.methods.split(","))
    comparison = Comparison(chosen.out, chosen.data_dir, seeds, chosen.threads)
    if not chosen.table:
        run_all(comparison, methods, budgets)
    found = list(lines(comparison, methods, budgets))
    text = table(found)
    atomic_write(chosen.out / "table.md", text)
    if any(line.test for line in found):
        accuracies = {b: {line.method: line.test for line in found if line.budget == b} for b in budgets}
        atomic_write(chosen.out / "table.png", accuracy_chart(accuracies))
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
