from __future__ import annotations

import logging

import nnabla as nn
import nnabla.parametric_functions as PF
import numpy as np
import pytest

from nnmpq.training import parameters
from nnmpq.training.errors import TrainingError


def build(outputs=3):
    x = nn.Variable((2, 4))
    return PF.affine(PF.batch_normalization(x), outputs, name="fc")


def test_h5_round_trip_is_exact_and_in_place(tmp_path):
    y = build()
    rng = np.random.default_rng(1)
    for variable in nn.get_parameters(grad_only=False).values():
        variable.d = rng.normal(size=variable.shape)
    before = parameters.current()
    parameters.save_h5(tmp_path / "best.h5")
    for variable in nn.get_parameters(grad_only=False).values():
        variable.d = 0
    parameters.load_h5(tmp_path / "best.h5")
    after = parameters.current()
    assert "bn/mean" in before
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    weight = y.parent.inputs[1]
    assert np.array_equal(weight.d, before["fc/affine/W"]), "the graph that was built follows"


def test_nnabla_reads_the_file(tmp_path):
    build()
    expected = parameters.current()
    parameters.save_h5(tmp_path / "best.h5")
    nn.clear_parameters()
    logging.disable()
    nn.load_parameters(str(tmp_path / "best.h5"))
    logging.disable(logging.NOTSET)
    found = nn.get_parameters(grad_only=False)
    assert list(found) == list(expected)
    assert all(np.array_equal(found[name].d, expected[name]) for name in expected)
    assert set(nn.get_parameters()) == {"bn/beta", "bn/gamma", "fc/affine/W", "fc/affine/b"}


def test_equal_parameters_give_equal_bytes(tmp_path):
    build()
    parameters.save_h5(tmp_path / "a.h5")
    parameters.save_h5(tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("fc/affine/W"), "fc/affine/W: missing there"),
        (lambda a: a.update(surplus=np.zeros(1)), "surplus: not in this network"),
        (lambda a: a.update({"fc/affine/b": np.zeros(9)}), r"fc/affine/b: shape \(9,\), needed is \(3,\)"),
    ],
)
def test_other_networks_are_refused_whole(change, message):
    build()
    before = parameters.current()
    arrays = {name: array + 1 for name, array in before.items()}
    change(arrays)
    with pytest.raises(TrainingError, match=message):
        parameters.assign(arrays, "some.h5")
    after = parameters.current()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_damaged_files_are_refused_by_name(tmp_path):
    build()
    path = tmp_path / "best.h5"
    parameters.save_h5(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(TrainingError, match="best.h5: cannot be read"):
        parameters.load_h5(path)
    with pytest.raises(TrainingError, match="none.h5: cannot be read"):
        parameters.load_h5(tmp_path / "none.h5")
    with pytest.raises(TrainingError, match="weightfile = .*best.h5: cannot be read"):
        parameters.load_weightfile(str(path))


def test_a_weightfile_is_the_start_and_what_is_foreign_goes(tmp_path):
    PF.convolution(nn.Variable((1, 1, 4, 4)), 2, (3, 3), name="other")
    build()
    nn.get_parameters()["fc/affine/W"].d = 7
    path = str(tmp_path / "start.h5")
    parameters.save_h5(tmp_path / "start.h5")
    nn.clear_parameters()
    loaded = parameters.load_weightfile(path)
    y = build()
    assert parameters.drop_unused(loaded, [y], path) == ["other/conv/W", "other/conv/b"]
    assert np.all(nn.get_parameters()["fc/affine/W"].d == 7)
    assert not any(name.startswith("other") for name in nn.get_parameters(grad_only=False))


def test_a_weightfile_of_another_network_is_refused(tmp_path):
    PF.affine(nn.Variable((1, 4)), 3, name="fc1")
    path = str(tmp_path / "start.h5")
    parameters.save_h5(tmp_path / "start.h5")
    nn.clear_parameters()
    loaded = parameters.load_weightfile(path)
    with pytest.raises(TrainingError, match="none of its 2 parameters.*it has fc1/affine/W, nearest here: fc/affine/W"):
        parameters.drop_unused(loaded, [build()], path)


def test_nothing_is_left_behind_when_writing_fails(tmp_path, monkeypatch):
    build()
    path = tmp_path / "best.h5"
    parameters.save_h5(path)
    before = path.read_bytes()
    nn.get_parameters()["fc/affine/W"].d = 3

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        parameters.save_h5(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["best.h5"]
