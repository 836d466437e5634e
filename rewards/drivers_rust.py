"""How an answer in Rust is called: what its function's declaration leaves open, the task's signature fills in.

    fn f<T: Ord + Copy>(xs: &[T], k: usize) -> T         |a0: &'static [i64], a1: usize| f(a0, a1)
    fn f(words: impl Iterator<Item = impl AsRef<str>>)   |a0: std::vec::IntoIter<&'static str>| f(a0)
    impl Solution { pub fn f(x: i32) -> i32 { .. } }     Solution::f

A function without type parameters is passed as it is: the compiler knows what it takes. What is read here is only the
declaration; where it is read wrong, the compiler refuses the call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

from rewards.drivers_types import Kind
from rewards.rewriting import outside

#: what is no code: texts and comments
KEPT = r"""\br(?P<hashes>#*)"[\s\S]*?"(?P=hashes)|//[^\n]*|/\*[\s\S]*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])'"""
#: where nothing but the signature says what an argument is
_NATURAL = {"int": "i64", "float": "f64", "bool": "bool", "string": "&'static str"}
_STRING = Kind("string")
_INT = re.compile(r"[iu](?:8|16|32|64|128|size)")
_LONGEST = 4000  #: characters of a declaration; of a longer one no more is read
_OPEN, _CLOSE = "<([{", ">)]}"


def main_of(program: str, entry: str, kinds: tuple[Kind, ...]) -> str:
    """The function `main` that has the driver call `entry`, and the type Solution where it has methods only."""
    owner, at = _place(program, entry)
    declared = re.search(r"\b(?:struct|enum|union|type)\s+Solution\b", program)
    before = "" if declared or not re.search(r"\bimpl\s+Solution\b", program) else "struct Solution;\n"
    called = f"{owner}::{entry}" if owner else entry
    if at >= 0:
        with suppress(RecursionError):  # bounds that need each other, or no end of brackets: no type is written down
            called = _filled(called, program[at : at + _LONGEST], kinds)
    return f"{before}fn main() {{ assay_driver::run({called}) }}"


def _filled(called: str, text: str, kinds: tuple[Kind, ...]) -> str:
    """The function; where its declaration leaves types open, a closure of the types that it is called with."""
    bounds, parameters = _declared(text)
    if len(parameters) != len(kinds) or not (bounds or any(re.search(r"\bimpl\b", one) for one in parameters)):
        return called
    types = [_concrete(one, kind, bounds) for one, kind in zip(parameters, kinds, strict=True)]
    taken = ", ".join(f"a{n}: {kind}" for n, kind in enumerate(types))
    return f"|{taken}| {called}({', '.join(f'a{n}' for n in range(len(types)))})"


def _place(program: str, entry: str) -> tuple[str, int]:
    """The type whose method the function is ("" for none), and where its declaration goes on behind the name.

    What stands at the top level comes first. (-1 where there is no such function.)
    """
    inside: list[str] = []  # what the open braces belong to
    last, method = 0, ("", -1)
    for found in outside(rf"[{{}};]|\bfn\s+{entry}\b", program, KEPT):
        token = found[0]
        if token.startswith("fn"):
            if not inside:
                return "", found.end()
            owner = re.search(r"\bimpl\s+(\w+)\s*\Z", inside[0]) if len(inside) == 1 and method[1] < 0 else None
            if owner:
                method = owner[1], found.end()
            continue
        if token == "{":
            inside.append(program[max(last, found.start() - 200) : found.start()])
        elif token == "}" and inside:
            inside.pop()
        last = found.end()
    return method


def _declared(text: str) -> tuple[dict[str, str], list[str]]:
    """The type parameters with their bounds, and the types of the parameters, of what stands behind the name."""
    text = re.sub(r"//[^\n]*|/\*[\s\S]*?\*/|\s+", " ", text.replace("->", "\0")).lstrip()
    bounds: dict[str, str] = {}
    if text.startswith("<"):
        generics, text = _group(text)
        for one in _split(generics):
            name, _, bound = one.partition(":")
            if not one.startswith(("'", "const ")):
                bounds[name.split("=")[0].strip()] = bound
        text = text.lstrip()
    if not text.startswith("("):
        return bounds, []
    inside, text = _group(text)
    parameters = [one.partition(":")[2].strip() for one in _split(inside)]
    for one in _split(text.partition("{")[0].rpartition("where ")[2]):
        name, _, bound = one.partition(":")
        if name.strip() in bounds:
            bounds[name.strip()] += f" + {bound}"
    return bounds, parameters


def _group(text: str) -> tuple[str, str]:
    """What a bracket at the head of a text holds, and what stands behind it."""
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter in _OPEN) - (letter in _CLOSE)
        if not depth:
            return text[1:at], text[at + 1 :]
    return text[1:], ""


