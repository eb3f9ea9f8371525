"""A stored network beside the trained one, image by image."""

from __future__ import annotations

from typing import Callable

import numpy as np

from nnmpq.export.trained import Trained
from nnmpq.export.verification import Verification

Run = Callable[[np.ndarray], np.ndarray]


def compare(
    target: str, trained: Trained, run: Run, weight_bytes: int, files: dict[str, int], *notes: str
) -> Verification:
    """Compare logits, bit for bit.

    Args:
        target: name of the export.
        trained: the network and its images.
        run: one image, float32 (1, C, H, W), to logits.
        weight_bytes: of the weights in the file.
        files: bytes of what is handed over, by name.
        notes: lines to print.
    """
    _, wanted = trained.run(sites=False)
    found = np.concatenate([run(trained.prepare(image[None])).reshape(1, -1) for image in trained.images])
    elements = trained.weight_elements
    counted = f"the policy counts {trained.weight_bytes:,.0f} bytes of weights; this format has float32 alone"
    return Verification(
        target,
        len(wanted),
        wanted.size,
        int(np.sum(found != wanted)),
        0.0,
        float(np.max(np.abs(found - wanted))),
        float(np.mean(found.argmax(1) == wanted.argmax(1))),
        weight_bytes,
        4.0 * elements,
        files,
        (counted, *notes),
    )
