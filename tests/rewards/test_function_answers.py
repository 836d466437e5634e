"""Verifier "function": answers as people write them are judged by what their function returns, in every language.

Each of these once had another verdict than a reader would give it.
"""

from __future__ import annotations

# ruff: noqa: E501 -- many programs, each on a line
import pytest

from assay.errors import DataError
from assay.types import Verdict
from rewards.drivers import rewritten
from rewards.drivers_rows import CALLERS
from rewards.drivers_types import fitted, kind_of
from rewards.languages import LANGUAGES
from rewards.sandbox.base import MIB, Limits
from rewards.verifiers.base import Bench
from rewards.verifiers.function import FunctionVerifier

NEXT = [([1], 2), ([5], 6)]
HALF = [([4], 2.0), ([5], 2.5)]
EACH = [([[1, 2]], [2, 3]), ([[]], [])]
COUNT = [([["a", "b", "a"]], {"a": 2, "b": 1}), ([[]], {})]

#: (language, types of the parameters, type returned, tests, an answer)
RIGHT = [
    # one of several functions of the name
    ("cpp", ["int[]"], "int[]", EACH, "#include <bits/stdc++.h>\nusing namespace std;\n#define int long long\nstring f(const string &s) { return s; }\nvector<int> f(vector<int> &v) { for (auto &x : v) x++; return v; }\nvector<string> f(vector<string> v) { return v; }\nint f(int x, int y = 0) { return x; }\nsigned main() {}"),
    ("java", ["int[]"], "int[]", EACH, '// by hand\n/* of\n   package x; */\n\npackage a.b;\n\nimport java.util.*;\n\n@SuppressWarnings("unused") public final class Solution {\n  static String text = """\n    public class Inner {\n    """;\n  static String f(String s) { return s; }\n  static List<String> f(List<String> s) { return s; }\n  static boolean f(boolean s) { return s; }\n  static class Other { static int f(int x) { return x; } }\n  public int[] f(int[] xs) {\n    if (!text.contains("public class")) throw new RuntimeException();\n    int[] out = xs.clone();\n    for (int i = 0; i < out.length; i++) out[i]++;\n    return out;\n  }\n}'),
    ("csharp", ["int[]"], "int[]", EACH, "using System.Collections.Generic;\nusing System.Linq;\nnamespace A { public class Solution {\n  public static string f(string s) { return s; }\n  public static List<string> f(List<string> s) { return s; }\n  public static bool[] f(bool[] s) { return s; }\n  public static int f(int s, int k) { return s; }\n  public int[] f(int[] xs, int k = 1) { return xs.Select(x => x + k).ToArray(); }\n} }"),
    ("kotlin", ["int[]"], "int[]", EACH, '@file:JvmName("Solution")\n// by hand\n/* package y */\npackage a.b\n\nfun f(x: String): String = x\nfun f(x: List<String>, y: Int): Int = 1\nfun f(x: Map<String, Int>): Int = 1\nfun f(xs: List<Int>): List<Int> = xs.map { it + 1 }\nfun main() {}'),
    ("cpp", ["int"], "int", NEXT, "int f(int x) { return x + 1; }\nlong long f(long long x) { return x + 1; }"),
    ("cpp", ["int"], "int", NEXT, "int f(int x, int step = 1) { return x + step; }"),
    ("cpp", ["int"], "int", NEXT, "template <class T> T f(T x) { return x + 1; }"),
    ("cpp", ["int"], "int", NEXT, "auto f = [](int x) { return x + 1; };"),
    ("cpp", ["int[]"], "int", [([[1, 2]], 3)], "#include <vector>\nint f(std::vector<int> &&v) { return v[0] + v[1]; }\nint f(int, int) { return 0; }"),
    ("cpp", ["int?", "string", "bool", "float"], "int", [([None, "ab", True, 1.5], 1), ([4, "", True, 1.5], 4)], "#include <optional>\n#include <string>\nint f(std::optional<int> x, const std::string &s, bool b, double d) { return x.value_or(0) + (s == \"ab\" && b && d == 1.5); }\nint f(int, std::string, bool, float) { return -1; }"),
    ("d", ["int"], "int", NEXT, "module one;\nstring f(string s) { return s; }\nint f(int x, int y) { return x; }\nlong f(long x) { return x + 1; }\nint[] f(int[] x) { return x; }\nvoid main() {}"),
    # what stands before the program
    ("php", ["int"], "float", HALF, "#!/usr/bin/env php\n<?php\ndeclare(strict_types=1);\nnamespace X\\Y;\nfunction half($x) { return $x / 2; }\nfunction f($x) { return half($x); }\necho f(2);\nexit(0);"),
    ("php", ["int"], "int", NEXT, "namespace X { function f($x) { return $x + 1; } }"),
    ("lua", ["int"], "int", NEXT, "#!/usr/bin/lua\nlocal function f(x) return x + 1 end\nprint(f(2))\nos.exit(0)"),
    ("racket", ["int"], "float", HALF, "#!/usr/bin/env racket\n#lang racket\n(define (f x) (/ x 2))\n(exit)"),
    # modules of JavaScript
    ("javascript", ["int"], "int", NEXT, "#!/usr/bin/env node\nimport fs from 'node:fs';\nconst g = (x) => x + (fs ? 1 : 0);\nexport { g as f };\nexport default 3;"),
    ("javascript", ["int"], "int", NEXT, "export default (x) => x + 1;"),
    ("javascript", ["int"], "int", NEXT, "export default function f(x) { return x + 1; }\nconsole.log(f(2));\nprocess.exit(1);"),
    ("javascript", ["int"], "int", NEXT, "const f = (x) => x + 1;\nmodule.exports = { f };\nprocess.exit();"),
    ("typescript", ["int"], "int", NEXT, "import * as fs from 'fs';\nexport default (x: number): number => x + 1;"),
    ("typescript", ["int"], "int", NEXT, "const f = (x: number): number => x + 1;\nexport { f };"),
    # a program that ends itself
    ("ruby", ["int"], "int", NEXT, "#!/usr/bin/env ruby\ndef f(x) = x + 1\nputs f(1)\nexit"),
    ("perl", ["int"], "int", NEXT, "#!/usr/bin/perl\nuse strict;\nsub f { return $_[0] + 1 }\nprint f(2);\nexit 0;"),
    ("python", ["int"], "int", NEXT, "import sys\ndef f(x): return x + 1\nif __name__ == '__main__': print(f(int(input())))\nsys.exit(0)"),
    ("r", ["string[]"], "int[]", [([["a", "bb", "a"]], [1, 2, 1]), ([["x"]], [1])], "f <- function(x) sapply(x, nchar)\nprint(f('a'))\nquit(status = 0)"),
    # wide integers
    ("rust", ["int"], "int", [([2**126], 2**127 - 2**126), ([7], 7)], "fn f(x: u128) -> u128 { x }"),
    ("rust", ["int"], "int", [([-(2**127)], -(2**127)), ([5], 5)], "fn f(x: i128) -> i128 { x }"),
    ("cpp", ["int"], "int", [([2**64 + 1], 2**64 + 1), ([-(2**127)], -(2**127)), ([2**127 - 1], 2**127 - 1)], "__int128 f(__int128 x) { return x; }"),
    ("c", ["int"], "int", [([-5], -2), ([2**31 - 1], 2**30 - 1)], "long long f(long long x) { return x / 2; }"),
    ("c", ["int"], "bool", [([5], True), ([1], False), ([-70000], False)], "#include <stdbool.h>\nbool f(int x) { return x > 3; }"),
    ("c", ["int[]"], "int", [([[1, 2]], 3)], "#include <stddef.h>\n#define __int128 short\nint f(int *x, size_t n) { return x[n - 2] + x[n - 1]; }\nint main() { return 0; } /*"),
    # nothing
    ("go", ["int"], "int[]?", [([1], None), ([2], []), ([3], [1])], "func f(x int) []int {\n\tif x == 1 {\n\t\treturn nil\n\t}\n\treturn []int{1}[3-x:]\n}"),
    ("go", ["int"], "int[][]", [([1], []), ([2], [[]])], "func f(x int) [][]int {\n\tif x == 1 {\n\t\treturn nil\n\t}\n\treturn make([][]int, 1)\n}"),
    ("go", ["map[int]?"], "map[int]", [([None], {}), ([{"a": 1}], {"a": 1})], "func f(x map[string]int) map[string]int { return x }"),
    ("javascript", ["int"], "int?", [([1], None), ([3], 1)], "function f(x) { if (x > 2) return 1; }"),
    # numbers, vectors and matrices
    ("php", ["float"], "int", [([2.5], 2), ([-0.5], -1)], "\n<?php\nfunction f($x) { return floor($x); }"),
    ("racket", ["float"], "int", [([2.5], 2), ([-0.5], -1)], "(define (f x) (floor x))"),
    ("r", ["int"], "int[][]", [([2], [[1, 2], [3, 4]]), ([1], [[1]]), ([3], [[1, 4], [2, 5], [3, 6]])], "f <- function(n) if (n == 2) matrix(1:4, 2, byrow = TRUE) else if (n == 3) matrix(1:6, 3) else matrix(1, 1, 1)"),
    ("r", ["int"], "int[]", [([2], [2, 2])], "f <- function(n) matrix(1, n, n) %*% c(1, 1)"),
    ("r", ["string[]"], "map[int]", COUNT, "f <- function(x) table(unlist(x))"),
    ("r", ["string[]"], "map[int]", COUNT, "f <- function(x) { r <- c(); for (k in x) r[k] <- sum(x == k); r }"),
    ("r", ["int"], "map[int[]]?", [([0], None), ([1], {"a": [1], "b": []})], "f <- function(x) if (x == 0) NULL else list(a = c(p = x), b = c())"),
    ("r", ["int"], "int?[]", [([2], [2, None])], "f <- function(x) c(x, NA)"),
]  # fmt: skip

