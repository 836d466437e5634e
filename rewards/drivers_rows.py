"""How each language calls a function of an answer: one row per driver in `rewards/sandbox/driver_*`.

A driver reads one argument list, calls the function and writes what it returned; what it reads and writes is the same
in every language and described in `driver_javascript.js`. A driver meets the answer in one of three ways:

    loads     the driver is the program; it reads the answer's file (or what was compiled from it) and runs it
    beside    the driver is compiled together with the answer
    apart     the driver is compiled by itself, once, and finds the function by reflection
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from rewards.drivers_rust import KEPT, main_of
from rewards.drivers_types import Fewer, Kind
from rewards.languages import LANGUAGES

_EVERYTHING = Fewer()
Rewrite = tuple[str, str]  #: a pattern and what stands for it, in the sense of re.sub with MULTILINE


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The driver of one language, and what its values are like."""

    driver: str  #: a file of rewards/sandbox
    way: str = "loads"
    rewrite: tuple[Rewrite, ...] = ()  #: what is changed in the answer
    kept: str = ""  #: matches what is left alone by that: comments and texts
    before: str = ""  #: stands before the answer
    after: str = ""  #: stands behind it; @ENTRY@ is the function, @TYPES@ what `types` makes of the signature
    types: Callable[[str, str, tuple[Kind, ...]], str] | None = None  #: of the answer, the function, its parameters
    told: bool = False  #: the driver's command ends in the declared types: what is returned, then the parameters
    flags: tuple[str, ...] = ()  #: of the answer's compiler
    objects: tuple[str, ...] = ()  #: behind the source file in its command
    written_in: str = ""  #: the language a driver that stands apart is compiled as
    run: tuple[str, ...] = ()  #: the command, where that is not the language's own
    int_bits: int = 64  #: integers of a task beyond this are refused at load; 0 where there is no limit
    fewer: Fewer = _EVERYTHING  #: what the language does not tell apart
    nul: bool = True  #: text may hold the character 0
    null_items: bool = True  #: a list or a map may hold null


def _cpp_types(program: str, entry: str, kinds: tuple[Kind, ...]) -> str:
    """The template arguments of `assay_driver::answer`: whether the function may be a template, and its kinds."""
    generic = re.search(rf"\btemplate\b[^;{{}}]*\b{entry}\s*\(|\b{entry}\s*\([^()]*\bauto\b|\b{entry}\s*=", program)
    return ", ".join(("true" if generic else "false", *map(_cpp_kind, kinds)))


def _cpp_kind(kind: Kind) -> str:
    name = f"assay_driver::{kind.name.capitalize()}"
    return name if kind.item is None else f"{name}<{_cpp_kind(kind.item)}>"


def _go_function(program: str, entry: str, kinds: tuple[Kind, ...]) -> str:
    """The function; where it has type parameters, one that takes what the signature says and lets Go find them."""
    if not re.search(rf"^func\s+{entry}\s*\[", program, re.MULTILINE):
        return entry
    taken = ", ".join(f"a{n} {_go_kind(kind)}" for n, kind in enumerate(kinds))
    return f"func({taken}) any {{ return {entry}({', '.join(f'a{n}' for n in range(len(kinds)))}) }}"


def _go_kind(kind: Kind) -> str:
    if kind.item is None:
        return {"float": "float64"}.get(kind.name, kind.name)
    return {"list": "[]", "map": "map[string]", "optional": "*"}[kind.name] + _go_kind(kind.item)


_C_LIKE = r"""//[^\n]*|/\*[\s\S]*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])'"""
#: a method without a class around it gets one, behind its imports
_CLASS = r"(?![\s\S]*\b(?:class|struct|interface|enum|record)\s+\w)(?=[\s\S]*\()"
_ALONE = rf"\A{_CLASS}((?:\s*(?:(?:package|import|using)\s[^;(]*;|//[^\n]*|/\*[\s\S]*?\*/))*)([\s\S]*)\Z"
_IN_CLASS: Rewrite = (_ALONE, r"\g<1>\nclass Solution {\g<2>\n}")
_JVM = LANGUAGES["java"].run[:-3]
_JAVA = Caller(
    driver="driver_java.java",
    way="apart",
    written_in="java",
    told=True,
    # only a class of the file's name may be public
    rewrite=(
        _IN_CLASS,
        (
            r"\bpublic\s+(?=(?:(?:abstract|final|sealed|non-sealed|static|strictfp)\s+)*(?:class|interface|enum|record)\s)",
            "",
        ),
        (
            r"\b((?:(?:abstract|final|strictfp)\s+)+)public\s+(?=(?:class|interface|enum|record)\s)",
            r"\g<1>",
        ),
    ),
    kept=rf'"""(?:\\.|[^\\])*?"""|{_C_LIKE}',
    run=(*_JVM, "-cp", "driver:{artefact}", "AssayDriver"),
)
_JAVASCRIPT = Caller(driver="driver_javascript.js", int_bits=54, fewer=Fewer(one_number=True))

