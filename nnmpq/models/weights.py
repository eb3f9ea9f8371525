"""Float weights from a file, by the names that the network's parameters have."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import nnabla as nn
import numpy as np

from nnmpq.files import nearest
from nnmpq.graph.functions import functions_of

FORMATS = (".h5", ".nnp")
# As many faults are listed; a network that does not fit at all has hundreds.
LISTED = 8


class WeightsError(ValueError):
    """Weights cannot be read, or are not this network's; nothing was changed."""


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Read all parameters of a file; the current parameter scope stays as it is.

    Args:
        path: an .h5 or .nnp file that nnabla wrote.

    Returns:
        Arrays by their full names.

    Raises:
        WeightsError: the file is missing, has another ending, is damaged or holds no parameters.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise WeightsError(f"{path}: weights are in a file that ends in one of {FORMATS}")
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        with nn.parameter_scope("", OrderedDict()):
            nn.load_parameters(str(path))
            arrays = {name: np.array(v.d, np.float32) for name, v in nn.get_parameters(grad_only=False).items()}
    except Exception as error:  # a damaged file can raise anything
        raise WeightsError(f"{path}: cannot be read as parameters: {error}") from error
    if not arrays:
        raise WeightsError(f"{path}: holds no parameters")
    return arrays


def parameters_of(y: nn.Variable | Sequence[nn.Variable] | None = None) -> dict[str, nn.Variable]:
    """Return the current scope's parameters, statistics of batch normalization included.

    Args:
        y: output of a graph, or several: only the parameters that it reads; all of the scope if None.

    Example:
        >>> import nnabla.parametric_functions as PF
        >>> y = PF.affine(nn.Variable((1, 2)), 3, name="a")
        >>> z = PF.affine(nn.Variable((1, 2)), 3, name="b")
        >>> list(parameters_of(y)), len(parameters_of())
        (['a/affine/W', 'a/affine/b'], 4)
    """
    own = nn.get_parameters(grad_only=False)
    if y is None:
        return dict(own)
    outputs = [y] if isinstance(y, nn.Variable) else list(y)
    read = {v.data for function in functions_of(outputs) for v in function.inputs}
    return {name: variable for name, variable in own.items() if variable.data in read}


def _faults(arrays: Mapping[str, np.ndarray], own: Mapping[str, nn.Variable]) -> list[str]:
    """What keeps the arrays from being the parameters, one sentence each."""
    found = []
    unknown = [name for name in arrays if name not in own]
    for name, variable in own.items():
        if name not in arrays:
            near = nearest(name, unknown)
            found.append(f"{name} is missing" + (f" (the nearest there is {near})" if near else ""))
        elif arrays[name].shape != variable.shape:
            found.append(f"{name} has the shape {arrays[name].shape}, needed is {variable.shape}")
        elif not np.isfinite(arrays[name]).all():
            found.append(f"{name} holds numbers that are not finite")
    return found + [f"{name} is not in this network" for name in unknown]


def load_weights(
    path: str | Path, y: nn.Variable | Sequence[nn.Variable] | None = None, *, skip: Sequence[str] = ()
) -> list[str]:
    """Load the weights of a network that is built, into its parameters in the current scope.

    All or nothing: names and shapes of the file must be exactly the network's. Graphs that were built follow.

    Args:
        path: an .h5 or .nnp file that nnabla wrote.
        y: output of the network, or several; None: the network has all parameters of the current scope.
        skip: scopes that keep what they have, such as "fc/" for other classes.

    Returns:
        The names that were set.

    Raises:
        WeightsError: the file cannot be read, or is not this network's: what is missing, unknown, of another shape
            or not finite is named.

    Example:
        >>> import os, tempfile
        >>> import nnabla.parametric_functions as PF
        >>> y = PF.affine(nn.Variable((1, 2)), 3, name="a")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     nn.save_parameters(os.path.join(folder, "a.h5"))
        ...     load_weights(os.path.join(folder, "a.h5"), y)
        ['a/affine/W', 'a/affine/b']
    """

    def wanted(name: str) -> bool:
        return not name.startswith(tuple(skip))

    arrays = {name: array for name, array in read_weights(path).items() if wanted(name)}
    own = {name: variable for name, variable in parameters_of(y).items() if wanted(name)}
    faults = _faults(arrays, own)
    if not own:
        faults = ["the current parameter scope has no parameters: build the network first"]
    if faults:
        more = f"; and {len(faults) - LISTED} more" if len(faults) > LISTED else ""
        raise WeightsError(f"{path}: not the weights of this network: " + "; ".join(faults[:LISTED]) + more)
    for name, variable in own.items():
        variable.d = arrays[name]
    return list(own)
