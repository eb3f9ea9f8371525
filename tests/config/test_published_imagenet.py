"""The files for MobileNetV2 and ImageNet: names, limits that follow from the published table; all sections build."""

from __future__ import annotations

from pathlib import Path

import attrs
import nnabla as nn
import pytest

from nnmpq.config.choices import ARCHITECTURES
from nnmpq.config.experiment import Experiment
from nnmpq.config.reader import read_experiment
from nnmpq.config.scheme import build_scheme
from nnmpq.config.sections import read_sections
from nnmpq.config.weightfile import produced_by
from nnmpq.graph.network import Network
from nnmpq.graph.quantize import quantize
from nnmpq.graph.trace import trace
from nnmpq.models import build

CFGS = Path(__file__).resolve().parents[2] / "cfgs"
FP, POW2 = CFGS / "train_mobilenet_quant_fp.cfg", CFGS / "train_mobilenet_quant_pow2.cfg"
IMAGENET = CFGS / "train_imagenet_quant_fp.cfg"
SECTIONS = [(path, name) for path in (FP, POW2, IMAGENET) for name in read_sections(path).names()]
# "Mixed Precision DNNs", Table 4, in MiB: weights and largest activation of the float network, at 4 bits, the limits.
TABLE = {
    "RESNET18": ((44.56, 3.04), (5.57, 0.38), (5.40, 0.38)),
    "MOBILENET_V2": ((13.23, 4.59), (1.65, 0.57), (1.55, 0.57)),
}
# ResNet-20 in KiB: the same sizes of its float network.
RESNET20 = {"weight": 1048.23, "max": 64.0, "sum": 736.0}


def options(experiment: Experiment) -> dict[str, object]:
    return {key: getattr(experiment, key) for key in ARCHITECTURES[experiment.arch]}


def traced(experiment: Experiment) -> Network:
    classes, side = {"imagenet": (1000, 224), "imagenette": (10, 112), "cifar10": (10, 32)}[experiment.dataset]
    assert (experiment.image_size or side) == side
    return trace(build(experiment.arch, nn.Variable((1, 3, side, side)), classes, **options(experiment)))


def kib(network: Network, bits: int) -> dict[str, float]:
    """Sizes from shapes alone: all weights and biases, and the results of ReLUs, the only activations with bits."""
    weights = sum(site.elements for site in network.sites() if site.role != "activation")
    maps = [site.elements for site in network.activations if site.kind == "relu"]
    return {name: bits * n / 8192 for name, n in (("weight", weights), ("max", max(maps)), ("sum", sum(maps)))}


@pytest.mark.parametrize(("path", "name"), [(FP, "DEFAULT"), (POW2, "DEFAULT"), (IMAGENET, "RESNET18")])
def test_the_float_network_is_there(path: Path, name: str) -> None:
    experiment = read_experiment(path, name)
    assert (experiment.w_quantize, experiment.a_quantize, experiment.weightfile) == (None, None, None)


@pytest.mark.parametrize("name", list(TABLE))
def test_imagenet_has_the_sizes_and_limits_of_the_table(name: str) -> None:
    experiment = read_experiment(IMAGENET, f"{name}_PARAMETRIC_FP_WAMQ_DELTA_XMAX_CON_INIT")
    floating, four, limits = TABLE[name]
    network = traced(experiment)
    for bits, (weights, activations) in ((32, floating), (4, four)):
        # The table gives 3.04 for 64 channels of 112x112 pixels, which take 3.06.
        assert kib(network, bits)["weight"] / 1024 == pytest.approx(weights, abs=0.011)
        assert kib(network, bits)["max"] / 1024 == pytest.approx(activations, abs=0.023)
    assert experiment.target_weight_kbytes == pytest.approx(limits[0] * 1024)
    assert experiment.target_activation_kbytes == pytest.approx(kib(network, 4)["max"] + 0.1)
    assert experiment.target_activation_kbytes / 1024 == pytest.approx(limits[1], abs=0.005)
    assert experiment.target_activation_type == "max"
    assert (experiment.w_quantize, experiment.a_quantize) == ("parametric_fp_d_xmax", "parametric_fp_d_xmax_relu")
    assert experiment.keep == ()  # the first and the last layer too


