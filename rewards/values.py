"""Values that cross out of a box: a notation without code in it, read into exact built-in types.

    ["N"]  ["b",1]  ["i","-1f"]  ["f","0x1.8p+1"]  ["c",["0x0p+0","inf"]]  ["s","text"]  ["y","00ff"]
    ["l",[...]]  ["t",[...]]  ["S",[...]]  ["F",[...]]  ["d",[[key,value],...]]
    ["D","3ff8000000000000"]  a float by its bits     ["u","74657874"]  text by its UTF-8
    ["q",["1","-3"]]  a Fraction                       ["m","1.50E-7"]  a Decimal
    ["X",...]  an instance of a subclass, told as its base (keys and items of a dict: as sets);   ["O","Name"]  the rest

Integers and floats are hexadecimal: exact, linear to read, and no notation for them depends on a digit limit. The
bytes come from code that wants to be believed, so everything about them is checked, and a claim as large as it
likes costs no more than reading it: containers are only built when they have as many parts as the expected value.
"""

from __future__ import annotations

import json
import re
import struct
from decimal import Decimal
from fractions import Fraction
from typing import Any

MAX_DEPTH = 210
_BITS = re.compile(r"[0-9a-f]{16}")
_HEX_INT = re.compile(r"-?[0-9a-f]+")
_DECIMAL = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|Infinity|NaN)")  #: a signaling NaN equals an error
MAX_DIGITS = 4096  #: of a Decimal, and of the parts of a Fraction: what is as long as it likes is slow to reduce
_CONTAINERS: dict[str, Any] = {"l": list, "t": tuple, "S": set, "F": frozenset}


class BadValue(ValueError):
    """The bytes are not a value, or not one that may be claimed here; the message is for people."""


def parse(data: bytes) -> Any:
    """The tree behind the bytes: nested lists as above, not yet a value."""
    try:
        return json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise BadValue(f"not a value: {error}") from None


def parts(value: Any) -> int:
    """How many nodes the notation of a built-in value has; equal values have equally many."""
    if type(value) in (list, tuple, set, frozenset):
        return 1 + sum(map(parts, value))
    if type(value) is dict:
        return 1 + sum(parts(key) + parts(item) for key, item in value.items())
    return 1


def decode(tree: Any, *, exact: bool, expected_parts: int | None = None, fewer: bool = False) -> Any:
    """The built-in value a tree stands for.

    `exact` refuses instances of subclasses, Fractions and Decimals; otherwise these are exactly themselves, and an
    instance of a subclass counts as its base, as `==` would have it. With
    `expected_parts`, a value of any other size (any larger one, with `fewer`) is refused before its containers are
    built: sets with keys chosen to collide would keep the reader busy for minutes. Raises BadValue.
    """
    found = _count(tree, 0)
    if expected_parts is not None and found != expected_parts and not (fewer and found < expected_parts):
        raise BadValue(f"a value of {found} parts where one of {expected_parts} is expected")
    return _decode(tree, exact, 0)


def _count(tree: Any, depth: int) -> int:
    tag, content = _open(tree, depth)
    if tag == "X":
        return _count(content, depth + 1)
    if tag in _CONTAINERS:
        return 1 + sum(_count(item, depth + 1) for item in _list(content))
    if tag == "d":
        return 1 + sum(_count(part, depth + 1) for pair in _list(content) for part in _pair(pair))
    return 1


def _decode(tree: Any, exact: bool, depth: int) -> Any:
    tag, content = _open(tree, depth)
    if tag == "X":
        if exact:
            raise BadValue("an instance of a subclass where a plain value is required")
        return _decode(content, exact, depth + 1)
    if tag in ("q", "m"):
        if exact:
            raise BadValue(f"a {'Fraction' if tag == 'q' else 'Decimal'}, which is not a built-in value")
        return _fraction(content) if tag == "q" else _decimal(content)
    try:
        if tag in _CONTAINERS:
            return _CONTAINERS[tag]([_decode(item, exact, depth + 1) for item in _list(content)])
        if tag == "d":
            pairs = [[_decode(part, exact, depth + 1) for part in _pair(pair)] for pair in _list(content)]
            return dict(pairs)
    except TypeError:
        raise BadValue("an unhashable key or member") from None
    return _scalar(tag, content)


def _scalar(tag: str, content: Any) -> Any:
    if tag == "N" and content is None:
        return None
    if tag == "b" and type(content) is int and content in (0, 1):
        return content == 1
    if tag == "c":
        return complex(*(_float(part) for part in _pair(content)))
    if type(content) is not str:
        raise BadValue(f"no value has the form {tag!r} with {type(content).__name__}")
    if tag == "s":
        return content
    if tag == "i" and _HEX_INT.fullmatch(content):
        return int(content, 16)
    if tag == "f":
        return _float(content)
    if tag == "D" and _BITS.fullmatch(content):
        return struct.unpack(">d", bytes.fromhex(content))[0]
    if tag in ("y", "u"):
        return _bytes(content) if tag == "y" else _text(content)
    if tag == "O":
        raise BadValue(f"an object of type {content[:80]!r}, which is not a built-in value")
    raise BadValue(f"no value has the form {tag!r}")


def _float(text: Any) -> float:
    try:
        return float.fromhex(text)
    except (TypeError, ValueError, OverflowError):
        raise BadValue("a float that is not one") from None


def _fraction(content: Any) -> Fraction:
    parts = _pair(content)
    if not all(type(part) is str and len(part) <= MAX_DIGITS and _HEX_INT.fullmatch(part) for part in parts):
        raise BadValue("a Fraction that is none, or too long a one")
    numerator, denominator = (int(part, 16) for part in parts)
    if not denominator:
        raise BadValue("a Fraction of zero")
    return Fraction(numerator, denominator)


def _decimal(content: Any) -> Decimal:
    if type(content) is not str or len(content) > MAX_DIGITS or not _DECIMAL.fullmatch(content):
        raise BadValue("a Decimal that is none, or too long a one")
    try:
        return Decimal(content)
    except ArithmeticError:
        raise BadValue("a Decimal with too large an exponent") from None


def _bytes(content: str) -> bytes:
    try:
        return bytes.fromhex(content)
    except ValueError:
        raise BadValue("bytes that are not hexadecimal") from None


def _text(content: str) -> str:
    try:
        return _bytes(content).decode("utf-8")
    except UnicodeDecodeError:
        raise BadValue("text that is not UTF-8") from None


def _open(tree: Any, depth: int) -> tuple[str, Any]:
    if depth > MAX_DEPTH:
        raise BadValue("a value that is nested too deeply")
    if type(tree) is not list or not 1 <= len(tree) <= 2 or type(tree[0]) is not str:
        raise BadValue("not a value")
    return tree[0], tree[1] if len(tree) == 2 else None


def _list(content: Any) -> list[Any]:
    if type(content) is not list:
        raise BadValue("a container without contents")
    return content


def _pair(content: Any) -> list[Any]:
    if type(content) is not list or len(content) != 2:
        raise BadValue("a pair that is not one")
    return content
