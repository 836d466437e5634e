"""What a task's tests in Python import, taken apart on the host: the library's modules, the task's, and the answer's.

{"helpers.py": "from cart import start", "prices.py": "...", "test_cart.py": "import unittest, prices, helpers"}

library  unittest: loaded, and remembered, before the answer is
early    prices: given, and needs nothing of the answer, which meets the very same module; remembered as well
late     helpers: given, and imports the answer, so it is loaded from its text when the answer has been
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple


class Given(NamedTuple):
    """The given files of a run and what becomes of those that are modules."""

    early: tuple[str, ...]
    late: tuple[tuple[str, str], ...]  #: (module, path)
    barred: tuple[str, ...]  #: the answer's modules: nothing loads one before the answer's turn
    paths: tuple[str, ...]  #: put back before the tests run, whatever the answer has written there


def module_of(path: str) -> str:
    """The module in a file: "shop/__init__.py" is shop."""
    return path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def sorted_out(tests: str, given: Mapping[str, str], files: Sequence[str]) -> tuple[tuple[str, ...], Given]:
    """The library's modules, and the given ones, for a text of tests beside `given` (path -> text) and the answer."""
    theirs = {module_of(path) for path in files if path.endswith(".py")}
    paths = {module_of(path): path for path in given if path.endswith(".py")}
    tops = {name.partition(".")[0] for name in (*theirs, *paths)}
    direct = _imported(tests, "")
    needs = {name: _imported(given[path], _package(name, path)) for name, path in paths.items()}
    reached = _reached(direct, needs)
    library = {name for name in direct | set().union(*(needs[name] for name in reached & set(paths)))}
    late = {name for name in reached & set(paths) if (_reached(needs[name] | {name}, needs)) & theirs}
    early = {name for name in reached - late - theirs if name in paths or _is_folder(name, paths)}
    return (
        tuple(sorted(name for name in library if name.partition(".")[0] not in tops)),
        Given(
            early=tuple(sorted(early)),
            late=tuple((name, paths[name]) for name in sorted(late)),
            barred=tuple(sorted(theirs)),
            paths=tuple(given),
        ),
    )


def _reached(names: Iterable[str], needs: Mapping[str, set[str]]) -> set[str]:
    """All modules that are loaded with `names`, packages around them among these."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [*needs.get(name, ()), *_around(name)]
    return found


def _around(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _package(name: str, path: str) -> str:
    return name if path.endswith("__init__.py") else name.rpartition(".")[0]


def _is_folder(name: str, modules: Iterable[str]) -> bool:
    return any(module.startswith(f"{name}.") for module in modules)


def _imported(text: str, package: str) -> set[str]:
    """What a text may import, anywhere in it: of `from a import b` both a and a.b."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return set()  # the tests will say so themselves
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            around = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*filter(None, around), *filter(None, [node.module])])
            found |= {module, *(f"{module}.{alias.name}".lstrip(".") for alias in node.names)} - {""}
    return found
