"""One object a module, however and whenever nnabla is imported; each case in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnmpq.nnabla_imports import ALIAS, alias_modules

ROOT = Path(__file__).parents[1]
# What an alias must never make: a second copy of a module, or of a compiled class.
CHECK = """
import nnabla, sys
names = [n for n in sys.modules if n == "nnabla" or n.startswith("nnabla.") and not n.startswith("nnabla.nnabla")]
assert len(names) > 20, names
for name in names:
    alias = sys.modules.get("nnabla." + name)
    assert alias is None or alias is sys.modules[name], name
copies = [n for n in sys.modules if n.startswith("nnabla.nnabla.") and sys.modules[n] is not sys.modules.get(n[7:])]
assert not copies, copies
import nnabla._variable, nnabla.functions as F, numpy as np
assert type(nnabla.Variable((1,))) is nnabla._variable.Variable
x = nnabla.Variable.from_numpy_array(np.array([3.0], np.float32))
y = F.mul_scalar(x, 2.0)
assert isinstance(y, nnabla._variable.Variable)
y.forward()
assert y.d.tolist() == [6.0]
"""
CASES = {
    "after everything": """
import nnabla, nnabla.functions, nnabla.parametric_functions, nnabla.solvers
from nnmpq.nnabla_imports import alias_modules
alias_modules()
""",
    "before everything": """
from nnmpq.nnabla_imports import alias_modules
alias_modules()
import nnabla, nnabla.functions, nnabla.parametric_functions, nnabla.solvers
""",
    "twice": """
import nnabla
from nnmpq.nnabla_imports import alias_modules
alias_modules()
import sys, nnabla.functions
finders = len(sys.meta_path)
alias_modules()
assert len(sys.meta_path) == finders
""",
    "alias of a module loaded later": """
import nnabla
from nnmpq.nnabla_imports import alias_modules
alias_modules()
import importlib, sys
assert "nnabla.utils.save" not in sys.modules
other = importlib.import_module("nnabla.nnabla.utils.save")
import nnabla.utils.save as save
assert other is save
assert save.__name__ == "nnabla.utils.save" and save.__spec__.name == "nnabla.utils.save", save.__spec__
""",
    "a module that is none": """
import nnabla
from nnmpq.nnabla_imports import alias_modules
alias_modules()
import importlib
try:
    importlib.import_module("nnabla.nnabla.no_such_module")
except ModuleNotFoundError as error:
    assert "no_such_module" in str(error)
else:
    raise AssertionError("found what is not there")
""",
    "reload of a submodule": """
import nnabla, nnabla.functions
from nnmpq.nnabla_imports import alias_modules
alias_modules()
import importlib, sys
before = sys.modules["nnabla.functions"]
assert importlib.reload(before) is before
""",
    "a function written in Python": """
import nnabla, nnabla as nn
from nnmpq.nnabla_imports import alias_modules
alias_modules()
from nnabla.function import PythonFunction
class Twice(PythonFunction):
    name = "Twice"
    def min_outputs(self): return 1
    def grad_depends_output_data(self, i, o): return False
    def grad_depends_input_data(self, i, j): return False
    def setup_impl(self, inputs, outputs): outputs[0].reset_shape(inputs[0].shape, True)
    def forward_impl(self, inputs, outputs):
        assert type(inputs[0]) is nnabla.function.UnsafeVariable
        outputs[0].d = 2 * inputs[0].d
    def backward_impl(self, inputs, outputs, propagate_down, accum): inputs[0].g = 2 * outputs[0].g
x = nn.Variable((3,), need_grad=True)
x.d = 1
y = Twice()(x)
y.forward()
y.backward()
assert y.d.tolist() == [2, 2, 2] and x.g.tolist() == [2, 2, 2]
""",
}


@pytest.mark.parametrize("case", CASES)
def test_each_module_is_one_object(case):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        [sys.executable, "-c", CASES[case] + CHECK], capture_output=True, text=True, timeout=60, env=environment
    )
    assert found.returncode == 0, found.stderr


def test_every_look_up_of_a_hot_function_ends_at_once():
    """The name that nnabla's compiled code looks up at each call is there, and is the package itself."""
    import nnabla

    alias_modules()
    assert sys.modules[ALIAS] is nnabla
