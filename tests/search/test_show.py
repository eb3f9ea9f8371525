"""`nnmpq show`: the published ratio, and what the command prints and refuses."""

from __future__ import annotations

import re

import pytest

from nnmpq.cli import main
from nnmpq.config.experiment import Experiment
from nnmpq.config.reader import to_cfg
from nnmpq.cost import cost
from nnmpq.policy import Policy
from nnmpq.search.show import weight_ratio
from nnmpq.search.task import network_of, policy_cost, policy_sites
from tests.search.small import network

KEEP = ("conv1/*", "fc/affine", "*/shortcut/conv")
RESNET18 = network_of(Experiment("X", arch="resnet18"), (3, 224, 224), 1000)
INNER = [
    layer.weight.name
    for layer in RESNET18.layers
    if layer.name not in ("conv1/conv", "fc/affine") and "shortcut" not in layer.name
]


@pytest.mark.parametrize(("bits", "published"), [(5, 0.1563), (3, 0.0938), (32, 1.0)])
def test_uniform_bits_have_the_published_ratio(bits, published):
    # Published of ResNet-18 on ImageNet; the float layers do not count.
    assert weight_ratio(RESNET18, dict.fromkeys(INNER, bits)) == pytest.approx(published, abs=6e-5)


@pytest.mark.parametrize(("ratio", "mean"), [(0.1491, 4.77), (0.0918, 2.94)])
def test_the_published_ratios_are_these_mean_bits(ratio, mean):
    # A third of the numbers at each width around the mean, weighted so that they have it exactly.
    net = network([1000, 1000], [4], [(0,), ()])
    low = int(mean)
    share = mean - low
    mixed = network([round(1000 * (1 - share)), round(1000 * share)], [4], [(0,), ()])
    assert weight_ratio(mixed, {"l0/W": low, "l1/W": low + 1}) == pytest.approx(ratio, abs=0.005 / 32)
    assert weight_ratio(net, {"l0/W": 2, "l1/W": 4, "a0/relu": 8}) == 3 / 32


def test_only_quantized_weights_count():
    net = network([100, 300], [4], [(0,), ()], bias=True)
    assert weight_ratio(net, {"l0/W": 4, "l1/W": 8, "l0/b": 2, "a0/relu": 2}) == (400 + 2400) / (32 * 400)
    assert weight_ratio(net, {"l0/W": 4, "l1/W": 32}) == 4 / 32
    assert weight_ratio(net, {"a0/relu": 2}) == 1.0


def saved(folder, experiment, bits):
    """A run's folder with a policy, as a search leaves it."""
    net = network_of(experiment, (1, 8, 8), 10)
    sites = policy_sites(net, {site.name: bits for site in net.sites() if site.name != "input"})
    policy = Policy(
        network=experiment.arch,
        method="progressive",
        seed=7,
        budget={"weights_kib": 30.0},
        cost=policy_cost(net, sites),
        sites=sites,
    )
    folder.mkdir()
    policy.save(folder / "policy.yaml")
    (folder / "config.cfg").write_text(to_cfg(experiment))
    return net, policy


DIGITS = Experiment("DIGITS", arch="resnet_digits", dataset="digits", validation_images=200)


@pytest.mark.parametrize("given", ["run", "run/policy.yaml"])
def test_the_command_prints_bits_costs_and_the_ratio(tmp_path, capsys, given):
    net, policy = saved(tmp_path / "run", DIGITS, 3)
    assert main(["show", str(tmp_path / given)]) == 0
    shown = capsys.readouterr().out
    used = cost(net, policy.bits())
    assert shown.startswith("progressive of resnet_digits, seed 7\n")
    assert re.search(r"res1/layer1/basicblock1/conv +convolution +2,304 +147,456 +3 +3 ", shown)
    share = used.weights_kib / 30.0
    assert re.search(rf"weights, KiB +{used.weights_kib:.3f} +30.000 +{share:.1%} +met", shown)
    assert re.search(rf"BitOps, all layers +{used.bitops / 1e6:.3f} M", shown)
    assert "computation ratio as ProQHA publishes it: 0.0938, 3.00 bits a quantized weight" in shown


def test_another_cfg_and_shape_serve_where_the_run_is_not_there(tmp_path, capsys):
    saved(tmp_path / "run", DIGITS, 5)
    policy = tmp_path / "run" / "policy.yaml"
    (tmp_path / "run" / "config.cfg").rename(tmp_path / "other.cfg")
    assert main(["show", str(policy)]) == 2
    assert "config.cfg: not there; name the .cfg file of the network" in capsys.readouterr().err
    other = ["--cfg", str(tmp_path / "other.cfg"), "--experiment", "DIGITS"]
    assert main(["show", str(policy), *other, "--shape", "1,8,8", "--classes", "10"]) == 0
    assert ": 0.1562, 5.00 bits" in capsys.readouterr().out
    assert main(["show", str(policy), *other, "--shape", "1,8,8"]) == 2
    assert "--shape and --classes" in capsys.readouterr().err


def test_another_networks_policy_is_refused(tmp_path, capsys):
    saved(tmp_path / "run", DIGITS, 5)
    text = to_cfg(Experiment("A", dataset="digits", arch="resnet", validation_images=200))
    (tmp_path / "two.cfg").write_text(text + text.replace("[A]", "[B]"))
    policy = str(tmp_path / "run" / "policy.yaml")
    assert main(["show", policy, "--cfg", str(tmp_path / "two.cfg")]) == 2
    assert "2 experiments; name one of them: --experiment A" in capsys.readouterr().err
    assert main(["show", policy, "--cfg", str(tmp_path / "two.cfg"), "--experiment", "A"]) == 2
    assert "arch = resnet: " in (said := capsys.readouterr().err) and "is of resnet_digits" in said
