"""Loss scaling: half precision keeps small gradients only if the loss is large."""

from __future__ import annotations

import attrs

SMALLEST = 1.0


@attrs.define
class LossScale:
    """A power of two that the loss is multiplied by before the backward pass, and gradients are divided by after it.

    Halved when a gradient overflows, whose update is left out; doubled after so many updates without one.

    Args:
        value: the factor, at least 1; 1 scales nothing.
        patience: updates without overflow before it is doubled.
        largest: no doubling beyond.
        dynamic: False keeps the value, so that an overflow is an error.

    Example:
        >>> scale = LossScale(8.0, patience=2)
        >>> scale.overflowed(), scale.value
        (True, 4.0)
        >>> scale.went_well(); scale.went_well(); scale.value
        8.0

    Source:
        Micikevicius et al., "Mixed Precision Training", ICLR 2018, section 3.2.
    """

    value: float = 1.0
    patience: int = 2000
    largest: float = 2.0**24
    dynamic: bool = True
    good: int = 0

    def overflowed(self) -> bool:
        """Halve the factor after an overflow; return whether that was possible, else the run has diverged."""
        self.good = 0
        if not self.dynamic or self.value <= SMALLEST:
            return False
        self.value /= 2
        return True

    def went_well(self) -> None:
        """Count an update; double the factor after `patience` of them."""
        self.good += 1
        if self.dynamic and self.good >= self.patience:
            self.value = min(self.value * 2, self.largest)
            self.good = 0


def scale_for(type_config: str) -> LossScale:
    """Return the loss scale of a number format: 2^16 to begin with for half precision, none for float.

    Example:
        >>> scale_for("half").value, scale_for("float").value
        (65536.0, 1.0)
    """
    return LossScale(2.0**16) if type_config in ("half", "mixed_half") else LossScale(1.0, dynamic=False)
