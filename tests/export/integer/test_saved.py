from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnmpq.export.integer import interpret
from nnmpq.export.integer.program import Convolve
from nnmpq.export.integer.saved import as_saved, run, save
from nnmpq.export.integer.target import READER, verify, write
from tests.export.networks import trained

# Whatever is imported beside numpy and the standard library fails.
BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("nnabla", "nnmpq", "attr", "attrs", "yaml", "scipy"):
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Blocker())
import runpy
runpy.run_path("READER", run_name="__main__")
"""


def test_the_reader_needs_numpy_alone(tmp_path: Path) -> None:
    network = trained()
    write(network, tmp_path)
    np.save(tmp_path / "images.npy", network.images)
    script = BLOCKED.replace("READER", str(tmp_path / READER))
    command = [sys.executable, "-c", script, str(tmp_path / "program.npz"), str(tmp_path / "images.npy")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=100)
    assert done.returncode == 0, done.stderr
    _, logits = network.run()
    assert [int(line) for line in done.stdout.split()] == logits.argmax(1).tolist()


def test_a_saved_program_computes_the_same(tmp_path: Path) -> None:
    network = trained()
    program = network.program()
    save(program, tmp_path / "p.npz")
    loaded = interpret.load(tmp_path / "p.npz")
    wanted = run(program, network.images)
    found = interpret.run(loaded, network.images)
    assert found.keys() == wanted.keys()
    for name, numbers in wanted.items():
        np.testing.assert_array_equal(found[name], numbers)
    assert json.dumps([t["name"] for t in loaded["tensors"]]) == json.dumps(list(program.tensors))
    assert list(tmp_path.iterdir()) == [tmp_path / "p.npz"]


def test_verify_sees_one_level_too_many(tmp_path: Path) -> None:
    network = trained()
    write(network, tmp_path)
    assert verify(network, tmp_path).passed
    program = network.program()
    layer = next(op for op in program.operations if isinstance(op, Convolve))
    layer.requantiser.bias[0] += 1 << int(layer.requantiser.shift[0])
    save(program, tmp_path / "program.npz")
    found = verify(network, tmp_path)
    assert found.differing > 0 and not found.passed and "FAILED" in found.report()


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match=r"other\.npz: no integer program"):
        interpret.load(tmp_path / "other.npz")
    manifest = np.frombuffer(json.dumps({"format": 99, "operations": []}).encode(), np.uint8)
    np.savez(tmp_path / "later.npz", manifest=manifest)
    with pytest.raises(ValueError, match="format 99; this reader knows 1"):
        interpret.load(tmp_path / "later.npz")
    np.savez(tmp_path / "hostile.npz", manifest=np.array([print], object))
    with pytest.raises(ValueError, match="pickle"):
        interpret.load(tmp_path / "hostile.npz")
    with pytest.raises(ValueError, match=r"ends in \.npz"):
        save(trained().program(), tmp_path / "p.bin")


def _tiny(folder: Path, **changes: object) -> Path:
    """Two numbers doubled: a program by hand."""
    tensors = [
        {"name": name, "shape": [1, 1, 2], "low": 0, "high": 510, "step": 1.0, "bits": 8, "site": False}
        for name in ("pixels", "twice")
    ]
    operation = {"kind": "sum", "inputs": ["pixels"], "output": "twice", "multipliers": [2], "levels": 511, "low": 0}
    whole = {"format": 1, "name": "t", "tensors": tensors, "operations": [operation], "output": "twice", **changes}
    path = folder / "tiny.npz"
    arrays = {"0/multiplier": np.ones(1, np.int32), "0/bias": np.zeros(1, np.int64), "0/shift": np.zeros(1, np.uint8)}
    np.savez_compressed(path, manifest=np.frombuffer(json.dumps(whole).encode(), np.uint8), **arrays)
    return path


def test_a_program_by_hand(tmp_path: Path) -> None:
    images = np.array([3, 250], np.uint8).reshape(1, 1, 1, 2)
    found = interpret.run(interpret.load(_tiny(tmp_path)), images)
    assert found["twice"].ravel().tolist() == [6, 500]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"operations": [{"kind": "sum", "inputs": ["x"], "output": "twice"}]}, "a tensor that is not there"),
        ({"operations": [{"kind": "sum", "inputs": ["twice"], "output": "twice"}]}, "a tensor that is not there"),
        ({"operations": [{"kind": "sum", "inputs": ["pixels"], "output": "y"}]}, "a tensor that is not there"),
        ({"operations": []}, "nothing writes the output twice"),
        ({"output": "elsewhere"}, "nothing writes the output elsewhere"),
        ({"tensors": []}, "no integer program"),
        ({"tensors": 3}, "no integer program"),
        ({"operations": "sum"}, "no integer program"),
    ],
)
def test_a_manifest_that_does_not_hold_together_is_refused(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        interpret.load(_tiny(tmp_path, **changes))


def test_no_byte_of_a_file_can_do_harm(tmp_path: Path) -> None:
    """Whatever byte is changed, the file is read as it was or refused with its name."""
    whole = _tiny(tmp_path).read_bytes()
    path, refused = tmp_path / "hostile.npz", 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        try:
            assert interpret.load(path)["output"] == "twice"
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > len(whole) // 4
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"hostile\.npz"):
            interpret.load(path)


def test_numbers_outside_their_ends_are_noticed() -> None:
    network = trained()
    saved = as_saved(network.program())
    saved["tensors"][1]["high"] = 1
    with pytest.raises(ValueError, match="input: a number lies outside"):
        interpret.run(saved, network.images)
    with pytest.raises(ValueError, match=r"images of shape \(3, 5, 5\)"):
        interpret.run(saved, np.zeros((1, 3, 5, 5), np.uint8))


def test_convolution_is_the_definition() -> None:
    rng = np.random.RandomState(0)
    x = rng.randint(-8, 8, (2, 4, 7, 6))
    weights = rng.randint(-3, 4, (6, 3, 2, 2))
    operation = {"group": 2, "stride": (2, 1), "pad": (1, 2), "dilation": (2, 3)}
    found = interpret.convolve(x, weights, operation)
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (2, 2)])
    n, o, row, column = 1, 4, 1, 3
    total = 0
    for i in range(3):
        for j in range(2):
            for c in range(2):
                total += padded[n, 2 + c, row * 2 + i * 2, column + j * 3] * weights[o, i, j, c]
    assert found.shape == (2, 6, 3, 7) and found[n, o, row, column] == total


def test_the_reader_is_one_file() -> None:
    source = inspect.getsource(interpret)
    imports = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert {line.split()[1] for line in imports} == {"__future__", "json", "sys", "typing", "numpy"}