#: (language, types of the parameters, type returned, tests, an answer, its verdict)
WRONG = [
    ("cpp", ["int"], "int", [([5], 5)], "__int128 f(int x) { return ((__int128)1 << 64) + x; }", "WA"),
    ("cpp", ["int"], "int", [([5], 5)], "#include <string>\nint f(std::string) { return 5; }\nint f(double) { return 5; }", "CE"),
    ("cpp", ["int"], "int", [([2**31], 2**31)], "int f(int x) { return x; }\nint f(char *x) { return 1; }", "RE"),
    ("rust", ["int"], "int", [([5], 5)], "fn f(x: u64) -> u128 { (1 << 64) + x as u128 }", "WA"),
    ("c", ["int"], "int", [([5], 5)], "long long f(int x) { return (1LL << 32) + x; }", "WA"),
    ("c", ["int"], "int", [([5], 5)], "__int128 f(int x) { return ((__int128)1 << 64) + x; }", "WA"),
    ("c", ["int"], "int", [([5], 5)], "double f(int x) { return x; }", "CE"),
    ("c", ["int[]"], "int", [([[5]], 5)], "int f(long *x, int n) { return x[0]; }", "CE"),
    ("r", ["int"], "int[]", [([2], [1, 1, 1, 1])], "f <- function(n) matrix(1, n, n)", "WA"),
    ("php", ["int"], "int", [([5], 2)], "function f($x) { return $x / 2; }", "WA"),
    ("javascript", ["int"], "int", [([1], 0)], "function f(x) { }", "WA"),
    ("javascript", ["int"], "int", [([1], 2)], "export default (x) => x + ;", "CE"),
    ("lua", ["int"], "int", NEXT, "function f(x) os.exit(true) end", "RE"),
    ("racket", ["int"], "int", NEXT, "(define (f x) (exit))", "RE"),
    ("r", ["int"], "int", NEXT, "f <- function(x) quit('no', 0)", "RE"),
    ("perl", ["int"], "int", NEXT, "sub f { exit 0 }", "RE"),
    ("python", ["int"], "int", NEXT, "def f(x): exit()", "RE"),
]  # fmt: skip

