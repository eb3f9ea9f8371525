"""What stands at a site once it is quantized."""

from __future__ import annotations

import nnabla as nn
import numpy as np
import pytest

from nnmpq.graph.network import Site
from nnmpq.graph.quantized import Quantized, exists, place
from nnmpq.quantizers import make

SITE = Site("net/conv/W", "weight", "convolution", (2, 1, 2, 2), signed=True, layer="net/conv", channel_axis=0)


def weight() -> nn.Variable:
    return nn.Variable.from_numpy_array(
        np.array([-0.9, 0.4, 0.1, 0.26, 0.6, -0.2, 0, 1], np.float32).reshape(SITE.shape)
    )


def test_parameters_are_registered_under_the_sites_name():
    quantizer = make("uniform_delta_xmax", signed=True)
    assert not exists(SITE)
    with nn.parameter_scope("outer"):
        quantized = place(SITE, quantizer, weight(), quantizer.initial(3, 0.25))
        assert exists(SITE)
    assert set(nn.get_parameters(grad_only=False)) == {
        "outer/net/conv/W_quantizer/step",
        "outer/net/conv/W_quantizer/xmax",
    }
    assert not exists(SITE)
    assert set(quantized.parameters) == {"step", "xmax"}


def test_the_output_is_on_the_grid_and_the_bits_are_those_of_the_grid():
    quantizer = make("uniform_delta_xmax", signed=True)
    quantized = place(SITE, quantizer, weight(), quantizer.initial(3, 0.25))
    quantized.output.forward()
    # Step 1/4, three steps each way, halves away from zero.
    expected = [-0.75, 0.5, 0.0, 0.25, 0.5, -0.25, 0.0, 0.75]
    assert quantized.output.d.ravel().tolist() == expected
    assert quantized.bit_number() == 3
    quantized.bits.forward()
    assert float(quantized.bits.d) == 3
    assert quantized.grid().levels() == 7
    assert quantized.quantizer_name == "uniform_delta_xmax"


@pytest.mark.parametrize("name", ["gaussian", "dorefa", "sign_mean"])
def test_a_grid_that_follows_from_the_weights_is_found(name):
    quantizer = make(name, signed=True)
    quantized = place(SITE, quantizer, weight(), quantizer.initial(1, 0.25))
    quantized.output.forward()
    np.testing.assert_allclose(quantized.grid().quantize(weight().d), quantized.output.d, rtol=1e-6)
    assert quantized.bit_number() == 1


def test_existing_parameters_keep_their_values_and_take_the_quantizers_need_grad():
    learned = make("uniform_b_xmax", signed=True)
    place(SITE, learned, weight(), learned.initial(5, 0.25))
    registered = nn.get_parameters(grad_only=False)["net/conv/W_quantizer/bits"]
    registered.d = 3.2
    assert registered.need_grad
    fixed = make("uniform_b_xmax", signed=True, bits_limits=(3.0, 3.0))
    again = place(SITE, fixed, weight(), fixed.initial(3, 0.25))
    assert float(again.parameters["bits"].d) == pytest.approx(3.2)
    assert again.bit_number() == 3
    assert not nn.get_parameters(grad_only=False)["net/conv/W_quantizer/bits"].need_grad
    assert nn.get_parameters(grad_only=False)["net/conv/W_quantizer/xmax"].need_grad


def test_parameters_of_another_shape_are_refused_by_name():
    whole = make("uniform_b_xmax", signed=True)
    place(SITE, whole, weight(), whole.initial(3, 0.25))
    channels = make("uniform_b_xmax", signed=True, channel_axis=0)
    with pytest.raises(ValueError, match="net/conv/W_quantizer/xmax.*per_channel"):
        place(SITE, channels, weight(), channels.initial(3, np.full(2, 0.25, np.float32)))


def test_float_has_no_grid():
    w = weight()
    quantized = Quantized(w, source=w)
    assert (quantized.bits, quantized.bit_number(), quantized.quantizer_name) == (32, 32, "float")
    assert quantized.values() == {}
    with pytest.raises(ValueError, match="float"):
        quantized.grid()
