"""Tables of losses: what they refuse, and that a file gives back what was written."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnmpq.search.table import COLUMNS, ScoreTable, TableError, check_losses
from tests.search.small import network

NET = network([10, 20], [4], [(0,), ()], bias=True)
LOSS = {"l0/W": {2: 0.1 + 0.2, 8: 0.0}, "l0/b": {4: 1e-300}, "a0/relu": {1: 7.0, 3: 1 / 3}}
HEADER = ",".join(COLUMNS)


def test_a_file_gives_back_every_bit(tmp_path):
    ScoreTable("snr", NET, LOSS, 313, 512).save(tmp_path / "scores.csv")
    table = ScoreTable.load(tmp_path / "scores.csv", NET)
    assert (table.score, table.seed, table.images, table.loss) == ("snr", 313, 512, LOSS)
    assert (tmp_path / "scores.csv").read_text().splitlines()[:2] == [HEADER, "snr,313,512,l0/W,2,0.30000000000000004"]


@given(st.dictionaries(st.integers(1, 32), st.floats(0, allow_infinity=False), min_size=1))
def test_any_loss_comes_back(tmp_path_factory, by_bits):
    path = tmp_path_factory.mktemp("table") / "scores.csv"
    ScoreTable("kl", NET, {"l1/W": by_bits}).save(path)
    assert ScoreTable.load(path, NET).loss == {"l1/W": by_bits}


def test_widths_stand_in_order():
    assert list(ScoreTable("snr", NET, {"l1/W": {8: 0.0, 2: 1.0, 4: 0.5}}).loss["l1/W"]) == [2, 4, 8]


def test_the_total_is_the_sum_over_the_sites():
    table = ScoreTable("snr", NET, LOSS)
    assert table.total({"l0/W": 2, "l0/b": 4, "a0/relu": 3, "l1/W": 5}) == math.fsum([0.1 + 0.2, 1e-300, 1 / 3])
    assert table.total({"l0/W": 2, "l0/b": 32, "a0/relu": 3}) == math.fsum([0.1 + 0.2, 1 / 3]), "float loses nothing"
    assert ScoreTable("snr", NET, {"l1/W": {32: 2.0}}).total({"l1/W": 32}) == 2.0, "unless the table says so"
    with pytest.raises(TableError, match="l0/W at 3 bits: the table has 2, 8"):
        table.total({"l0/W": 3, "l0/b": 4, "a0/relu": 3})
    with pytest.raises(TableError, match="a0/relu at None bits"):
        table.total({"l0/W": 2, "l0/b": 4})


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ({"l0/W": {}}, "l0/W: it has no width"),
        ({"l0/W": {0: 1.0}}, "l0/W: 0 bits"),
        ({"l0/W": {33: 1.0}}, "l0/W: 33 bits"),
        ({"l0/W": {2: math.nan}}, "l0/W at 2 bits: the loss is nan"),
        ({"l0/W": {2: 1.0}, "l1/W": {4: math.inf}}, "l1/W at 4 bits: the loss is inf"),
        ({"l1/W": {4: -1e-9}}, "l1/W at 4 bits: the loss is -1e-09"),
    ],
)
def test_losses_that_do_not_add_up_are_refused(loss, said):
    with pytest.raises(TableError, match=said):
        check_losses(loss)
    with pytest.raises(TableError, match=said):
        ScoreTable("snr", NET, loss)


def test_another_networks_site_is_refused_with_the_nearest():
    with pytest.raises(TableError, match="no site 'l1/V' in this network; the nearest is 'l1/W'"):
        ScoreTable("snr", NET, {"l1/V": {2: 1.0}})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1 is 'nothing'"),
        ("site,bits,loss\n", "line 1 is 'site,bits,loss'"),
        (f"{HEADER}\n", "0 different sets"),
        (f"{HEADER}\nsnr,1,5,l0/W,2\n", "line 2: 5 columns; 6 are needed"),
        (f"{HEADER}\nsnr,1,5,l0/W,two,0.5\n", "line 2: .*'two'"),
        (f"{HEADER}\nsnr,1,5,l0/W,2,half\n", "line 2: .*'half'"),
        (f"{HEADER}\nsnr,one,5,l0/W,2,1\n", "line 2: .*'one'"),
        (f"{HEADER}\nsnr,1,5,l0/W,2,0.5\nsnr,1,5,l0/W,2,0.4\n", "line 3: l0/W at 2 bits stands twice"),
        (f"{HEADER}\nsnr,1,5,l0/W,2,0.5\nkl,1,5,l0/W,3,0.4\n", "2 different sets of score, seed and images"),
        (f"{HEADER}\nsnr,1,5,l0/W,2,nan\n", "l0/W at 2 bits: the loss is nan"),
        (f"{HEADER}\nsnr,1,5,l9/W,2,1\n", "no site 'l9/W'"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_its_name(tmp_path, text, said):
    path = tmp_path / "scores.csv"
    path.write_text(text)
    with pytest.raises(TableError, match=said) as caught:
        ScoreTable.load(path, NET)
    assert str(path) in str(caught.value)


def test_a_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(TableError, match="cannot be read as a table"):
        ScoreTable.load(tmp_path / "none.csv", NET)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TableError, match="cannot be read as a table"):
        ScoreTable.load(tmp_path / "binary.csv", NET)
