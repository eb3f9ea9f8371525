"""Sony's `.nnp`: a baked network, with the policy and the integer weights in the same zip."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import nnabla as nn
import numpy as np
from nnabla.utils.save import save

from nnmpq.graph.bake import Baked, bake
from nnmpq.graph.quantize import QuantizedNetwork
from nnmpq.policy import Policy, PolicyError

POLICY_MEMBER = "nnmpq/policy.yaml"
WEIGHTS_MEMBER = "nnmpq/weights.npz"
LARGEST_MEMBER = 2**30
GRID_NUMBERS = ("step", "low", "high", "xmin", "xmax")


def weights_npz(baked: Baked) -> bytes:
    """Return the integer weights and the numbers of all grids as an `.npz` without pickles.

    Entries are "<site>:codes" and "<site>:<number>" with the numbers of `nnmpq.quantizers.Grid`.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, codes in baked.codes.items():
        arrays[f"{name}:codes"] = codes
    for name, grid in baked.grids.items():
        arrays[f"{name}:kind"] = np.array(grid.kind)
        arrays[f"{name}:bits"] = np.array(grid.bits)
        arrays[f"{name}:offset"] = np.array(grid.offset)
        for key in GRID_NUMBERS:
            number = getattr(grid, key)
            if number is not None:
                arrays[f"{name}:{key}"] = np.asarray(number)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def save_nnp(path: str | Path, quantized: QuantizedNetwork, policy: Policy) -> None:
    """Bake a quantized network and write it as `.nnp`.

    The file loads with `NnpLoader`, gives the outputs of the evaluation graph bit for bit, and carries two members
    more: the policy, and the integer weights with their grids. It is written under a temporary name and renamed.

    Args:
        path: file to write, ending in ".nnp".
        quantized: the evaluation graph.
        policy: its policy.
    """
    path = Path(path)
    if path.suffix != ".nnp":
        raise ValueError(f"{path}: the name of an nnp file ends in .nnp")
    baked = bake(quantized)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=".nnp")
    os.close(handle)
    try:
        _write(temporary, baked)
        with zipfile.ZipFile(temporary, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(POLICY_MEMBER, policy.to_yaml())
            archive.writestr(WEIGHTS_MEMBER, weights_npz(baked))
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _write(path: str, baked: Baked) -> None:
    """Let nnabla write network, executor and parameters."""
    names = {"x" if i == 0 else f"x{i + 1}": v for i, v in enumerate(baked.inputs)}
    outputs = {"y" if i == 0 else f"y{i + 1}": v for i, v in enumerate(baked.outputs)}
    contents = {
        "networks": [
            {
                "name": "main",
                "batch_size": baked.inputs[0].shape[0],
                "names": names,
                "outputs": outputs,
            }
        ],
        "executors": [
            {"name": "runtime", "network": "main", "data": list(names), "output": list(outputs)},
        ],
    }
    with nn.parameter_scope("", OrderedDict()):
        for name, variable in baked.parameters.items():
            nn.parameter.set_parameter(name, variable)
        save(path, contents)


def read_manifest(path: str | Path) -> tuple[Policy, dict[str, np.ndarray]]:
    """Return the policy and the arrays of `weights_npz` from an `.nnp` that nnmpq wrote.

    Needs no nnabla graph; reads the two members alone, never a pickle, and refuses members of absurd size.

    Args:
        path: the file.

    Raises:
        PolicyError: it is no zip, is damaged, or holds no manifest.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in (POLICY_MEMBER, WEIGHTS_MEMBER):
                if archive.getinfo(member).file_size > LARGEST_MEMBER:
                    raise PolicyError(f"{path}: member {member} is larger than {LARGEST_MEMBER} bytes")
            text = archive.read(POLICY_MEMBER).decode()
            packed = archive.read(WEIGHTS_MEMBER)
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            numbers = {name: arrays[name] for name in arrays.files}
    except PolicyError:
        raise
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise PolicyError(f"{path}: no manifest of nnmpq can be read: {error}") from error
    return Policy.from_yaml(text, f"{path}: {POLICY_MEMBER}"), numbers
