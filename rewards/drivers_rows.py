"""How each language calls a function of an answer: one row per driver in `rewards/sandbox/driver_*`.

A driver reads one argument list, calls the function and writes what it returned; what it reads and writes is the same
in every language and described in `driver_javascript.js`. A driver meets the answer in one of three ways:

    loads     the driver is the program; it reads the answer's file (or what was compiled from it) and runs it
    beside    the driver is compiled together with the answer
    apart     the driver is compiled by itself, once, and finds the function by reflection
"""

from __future__ import annotations

from dataclasses import dataclass

Rewrite = tuple[str, str]  #: a pattern and what stands for it, in the sense of re.sub with MULTILINE


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The driver of one language, and what the language does not tell apart."""

    driver: str  #: a file of rewards/sandbox
    way: str = "loads"
    rewrite: tuple[Rewrite, ...] = ()  #: what is changed in the answer
    before: str = ""  #: stands before the answer
    after: str = ""  #: stands behind it; {entry} is the function
    int_bits: int = 64  #: integers of a task beyond this are refused at load; 0 where there is no limit
    one_number: bool = False  #: there is one type of numbers: 1.0 is 1
    truth: bool = False  #: 0, 1 and "" are what its comparisons return
    one_container: bool = False  #: lists and maps are one type


_JAVASCRIPT = Caller(driver="driver_javascript.js", int_bits=54, one_number=True)

CALLERS: dict[str, Caller] = {
    "javascript": _JAVASCRIPT,
    "typescript": _JAVASCRIPT,
    "ruby": Caller(driver="driver_ruby.rb", int_bits=0),
    "php": Caller(
        driver="driver_php.php",
        # without its opening tag an answer would be output
        rewrite=((r"\A(?!\s*<\?)", "<?php\n"),),
        one_container=True,
    ),
    "perl": Caller(driver="driver_perl.pl", one_number=True, truth=True),
    "lua": Caller(driver="driver_lua.lua", one_container=True),
}
