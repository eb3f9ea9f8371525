"""Numbers, booleans and lists as a person writes them."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnmpq.config.values import (
    BOOLEAN,
    INTEGER,
    INTEGERS,
    NUMBER,
    TEXT,
    WORDS,
    optional,
    parse_boolean,
    parse_integer,
    parse_integers,
    parse_number,
    parse_words,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2**-8", 0.00390625),
        ("2^-8", 0.00390625),
        ("2 ** -8", 0.00390625),
        ("1/256", 0.00390625),
        ("0.00390625", 0.00390625),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e-3", 0.001),
        ("1E+2", 100.0),
        ("-1", -1.0),
        ("+3", 3.0),
        ("-2**-2", -0.25),
        ("2**0.5", math.sqrt(2)),
        ("  70.1 ", 70.1),
    ],
)
def test_number_is_read_in_every_way_of_writing_it(text, value):
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abc",
        "1,5",
        "2**",
        "**2",
        "2***3",
        "2**3**4",
        "1/2/3",
        "--1",
        "0x10",
        "nan",
        "inf",
        "1_000",
        "٣",
        "2 8",
    ],
)
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ValueError, match="not a number"):
        parse_number(text)


@pytest.mark.parametrize("text", ["1/0", "1e999", "9**9999", "0**-1", "1e308/1e-308"])
def test_a_number_must_be_finite(text):
    with pytest.raises(ValueError, match="not a finite number"):
        parse_number(text)


@pytest.mark.parametrize("text", ["__import__('os')", "print(1)", "a", "2+2", "(2)", "lambda: 0"])
def test_nothing_is_evaluated(text):
    with pytest.raises(ValueError, match="not a number"):
        parse_number(text)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_survives_writing_and_reading(value):
    assert parse_number(NUMBER.write(value)) == value


@given(st.integers(-1000, 1000), st.integers(1, 1000))
def test_fractions_are_the_nearest_float(numerator, denominator):
    assert parse_number(f"{numerator}/{denominator}") == float(Fraction(numerator, denominator))


@given(st.integers(-1000, 1000))
def test_powers_of_two_are_exact_in_both_notations(exponent):
    assert parse_number(f"2**{exponent}") == parse_number(f"2^{exponent}") == math.ldexp(1.0, exponent)


@given(st.text(max_size=20))
def test_any_text_is_a_finite_number_or_a_value_error(text):
    try:
        value = parse_number(text)
    except ValueError:
        return
    assert math.isfinite(value)


@given(st.integers())
def test_every_integer_survives(value):
    assert parse_integer(INTEGER.write(value)) == value


def test_integer_may_be_a_power_but_not_a_fraction():
    assert parse_integer("2**7") == 128
    assert parse_integer("1e3") == 1000
    with pytest.raises(ValueError, match="not a whole number; nearest valid: 8"):
        parse_integer("7.6")
    with pytest.raises(ValueError, match="not a whole number"):
        parse_integer("four")


@pytest.mark.parametrize("text", ["True", "true", "YES", "on", "1"])
def test_true(text):
    assert parse_boolean(text) is True


@pytest.mark.parametrize("text", ["False", "false", "No", "off", "0"])
def test_false_is_false(text):
    assert parse_boolean(text) is False


@pytest.mark.parametrize(("text", "near"), [("Treu", "true"), ("fals", "false"), ("2", "")])
def test_other_words_are_no_booleans(text, near):
    with pytest.raises(ValueError, match=f"not a boolean.*nearest valid: {near}"):
        parse_boolean(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("80, 120", (80, 120)),
        ("80,120,", (80, 120)),
        ("(80, 120)", (80, 120)),
        ("[80]", (80,)),
        ("", ()),
        ("()", ()),
    ],
)
def test_lists_of_integers(text, value):
    assert parse_integers(text) == value


def test_an_item_may_not_be_missing():
    with pytest.raises(ValueError, match="an item is missing"):
        parse_integers("80,,120")
    with pytest.raises(ValueError, match="an item is missing"):
        parse_words("a,,b")


def test_words_keep_their_brackets():
    assert parse_words("[ab]*/W, fc:8") == ("[ab]*/W", "fc:8")


def test_optional_reads_none():
    kind = optional(NUMBER)
    assert [kind.parse(text) for text in ("", " ", "none", "None", "0.5")] == [None, None, None, None, 0.5]
    assert kind.parse(kind.write(None)) is None
    assert kind.accepts(None) and kind.accepts(1.5) and not kind.accepts("x")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (INTEGER, 3, True),
        (INTEGER, -3, 3.0),
        (NUMBER, 3, "3"),
        (NUMBER, 0.5, math.nan),
        (BOOLEAN, False, 0),
        (TEXT, "a b", "two\nlines"),
        (TEXT, "", " x"),
        (INTEGERS, (1, 2), [1, 2]),
        (WORDS, ("a",), ("a,b",)),
        (optional(TEXT), "x", "none"),
    ],
)
def test_types_are_told_apart(kind, good, bad):
    assert kind.accepts(good)
    assert not kind.accepts(bad)
