from __future__ import annotations

import os
import sys
from pathlib import Path

import attrs
import numpy as np
import pytest

from nnmpq.export.integer.program import ExportError
from nnmpq.export.nnablart import convert, csrc_target, nnb_target
from nnmpq.export.nnablart.csrc import INFERENCE, PARAMETERS, read_csrc
from nnmpq.export.nnablart.nnb import HEADER, read_nnb
from nnmpq.export.nnablart.stored import Stored
from nnmpq.export.trained import Trained
from nnmpq.graph.bake import bake
from tests.export.networks import everything, small, trained

SETTINGS = {
    "everything": {"build": everything},
    "power of two": {"build": small, "weight": "pow2_xmin_xmax", "activation": "pow2_xmin_xmax"},
}
TARGETS = {"nnb": nnb_target, "csrc": csrc_target}


@pytest.fixture
def network() -> Trained:
    return trained(3, build=small)


@pytest.fixture(scope="module")
def data() -> bytes:
    return convert.nnb(convert.prepared(bake(trained(3, build=small).quantized)), 44)


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    return convert.csrc(convert.prepared(bake(trained(3, build=small).quantized)))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_what_is_written_computes_the_same_and_says_what_was_not_run(target, settings: dict, tmp_path: Path) -> None:
    whole = trained(4, **settings)
    paths = target.write(whole, tmp_path)
    assert all(path.is_file() for path in paths)
    found = target.verify(whole, tmp_path)
    _, logits = whole.run(sites=False)
    assert found.compared == logits.size and found.differing == 0 and found.passed
    assert found.weight_bytes == found.promised_bytes == 4 * whole.weight_elements
    assert "NOT run in nnabla-c-runtime" in found.report() or "NOT compiled" in found.report()


def test_both_forms_hold_the_same(data: bytes, sources: dict[str, str]) -> None:
    first, level = read_nnb(data)
    second = read_csrc(sources)
    assert level == 44 and first.buffers == second.buffers
    for a, b in zip(first.calls, second.calls):
        assert (a.name, a.inputs, a.outputs) == (b.name, b.inputs, b.outputs)
        assert {k: _float32(v) for k, v in a.arguments.items()} == {k: _float32(v) for k, v in b.arguments.items()}
    for v, w in zip(first.variables, second.variables):
        assert v.shape == w.shape and v.buffer == w.buffer
        if v.values is not None:
            np.testing.assert_array_equal(v.values, w.values)
    assert len(first.calls) == len(second.calls) and len(first.variables) == len(second.variables)
    # A quantizer is five functions; the network has a convolution, a sum, a pooling, and no function of its own.
    assert [c.name for c in first.calls][:6] == [*_chain(), "Convolution"]


def _chain() -> list[str]:
    return ["MaximumScalar", "MinimumScalar", "MulScalar", "Round", "MulScalar"]


def _float32(value):
    return float(np.float32(value)) if isinstance(value, float) else value


def _stored_level(data: bytes) -> int:
    return HEADER.unpack_from(data)[1]


@pytest.mark.parametrize("level", [30, 39, 44, 45])
def test_the_level_is_the_one_asked_for(network: Trained, level: int, tmp_path: Path) -> None:
    nnb_target.write(network, tmp_path, api=level)
    data = (tmp_path / nnb_target.NAME).read_bytes()
    assert _stored_level(data) == level
    assert nnb_target.verify(network, tmp_path).passed


def test_another_models_file_is_noticed(data: bytes, sources: dict[str, str], network: Trained, tmp_path: Path) -> None:
    weight = read_nnb(data)[0].calls[5].inputs[1]
    values = read_nnb(data)[0].variables[weight].values
    assert values is not None
    raw = values.astype("<f4").tobytes()
    assert data.count(raw) == 1
    (tmp_path / nnb_target.NAME).write_bytes(data.replace(raw, (-values).astype("<f4").tobytes()))
    found = nnb_target.verify(network, tmp_path)
    assert found.differing > 0 and not found.passed
    # The second clip of the input's quantizer, from its level to none.
    for name, text in sources.items():
        (tmp_path / name).write_text(text)
    text = sources[INFERENCE]
    start = text.index("(c->f1_local_context)->val = ")
    (tmp_path / INFERENCE).write_text(
        text[:start] + "(c->f1_local_context)->val = 0.0;" + text[text.index("\n", start) :]
    )
    found = csrc_target.verify(network, tmp_path)
    assert found.differing > 0 and not found.passed


