"""How each language runs a task's test text beside an answer, so that a failure counts and no exit looks like the end.

One row of the table in `rewards.verifiers.harnesses` per language, read by `rewards.verifiers.unit_tests`. The texts
hold placeholders:

    @ID@      a random suffix: names made of it are names no answer has seen
    @SECRET@  the first half of the run's token; the second half waits on standard input
    @GIVEN@   the file the answer stands in, where it is kept apart from the tests
    @OWNER@   the class or object whose `main` runs the tests
    @CALLS@   a call of every test function
    @UNDEF@   an `#undef` of every macro the answer defines
    @IMPORTS@ an explicit import of every class of the Java library that the tests name
    @TUPLES@  the tuples of org.javatuples, which MultiPL-E imports and no Debian package has
    @FIRST@   the lines of answer and tests that have to stand at the top (imports)

An assertion that a language may skip (`assert` in C under NDEBUG, in Java without -ea, in Swift with -O, in Scala when
elided; `Debug.Assert` in C# without DEBUG; `console.assert`, which never fails; `unittest` blocks in D; rackunit's
checks, which leave status 0; PHP's assert, which is off by default) becomes a call of ours, which fails
hard and counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

Rewrite = tuple[str, str]  #: a pattern and what stands for it, in the sense of re.sub


@dataclass(frozen=True, slots=True, kw_only=True)
class Harness:
    """What stands around an answer and its tests in one language, and what is changed in them."""

    can_fail: str  #: a test text without a match could not fail, and is refused
    unknown: str = ""  #: a test text with a match calls what is defined nowhere, and is refused
    way: str = "text"  #: text: one program; linked: C's object beside it; driver: JavaScript's driver around it
    separate: bool = False  #: the answer has a file of its own, so it cannot swallow or shadow the text of the tests
    flags: tuple[str, ...] = ()  #: behind the tool of the run command
    hoist: str = ""  #: lines that go to @FIRST@
    items: tuple[str, str] = ("", "")  #: finds what such a line lists, and a line of one {item}
    imports: Callable[[str], list[tuple[str, str]]] | None = None  #: what such a line imports, and a line for each
    #: of a line of imports that the task's prompt gives, and the program without them: whether it is better left out
    spare: Callable[[str, str], bool] | None = None
    alike: Callable[[str], str] = str  #: what such a line has in common with those that are left out like it
    program: tuple[Rewrite, ...] = ()  #: what is changed in the answer
    tests: tuple[Rewrite, ...] = ()  #: what is changed in the tests
    before: str = ""
    between: str = "\n"  #: behind the answer
    after: str = ""
    texts: str = ""  #: matches what spans lines and may hold anything: it is not changed, nor looked into
    owner: str = ""  #: finds the name of a class: @OWNER@ is the one that holds the main of the tests
    calls: tuple[str, str] = ("", "")  #: finds the test functions, and calls one, {name}
    sites: str = "unit_pass_@ID@"  #: an assertion that is counted when it holds; "" where none is
    comments: str = r"//[^\n]*|/\*[\s\S]*?\*/"  #: an assertion in one is none
    every_site: bool = True  #: a text without branches runs them all; False where a framework sees to its cases
    instead: tuple[str, Harness] | None = None  #: another harness for test texts with a match of a pattern
    processes: int = 0  #: at most so many, where an answer that forks could try every return value at once; 0: any


#: what may fail in several languages
ASSERT, THROW = r"\bassert\b", r"\bthrow\b"

_DEFINE = re.compile(r"(?:#|%:)(?:[ \t]|/\*.*?\*/)*define(?:[ \t]|/\*.*?\*/)+([A-Za-z_]\w*)", re.DOTALL)


def macros(program: str) -> list[str]:
    """The macros a C or C++ answer may define, in order; rather one too many than one too few."""
    return list(dict.fromkeys(_DEFINE.findall(re.sub(r"\\[ \t]*\r?\n", "", program))))
