"""Verifier "unit_tests": what is changed in an answer, and what is not: texts that span lines, modules, namespaces."""

from __future__ import annotations

# ruff: noqa: E501 -- many programs, each on a line
import pytest

from assay.types import Message, Task, Verdict
from rewards.languages import LANGUAGES, find
from rewards.verifiers.harnesses import HARNESSES
from rewards.verifiers.unit_tests import UnitTestsVerifier, assemble

JAVA_MAIN = "public static void main(String[] a) { assert(Problem.f(1) == 2); } }"
CSHARP_MAIN = "public static void Main(string[] a) { Debug.Assert(Problem.F(1) == 2); } }"
SCALA_MAIN = "def main(a: Array[String]) = { assert(f(1) == 2) } }"


def assembled(language: str, answer: str, tests: str) -> dict[str, str]:
    return dict(assemble(find(language), HARNESSES[language], "", answer, tests, name="7").files)


@pytest.mark.parametrize(
    ("language", "file", "answer", "tests"),
    [
        ("java", "Main.java", 'class Problem { String s = """\n a \\""" " } class Other {\n """;', JAVA_MAIN),
        (
            "csharp",
            "answer.cs",
            'class Problem { string s = @"a\\"; string t = $@"""} class Other {\n""";',
            CSHARP_MAIN,
        ),
        ("scala", "Main.scala", 'object Problem { val s = """\n} object Other { \\"""', SCALA_MAIN),
    ],
)
def test_texts_that_span_lines_hold_no_braces(language: str, file: str, answer: str, tests: str):
    assert "Problem.unit_main_7(arguments)" in assembled(language, answer, tests)[file]


def test_texts_that_span_lines_stay_as_they_are():
    text = '"""\n  import java.util.List;\n  public class Main {}\n  assert x;\n  """'
    program = assembled("java", f"import java.util.Map;\nclass Problem {{ String s = {text};", JAVA_MAIN)["Main.java"]
    assert text in program and program.index("import java.util.Map;") < program.index("class Problem")


def test_a_package_behind_a_comment_is_left_out():
    assert (
        "package" not in assembled("java", "// by hand\n/* me */ package a.b;\nclass Problem {", JAVA_MAIN)["Main.java"]
    )


def judged(language: str, answer: str, tests: str, bench):
    missing = [tool for tool in LANGUAGES[language].tools if not bench.sandbox.has(tool)]
    if missing:
        pytest.skip(f"{missing[0]} is not installed; {LANGUAGES[language].install}")
    record = {"language": language, "tests": [tests], "limits": {"cpu_s": 3, "wall_s": 15}}
    task = Task(id="u", messages=(Message(role="user", content="write f"),), verifier="unit_tests", answer=record)
    return UnitTestsVerifier().judge(task, answer, bench)


MINITEST = """require 'minitest'
class TestF < Minitest::Test
  def test_f
    assert_equal 2, f(1)
  end
end
"""


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("language", "answer", "tests"),
    [
        ("javascript", "export default function f(x) { return x + 1; }", "console.assert(f(1) === 2)"),
        ("javascript", "const f = (x) => x + 1;\nexport { f, f as g };\nexport default f;", "console.assert(f(1) === 2)"),
        ("javascript", "const s = `\nexport default f;\n`;\nfunction f() { return s.length; }", "console.assert(f() === 19)"),
        ("php", "#!/usr/bin/php\n<?php\nnamespace A\\B;\nfunction f($x) { return $x + 1; }", "assert(f(1) === 2);"),
        ("php", "\n<?php namespace A;\nfunction f($x) { return $x + 1; }", "assert(f(1) === 2);"),
        ("ruby", "def f(x) = x + 1\nputs f(1)\nexit", MINITEST),
    ],
)  # fmt: skip
def test_answers_as_people_write_them(language: str, answer: str, tests: str, bench):
    assert judged(language, answer, tests, bench).verdict is Verdict.AC, judged(language, answer, tests, bench)
    wrong = judged(language, answer, tests.replace("2", "3").replace("19", "18"), bench)
    assert wrong.verdict is Verdict.WA, wrong
