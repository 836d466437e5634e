"""The table of `rewards.verifiers.harness_row`: how each language runs a task's test text beside an answer."""

from __future__ import annotations

from dataclasses import replace

from rewards.verifiers.harness_go_testify import GO_TESTIFY
from rewards.verifiers.harness_row import Harness
from rewards.verifiers.harness_rows_compiled import CPP, CSHARP, GO, JAVA, RUST, RUST_AT_TOP, SCALA, SWIFT, C, D
from rewards.verifiers.harness_rows_scripts import BASH, JAVASCRIPT, JULIA, LUA, PERL, PHP, RACKET, TYPESCRIPT, R
from rewards.verifiers.harness_ruby import RUBY

#: by the name of the language's row; Python's stands in `rewards.verifiers.unit_python`
HARNESSES: dict[str, Harness] = {
    "c": C,
    "cpp": CPP,
    "java": JAVA,
    "rust": replace(RUST, instead=(r"\A(?![\s\S]*\bmod\s+tests\b)[\s\S]*#\[test\]", RUST_AT_TOP)),
    "go": replace(GO, instead=(r"\bgithub\.com/stretchr/testify/|\b(?:assert|require)\.New\(", GO_TESTIFY)),
    "csharp": CSHARP,
    "d": D,
    "swift": SWIFT,
    "scala": SCALA,
    "javascript": JAVASCRIPT,
    "typescript": TYPESCRIPT,
    "php": PHP,
    "ruby": RUBY,
    "perl": PERL,
    "lua": LUA,
    "bash": BASH,
    "r": R,
    "julia": JULIA,
    "racket": RACKET,
}
