"""Parameters as plain arrays: the start from a weightfile, the best of a run, what a checkpoint holds."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import nnabla as nn
import numpy as np

from nnmpq.files import atomic_write, nearest
from nnmpq.training.errors import TrainingError


def current() -> dict[str, np.ndarray]:
    """Return copies of all parameters of the current scope, batch normalization's statistics included."""
    return {name: np.array(v.d, np.float32) for name, v in nn.get_parameters(grad_only=False).items()}


def assign(arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Set every parameter of the current scope, in place: graphs that were built follow.

    Args:
        arrays: by name, float32; the same names and shapes as the scope's.
        source: file that they come from, for messages.

    Raises:
        TrainingError: a name is missing or too many, or a shape differs; nothing was set.
    """
    own = nn.get_parameters(grad_only=False)
    for name in sorted(own.keys() ^ arrays.keys()):
        raise TrainingError(f"{source}: {name}: {'missing there' if name in own else 'not in this network'}")
    for name, variable in own.items():
        if variable.shape != np.shape(arrays[name]):
            raise TrainingError(f"{source}: {name}: shape {np.shape(arrays[name])}, needed is {variable.shape}")
    for name, variable in own.items():
        variable.d = arrays[name]


def save_h5(path: Path) -> None:
    """Write the current scope's parameters as nnabla does, whole or not at all; equal ones, equal bytes."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for index, (name, variable) in enumerate(nn.get_parameters(grad_only=False).items()):
            dataset = file.create_dataset(name, data=np.array(variable.d, np.float32), track_times=False)
            dataset.attrs["need_grad"] = variable.need_grad
            dataset.attrs["index"] = index
    atomic_write(path, stream.getvalue())


def load_h5(path: Path) -> None:
    """Set every parameter of the current scope from a file that `save_h5` wrote.

    Raises:
        TrainingError: the file is missing, damaged or another network's.
    """
    arrays: dict[str, np.ndarray] = {}

    def read(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name] = np.asarray(item, np.float32)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(read)
    except (OSError, RuntimeError) as error:
        raise TrainingError(f"{path}: cannot be read as parameters: {error}") from error
    assign(arrays, str(path))


def load_weightfile(path: str) -> list[str]:
    """Put the parameters of a file into the current scope, before the graph is built on them.

    Args:
        path: .h5 or any format that nnabla reads.

    Returns:
        Their names.

    Raises:
        TrainingError: the file cannot be read.
    """
    try:
        with nn.parameter_scope("", scope=OrderedDict()):
            nn.load_parameters(path)
            loaded = nn.get_parameters(grad_only=False)
    except Exception as error:  # a damaged file can raise anything
        raise TrainingError(f"weightfile = {path}: cannot be read as parameters: {error}") from error
    for name, variable in loaded.items():
        nn.parameter.set_parameter(name, variable)
    return list(loaded)


def drop_unused(loaded: Iterable[str], outputs: Iterable[nn.Variable], path: str) -> list[str]:
    """Remove from the scope what a weightfile held and no graph uses.

    Args:
        loaded: names from `load_weightfile`.
        outputs: outputs of the graphs.
        path: the file, for the message.

    Returns:
        The names that were removed.

    Raises:
        TrainingError: nothing of the file is used.
    """
    used: set[Any] = set()
    for output in outputs:
        output.visit(lambda function: used.update(v.data for v in function.inputs))
    parameters = nn.get_parameters(grad_only=False)
    loaded = list(loaded)
    unused = [name for name in loaded if parameters[name].data not in used]
    if len(unused) == len(loaded):
        raise TrainingError(
            f"weightfile = {path}: none of its {len(loaded)} parameters is this network's"
            + (
                f"; it has {loaded[0]}, nearest here: {nearest(loaded[0], set(parameters) - set(unused))}"
                if loaded
                else ""
            )
        )
    for name in unused:
        nn.parameter.pop_parameter(name)
    return unused
