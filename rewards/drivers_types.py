"""The types of a signature: read, checked against values, written for a driver, and what a language makes of them.

    type := "int" | "float" | "bool" | "string" | type "[]" | type "?" | "map[" type "]"

`int[][]` is a list of lists, `float?` a float or null, `map[int[]]` a map from strings to lists. "str" and "list[T]"
and "map[str,T]" are read as other spellings of the same.

Arguments travel as one token a line, which every language splits and reads in a few lines:

    n   b0   b1   i-31   f3ff8000000000000 (the bits)   s7465 (UTF-8 in hexadecimal)
    l2 and 2 values   d1 and 1 pair of s... and a value
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_SCALARS: dict[str, type] = {"int": int, "float": float, "bool": bool, "string": str}
_NUMBER = re.compile(r"-?\d{1,18}(?:\.\d{1,17})?")
_TOKEN = re.compile(r"\s*(int|float|bool|string|str|list\[|map\[|\[\]|\?|,|\])")


@dataclass(frozen=True, slots=True)
class Kind:
    """One type: a scalar, or list, map or optional of an item. `str()` gives its shortest spelling."""

    name: str
    item: Kind | None = None

    def __str__(self) -> str:
        ends = {"list": f"{self.item}[]", "map": f"map[{self.item}]", "optional": f"{self.item}?"}
        return ends.get(self.name, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fewer:
    """What a language does not tell apart, and a comparison must therefore forgive."""

    one_number: bool = False  #: there is one type of numbers: 1.0 is 1
    truth: bool = False  #: 0, 1 and "" are what its comparisons return
    one_container: bool = False  #: lists and maps are one type: a map of "0", "1", ... may come as a list
    false_is_null: bool = False  #: there is no other null
    scalar_text: bool = False  #: a number taken out of a text is that text until somebody calculates with it
    vectors: bool = False  #: a value is a list of one, and nothing is the list of none
    no_container: bool = False  #: nothing is the list and the map of none, where no null is allowed


def kind_of(text: Any) -> Kind | None:
    """The type a text stands for; None where it stands for none."""
    if type(text) is not str or len(text) > 200:
        return None
    tokens, at = [], 0
    while at < len(text):
        if not (token := _TOKEN.match(text, at)):
            return None
        tokens.append(token[1])
        at = token.end()
    kind, rest = _read(tokens)
    return None if rest else kind


def fits(kind: Kind, value: Any) -> bool:
    """Whether a value is of exactly this type: True is no int, 1 is no float, a tuple is no list."""
    if kind.item is None:
        return type(value) is _SCALARS[kind.name]
    if kind.name == "optional":
        return value is None or fits(kind.item, value)
    if kind.name == "list":
        return type(value) is list and all(fits(kind.item, item) for item in value)
    return type(value) is dict and all(type(key) is str and fits(kind.item, value[key]) for key in value)


def as_written(kind: Kind, value: Any) -> Any:
    """A value of a task's record as its type means it: JSON may say 2 for 2.0, and a list may be a tuple."""
    if kind.name == "float" and type(value) is int and abs(value) <= 2**53:
        return float(value)
    if kind.name == "list" and type(value) in (list, tuple):
        return [as_written(_item(kind), item) for item in value]
    if kind.name == "map" and type(value) is dict:
        return {key: as_written(_item(kind), item) for key, item in value.items()}
    if kind.name == "optional" and value is not None:
        return as_written(_item(kind), value)
    return value


def scalars(value: Any) -> Iterator[Any]:
    """Every value without parts that a value holds, keys included."""
    if type(value) is dict:
        for key, item in value.items():
            yield key
            yield from scalars(item)
    elif type(value) is list:
        for item in value:
            yield from scalars(item)
    else:
        yield value


def tokens_of(value: Any) -> Iterator[str]:
    """The value as a driver reads it."""
    if value is None:
        yield "n"
    elif type(value) is bool:
        yield f"b{value:d}"
    elif type(value) is int:
        yield f"i{value}"
    elif type(value) is float:
        yield "f" + struct.pack(">d", value).hex()
    elif type(value) is str:
        yield "s" + value.encode("utf-8").hex()
    elif type(value) is list:
        yield f"l{len(value)}"
        for item in value:
            yield from tokens_of(item)
    else:
        yield f"d{len(value)}"
        for key, item in value.items():
            yield from tokens_of(key)
            yield from tokens_of(item)


def same(found: Any, expected: Any, *, rel_tol: float = 0.0, abs_tol: float = 0.0) -> bool:
    """Equality of two values of one type: exact but for floats within a tolerance; nan equals itself."""
    near = {"rel_tol": rel_tol, "abs_tol": abs_tol}
    if type(found) is not type(expected):  # null, where the type allows it
        return False
    if type(expected) is float:
        return math.isclose(found, expected, **near) or (math.isnan(found) and math.isnan(expected))
    if type(expected) is list:
        return len(found) == len(expected) and all(same(*pair, **near) for pair in zip(found, expected, strict=True))
    if type(expected) is dict:
        return found.keys() == expected.keys() and all(same(found[key], expected[key], **near) for key in expected)
    return bool(found == expected)


def fitted(kind: Kind, value: Any, fewer: Fewer) -> Any:
    """A value that a language returned as the signature means it, where that language has fewer types."""
    if kind.item is None:
        return _fitted_scalar(kind.name, value, fewer)
    if kind.name == "optional":
        if value is None or (value is False and fewer.false_is_null and kind.item.name != "bool"):
            return None
        return fitted(kind.item, value, fewer)
    if kind.name == "map" and fewer.one_container and type(value) is list:
        value = {str(at): item for at, item in enumerate(value)}
    if fewer.no_container and value is None:
        return [] if kind.name == "list" else {}
    if kind.name == "list" and fewer.vectors and type(value) is not list:
        value = [] if value is None else [value]
    if kind.name == "list" and type(value) is list:
        return [fitted(kind.item, item, fewer) for item in value]
    if kind.name == "map" and type(value) is dict:
        return {key: fitted(kind.item, item, fewer) for key, item in value.items()}
    return value


def _fitted_scalar(name: str, value: Any, fewer: Fewer) -> Any:
    if fewer.scalar_text and name in ("int", "float") and type(value) is str and _NUMBER.fullmatch(value):
        value = float(value) if "." in value else int(value)
    if fewer.scalar_text and name == "string" and type(value) is int:
        return str(value)
    if fewer.one_number and name == "float" and type(value) is int and abs(value) < 2**1023:
        return float(value)
    if fewer.one_number and name == "int" and type(value) is float and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    if fewer.truth and name == "bool" and type(value) in (int, str) and value in (0, 1, ""):
        return value == 1
    return value


def _read(tokens: list[str]) -> tuple[Kind | None, list[str]]:
    """The type at the head of the tokens, and the tokens behind it."""
    if not tokens:
        return None, tokens
    head, *rest = tokens
    if head in ("list[", "map["):
        if head == "map[" and rest[1:2] == [","] and rest[0] in ("str", "string"):
            rest = rest[2:]
        item, rest = _read(rest)
        if item is None or rest[:1] != ["]"]:
            return None, rest
        kind, rest = Kind(head[:-1], item), rest[1:]
    elif head == "str" or head in _SCALARS:
        kind = Kind("string" if head == "str" else head)
    else:
        return None, tokens
    while rest and rest[0] in ("[]", "?"):
        kind, rest = Kind("list" if rest[0] == "[]" else "optional", kind), rest[1:]
    return kind, rest


def _item(kind: Kind) -> Kind:
    assert kind.item is not None
    return kind.item
