"""What stands at a site once it is quantized, and what decides that."""

from __future__ import annotations

from typing import Any, Protocol

import attrs
import nnabla as nn
import numpy as np
from nnabla.parameter import get_parameter_or_create

from nnmpq.graph.network import Network, Site
from nnmpq.graph.settings import FLOAT_BITS
from nnmpq.quantizers import name_of
from nnmpq.quantizers.mixture import CandidateMixture


@attrs.frozen(eq=False)
class Quantized:
    """What a scheme puts at a site.

    Args:
        output: the tensor that goes on.
        bits: 32 for float, else a graph variable of shape ().
        quantizer: None for float.
        parameters: the quantizer's raw parameters by name.
        source: the tensor that was quantized.
    """

    output: nn.Variable
    bits: Any = FLOAT_BITS
    quantizer: Any = None
    parameters: dict[str, nn.Variable] = attrs.field(factory=dict)
    source: nn.Variable | None = None

    @property
    def quantizer_name(self) -> str:
        """The quantizer's registered name, a mixture's candidates' name, "float" without one."""
        if self.quantizer is None:
            return "float"
        return self.quantizer.quantizer if isinstance(self.quantizer, CandidateMixture) else name_of(self.quantizer)

    def values(self) -> dict[str, np.ndarray]:
        """Return the raw parameters as numbers."""
        return {name: np.array(v.d, np.float32) for name, v in self.parameters.items()}

    def grid(self) -> Any:
        """Return the grid as it is now.

        Raises:
            ValueError: the site is float.
        """
        if self.quantizer is None:
            raise ValueError("a float site has no grid")
        needs_data = self.quantizer.family in ("midrise", "dorefa", "sign")
        x = np.array(self.source.d) if needs_data and self.source is not None else None
        return self.quantizer.grid(self.values(), x)

    def bit_number(self) -> int:
        """Return the bits as they are now."""
        return FLOAT_BITS if self.quantizer is None else int(self.grid().bits)


class Scheme(Protocol):
    """Decides what stands at each site.

    Where a site of kind "relu" follows a plain ReLU, `activation` gets the ReLU's input, and what it returns
    must not be negative: an unsigned quantizer clips at zero by itself. Other clips, such as ReLU6, stay in
    front of the quantizer.
    """

    def check(self, network: Network) -> None:
        """Raise ValueError where the scheme does not fit the network."""

    def covers(self, site: Site) -> bool:
        """Return whether the site is this scheme's, and counts in the cost."""

    def weight(self, site: Site, w: nn.Variable) -> Quantized:
        """Quantize a weight or bias."""

    def activation(self, site: Site, x: nn.Variable) -> Quantized:
        """Quantize an activation."""


def place(site: Site, quantizer: Any, x: nn.Variable, start: dict[str, np.ndarray], fused: bool = True) -> Quantized:
    """Put a quantizer at a site, with its parameters in the current parameter scope.

    Args:
        site: where; parameters are named "<site>_quantizer/<parameter>".
        quantizer: any registered one.
        x: tensor to quantize.
        start: raw values for parameters that do not exist yet.
        fused: use the fused core, else standard functions.

    Raises:
        ValueError: parameters of that name exist with another shape.
    """
    parameters = {}
    for name, value in start.items():
        full_name = f"{site.name}_quantizer/{name}"
        existing = nn.parameter.get_parameter(full_name)
        if existing is not None and existing.shape != np.shape(value):
            raise ValueError(
                f"{full_name} has shape {existing.shape}, {np.shape(value)} is needed: "
                "it was made with per_channel set otherwise"
            )
        # This also sets need_grad of a parameter from a file: bits that were learned may be fixed now.
        parameters[name] = get_parameter_or_create(
            full_name,
            np.shape(value),
            initializer=np.asarray(value, np.float32),
            need_grad=quantizer.learned(name),
        )
    return Quantized(quantizer.apply(x, parameters, fused), quantizer.bits(parameters), quantizer, parameters, x)


def exists(site: Site) -> bool:
    """Return whether a site's quantizer already has parameters in the current scope."""
    prefix = f"{site.name}_quantizer/"
    return any(name.startswith(prefix) for name in nn.get_parameters(grad_only=False))
