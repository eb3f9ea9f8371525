"""Products of matrices, reorders, and what the library says of failures."""

from __future__ import annotations

import ctypes
import importlib.metadata

import numpy as np
import pytest

from nnmpq.onednn import layout, library
from nnmpq.onednn.library import LibraryMissing, OneDnnError, check, missing, session
from nnmpq.onednn.matrix import product
from nnmpq.onednn.primitive import Layout, buffer_of, channel_last_strides, plain_strides, reorder
from tests.onednn.arrays import address, last, normal, worst


@pytest.mark.parametrize("rows,columns,inner", [(1, 1, 1), (5, 3, 7), (1, 10, 64), (33, 17, 129), (64, 1, 2)])
@pytest.mark.parametrize("turn_a", [False, True])
@pytest.mark.parametrize("turn_b", [False, True])
@pytest.mark.parametrize("adds", [False, True])
def test_product(rows, columns, inner, turn_a, turn_b, adds):
    a, b, c = normal((rows, inner), 1), normal((inner, columns), 2), normal((rows, columns), 3)
    expected = a.astype(np.float64) @ b + (c if adds else 0)
    stored_a, stored_b = (np.ascontiguousarray(m.T) if turn else m for m, turn in ((a, turn_a), (b, turn_b)))
    if not adds:
        c[:] = np.nan
    product(
        address(stored_a), address(stored_b), address(c), rows, columns, inner,
        turn_a=turn_a, turn_b=turn_b, accumulate=adds,
    )  # fmt: skip
    assert worst(c, expected) < 2e-6


def test_a_product_that_cannot_be_says_its_sizes_and_the_status():
    a = normal((2, 2), 1)
    with pytest.raises(OneDnnError, match=r"a product of -2 x 2 by 2 x 2 failed with status \d"):
        product(address(a), address(a), address(a), -2, 2, 2)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 7), (3, 16, 4, 4), (1, 33, 2, 9)])
def test_channels_move_last_and_back(shape):
    x = normal(shape, 1)
    there, back = np.empty(last(x).shape, np.float32), np.empty(shape, np.float32)
    layout.to_last(shape, 1)(address(x), address(there))
    layout.to_first(shape, 1)(address(there), address(back))
    assert np.array_equal(there, last(x)) and np.array_equal(back, x)


@pytest.mark.parametrize("shape", [(5, 3, 3, 3), (16, 16, 1, 1), (19, 17, 3, 2)])
def test_a_weight_survives_the_layout_that_onednn_likes(shape):
    """Through channel-last order and memory longer than needed, to the same numbers."""
    w = normal(shape, 1)
    plain = Layout.strided(shape, plain_strides(shape))
    other = Layout.strided(shape, channel_last_strides(shape))
    kept, place = buffer_of(other)
    assert place % 64 == 0 and other.size() == plain.size() == w.nbytes
    again = np.empty(shape, np.float32)
    reorder(plain, other)(address(w), place)
    assert np.array_equal(np.ctypeslib.as_array((ctypes.c_float * w.size).from_address(place)), last(w).reshape(-1))
    reorder(other, plain)(place, address(again))
    assert np.array_equal(again, w)
    assert plain.equals(Layout.strided(shape, plain_strides(shape)))
    assert plain.equals(other) is (shape[2:] == (1, 1))
    del kept


def test_reorders_between_different_shapes_are_refused():
    a, b = (Layout.strided(shape, plain_strides(shape)) for shape in ((2, 3), (3, 2)))
    with pytest.raises(OneDnnError, match=r"planning reorder failed with status \d"):
        reorder(a, b)


def test_a_shape_that_is_none_is_refused():
    with pytest.raises(OneDnnError, match=r"describing \(2, -3\) failed with status \d"):
        Layout.strided((2, -3), (3, 1))


def test_status_zero_is_success():
    check(0, "nothing")
    with pytest.raises(OneDnnError, match="oneDNN: something failed with status 3"):
        check(3, "something")


@pytest.fixture
def no_session(monkeypatch):
    """Forget the loaded library for a test, and find it again after it."""
    session()
    monkeypatch.setattr(library, "session", library.session.__wrapped__)


def test_a_package_that_is_not_installed_is_named(no_session, monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    assert missing() == "the package onednn-cpu-gomp is not installed"
    with pytest.raises(LibraryMissing):
        library.session()


def test_another_platform_is_said(no_session, monkeypatch):
    monkeypatch.setattr(library, "FILE", "libdnnl.of.another.platform")
    assert missing() == "the package onednn-cpu-gomp holds no libdnnl.of.another.platform for this platform"


def test_a_library_that_does_not_load_is_said(no_session, monkeypatch, tmp_path):
    broken = tmp_path / "libdnnl.so.3"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(library, "_file", lambda: broken)
    assert missing().startswith("libdnnl.so.3 does not load here: ")


def test_another_version_is_refused(no_session, monkeypatch):
    monkeypatch.setattr(library, "MAJOR", 4)
    assert missing() == f"oneDNN {session().version} was found, version 4 is needed"