#: where a compiler, or a runtime, takes a second or more
SLOW = ("java", "go", "csharp", "racket", "r", "cpp")
SLOWEST = ("kotlin", "rust", "d")


def marked(rows: list[tuple]) -> list:
    """The rows as parameters: of a slow language the first one is run every time."""
    names = [row[0] for row in rows]
    late = [name in SLOWEST or (name in SLOW and name in names[:n]) for n, name in enumerate(names)]
    return [pytest.param(*row, marks=pytest.mark.slow if slow else ()) for row, slow in zip(rows, late, strict=True)]


@pytest.fixture(scope="module")
def judge(sandbox, function_task):
    """Judges an answer: (language, types of the parameters, type returned, tests, program)."""
    limits = Limits(cpu_s=1.0, wall_s=20.0, memory_bytes=1024 * MIB, output_bytes=MIB, processes=32)
    bench = Bench(sandbox=sandbox, limits=limits)

    def judge(language: str, kinds: list[str], returns: str, tests: list, program: str):
        missing = [tool for tool in LANGUAGES[language].tools if not sandbox.has(tool)]
        if missing:
            pytest.skip(f"{missing[0]} is not installed; {LANGUAGES[language].install}")
        parameters = {f"x{n}": kind for n, kind in enumerate(kinds)}
        return FunctionVerifier().judge(function_task(language, parameters, returns, tests), program, bench)

    return judge


