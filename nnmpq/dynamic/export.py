"""A network with gates as one `.nnp`: two networks and more a block, and what a runner needs to choose."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import nnabla as nn
import nnabla.functions as F
import numpy as np
from nnabla.utils.nnp_graph import NnpLoader
from nnabla.utils.save import save

from nnmpq.dynamic.blocks import on_other_input
from nnmpq.dynamic.network import DynamicNetwork
from nnmpq.dynamic.paths import Part
from nnmpq.graph.bake import bake
from nnmpq.graph.functions import functions_of, parameter_names

MEMBER = "nnmpq/gates.json"
Parameters = "dict[str, nn.Variable]"


def _baked(part: Part) -> tuple[nn.Variable, nn.Variable, dict[str, nn.Variable]]:
    """A part's input, output and parameters without quantizers."""
    found = bake(part.quantized)
    (entry,) = found.inputs
    return entry, found.outputs[0], found.parameters


def _float_part(output: nn.Variable, entry: nn.Variable) -> tuple[nn.Variable, nn.Variable, dict[str, nn.Variable]]:
    """A float part on an input of its own, with the parameters that it reads."""
    x = nn.Variable(entry.shape)
    made = on_other_input(output, entry, x)[0]
    names = parameter_names()
    read = {names[v.data]: v for f in functions_of([made]) for v in f.inputs if v.data in names}
    return x, made, read


class _Networks:
    """Collects the networks of the file, whose parameters must not share a name."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.contents: list[dict[str, Any]] = []
        self.parameters: dict[str, nn.Variable] = {}

    def add(self, name: str, x: nn.Variable, outputs: dict[str, nn.Variable], read: dict[str, nn.Variable]) -> str:
        """Add a network with one input, "x"; return its name."""
        self.contents.append({"name": name, "batch_size": self.batch, "names": {"x": x}, "outputs": outputs})
        self.parameters.update({f"{name}/{key}": variable for key, variable in read.items()})
        return name


def _add(
    found: _Networks,
    name: str,
    before: nn.Variable | None,
    entry: nn.Variable,
    own: tuple[nn.Variable, dict[str, nn.Variable], dict[str, nn.Variable]],
) -> str:
    """Add a network of a block, with what lies between the block before and this one in front of it."""
    x, outputs, read = own
    if before is not None and before != entry:
        # As a network of its own it would often be without parameters, and nnabla changes no such one's batch size.
        leaf, led, more = _float_part(entry, before)
        outputs = {key: on_other_input(output, x, led)[0] for key, output in outputs.items()}
        x, read = leaf, {**read, **more}
    return found.add(name, x, outputs, read)


def _collect(network: DynamicNetwork) -> tuple[_Networks, list[dict[str, Any]]]:
    """All networks of the file, and for each block which ones it runs."""
    settings = network.settings
    found = _Networks(network.images.shape[0])
    x, y, read = _float_part(network.blocks[0].block.entry, network.images)
    found.add("stem", x, {"y": y}, read)
    plan: list[dict[str, Any]] = []
    before = None
    for number, built in enumerate(network.blocks, start=1):
        gate_entry, logits, gate_read = _baked(built.gate)
        paths: list[str | None] = []
        for bits, path in zip(settings.precisions, built.paths):
            x, y, read = _baked(path)
            outputs = {"y": y}
            name = f"block{number}_{bits}bit"
            if not paths and not settings.pre_gate:
                # The gate runs in the narrowest path's own network, on what that computes.
                # What is read inside is no output of a loaded network; a copy of it is.
                outputs = {"y": F.identity(y), "logits": on_other_input(logits, gate_entry, y)[0]}
                read = {**read, **gate_read}
            paths.append(_add(found, name, before, built.block.entry, (x, outputs, read)))
        gate = None
        if settings.pre_gate:
            own = (gate_entry, {"logits": logits}, gate_read)
            gate = _add(found, f"block{number}_gate", before, built.block.entry, own)
        plan.append({"block": built.block.name, "gate": gate, "paths": paths})
        before = built.block.exit
    x, y, read = _float_part(network.float_output, before)
    found.add("tail", x, {"y": y}, read)
    return found, plan


def save_gated_nnp(path: str | Path, network: DynamicNetwork, price: float, costs: np.ndarray) -> None:
    """Bake a network with gates and write it as one `.nnp`.

    The file holds the networks "stem", for each block "blockN_1bit" (output "y" and the gate's "logits") and
    "blockN_4bit", and "tail"; its member "nnmpq/gates.json" says in which order they run and what a wide path must be
    worth. `nnmpq/dynamic/runner.py` runs it with nnabla alone. Written under a temporary name and renamed.

    Args:
        path: file to write, ending in ".nnp".
        network: built for evaluation.
        price: of wide paths.
        costs: what each precision costs beyond the narrowest, shape (K,).

    Raises:
        ValueError: the name does not end in ".nnp", or nnabla would load the file at one batch size alone.
    """
    path = Path(path)
    if path.suffix != ".nnp":
        raise ValueError(f"{path}: the name of an nnp file ends in .nnp")
    networks, plan = _collect(network)
    gates = {
        "format": 1,
        "precisions": list(network.settings.precisions),
        "price": float(price),
        "costs": [float(np.float32(cost)) for cost in costs],
        "blocks": plan,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=".nnp")
    os.close(handle)
    try:
        _write(temporary, networks)
        with zipfile.ZipFile(temporary, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(MEMBER, json.dumps(gates, indent=1))
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _write(path: str, networks: _Networks) -> None:
    """Let nnabla write the networks, and see that they load at another batch size."""
    executors = [
        {"name": c["name"], "network": c["name"], "data": ["x"], "output": list(c["outputs"])}
        for c in networks.contents
    ]
    with nn.parameter_scope("", OrderedDict()):
        for name, variable in networks.parameters.items():
            nn.parameter.set_parameter(name, variable)
        save(path, {"networks": networks.contents, "executors": executors})
    with nn.parameter_scope("", OrderedDict()):
        loader = NnpLoader(path)
        for content in networks.contents:
            loaded = loader.get_network(content["name"], batch_size=networks.batch + 1)
            if any(v.shape[0] != networks.batch + 1 for v in loaded.outputs.values()):
                raise ValueError(
                    f"{content['name']}: nnabla would load it at batch size {networks.batch} alone; build the "
                    "evaluation graph with another batch size"
                )
