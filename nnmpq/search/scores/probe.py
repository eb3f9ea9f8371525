"""The scheme of a score: quantizers at activations whose bits and range are set between two runs."""

from __future__ import annotations

import attrs
import nnabla as nn
import numpy as np

from nnmpq.graph.network import ACTIVATION, Network, Site, as_tuple
from nnmpq.graph.quantized import Quantized
from nnmpq.quantizers import make
from nnmpq.quantizers.grid import Grid
from nnmpq.quantizers.parameters import Values

# At so many bits over the whole range of a tensor a quantizer changes nothing that a score could see.
OFF_BITS = 16


@attrs.frozen
class Probe:
    """Quantizers at the named activations, of plain variables: no parameter is made, no weight is touched.

    Args:
        names: of activation sites.
        fused: use the fused cores, else standard functions.
    """

    names: tuple[str, ...] = attrs.field(converter=as_tuple)
    fused: bool = True

    def check(self, network: Network) -> None:
        """Raise KeyError where a name is no site's."""
        for name in self.names:
            network.site(name)

    def covers(self, site: Site) -> bool:
        """Return whether the site is named."""
        return site.role == ACTIVATION and site.name in self.names

    def weight(self, site: Site, w: nn.Variable) -> Quantized:
        """Leave a weight as it is."""
        return Quantized(w, source=w)

    def activation(self, site: Site, x: nn.Variable) -> Quantized:
        """Quantize an activation at bits that are a variable."""
        limits = (2.0 if site.signed else 1.0, float(OFF_BITS))
        ranges = (2.0**-40, 2.0**40)
        quantizer = make("uniform_b_xmax", signed=site.signed, bits_limits=limits, xmax_limits=ranges, learn=False)
        parameters = {name: nn.Variable.from_numpy_array(np.float32(OFF_BITS)) for name in quantizer.parameter_names}
        return Quantized(
            quantizer.apply(x, parameters, self.fused), quantizer.bits(parameters), quantizer, parameters, x
        )


def grid_values(grid: Grid) -> Values:
    """Return the raw values that give a quantizer this uniform grid.

    Example:
        >>> from nnmpq.search.scores.ranges import uniform_grid
        >>> {name: float(v) for name, v in grid_values(uniform_grid(4, np.float32(0.5), signed=True)).items()}
        {'bits': 4.0, 'xmax': 3.5}
    """
    return {"bits": np.float32(grid.bits), "xmax": np.float32(grid.step * np.float32(grid.high))}