@pytest.mark.sandbox
@pytest.mark.parametrize(("language", "kinds", "returns", "tests", "program"), marked(RIGHT))
def test_honest_answers_pass(language, kinds, returns, tests, program, judge):
    found = judge(language, kinds, returns, tests, program)
    assert [test.verdict for test in found.tests] == ["AC"] * len(tests), found


@pytest.mark.sandbox
@pytest.mark.parametrize(("language", "kinds", "returns", "tests", "program", "verdict"), marked(WRONG))
def test_what_is_not_the_value_does_not_pass(language, kinds, returns, tests, program, verdict, judge):
    found = judge(language, kinds, returns, tests, program)
    assert found.verdict is Verdict(verdict), found


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("java", 'class A { String s = """\n  public class B {}\n  """; } // public class C\n'),
        ("go", "package main\nvar s = `\npackage x\nfunc main() {`\n"),
        ("rust", 'const S: &str = r#"\nfn main() {"#;\n'),
        ("d", 'string s = `\nint main() {`;\nauto t = "void main()";\n'),
    ],
)
def test_texts_and_comments_of_an_answer_stay_as_they_are(language, text):
    assert rewritten(CALLERS[language], text) == text


def test_what_a_compiler_would_refuse_is_changed_wherever_it_stands():
    java = "@Deprecated public class A {}\nfinal public class B { public static class C {} public int x; }"
    assert (
        rewritten(CALLERS["java"], java) == "@Deprecated class A {}\nfinal class B { static class C {} public int x; }"
    )
    assert rewritten(CALLERS["rust"], "pub fn main() {}") == "pub fn assay_main() {}"
    assert rewritten(CALLERS["d"], "int main() {}") == "int assay_main() {}"


def test_a_table_of_lua_cannot_hold_what_is_not_there(function_task):
    for kind, value in (("int?[]", [1, None, 2]), ("map[int?]", {"a": None})):
        with pytest.raises(DataError, match="a table in lua cannot hold a null"):
            FunctionVerifier().check(function_task("lua", {"x": kind}, "int", [([value], 1)]))
    FunctionVerifier().check(function_task("lua", {"x": "int?"}, "int", [([None], 1)]))


def test_integers_beyond_a_language_s_widest_are_refused_at_load(function_task):
    for language, bits in (("rust", 128), ("cpp", 128), ("go", 64), ("d", 64), ("csharp", 64)):
        FunctionVerifier().check(function_task(language, {"x": "int"}, "int", [([1], -(2 ** (bits - 1)))]))
        with pytest.raises(DataError, match=f"does not fit a {language} int"):
            FunctionVerifier().check(function_task(language, {"x": "int"}, "int", [([1], 2 ** (bits - 1))]))


def test_an_integer_too_large_for_a_float_is_another_value_and_no_crash():
    fewer = CALLERS["racket"].fewer
    assert fitted(kind_of("float"), 10**400, fewer) == 10**400 and fitted(kind_of("float"), 3, fewer) == 3.0