def _damaged(data: bytes) -> dict[str, bytes]:
    def header(place: int, number: int) -> bytes:
        fields = list(HEADER.unpack_from(data))
        fields[place] = number
        return HEADER.pack(*fields) + data[HEADER.size :]

    return {
        "empty": b"",
        "short": data[:40],
        "cut": data[:-7],
        "longer": data + b"\0",
        "version": header(0, 9),
        "level": header(1, 999),
        "many tensors": header(4, 2**31 - 1),
        "no such piece": header(5, 2**31 - 1),
        "negative": header(6, -1),
        "functions are tensors": header(7, HEADER.unpack_from(data)[5]),
        "pieces": header(12, 2**32 - 1),
    }


@pytest.mark.parametrize("name", list(_damaged(bytes(HEADER.size))))
def test_a_damaged_file_is_refused(name: str, data: bytes) -> None:
    with pytest.raises(ExportError, match="no NNB can be read"):
        read_nnb(_damaged(data)[name])


def test_no_byte_of_a_file_can_do_harm(data: bytes) -> None:
    """Whatever single byte is changed, the file is read, or refused with its reason."""
    refused = 0
    for place in range(0, len(data), 41):
        hostile = bytearray(data)
        hostile[place] ^= 0xFF
        try:
            assert isinstance(read_nnb(bytes(hostile))[0], Stored)
        except ExportError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (INFERENCE, "int actual_buf_sizes", "int sizes"),
        (INFERENCE, "///< Round", "///< Rounded"),
        (INFERENCE, "c->param_pool[0];", "c->param_pool[99];"),
        (PARAMETERS, "float main_parameter", "float parameter"),
    ],
)
def test_source_that_is_not_the_converters_is_refused(sources: dict[str, str], name: str, old: str, new: str) -> None:
    assert old in sources[name]
    with pytest.raises(ExportError, match="no CSRC of nnabla's converter"):
        read_csrc({**sources, name: sources[name].replace(old, new)})
    with pytest.raises(ExportError, match="no CSRC"):
        read_csrc({key: text for key, text in sources.items() if key != name})


def test_missing_files_are_named(network: Trained, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="is missing: export again"):
        csrc_target.verify(network, tmp_path)


def test_numbers_that_c_cannot_write_are_refused(network: Trained) -> None:
    baked = bake(network.quantized)
    parameters = dict(baked.parameters)
    parameters["c/affine/b"].d = np.array([0, np.nan, np.inf, 1], np.float32)
    with pytest.raises(ExportError, match="c/affine/b: .* not finite"):
        convert.prepared(attrs.evolve(baked, parameters=parameters))


STAND_IN = """#!{python}
# Stands in for the runtime's program: reads the same arguments, writes the same file.
import sys, numpy as np
from nnmpq.export.nnablart.nnb import read_nnb
from nnmpq.export.nnablart.stored import Machine
assert sys.argv[1] == "infer"
stored, _ = read_nnb(open(sys.argv[2], "rb").read())
image = np.fromfile(sys.argv[3], np.float32).reshape(stored.variables[stored.inputs[0]].shape)
(Machine(stored).run(image) + np.float32({wrong})).tofile(sys.argv[4] + "_0.bin")
"""


@pytest.mark.parametrize("wrong", [0, 1], ids=["equal", "wrong"])
def test_a_runtime_on_the_path_is_run_and_counted(
    wrong: int, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = trained(1, build=small)
    program = tmp_path / "bin" / "nnablart"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(python=sys.executable, wrong=wrong))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[3]))
    (tmp_path / nnb_target.NAME).write_bytes(data)
    found = nnb_target.verify(network, tmp_path)
    assert "ran in nnablart too" in found.report() and "NOT run" not in found.report()
    assert found.differing == (found.compared if wrong else 0)


def test_a_runtime_that_fails_is_reported(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = trained(1, build=small)
    program = tmp_path / "bin" / "nnablart"
    program.parent.mkdir()
    (tmp_path / nnb_target.NAME).write_bytes(data)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    for text, message in (
        ("#!/bin/sh\necho mismatch >&2\nexit 255\n", "ended with 255: mismatch"),
        ("#!/bin/sh\n", "wrote no logits"),
    ):
        program.write_text(text)
        program.chmod(0o755)
        with pytest.raises(ExportError, match=message):
            nnb_target.verify(network, tmp_path)
