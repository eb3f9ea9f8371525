"""Make nnabla's calls from Python cheap: give the names that it looks up and never finds to modules that it has.

nnabla's compiled modules run ``import nnabla`` inside functions that are called at every step, in a form that first
looks for a module ``nnabla.nnabla``, walks the file system and fails: seven times a call, 100 of the 116 microseconds
of an empty `PythonFunction`. With that name in `sys.modules` the walk ends at once.

The alias of the package alone would be a trap: later look-ups below it would load submodules a second time, and two
copies of a compiled class are two classes. So every loaded module is aliased to the same object, and a finder does the
same for those that are loaded later.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

PACKAGE = "nnabla"
ALIAS = "nnabla.nnabla"


class _Loader(importlib.abc.Loader):
    def __init__(self, name: str) -> None:
        self.name = name

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.name)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just overwritten it by the alias' own.
        module.__spec__ = self.spec


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(f"{ALIAS}."):
            return None
        name = PACKAGE + fullname[len(ALIAS) :]
        if importlib.util.find_spec(name) is None:
            return None
        return importlib.machinery.ModuleSpec(fullname, _Loader(name))


def alias_modules() -> None:
    """Alias every nnabla module under ``nnabla.nnabla``; calling it again costs nothing.

    Example:
        >>> import sys, nnabla.functions
        >>> alias_modules()
        >>> sys.modules["nnabla.nnabla.functions"] is nnabla.functions
        True
    """
    if ALIAS in sys.modules:
        return
    for name, module in list(sys.modules.items()):
        if name == PACKAGE or (name.startswith(f"{PACKAGE}.") and not name.startswith(f"{ALIAS}.")):
            sys.modules[f"{PACKAGE}.{name}"] = module
    sys.meta_path.insert(0, _Finder())
