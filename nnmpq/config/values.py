"""How the text of a ``.cfg`` becomes a value and a value becomes text again."""

from __future__ import annotations

import math
import re
from typing import Any, Callable

import attrs

from nnmpq.config.errors import did_you_mean

_LITERAL = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_NUMBER = re.compile(rf"([+-]?)({_LITERAL})(?:\s*(\*\*|\^|/)\s*([+-]?{_LITERAL}))?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


@attrs.frozen
class Kind:
    """How values of one type are read and written.

    Args:
        name: what ``--help-keys`` and the error messages call the type.
        parse: text to value; raises ValueError saying what would be right.
        write: value to text that `parse` reads back as an equal value.
        accepts: whether a Python value is of this type.
    """

    name: str
    parse: Callable[[str], Any]
    write: Callable[[Any], str]
    accepts: Callable[[Any], bool]


def parse_number(text: str) -> float:
    """Read a number, one power or one fraction; nothing is evaluated.

    ``a``, ``a**b``, ``a^b`` or ``a/b`` with decimal a and b; as in Python, ``-2**-2`` is ``-(2**-2)``.

    Args:
        text: for instance ``2**-8``, ``2^-8``, ``1/256`` or ``0.00390625``.

    Returns:
        A finite number.

    Raises:
        ValueError: it is none of these, or not finite.

    Example:
        >>> parse_number("2**-8"), parse_number("2^-8"), parse_number("1/256"), parse_number("-.5")
        (0.00390625, 0.00390625, 0.00390625, -0.5)
    """
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a number; write it like 0.25, 1e-3, 1/4, 2**-2 or 2^-2")
    sign, first, operator, second = match.groups()
    try:
        value = float(first)
        if operator == "/":
            value /= float(second)
        elif operator is not None:
            value = math.pow(value, float(second))
    except (OverflowError, ZeroDivisionError, ValueError) as error:
        raise ValueError(f"not a finite number ({error})") from error
    if not math.isfinite(value):
        raise ValueError("not a finite number")
    return -value if sign == "-" else value


def parse_integer(text: str) -> int:
    """Read a whole number; powers and fractions as in `parse_number`, if the result is whole.

    Raises:
        ValueError: not a whole number.

    Example:
        >>> parse_integer("128"), parse_integer("2**7")
        (128, 128)
    """
    if _INTEGER.fullmatch(text.strip()):
        return int(text)
    try:
        value = parse_number(text)
    except ValueError as error:
        raise ValueError("not a whole number; write it like 20") from error
    if value != int(value):
        raise ValueError(f"not a whole number; nearest valid: {round(value)}")
    return int(value)


def parse_boolean(text: str) -> bool:
    """Read true/false, yes/no, on/off or 1/0 in any case: ``False`` is false.

    Raises:
        ValueError: anything else.

    Example:
        >>> parse_boolean("True"), parse_boolean("no")
        (True, False)
    """
    word = text.strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError(f"not a boolean: write True or False{did_you_mean(word, _TRUE + _FALSE)}")


def parse_integers(text: str) -> tuple[int, ...]:
    """Read whole numbers separated by commas, with or without brackets; nothing for none.

    Raises:
        ValueError: an item is not a whole number.

    Example:
        >>> parse_integers("80, 120"), parse_integers("(80,)"), parse_integers("")
        ((80, 120), (80,), ())
    """
    text = text.strip()
    if text[:1] + text[-1:] in ("()", "[]"):
        text = text[1:-1]
    return tuple(parse_integer(item) for item in _items(text))


def parse_words(text: str) -> tuple[str, ...]:
    """Read words separated by commas; nothing for none.

    Example:
        >>> parse_words("conv1, fc:8")
        ('conv1', 'fc:8')
    """
    return _items(text)


def _items(text: str) -> tuple[str, ...]:
    items = [item.strip() for item in text.split(",")]
    if items[-1] == "":
        items.pop()
    if "" in items:
        raise ValueError("an item is missing between two commas; write them like a, b, c")
    return tuple(items)


def _is_none(text: str) -> bool:
    return text.strip().lower() in ("", "none")


def optional(kind: Kind) -> Kind:
    """Return the kind that is also empty or ``none``, for None.

    Example:
        >>> optional(INTEGER).parse("none"), optional(INTEGER).parse("7")
        (None, 7)
    """
    return Kind(
        name=f"{kind.name} or none",
        parse=lambda text: None if _is_none(text) else kind.parse(text),
        write=lambda value: "" if value is None else kind.write(value),
        accepts=lambda value: value is None or (kind.accepts(value) and not _is_none(str(value))),
    )


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and value == value.strip() and len(value.splitlines()) <= 1


def _is_word(value: Any) -> bool:
    return _is_line(value) and value != "" and "," not in value


def _tuple_of(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, tuple) and all(accepts(item) for item in value)


INTEGER = Kind("whole number", parse_integer, str, _is_integer)
NUMBER = Kind("number", parse_number, lambda value: repr(float(value)), _is_number)
BOOLEAN = Kind("boolean", parse_boolean, str, lambda value: isinstance(value, bool))
TEXT = Kind("text", str.strip, str, _is_line)
INTEGERS = Kind("whole numbers", parse_integers, lambda value: ", ".join(map(str, value)), _tuple_of(_is_integer))
WORDS = Kind("words", parse_words, ", ".join, _tuple_of(_is_word))
