"""Run a network with gates from its `.nnp`; needs nnabla and numpy, and nothing else of this package.

python runner.py MODEL.nnp IMAGES.npy    prints class and precisions of each image, float32 (N, C, H, W)
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections import OrderedDict
from typing import Any

import nnabla as nn
import numpy as np
from nnabla.utils.nnp_graph import NnpLoader

MEMBER = "nnmpq/gates.json"


class GatedRunner:
    """A network with gates, image by image; a path that no gate chose is not run.

    Args:
        path: the `.nnp`.

    Raises:
        ValueError: the file holds no gates.
    """

    def __init__(self, path: str) -> None:
        with zipfile.ZipFile(path) as archive:
            if MEMBER not in archive.namelist():
                raise ValueError(f"{path}: no network with gates: it has no member {MEMBER}")
            self.gates = json.loads(archive.read(MEMBER))
        self.loader = NnpLoader(path)
        self.networks: dict[str, Any] = {}
        self.calls: dict[str, int] = {}

    def run(self, name: str, x: Any) -> dict[str, Any]:
        """Run one of the file's networks on an nnabla array; return its outputs' arrays by name."""
        if name not in self.networks:
            # Weights of a network are parameters, and names in another network may be the same.
            with nn.parameter_scope("", OrderedDict()):
                self.networks[name] = self.loader.get_network(name, batch_size=1)
        network = self.networks[name]
        self.calls[name] = self.calls.get(name, 0) + 1
        network.inputs["x"].data = x
        for output in network.outputs.values():
            output.forward()
        return {key: output.data for key, output in network.outputs.items()}

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """Return the logits of an image, shape (C, H, W), and the bits that each block took."""
        gates = self.gates
        costs = np.array(gates["costs"], np.float32) * np.float32(gates["price"])
        h = self.run("stem", nn.NdArray.from_numpy_array(np.asarray(image, np.float32)[None]))["y"]
        taken = []
        for block in gates["blocks"]:
            low = self.run(block["gate"] or block["paths"][0], h)
            choice = int(np.argmax(low["logits"].data[0] - costs))
            if choice == 0 and "y" in low:
                h = low["y"]
            else:
                h = self.run(block["paths"][choice], h)["y"]
            taken.append(gates["precisions"][choice])
        return self.run("tail", h)["y"].data[0].copy(), taken


def main(arguments: list[str]) -> int:
    """Classify the images of an `.npy`; return the exit status."""
    if len(arguments) != 2:
        print("usage: python runner.py MODEL.nnp IMAGES.npy", file=sys.stderr)
        return 2
    runner = GatedRunner(arguments[0])
    for number, image in enumerate(np.load(arguments[1], allow_pickle=False)):
        logits, bits = runner(image)
        print(f"{number}: class {int(np.argmax(logits))}, bits {' '.join(map(str, bits))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
