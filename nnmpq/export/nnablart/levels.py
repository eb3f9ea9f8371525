"""API levels: which functions, with which arguments, a runtime of some age reads in an NNB."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Mapping
from typing import Any

from nnmpq.export.integer.program import ExportError

# Newest that nnabla-c-runtime accepts; nnabla 1.39 writes 45 unless told otherwise. Spresense's SDK accepts 39.
DEFAULT = 44


@functools.cache
def _infos() -> tuple[Any, dict[str, Any]]:
    from nnabla.utils import converter

    return converter.get_api_level_info(), converter.get_function_info()


def arguments_of(name: str) -> dict[str, Any]:
    """Return type and default of each argument of a function, in the order that they are stored in."""
    return dict(_infos()[1][name].get("arguments", {}))


def table(level: int) -> dict[str, tuple[int, str]]:
    """Return number and argument code of every function at an API level.

    Args:
        level: 1 to what nnabla knows.

    Raises:
        ExportError: nnabla does not know the level.

    Example:
        >>> table(44)["MulScalar"]
        (313, 'fB')
    """
    info, _ = _infos()
    newest = max(info.api_level_dict)
    if not 1 <= level <= newest:
        raise ExportError(f"API level {level}: nnabla's converter knows 1 to {newest}; runtimes accept 39 or 44")
    info.set_api_level(level)
    return {name: (info.get_func_id(name), info.get_argument_code(name)) for name in info.get_function_list()}


def code_of(name: str) -> list[str]:
    """Return the packing code of each argument of a function, today's form."""
    from nnabla.utils import converter

    return [converter.type_to_pack_format(argument["type"]) for argument in arguments_of(name).values()]


def default_of(name: str, argument: str) -> Any:
    """Return what a function does without an argument; None where that depends on the input."""
    written = arguments_of(name)[argument].get("default")
    try:
        return None if written is None else ast.literal_eval(written)
    except (ValueError, SyntaxError):
        return None


def check_level(calls: Iterable[tuple[str, Mapping[str, Any]]], level: int) -> None:
    """Make sure that an API level can say what every function does.

    nnabla's converter leaves arguments out that an older level does not know, whatever they are.

    Args:
        calls: names and arguments of the functions.
        level: 1 to what nnabla knows.

    Raises:
        ExportError: a function is younger, or an argument that is left out matters.

    Example:
        >>> check_level([("Round", {})], 44)
    """
    known = table(level)
    for name, arguments in calls:
        if name not in known:
            raise ExportError(f"API level {level} has no {name}: give a higher one with --api, at most {DEFAULT}")
        full, stored = code_of(name), known[name][1]
        kept = 0
        while stored and kept < len(full) and stored.startswith(full[kept]):
            stored, kept = stored[len(full[kept]) :], kept + 1
        if stored:
            raise ExportError(f"API level {level} has another {name}: give a higher one with --api")
        for argument in list(arguments_of(name))[kept:]:
            if argument != "inplace" and arguments[argument] != default_of(name, argument):
                raise ExportError(
                    f"API level {level} cannot say {argument} = {arguments[argument]} of {name}: give a higher one"
                )
