"""What a comparison of an artefact with the trained network found."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import numpy as np

# Sums of steps that are no powers of two are rounded by float32 in an order of its own: this share of elements may
# differ there, and none elsewhere.
FLOAT_SHARE = 1e-3
# Packed weights are as large as promised, within this share and the rest of the last byte of each layer.
WEIGHT_SHARE = 0.02
SPARE_BYTES = 64


@attrs.frozen
class Verification:
    """Result of one comparison on real images.

    Args:
        target: name of the export.
        images: how many were run.
        compared: elements of all quantized activations and logits that were compared.
        differing: how many of them differ.
        allowed: share of elements that may differ; see `FLOAT_SHARE`.
        logits_difference: largest |logit - trained logit|.
        same_class: share of the images with the same class.
        weight_bytes: packed weights in the artefact.
        promised_bytes: what the cost model counts for them.
        file_bytes: everything that is handed over, by name.
        notes: lines to print.
        reason: why some may differ.
    """

    target: str
    images: int
    compared: int
    differing: int
    allowed: float
    logits_difference: float
    same_class: float
    weight_bytes: float
    promised_bytes: float
    file_bytes: dict[str, int]
    notes: tuple[str, ...] = ()
    reason: str = "steps are no powers of two"

    @property
    def same(self) -> bool:
        """Whether the artefact computes what the network does."""
        return self.differing <= self.allowed * self.compared

    @property
    def as_small(self) -> bool:
        """Whether its weights take what was promised, within 2 % and 64 bytes."""
        return abs(self.weight_bytes - self.promised_bytes) <= WEIGHT_SHARE * self.promised_bytes + SPARE_BYTES

    @property
    def passed(self) -> bool:
        """Whether both hold."""
        return self.same and self.as_small

    def report(self) -> str:
        """Return the lines to print."""
        size = f"{self.weight_bytes:,.0f} bytes of packed weights, {self.promised_bytes:,.0f} promised"
        allowed = f" ({self.allowed:.1%} may: {self.reason})" if self.allowed else ""
        lines = [
            f"{self.target}: {self.images} images, {self.compared:,} elements compared, {self.differing:,} differ"
            + allowed,
            f"  logits: largest difference {self.logits_difference:.3g}; same class on {self.same_class:.2%}",
            f"  size: {size} ({self.weight_bytes / max(self.promised_bytes, 1e-9) - 1:+.2%})",
            *(f"  {name}: {count:,} bytes" for name, count in self.file_bytes.items()),
            *(f"  {note}" for note in self.notes),
        ]
        return "\n".join([*lines, f"{self.target}: {'passed' if self.passed else 'FAILED'}"])


def allowed_share(steps: list[float]) -> float:
    """Return the share of elements that may differ: none where all steps are powers of two.

    Example:
        >>> allowed_share([0.5, 0.125]), allowed_share([0.5, 0.538])
        (0.0, 0.001)
    """
    return 0.0 if all(np.frexp(step)[0] == 0.5 for step in steps) else FLOAT_SHARE


def differing(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """Count elements compared and elements that differ, over all tensors of `wanted`.

    Example:
        >>> differing({"a": np.array([1, 2])}, {"a": np.array([[1.0], [3.0]])})
        (2, 1)
    """
    compared = sum(v.size for v in wanted.values())
    return compared, sum(int(np.sum(found[name].reshape(v.shape) != v)) for name, v in wanted.items())
