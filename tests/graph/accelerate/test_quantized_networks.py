"""Quantized networks and every quantizer's core inside accelerated graphs, against the same graphs of nnabla's own."""

from __future__ import annotations

import itertools

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest

from nnmpq.cost import activations_sum_kib, weights_kib
from nnmpq.graph.functions import functions_of
from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Parametric, SiteSettings
from nnmpq.graph.settings import ACTIVATION_QUANTIZERS, WEIGHT_FAMILIES
from nnmpq.models.resnet import resnet
from nnmpq.quantizers import QUANTIZERS, make
from tests.graph.accelerate.comparing import leaf
from tests.graph.accelerate.conditioning import compare_networks, scattered
from tests.graph.accelerate.networks import NETWORKS
from tests.quantizers.cases import CASES, case_id

FOR_WEIGHTS = [name for name in QUANTIZERS if name not in ACTIVATION_QUANTIZERS]
FOR_ACTIVATIONS = [name for name, chosen in QUANTIZERS.items() if chosen.family not in WEIGHT_FAMILIES]
# Each of both kinds at least once.
PAIRS = list(itertools.zip_longest(FOR_WEIGHTS, FOR_ACTIVATIONS, fillvalue="uniform_delta_xmax"))


def image(batch: int = 2, size: int = 8) -> nn.Variable:
    return nn.Variable((batch, 3, size, size), need_grad=True)


def settings_of(name: str, **more) -> SiteSettings:
    bits = 1 if name == "sign_mean" else 3
    return SiteSettings(name, bits, 0.27, **more)


def compare_quantized(y: nn.Variable, x: nn.Variable, scheme: Parametric, conditioned: bool = True):
    """The network and the penalties of its bits."""
    quantized = quantize(y, scheme)
    bits = quantized.bits()
    penalties = [cost(quantized.network, bits) for cost in (weights_kib, activations_sum_kib)]
    extra = [F.mul2(v, v) for v in penalties if isinstance(v, nn.Variable)]
    return compare_networks(x, [quantized.output], extra, conditioned)


@pytest.mark.parametrize("weight,activation", PAIRS)
def test_quantizers_in_a_network(weight, activation):
    x = image()
    h = F.relu(PF.batch_normalization(PF.convolution(x, 6, (3, 3), pad=(1, 1), with_bias=False, name="a"), name="a"))
    s = PF.batch_normalization(PF.convolution(h, 6, (3, 3), pad=(1, 1), with_bias=False, name="b"), name="b")
    h = F.relu(F.add2(s, h))
    y = PF.affine(F.global_average_pooling(F.relu(PF.convolution(h, 6, (1, 1), name="c"))), 4, name="d")
    scattered()
    compare_quantized(y, x, Parametric(weight=settings_of(weight), activation=settings_of(activation)))


@pytest.mark.parametrize("name", ["uniform_delta_xmax", "uniform_b_xmax", "pow2_xmin_xmax"])
@pytest.mark.parametrize("per_channel", [False, True], ids=["per tensor", "per channel"])
def test_quantized_residual_networks_with_a_scale_layer(name, per_channel):
    x = image(2, 8)
    y = resnet(x, 4, blocks=1, widths=(4, 6, 8), rng=np.random.RandomState(1))
    y = F.mul2(y, nn.parameter.get_parameter_or_create("scale_layer", (1, 1), np.full((1, 1), 1.3)))
    scattered()
    weight = settings_of(name, per_channel=per_channel)
    fast = compare_quantized(y, x, Parametric(weight=weight, activation=settings_of(name)))
    names = [f.info.type_name for f in functions_of(fast.outputs[1:])]
    cores = sum(name.endswith("QuantizerCore") for name in names)
    # A uniform activation quantizer runs as one with the normalization before it; weights' and others run alone.
    activations = 0 if name.startswith("uniform") else 7
    assert cores == 8 + 1 + activations and names.count("Normalise") == 7


@pytest.mark.parametrize("test", [False, True], ids=["training", "evaluation"])
@pytest.mark.parametrize("name,size", [("mobile", 8), ("inception", 12)])
def test_all_sites_of_other_networks(name, size, test):
    """Signed sites too: input, sums, pooled maps."""
    x = image(2, size)
    y = NETWORKS[name](x, test)
    scattered()
    kinds = ("relu", "sum", "pool", "input", "linear", "branch", "nonlinearity")
    settings = SiteSettings("uniform_delta_xmax", 4, 0.23)
    compare_quantized(y, x, Parametric(weight=settings, activation=settings, kinds=kinds), conditioned=False)


@pytest.mark.parametrize("case", CASES, ids=case_id)
@pytest.mark.parametrize("place", ["alone", "between", "behind", "joined"])
def test_cores(case, place):
    """Alone; channel-last between convolutions; behind a normalization; behind a sum after one."""
    name, options = case
    quantizer = make(name, **options)
    shape = (4, 6, 5, 7)
    axis = getattr(quantizer, "channel_axis", None)
    steps = 0.27 if axis is None else 0.27 * np.linspace(0.7, 1.6, shape[axis])
    start = quantizer.initial(int(np.clip(3, *quantizer.bits_limits)), steps)

    x = nn.Variable(shape, need_grad=True)
    leaves, v = {}, x
    parameters = {}
    for key, value in start.items():
        parameters[key] = nn.Variable(np.shape(value), need_grad=key != "bits" or quantizer.learned(key))
        parameters[key].d = value
        leaves[f"own_quantizer/{key}"] = parameters[key]
    if place == "between":
        leaves["before"], leaves["after"] = leaf((6, 6, 1, 1), 2, scale=0.4), leaf((3, 6, 3, 3), 3, scale=0.2)
        v = F.convolution(v, leaves["before"])
    if place in ("behind", "joined"):
        leaves["n/beta"], leaves["n/gamma"] = leaf((1, 6, 1, 1), 4, scale=0.3), leaf((1, 6, 1, 1), 5)
        leaves["n/mean"], leaves["n/var"] = leaf((1, 6, 1, 1), 6, False), leaf((1, 6, 1, 1), 7, False)
        v = F.batch_normalization(v, *(leaves[f"n/{key}"] for key in ("beta", "gamma", "mean", "var")))
    if place == "joined":
        leaves["other"] = leaf(shape, 8)
        v = F.add2(leaves["other"], v)
    y = quantizer.apply(v, parameters)
    if place == "between":
        y = F.convolution(y, leaves["after"])
    fast = compare_networks(x, [y], others=leaves)
    names = [f.info.type_name for f in functions_of(fast.outputs[1:])]
    by_channel = axis is not None and any(np.ndim(value) for value in start.values())
    fuses = place in ("behind", "joined") and quantizer.family == "uniform" and not by_channel
    assert sum(n.endswith("QuantizerCore") for n in names) == (0 if fuses else 1)
    if place == "between":
        assert names.count("ChannelsLast") == 1
