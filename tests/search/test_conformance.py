"""What every search does: a valid policy within its budget, the same for the same seed, whatever happens meanwhile."""

from __future__ import annotations

import json

import pytest

from nnmpq.budget import Budget
from nnmpq.config.experiment import Experiment
from nnmpq.cost import cost
from nnmpq.data import load
from nnmpq.policy import Policy
from nnmpq.search import SEARCHES
from nnmpq.search import run as harness
from nnmpq.search.task import network_of
from nnmpq.search.trail import Trail
from nnmpq.training.errors import BudgetError
from tests.search.searching import KEYS, experiment, run, trail

SEVERAL = {"mean_bits": 3.2, "weights_kib": 29.0, "activations_max_kib": 0.5}


def network(chosen: Experiment):
    data = load("digits", validation_images=40, train_images=160, test_images=40)
    return network_of(chosen, data.shape, data.classes)


@pytest.mark.parametrize("method", SEARCHES)
def test_the_policy_is_the_networks_and_meets_every_limit(method, tmp_path):
    policy = run(method, tmp_path, **SEVERAL)
    folder = tmp_path / "TINY"
    assert Policy.load(folder / "policy.yaml") == policy
    assert policy.network == "resnet_digits" and policy.seed == 7 and policy.budget == SEVERAL
    traced = network(experiment(method))
    policy.check(traced)
    used = cost(traced, policy.bits())
    for name, limit in SEVERAL.items():
        assert getattr(used, name) <= limit
        assert policy.cost[name] == pytest.approx(getattr(used, name))
    free = {name: site.bits for name, site in policy.sites.items() if site.role == "activation"}
    assert set(free.values()) <= set(KEYS["activation_widths"]) and free.keys() >= {"input", "conv1/conv/relu"}
    result = json.loads((folder / "result.json").read_text())
    assert result["method"] == method and result["budget_met"] is True and result["seconds"] > 0
    assert {"policy.yaml", "trail.csv", "bits.txt", "bits.png", "config.cfg"} <= {p.name for p in folder.iterdir()}
    assert (result["step_over_float_step"] is not None) == (method in harness.STEPS)


@pytest.mark.parametrize("method", SEARCHES)
def test_limits_of_bitops_and_sum_of_activations(method, tmp_path):
    limits = {"bitops": 7.0e6, "activations_sum_kib": 2.0}
    used = cost(network(experiment(method)), run(method, tmp_path, **limits).bits())
    assert Budget(**limits).met_by(used)


@pytest.mark.parametrize("method", SEARCHES)
def test_what_keep_decides_stays(method, tmp_path):
    policy = run(method, tmp_path, keep=("fc/affine:8", "conv1/conv/W:4"), weights_kib=40.0)
    assert policy.sites["fc/affine/W"].bits == 8 and policy.sites["conv1/conv/W"].bits == 4


@pytest.mark.parametrize("method", SEARCHES)
def test_a_budget_out_of_reach_names_the_least(method, tmp_path):
    # 74,522 weights and biases at 2 bits; where biases stay float 10 numbers have 32.
    with pytest.raises(BudgetError, match=r"weights_kib 3 is wanted, 18\.[12]\d* is the least"):
        run(method, tmp_path, weights_kib=3.0)


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("method", SEARCHES)
def test_killed_and_resumed_is_as_undisturbed(method, tmp_path, monkeypatch):
    whole = run(method, tmp_path / "whole", mean_bits=3.2)
    expected = trail(tmp_path / "whole")
    report = Trail.report
    for moment in sorted({1, len(expected) - 1}):
        folder = tmp_path / str(moment)

        def dying(self, row, moment=moment):
            report(self, row)
            if len(self.rows) == moment:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Trail, "report", dying)
            with pytest.raises(Killed):
                run(method, folder, mean_bits=3.2)
        assert not (folder / "TINY" / "policy.yaml").exists()
        assert run(method, folder, resume=True, mean_bits=3.2) == whole, f"killed after row {moment}"
        assert trail(folder) == expected, f"killed after row {moment}"
    # What is finished comes back as it was, and a new start is not taken in by what it finds.
    assert run(method, tmp_path / "whole", resume=True, mean_bits=3.2) == whole
    assert run(method, tmp_path / "whole", mean_bits=3.2) == whole
    assert trail(tmp_path / "whole") == expected