CALLERS: dict[str, Caller] = {
    "javascript": _JAVASCRIPT,
    "typescript": _JAVASCRIPT,
    "ruby": Caller(driver="driver_ruby.rb", int_bits=0),
    "php": Caller(
        driver="driver_php.php",
        # what stands before the opening tag is output, and an answer without one would be nothing else
        rewrite=((r"\A#!.*\n", ""), (r"\A\s*(?=<\?)", ""), (r"\A(?!<\?)", "<?php\n")),
        fewer=Fewer(one_number=True, one_container=True),
    ),
    "perl": Caller(driver="driver_perl.pl", fewer=Fewer(one_number=True, truth=True, scalar_text=True)),
    "lua": Caller(driver="driver_lua.lua", null_items=False, fewer=Fewer(one_number=True, one_container=True)),
    "r": Caller(
        driver="driver_r.R",
        int_bits=54,
        nul=False,
        told=True,
        fewer=Fewer(one_number=True, one_container=True, vectors=True),
    ),
    "racket": Caller(
        driver="driver_racket.rkt",
        rewrite=((r"\A(?![\s\S]*^#lang\s)", "#lang racket\n"),),
        int_bits=0,
        fewer=Fewer(one_number=True, false_is_null=True),
    ),
    "cpp": Caller(
        driver="driver_cpp.hpp",
        way="beside",
        before='#include "driver_cpp.hpp"\n#line 1\n',
        kept=_C_LIKE,
        # names that no macro of the answer has; what is unevaluated asks whether there is such a call
        after="""
std::string assay_test(assay_driver::Input &assay_input) {
    return assay_driver::answer<@TYPES@>(
        assay_input,
        [](auto assay_one, auto &assay_input) -> decltype(assay_one.assay_call(::@ENTRY@, assay_input)) {
            return assay_one.assay_call(::@ENTRY@, assay_input);
        },
        [](auto &&...assay_given) -> decltype(::@ENTRY@(std::forward<decltype(assay_given)>(assay_given)...)) {
            return ::@ENTRY@(std::forward<decltype(assay_given)>(assay_given)...);
        });
}
""",
        types=_cpp_types,
        int_bits=128,
    ),
    "go": Caller(
        driver="driver_go.go",
        way="beside",
        rewrite=(
            (r"\A(?![\s\S]*^package\s)", "package main\n"),
            (r"^package\s+\w+", "package main"),
            (r"^func\s+main\s*\(\s*\)", "func assay_main()"),
        ),
        kept=rf"`[^`]*`|{_C_LIKE}",
        after="\nvar assay_function any = @TYPES@\n",
        types=_go_function,
        objects=("driver_go.go",),
        fewer=Fewer(no_container=True),
    ),
    "rust": Caller(
        driver="driver_rust.rs",
        way="beside",
        rewrite=((r"\bfn\s+main\s*\(", "fn assay_main("),),
        kept=KEPT,
        after='\n#[path = "driver_rust.rs"]\nmod assay_driver;\n@TYPES@\n',
        types=main_of,
        int_bits=128,
    ),
    "d": Caller(
        driver="driver_d.d",
        way="beside",
        rewrite=((r"\b(void|int)\s+main\s*\(", r"\g<1> assay_main("),),
        kept=rf'`[^`]*`|\br"[^"]*"|{_C_LIKE}',
        after="\nvoid main() { static import driver_d; "
        'driver_d.pick!([@TYPES@], __traits(getOverloads, __traits(parent, @ENTRY@), "@ENTRY@"))(); }\n',
        types=lambda _program, _entry, kinds: ", ".join(f'"{kind}"' for kind in kinds),
        objects=("driver_d.d",),
    ),
    "java": _JAVA,
    "kotlin": replace(_JAVA, rewrite=(), kept=""),
    "csharp": Caller(
        driver="driver_csharp.cs",
        rewrite=(_IN_CLASS,),
        kept=_C_LIKE,
        way="apart",
        written_in="csharp",
        told=True,
        flags=("-target:library",),
        run=("/usr/bin/mono", "driver"),
    ),
}
