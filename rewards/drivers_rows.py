"""How each language calls a function of an answer: one row per driver in `rewards/sandbox/driver_*`.

A driver reads one argument list, calls the function and writes what it returned; what it reads and writes is the same
in every language and described in `driver_javascript.js`. A driver meets the answer in one of three ways:

    loads     the driver is the program; it reads the answer's file (or what was compiled from it) and runs it
    beside    the driver is compiled together with the answer
    apart     the driver is compiled by itself, once, and finds the function by reflection
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rewards.drivers_types import Fewer
from rewards.languages import LANGUAGES

_EVERYTHING = Fewer()
Rewrite = tuple[str, str]  #: a pattern and what stands for it, in the sense of re.sub with MULTILINE


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The driver of one language, and what its values are like."""

    driver: str  #: a file of rewards/sandbox
    way: str = "loads"
    rewrite: tuple[Rewrite, ...] = ()  #: what is changed in the answer
    before: str = ""  #: stands before the answer
    after: str = ""  #: stands behind it; @ENTRY@ is the function
    flags: tuple[str, ...] = ()  #: of the answer's compiler
    objects: tuple[str, ...] = ()  #: behind the source file in its command
    written_in: str = ""  #: the language a driver that stands apart is compiled as
    run: tuple[str, ...] = ()  #: the command, where that is not the language's own
    int_bits: int = 64  #: integers of a task beyond this are refused at load; 0 where there is no limit
    fewer: Fewer = _EVERYTHING  #: what the language does not tell apart
    nul: bool = True  #: text may hold the character 0


_JVM = LANGUAGES["java"].run[:-3]
_JAVA = Caller(
    driver="driver_java.java",
    way="apart",
    written_in="java",
    rewrite=(
        (r"\A\s*package\s+[\w.]+\s*;", ""),
        # only a class of the file's name may be public
        (r"^([ \t]*)public\s+((?:abstract\s+|final\s+|sealed\s+)*(?:class|interface|enum|record)\s)", r"\1\2"),
    ),
    run=(*_JVM, "-cp", "driver:{artefact}", "AssayDriver"),
)
_JAVASCRIPT = Caller(driver="driver_javascript.js", int_bits=54, fewer=Fewer(one_number=True))

CALLERS: dict[str, Caller] = {
    "javascript": _JAVASCRIPT,
    "typescript": _JAVASCRIPT,
    "ruby": Caller(driver="driver_ruby.rb", int_bits=0),
    "php": Caller(
        driver="driver_php.php",
        # without its opening tag an answer would be output
        rewrite=((r"\A(?!\s*<\?)", "<?php\n"),),
        fewer=Fewer(one_container=True),
    ),
    "perl": Caller(driver="driver_perl.pl", fewer=Fewer(one_number=True, truth=True, scalar_text=True)),
    "lua": Caller(driver="driver_lua.lua", fewer=Fewer(one_number=True, one_container=True)),
    "r": Caller(
        driver="driver_r.R", int_bits=54, nul=False, fewer=Fewer(one_number=True, one_container=True, vectors=True)
    ),
    "racket": Caller(
        driver="driver_racket.rkt",
        rewrite=((r"\A(?![\s\S]*^#lang\s)", "#lang racket\n"),),
        int_bits=0,
        fewer=Fewer(false_is_null=True),
    ),
    "cpp": Caller(
        driver="driver_cpp.hpp",
        way="beside",
        before='#include "driver_cpp.hpp"\n#line 1\n',
        after="\nstd::string assay_test(assay_driver::Input &input) { return assay_driver::call(::@ENTRY@, input); }\n",
    ),
    "go": Caller(
        driver="driver_go.go",
        way="beside",
        rewrite=(
            (r"\A(?![\s\S]*^package\s)", "package main\n"),
            (r"^package\s+\w+", "package main"),
            (r"^func\s+main\s*\(\s*\)", "func assay_main()"),
        ),
        after="\nvar assay_function any = @ENTRY@\n",
        objects=("driver_go.go",),
    ),
    "rust": Caller(
        driver="driver_rust.rs",
        way="beside",
        rewrite=((r"\bfn\s+main\s*\(", "fn assay_main("),),
        after='\n#[path = "driver_rust.rs"]\nmod assay_driver;\nfn main() { assay_driver::run(@ENTRY@) }\n',
    ),
    "d": Caller(
        driver="driver_d.d",
        way="beside",
        rewrite=((r"\b(void|int)\s+main\s*\(", r"\1 assay_main("),),
        after="\nvoid main() { static import driver_d; driver_d.run!(@ENTRY@)(); }\n",
        objects=("driver_d.d",),
    ),
    "java": _JAVA,
    "kotlin": replace(_JAVA, rewrite=((r"\A\s*package\s+[\w.]+[ \t]*;?", ""),)),
    "csharp": Caller(
        driver="driver_csharp.cs",
        way="apart",
        written_in="csharp",
        flags=("-target:library",),
        run=("/usr/bin/mono", "driver"),
    ),
}