def _split(text: str, by: str = ",") -> list[str]:
    """The parts of a list; commas in brackets part nothing."""
    parts, depth, last = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter in _OPEN) - (letter in _CLOSE)
        if letter == by and not depth:
            parts.append(text[last:at])
            last = at + 1
    parts.append(text[last:])
    return [part.strip() for part in parts if part.strip()]


def _concrete(declared: str, kind: Kind, bounds: dict[str, str]) -> str:
    """A declared type with everything filled in that it leaves open."""
    text, item = declared.strip(), kind.item or kind
    if reference := re.match(r"&\s*(?:'\w+\s*)?(mut\b)?\s*", text):
        inner = _concrete(text[reference.end() :], kind, bounds)
        return f"&'static {'mut ' if reference[1] else ''}{inner}"
    if text in bounds:
        return _fitting(bounds[text], kind, bounds)
    if text.startswith("impl "):
        return _fitting(text[5:], kind, bounds)
    if text.startswith("["):
        inner, _, size = _group(text)[0].partition(";")
        return f"[{_concrete(inner, item, bounds)}{';' if size else ''}{size}]"
    if text.startswith("("):
        return f"({', '.join(_concrete(part, item, bounds) for part in _split(_group(text)[0]))},)"
    if text.endswith(">") and "<" in text:
        name, _, rest = text.partition("<")
        parts = [part for part in _split(rest[:-1]) if not part.startswith("'")]
        kinds = [_STRING, item] if kind.name == "map" and len(parts) == 2 else [item] * len(parts)
        return f"{name}<{', '.join(_concrete(*one, bounds) for one in zip(parts, kinds, strict=True))}>"
    return text


def _fitting(bound: str, kind: Kind, bounds: dict[str, str]) -> str:
    """A type that has the traits of a bound and holds values of a kind."""
    traits = [*_traits(bound)]
    for name, inside in traits:
        inner = inside.partition("=")[2] if name != "AsRef" and "=" in inside else inside
        if kind.item is not None and name in ("IntoIterator", "Iterator", "DoubleEndedIterator", "ExactSizeIterator"):
            given = next((of for _, of in traits if "Item" in of), "")
            part = _concrete(given.partition("=")[2], kind.item, bounds) if given else _natural(kind.item)
            return f"Vec<{part}>" if name == "IntoIterator" else f"std::vec::IntoIter<{part}>"
        if (
            kind.name == "list"
            and name in ("AsRef", "AsMut", "Borrow", "Deref", "Into")
            and inner.strip()[:1] in ("[", "V")
        ):
            inner = inner.strip()
            part = _group(inner)[0] if inner[0] == "[" else inner[4:-1]
            return f"Vec<{_concrete(part, kind.item or kind, bounds)}>"
        if name == "Into" and inner.startswith("Option<"):
            return _concrete(inner, kind, bounds)
        if name == "Into" and kind.name == "int":
            return inner if _INT.fullmatch(inner) else "i32"
        if name == "Into" and kind.name == "float":
            return inner
        if name == "FromStr" or (name == "Borrow" and inner == "String"):
            return "String"
    return _natural(kind)


def _traits(bound: str) -> Iterator[tuple[str, str]]:
    """(Trait, what stands in its angle brackets) of every trait of a bound."""
    for one in _split(bound, "+"):
        name, _, inside = one.partition("<")
        yield name.strip().split("::")[-1], inside.strip().removesuffix(">").strip()


def _natural(kind: Kind) -> str:
    if kind.item is None:
        return _NATURAL[kind.name]
    inner = _natural(kind.item)
    return {"list": f"Vec<{inner}>", "map": f"std::collections::HashMap<String, {inner}>"}.get(
        kind.name, f"Option<{inner}>"
    )
