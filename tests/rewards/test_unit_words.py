"""Verifier "unit_tests": answers that give a language's own words another meaning, which tests go on to use."""

from __future__ import annotations

import pytest

from assay.types import Message, Task, Verdict
from rewards.config import RewardsConfig, SandboxConfig
from rewards.languages import LANGUAGES
from rewards.scorer import Scorer

pytestmark = pytest.mark.sandbox

GO = """package main
import "testing"
func TestBig(t *testing.T) {
    if big(2) != false || big(20) != true { panic("no") }
}
"""
RUST = "#[test]\nfn test_big() { assert_eq!(big(2), false); assert_eq!(big(20), true); }\n"
STD = "extern crate std as real;\nextern crate self as std;\npub use real::*;\n"
STD += "#[macro_export] macro_rules! assert_eq { ($($t:tt)*) => {{}} }\n"


@pytest.fixture(scope="module")
def scorer(sandbox) -> Scorer:
    return Scorer(RewardsConfig(sandbox=SandboxConfig(tier="local", cpu_s=20.0, wall_s=60.0)), sandbox)


@pytest.mark.parametrize(
    ("language", "answer", "verdict"),
    [
        ("go", "package main\nfunc big(x int) bool { return x > 10 }", Verdict.AC),
        ("go", "package main\nfunc big(x int) bool { true := x > 10; return true }", Verdict.AC),
        ("go", "package main\nconst false = 1 == 1\nfunc big(x int) bool { return 1 == 1 }", Verdict.CE),
        ("go", "package main\nvar false, true = 1 == 1, 1 == 1\nfunc big(x int) bool { return 1 == 1 }", Verdict.CE),
        ("go", "package main\nfunc panic(x interface{}) {}\nfunc big(x int) bool { return true }", Verdict.CE),
        ("go", "package main\nvar nil interface{} = 5\nfunc big(x int) bool { return x > 10 }", Verdict.CE),
        ("rust", "fn big(x: i32) -> bool { x > 10 }", Verdict.AC),
        ("rust", f"{STD}fn big(x: i32) -> bool {{ true }}", Verdict.CE),
    ],
)
def test_words_of_the_language_mean_what_they_mean(scorer: Scorer, language: str, answer: str, verdict: Verdict):
    if missing := [tool for tool in LANGUAGES[language].tools if not scorer.sandbox.has(tool)]:
        pytest.skip(f"{missing[0]} is not installed")
    tests = {"go": GO, "rust": RUST}[language]
    task = Task(id="big", messages=(Message(role="user", content="big"),), verifier="unit_tests",
                answer={"language": language, "tests": [tests]})  # fmt: skip
    result = scorer.score_text(task, f"```{language}\n{answer}\n```")
    assert result.verdict is verdict, result.detail