@pytest.mark.parametrize(("path", "name"), [(p, n) for p, n in SECTIONS if "_WAMQ_" in n or "_WASQ_" in n])
def test_limits_and_their_weights_follow_from_the_network(path: Path, name: str) -> None:
    experiment = read_experiment(path, name)
    network = traced(experiment)
    kind = experiment.target_activation_type
    assert kind == ("sum" if "_WASQ_" in name else "max")
    assert experiment.target_activation_kbytes == pytest.approx(kib(network, 4)[kind] + 0.1)
    if path != IMAGENET:
        assert experiment.target_weight_kbytes == pytest.approx(1.55 / 1.65 * kib(network, 4)["weight"], rel=1e-3)
    for key, size in (("initial_cost_lambda2", "weight"), ("initial_cost_lambda3", kind)):
        scaled = 0.1 * (RESNET20[size] / kib(network, 32)[size]) ** 2
        assert getattr(experiment, key) == pytest.approx(scaled, rel=0.03), key


@pytest.mark.parametrize(("path", "family"), [(FP, "fp"), (POW2, "pow2")])
def test_names_say_what_the_sections_do(path: Path, family: str) -> None:
    for name in read_sections(path).names():
        experiment = read_experiment(path, name)
        assert experiment.arch == "mobilenet_v2"
        assert (experiment.dataset == "imagenette") == name.startswith("IMAGENETTE")
        assert (experiment.stem == "cifar") == (experiment.dataset == "cifar10")
        plain = name.replace("IMAGENETTE_", "")
        quantizes = plain.startswith(("FP_", "POW2_", "PARAMETRIC_"))
        assert (experiment.w_quantize is not None) == quantizes
        assert (experiment.a_quantize is not None) == (quantizes and "_WQ_" not in plain)
        assert (experiment.weightfile is not None) == ("INIT" in name)
        if quantizes:
            learned = plain.split("Q_")[1].split("_INIT")[0].replace("_CON", "").lower().replace("delta", "d")
            wanted = f"parametric_{family}_{learned}" if plain.startswith("PARAMETRIC_") else family
            assert experiment.w_quantize == wanted and experiment.a_quantize in (None, f"{wanted}_relu")
        if "W4A4" in name:
            assert (experiment.w_bitwidth, experiment.a_bitwidth) == (4, 4)
        if not name.startswith(("DEFAULT", "IMAGENETTE")):
            tenth = 0.1 if "B_XMIN" in name else 1.0
            suffix = 0.003 if name.endswith("_RRLR") else 0.01 if name.endswith("_RLR") else 0.03
            assert experiment.initial_learning_rate == pytest.approx(suffix * tenth)


def test_every_start_is_the_result_of_an_experiment_of_the_same_file() -> None:
    for path, name in SECTIONS:
        experiment = read_experiment(path, name)
        if experiment.weightfile is not None:
            maker = produced_by(experiment.weightfile)[0]
            start = read_experiment(path, maker)
            assert start.weightfile is None and start.w_quantize is None
            assert (start.arch, start.stem, start.dataset) == (experiment.arch, experiment.stem, experiment.dataset)


def test_every_section_builds() -> None:
    """Network and scheme, a quarter as wide, and once for all sections whose quantizers are the same."""
    built = set()
    for path, name in SECTIONS:
        experiment = attrs.evolve(read_experiment(path, name), width_multiplier=0.25)
        keys = ("arch", "scale_layer", "keep", "activation_sites", "policy", "faithful", "per_channel")
        keys += tuple(key for key in attrs.asdict(experiment) if key.startswith(("w_", "a_")))
        content = tuple(getattr(experiment, key) for key in keys)
        if content in built:
            continue
        built.add(content)
        nn.clear_parameters()
        network = build(experiment.arch, nn.Variable((1, 3, 32, 32)), 10, **options(experiment))
        bits = quantize(network, build_scheme(experiment)).bit_numbers()
        weights = {width for site, width in bits.items() if site.endswith("/W")}
        assert (32 in weights) == (experiment.w_quantize is None), name
    assert len(built) >= 15
