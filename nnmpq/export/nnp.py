"""Sony's `.nnp`: a baked network, with the policy and the integer weights in the same zip."""

from __future__ import annotations

import io
import math
import os
import struct
import tempfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import nnabla as nn
import numpy as np
from nnabla.utils.nnp_graph import NnpLoader
from nnabla.utils.save import save

from nnmpq.graph.bake import Baked, bake
from nnmpq.graph.quantize import QuantizedNetwork
from nnmpq.policy import LARGEST_FILE, Policy, PolicyError
from nnmpq.quantizers.grid import Grid

POLICY_MEMBER = "nnmpq/policy.yaml"
WEIGHTS_MEMBER = "nnmpq/weights.npz"
LARGEST_WEIGHTS = 2**30
GRID_NUMBERS = ("step", "low", "high", "xmin", "xmax")


def weights_npz(baked: Baked) -> bytes:
    """Return the integer weights and the numbers of all grids as an `.npz` without pickles.

    Entries are "<site>:codes" and "<site>:<number>" with the numbers of `nnmpq.quantizers.grid.Grid`, where a
    channel_axis of -1 says none; `grids_of` makes the grids again.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, codes in baked.codes.items():
        arrays[f"{name}:codes"] = codes
    for name, grid in baked.grids.items():
        arrays[f"{name}:kind"] = np.array(grid.kind)
        arrays[f"{name}:bits"] = np.array(grid.bits)
        arrays[f"{name}:offset"] = np.array(grid.offset)
        arrays[f"{name}:signed"] = np.array(grid.signed)
        arrays[f"{name}:with_zero"] = np.array(grid.with_zero)
        arrays[f"{name}:channel_axis"] = np.array(-1 if grid.channel_axis is None else grid.channel_axis)
        for key in GRID_NUMBERS:
            number = getattr(grid, key)
            if number is not None:
                arrays[f"{name}:{key}"] = np.asarray(number)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def grids_of(numbers: Mapping[str, np.ndarray]) -> dict[str, Grid]:
    """Return the grids that the arrays of `weights_npz` describe, by site.

    Args:
        numbers: second part of what `read_manifest` returns.

    Raises:
        KeyError: a number is missing.
    """
    grids = {}
    for name in [key[: -len(":kind")] for key in numbers if key.endswith(":kind")]:
        axis = int(numbers[f"{name}:channel_axis"])
        grids[name] = Grid(
            str(numbers[f"{name}:kind"]),
            int(numbers[f"{name}:bits"]),
            bool(numbers[f"{name}:signed"]),
            offset=float(numbers[f"{name}:offset"]),
            with_zero=bool(numbers[f"{name}:with_zero"]),
            channel_axis=None if axis < 0 else axis,
            **{key: numbers.get(f"{name}:{key}") for key in GRID_NUMBERS},
        )
    return grids


def save_nnp(path: str | Path, quantized: QuantizedNetwork, policy: Policy) -> None:
    """Bake a quantized network and write it as `.nnp`.

    The file loads with `NnpLoader`, gives the outputs of the evaluation graph bit for bit, and carries two members
    more: the policy, and the integer weights with their grids. It is written under a temporary name and renamed.

    Args:
        path: file to write, ending in ".nnp".
        quantized: the evaluation graph.
        policy: its policy.

    Raises:
        ValueError: the name does not end in ".nnp", the policy is another network's, weights are off their grids, or
            nnabla would load the file at one batch size alone.

    Source:
        nnabla's file format; `nnabla.utils.save` keeps the batch size open by looking for that number in every shape.
    """
    path = Path(path)
    if path.suffix != ".nnp":
        raise ValueError(f"{path}: the name of an nnp file ends in .nnp")
    policy.check(quantized.network)
    baked = bake(quantized)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=".nnp")
    os.close(handle)
    try:
        _write_for_any_batch(temporary, baked)
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


def save_baked(path: str, baked: Baked) -> None:
    """Let nnabla write network, executor and parameters of a frozen network, without a manifest.

    Args:
        path: file to write, ending in ".nnp".
        baked: the frozen network.
    """
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


def _write_for_any_batch(path: str, baked: Baked) -> None:
    """Write the file, and load it at another batch size.

    nnabla keeps the batch size open by taking the first length of every Reshape and Broadcast for it; where one is
    not, it stops, or writes a file that loads at one batch size alone.

    Raises:
        ValueError: the network would load at the batch size of the graph alone.
    """
    batch = baked.inputs[0].shape[0] + 1
    found: list[int] = []
    cause: Exception | None = None
    with nn.parameter_scope("", OrderedDict()):
        try:
            save_baked(path, baked)
            network = NnpLoader(path).get_network("main", batch_size=batch)
            found = [variable.shape[0] for variable in network.outputs.values()]
        except (AssertionError, IndexError, RuntimeError, ValueError) as error:
            cause = error
    if found != [batch] * len(baked.outputs):
        raise ValueError(
            f"nnabla would load the saved network at batch size {batch - 1} alone: the first length of every "
            "Reshape and Broadcast, and of every output, must be the batch"
        ) from cause


def read_manifest(path: str | Path) -> tuple[Policy, dict[str, np.ndarray]]:
    """Return the policy and the arrays of `weights_npz` from an `.nnp` that nnmpq wrote.

    Needs no nnabla graph; reads the two members alone, never a pickle, and no more than they may hold.

    Args:
        path: the file.

    Raises:
        PolicyError: it is no zip, is damaged, or holds no manifest.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            text = _member(archive, POLICY_MEMBER, LARGEST_FILE).decode()
            packed = _member(archive, WEIGHTS_MEMBER, LARGEST_WEIGHTS)
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST_WEIGHTS:
                raise ValueError(f"its weights are larger than {LARGEST_WEIGHTS} bytes")
            numbers = {
                member.filename[: -len(".npy")]: _array(_member(archive, member.filename, LARGEST_WEIGHTS))
                for member in archive.infolist()
            }
    except _DAMAGE as error:
        raise PolicyError(f"{path}: no manifest of nnmpq can be read: {error}") from error
    return Policy.from_yaml(text, f"{path}: {POLICY_MEMBER}"), numbers


# What zipfile, zlib and numpy raise on files that are damaged, encrypted or made to harm.
_DAMAGE = (
    OSError,
    KeyError,
    ValueError,
    EOFError,
    RuntimeError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Read one member, which must not unpack to more than a limit."""
    if archive.getinfo(name).file_size > limit:
        raise ValueError(f"member {name} is larger than {limit} bytes")
    with archive.open(name) as stream:
        # What the directory says of the size may be a lie.
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"member {name} is larger than {limit} bytes")
    return data


def _array(data: bytes) -> np.ndarray:
    """Read one `.npy`, without pickles, and without memory for more elements than the file holds."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"numpy format {version} is not one that nnmpq writes")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ValueError("an array is not as large as it says")
    flat = np.frombuffer(data, dtype, offset=stream.tell()) if dtype.itemsize else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if fortran_order else "C").copy()
