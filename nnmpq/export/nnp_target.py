"""The export target `nnp`: the baked network, loaded again by nnabla and compared bit for bit."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import nnabla as nn
import numpy as np
from nnabla.utils.nnp_graph import NnpLoader

from nnmpq.export.nnp import grids_of, read_manifest, save_nnp
from nnmpq.export.trained import Trained
from nnmpq.export.verification import Verification
from nnmpq.graph.network import WEIGHT

NAME = "model.nnp"


def write(trained: Trained, folder: Path) -> list[Path]:
    """Write the `.nnp` with its manifest; arguments as of the other targets."""
    save_nnp(folder / NAME, trained.quantized, trained.policy)
    return [folder / NAME]


def _manifest_bytes(trained: Trained, path: Path) -> float:
    """Bytes of the weights in the manifest at the width of their grids."""
    _, numbers = read_manifest(path)
    grids = grids_of(numbers)
    weights = [site for site in trained.quantized.network.sites() if site.role == WEIGHT]
    bits = {site.name: grids[site.name].bits if site.name in grids else 32 for site in weights}
    return sum(site.elements * bits[site.name] for site in weights) / 8


def verify(trained: Trained, folder: Path) -> Verification:
    """Load the file as nnabla does, and compare the logits bit for bit."""
    path = folder / NAME
    parts, answers = [], []
    with nn.parameter_scope("", OrderedDict()):
        network = None
        for pixels, _, logits in trained.batches(sites=False):
            if network is None:
                network = NnpLoader(str(path)).get_network("main", batch_size=len(pixels))
            # The last batch need not be full.
            network.inputs["x"].d = 0
            network.inputs["x"].d[: len(pixels)] = trained.prepare(pixels)
            network.outputs["y"].forward(clear_buffer=True)
            parts.append(np.array(network.outputs["y"].d[: len(pixels)]))
            answers.append(logits)
    found, wanted = np.concatenate(parts), np.concatenate(answers)
    return Verification(
        "nnp",
        len(wanted),
        wanted.size,
        int(np.sum(found != wanted)),
        0.0,
        float(np.max(np.abs(found - wanted))),
        float(np.mean(found.argmax(1) == wanted.argmax(1))),
        _manifest_bytes(trained, path),
        trained.weight_bytes,
        {NAME: path.stat().st_size},
        ("weights are float32 in the file's own part, integers in its manifest",),
    )
