"""nnabla's own converter on a frozen network: NNB and CSRC."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from nnmpq.export.integer.program import ExportError
from nnmpq.export.nnablart.levels import check_level
from nnmpq.export.nnablart.standard import standard
from nnmpq.export.nnp import save_baked
from nnmpq.graph.bake import Baked
from nnmpq.graph.functions import functions_of


def prepared(baked: Baked) -> Baked:
    """Return a frozen network in functions that the runtime has, with parameters that C can write down.

    Args:
        baked: of `nnmpq.graph.bake.bake`.

    Raises:
        ExportError: a function has no equal there, or a parameter is not finite.
    """
    for name, parameter in baked.parameters.items():
        if not np.all(np.isfinite(parameter.d)):
            raise ExportError(f"{name}: it holds numbers that are not finite, which C source cannot say")
    return attrs.evolve(baked, outputs=tuple(standard(baked.outputs)))


def _imported(baked: Baked, folder: Path) -> Any:
    from nnabla.utils.converter.nnabla import NnpImporter

    path = folder / "network.nnp"
    save_baked(str(path), baked)
    return NnpImporter(str(path), expand_network=True).execute()


def nnb(baked: Baked, level: int) -> bytes:
    """Return a network as NNB, one image at a time, float32.

    Args:
        baked: of `prepared`.
        level: API level of the runtime that shall read it.

    Raises:
        ExportError: the level cannot say what the network does.
    """
    from nnabla.utils.converter.nnablart import NnbExporter

    check_level([(f.info.type_name, f.info.args) for f in functions_of(baked.outputs)], level)
    with tempfile.TemporaryDirectory() as temporary, contextlib.redirect_stdout(io.StringIO()):
        made = Path(temporary) / "network.nnb"
        exporter = NnbExporter(_imported(baked, Path(temporary)), 1, api_level=level)
        exporter.execute(str(made), None, None, ["FLOAT32"])
        return made.read_bytes()


def csrc(baked: Baked) -> dict[str, str]:
    """Return a network as C source that calls the runtime's functions, by file name.

    Args:
        baked: of `prepared`.
    """
    from nnabla.utils.converter.nnablart import CsrcExporter

    with tempfile.TemporaryDirectory() as temporary, contextlib.redirect_stdout(io.StringIO()):
        made = Path(temporary) / "source"
        os.mkdir(made)
        CsrcExporter(_imported(baked, Path(temporary)), 1).execute(str(made))
        return {path.name: path.read_text() for path in sorted(made.iterdir())}
