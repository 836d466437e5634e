"""Verifier "function" in every language that has a driver: values arrive and come back, and nothing else is believed.

A row of `WRITTEN` says how a function is written in one language; the same properties are asserted for all of them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

import pytest

from assay.types import Verdict
from rewards.drivers_rows import CALLERS
from rewards.languages import LANGUAGES
from rewards.sandbox.local import LocalSandbox
from rewards.verifiers.function import FunctionVerifier

#: bytes that would be a value, and a record, if anybody believed what a program prints
FAKE = r"V[\"i\",\"2\"]"

#: type -> values of it that have to come back as they went in
VALUES = {
    "int": [0, 1, -1, 255, 2**31 - 1, -(2**31)],
    "float": [0.0, 1.0, 0.1, -2.5e-300, 1.7e308, math.inf, -math.inf, math.nan],
    "bool": [True, False],
    "string": ["", "abc", 'a"b\\c\n\t$@{x}', "h\u00e9 \u20ac \U0001f600", " ", "\0\x01"],
    "int[]": [[], [1], [3, -1, 2], list(range(20_000))],
    "string[]": [[], [""], ["a b", "c\n", "\u20ac"]],
    "int[][]": [[], [[]], [[1, 2], [], [3]]],
    "map[int]": [{}, {"a": 1}, {"b": 2, "": -3, "\u20ac x": 0}, {"0": 5, "1": 6}],
    "int?": [None, 7],
}


@dataclass(frozen=True, kw_only=True)
class Written:
    """How functions are written in one language. `types` is empty where nothing is declared."""

    function: str  #: with %TYPE%, %RESULT% and %BODY%; the parameter is x
    types: dict[str, str]
    back: str = "return x;"
    wrong: str = "return x + 2;"
    right: str = "return x + 1;"
    fails: str
    loops: str
    leaves: str  #: with status 0
    prints: str  #: FAKE, on standard output, as a line
    case: str = "if (x == %N%) { %BODY% }"  #: a body for one argument
    cases: str = "%CASES%\n%ELSE%"  #: bodies one below the other
    broken: str = "%FUNCTION% ((( "  #: what no compiler takes
    others: tuple[tuple[str, str], ...]  #: (result type, body): a value that only looks like 2

    def bodies(self, bodies: dict[int, str]) -> str:
        """A body that is one of those for its argument, and the right one for all others."""
        cases = (self.case.replace("%N%", str(n)).replace("%BODY%", body) for n, body in bodies.items())
        return self.cases.replace("%CASES%", "\n".join(cases)).replace("%ELSE%", self.right)

    def program(self, body: str, kind: str = "int", result: str = "") -> str:
        text = self.function.replace("%BODY%", body)
        return text.replace("%TYPE%", self.types.get(kind, "")).replace("%RESULT%", result or self.types.get(kind, ""))


_JS = Written(
    function="function f(x) { %BODY% }",
    types={},
    fails="throw new Error('no')",
    loops="for (;;) {}",
    leaves="process.exit(0)",
    prints=f"console.log('{FAKE}'); process.exit(0)",
    others=(
        ("", "return '2'"),
        ("", "return true"),
        ("", "return 2n"),
        ("", "return [2]"),
        ("", "return new Number(2)"),
        ("", "return { toJSON: () => 2, valueOf: () => 2, toString: () => '2' }"),
        ("", "return new (class extends Array { toJSON() { return 2 } })()"),
        ("", "Object.prototype.toJSON = () => 2; Number.prototype.toString = () => '2'; return 3"),
        ("", "return undefined"),
        ("", "return Promise.resolve(2)"),
    ),
)

WRITTEN: dict[str, Written] = {
    "javascript": _JS,
    "typescript": replace(_JS, function="function f(x: any): any { %BODY% }"),
    "ruby": Written(
        function="def f(x)\n%BODY%\nend",
        types={},
        case="if x == %N%\n%BODY%\nend",
        fails="raise 'no'",
        loops="loop {}",
        leaves="exit!(0)",
        prints=f'puts "{FAKE}"; $stdout.flush; exit(0)',
        others=(
            ("", "return 2.0"),
            ("", "return '2'"),
            ("", "return Rational(2)"),
            ("", "return [2]"),
            ("", "o = Object.new; def o.to_s; '2'; end; def o.==(x); true; end; def o.class; Integer; end; return o"),
            ("", "Integer.class_eval { def to_s(*) '2' end; def ==(o) true end }; return 3"),
            ("", "return nil"),
        ),
    ),
    "php": Written(
        function="<?php\nfunction f($x) { %BODY% }",
        types={},
        back="return $x;",
        wrong="return $x + 2;",
        right="return $x + 1;",
        case="if ($x == %N%) { %BODY% }",
        fails="throw new Exception('no');",
        loops="while (true) {}",
        leaves="exit(0);",
        prints=f'echo "{FAKE}\\n"; exit(0);',
        others=(
            ("", "return 2.5;"),
            ("", "return '2';"),
            ("", "return true;"),
            ("", "return [2];"),
            (
                "",
                "return new class implements JsonSerializable { function jsonSerialize(): mixed { return 2; }"
                " function __toString() { return '2'; } };",
            ),
            ("", "return null;"),
        ),
    ),
    "perl": Written(
        function="sub f { my ($x) = @_; %BODY% }\n1;",
        types={},
        back="return $x;",
        wrong="return $x + 2;",
        right="return $x + 1;",
        case="if ($x == %N%) { %BODY% }",
        fails="die 'no';",
        loops="while (1) {}",
        leaves="exit 0;",
        prints=f'$| = 1; print "{FAKE}\\n"; exit 0;',
        others=(
            ("", "return '2 ';"),
            ("", "return 2.5;"),
            ("", "return [2];"),
            ("", "package Two { use overload '0+' => sub { 2 }, '\"\"' => sub { '2' } } return bless [], 'Two';"),
            ("", "return undef;"),
        ),
    ),
    "lua": Written(
        function="function f(x) %BODY% end",
        types={},
        back="return x",
        wrong="return x + 2",
        right="return x + 1",
        case="if x == %N% then %BODY% end",
        fails="error('no')",
        loops="while true do end",
        leaves="os.exit(0)",
        prints=f'print("{FAKE}") os.exit(0, true)',
        others=(
            ("", "do return 2.5 end"),
            ("", "do return '2' end"),
            ("", "do return true end"),
            ("", "do return {2} end"),
            (
                "",
                "do return setmetatable({}, {__tostring = function() return '2' end}) end",
            ),
            ("", "string.format = function() return '2' end; do return 3 end"),
            ("", "do return nil end"),
        ),
    ),
    "r": Written(
        function="f <- function(x) { %BODY% }",
        types={},
        back="return(x)",
        wrong="return(x + 2)",
        right="return(x + 1)",
        fails="stop('no')",
        loops="while (TRUE) {}",
        leaves="quit('no', 0)",
        prints=f'cat("{FAKE}\\n"); quit("no", 0)',
        others=(
            ("", "return('2')"),
            ("", "return(TRUE)"),
            ("", "return(c(2, 2))"),
            ("", "return(2.5)"),
            ("", "print.two <- function(x) 2; return(structure(list(), class = 'two'))"),
            ("", "return(NULL)"),
        ),
    ),
    "racket": Written(
        function="#lang racket\n(struct two () #:methods gen:custom-write [(define (write-proc t p m) (write 2 p))])\n"
        "(define (f x)\n%BODY%)\n",
        types={},
        back="x",
        wrong="(+ x 2)",
        right="(+ x 1)",
        case="[(%N%) %BODY%]",
        cases="(case x %CASES% [else %ELSE%])",
        fails="(error 'no)",
        loops="(let loop () (loop))",
        leaves="(exit 0)",
        prints=f'(displayln "{FAKE}") (flush-output) (exit 0)',
        others=(("", "2.5"), ("", '"2"'), ("", "'(2)"), ("", "5/2"), ("", "(two)"), ("", "(void)"), ("", "#f")),
    ),
    "cpp": Written(
        function=(
            "#include <iostream>\nusing namespace std;\n#define int long long\n"
            "struct Two { operator int() const { return 2; } bool operator==(int) const { return true; } };\n"
            "%RESULT% f(%TYPE% x) { %BODY% }\nsigned main() { return 0; }"
        ),
        types={
            "int": "signed",
            "float": "double",
            "bool": "bool",
            "string": "const string &",
            "float[]": "vector<double>",
            "int[]": "vector<int>",
            "string[]": "vector<string> &",
            "int[][]": "const vector<vector<signed>> &",
            "map[int]": "map<string, int>",
            "int?": "optional<int>",
        },
        fails='throw runtime_error("no");',
        loops="for (volatile int i = 0;; i++) {}",
        leaves="_Exit(0);",
        prints=f'cout << "{FAKE}" << endl; exit(0);',
        others=(
            ("double", "return 2;"),
            ("bool", "return true;"),
            ("string", 'return "2";'),
            ("char", "return 2;"),
            ("vector<int>", "return {2};"),
            ("Two", "return {};"),
            ("void", ""),
        ),
    ),
    "go": Written(
        function=(
            'package main\n\nimport (\n"fmt"\n"os"\n"errors"\n)\n\nvar _, _, _ = fmt.Sprint, os.Exit, errors.New\n\n'
            'type Two struct{ v int }\n\nfunc (t Two) String() string { return "2" }\n'
            'func (t Two) MarshalJSON() ([]byte, error) { return []byte("2"), nil }\n'
            "func f(x %TYPE%) %RESULT% {\n%BODY%\n}\n\nfunc main() { fmt.Println(1) }\n"
        ),
        types={
            "int": "int",
            "float": "float64",
            "bool": "bool",
            "string": "string",
            "float[]": "[]float64",
            "int[]": "[]int",
            "string[]": "[]string",
            "int[][]": "[][]int32",
            "map[int]": "map[string]int",
            "int?": "*int",
        },
        case="if x == %N% {\n%BODY%\n}",
        fails='panic("no")',
        loops="for {\n}",
        leaves="os.Exit(0)\nreturn 0",
        prints=f'fmt.Println("{FAKE}")\nos.Exit(0)\nreturn 0',
        others=(
            ("float64", "return 2"),
            ("bool", "return true"),
            ("string", 'return "2"'),
            ("[]int", "return []int{2}"),
            ("Two", "return Two{2}"),
            ("error", "return nil"),
            ("(int, error)", "return 2, nil"),
        ),
    ),
    "rust": Written(
        function=(
            "#![allow(warnings)]\nuse std::collections::*;\n"
            "struct Two;\nimpl std::fmt::Display for Two {\n"
            'fn fmt(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result { write!(to, "2") }\n}\n'
            "fn f(x: %TYPE%) -> %RESULT% { %BODY% }\nfn main() {}\n"
        ),
        types={
            "int": "i64",
            "float": "f64",
            "bool": "bool",
            "string": "&str",
            "float[]": "Vec<f64>",
            "int[]": "Vec<i32>",
            "string[]": "&[String]",
            "int[][]": "&Vec<Vec<i64>>",
            "map[int]": "HashMap<String, i32>",
            "int?": "Option<i64>",
        },
        case="if x == %N% { %BODY% }",
        fails='panic!("no")',
        loops="loop {}",
        leaves="std::process::exit(0)",
        prints=f'println!("{{}}", "{FAKE}"); std::process::exit(0)',
        others=(
            ("f64", "return 2.0;"),
            ("bool", "return true;"),
            ("String", 'return "2".to_string();'),
            ("Vec<i64>", "return vec![2];"),
            ("Option<i64>", "return None;"),
        ),
    ),
    "d": Written(
        function=(
            "import std.stdio, std.typecons;\nimport core.stdc.stdlib;\n\n"
            'struct Two { string toString() const { return "2"; } bool opEquals(int) const { return true; } }\n'
            "%RESULT% f(%TYPE% x)\n{\n%BODY%\n}\n\nvoid main() { writeln(1); }\n"
        ),
        types={
            "int": "int",
            "float": "double",
            "bool": "bool",
            "string": "string",
            "float[]": "double[]",
            "int[]": "int[]",
            "string[]": "string[]",
            "int[][]": "const(long[])[]",
            "map[int]": "int[string]",
            "int?": "Nullable!int",
        },
        fails='throw new Exception("no");',
        loops="for (int i = 0;; i++) {}",
        leaves="exit(0); return 0;",
        prints=f'writeln("{FAKE}"); stdout.flush(); exit(0); return 0;',
        others=(
            ("double", "return 2;"),
            ("bool", "return true;"),
            ("string", 'return "2";'),
            ("int[]", "return [2];"),
            ("Two", "return Two();"),
            ("void", ""),
        ),
    ),
    "java": Written(
        function=(
            "import java.util.*;\n\npublic class Solution {\n"
            'static class Two extends ArrayList<Integer> { public String toString() { return "2"; }\n'
            "public boolean equals(Object o) { return true; } }\n"
            "public static %RESULT% f(%TYPE% x) { %BODY% }\n}\n"
        ),
        types={
            "int": "long",
            "float": "double",
            "bool": "boolean",
            "string": "String",
            "int[]": "int[]",
            "string[]": "List<String>",
            "int[][]": "List<List<Integer>>",
            "map[int]": "Map<String, Integer>",
            "int?": "Integer",
        },
        fails='throw new IllegalStateException("no");',
        loops="for (long i = 0; i >= 0; i++) { if (i == Long.MAX_VALUE) i = 0; } return 0;",
        leaves="System.exit(0); return 0;",
        prints=f'System.out.println("{FAKE}"); System.exit(0); return 0;',
        others=(
            ("double", "return 2;"),
            ("boolean", "return true;"),
            ("String", 'return "2";'),
            ("int[]", "return new int[] {2};"),
            ("Object", "return new Two();"),
            ("Integer", "return null;"),
            ("void", ""),
        ),
    ),
    "kotlin": Written(
        function="fun f(x: %TYPE%): %RESULT% {\n%BODY%\n}\nfun main() {}\n",
        types={
            "int": "Long",
            "float": "Double",
            "bool": "Boolean",
            "string": "String",
            "float[]": "List<Double>",
            "int[]": "List<Int>",
            "string[]": "Array<String>",
            "int[][]": "List<List<Int>>",
            "map[int]": "Map<String, Int>",
            "int?": "Int?",
        },
        back="return x",
        wrong="return x + 2",
        right="return x + 1",
        case="if (x == %N%L) { %BODY% }",
        fails='throw Exception("no")',
        loops="while (true) {}",
        leaves="kotlin.system.exitProcess(0)",
        prints=f'println("{FAKE}"); kotlin.system.exitProcess(0)',
        others=(("Double", "return 2.0"), ("Boolean", "return true"), ("Any", "return listOf(2)"), ("Unit", "")),
    ),
    "csharp": Written(
        function=(
            "using System;\nusing System.Collections.Generic;\n\nclass Two : List<int> {\n"
            'public override string ToString() { return "2"; }\n'
            "public override bool Equals(object o) { return true; }\n"
            "public override int GetHashCode() { return 2; } }\n"
            "public class Solution {\npublic static %RESULT% f(%TYPE% x) { %BODY% }\nstatic void Main() {}\n}\n"
        ),
        types={
            "int": "int",
            "float": "double",
            "bool": "bool",
            "string": "string",
            "int[]": "int[]",
            "string[]": "List<string>",
            "int[][]": "List<List<long>>",
            "map[int]": "Dictionary<string, int>",
            "int?": "int?",
        },
        fails='throw new Exception("no");',
        loops="while (true) {}",
        leaves="Environment.Exit(0); return 0;",
        prints=f'Console.WriteLine("{FAKE}"); Environment.Exit(0); return 0;',
        others=(
            ("double", "return 2;"),
            ("bool", "return true;"),
            ("string", 'return "2";'),
            ("int[]", "return new int[] {2};"),
            ("object", "return new Two();"),
            ("int?", "return null;"),
            ("void", ""),
        ),
    ),
}


SLOW = ("d", "kotlin", "rust")  #: a compiler takes seconds a program
#: a second a program, or half a one a call: three programs are run every time, and the others where there is time
HEAVY = ("cpp", "go", "java", "csharp", "r", "racket")


def languages(*slow: str) -> list:
    """Every language with a driver, as parameters; those named are run where there is time."""
    return [pytest.param(name, marks=pytest.mark.slow if name in slow else ()) for name in CALLERS]


def there(name: str, sandbox: LocalSandbox) -> str:
    """The language, where its tools are here."""
    missing = [tool for tool in LANGUAGES[name].tools if not sandbox.has(tool)]
    if missing:
        pytest.skip(f"{missing[0]} is not installed; {LANGUAGES[name].install}")
    return name


@pytest.fixture(params=languages(*SLOW))
def each(request, sandbox) -> str:
    """Every language; a program or three of each."""
    return there(request.param, sandbox)


@pytest.fixture(params=languages(*SLOW, *HEAVY))
def language(request, sandbox) -> str:
    """Every language; as many programs as it takes."""
    return there(request.param, sandbox)


@pytest.fixture
def judged(language, function_task, roomy):
    """Judges a body of the function that returns x + 1, on 1 and 5."""

    def judge(body: str, result: str = "", program: str = ""):
        task = function_task(language, {"x": "int"}, "int", [([1], 2), ([5], 6)])
        text = program or WRITTEN[language].program(body, "int", result)
        return FunctionVerifier().judge(task, text, roomy)

    return judge


def test_every_driver_is_written_about():
    assert set(WRITTEN) == set(CALLERS) and len({*CALLERS, "python", "c"}) >= 10


#: what writes the right value to the channel itself, and leaves
CLAIMS = {
    "javascript": "require('fs').writeSync(3, 'V[\"i\",\"2\"]'); process.exit(0)",
    "ruby": "IO.for_fd(3, 'w').syswrite('V[\"i\",\"2\"]'); exit!(0)",
    "php": "fwrite(fopen('php://fd/3', 'w'), 'V[\"i\",\"2\"]'); exit(0);",
    "perl": "open my $c, '>&=', 3; syswrite $c, 'V[\"i\",\"2\"]'; POSIX::_exit(0);",
    "lua": "local c = io.open('/proc/self/fd/3', 'w') c:write('V[\"i\",\"2\"]') c:close() os.exit(0)",
    "cpp": 'FILE *c = fopen("/proc/self/fd/3", "w"); fputs("V[\\"i\\",\\"2\\"]", c); fclose(c); _Exit(0);',
}


@pytest.mark.sandbox
def test_only_a_value_that_was_returned_counts(each, function_task, roomy):
    """One program that does something else with every argument.

    What raises, leaves with status 0, prints a value or does not end has returned nothing; nor has what writes a value
    without the mark of the run (shown in some: one driver in front of all of them looks for the mark).
    """
    written = WRITTEN[each]
    bodies = {10: written.wrong, 20: written.fails, 30: written.leaves, 40: written.prints}
    bodies |= {50: CLAIMS[each]} if each in CLAIMS else {}
    bodies |= {60: written.loops}
    tests = [([n], 2 if n in (40, 50) else n + 1) for n in (1, *bodies, 5)]  # what is printed and claimed is 2
    task = function_task(each, {"x": "int"}, "int", tests)
    found = FunctionVerifier().judge(task, written.program(written.bodies(bodies)), roomy)
    said = {10: "WA", 60: "TLE"}
    assert [test.verdict for test in found.tests] == ["AC", *(said.get(n, "RE") for n in bodies), "AC"], found


#: types that one program of a language with few types is asked about, each with all the values of `VALUES` in it
WHOLE: dict[str, Any] = {
    "int[]": [*VALUES["int"], *range(20_000)],
    "float[]": VALUES["float"],
    "bool[]": VALUES["bool"],
    "string[]": VALUES["string"],
}
WHOLE |= {"int[][]": [[], [1, 2], [3]], "map[int]": {"b": 2, "": -3, "\u20ac x": 0}, "int?": None, "float": -2.5e-300}

#: one program with a function of the name for every type, where a language allows that and a driver looks for it
MANY = {
    "java": (
        "import java.util.*;\nclass Solution {\nstatic long[] f(long[] x) { return x; }\n"
        "static double[] f(double[] x) { return x; }\nstatic List<Boolean> f(List<Boolean> x) { return x; }\n"
        "static String[] f(String[] x) { return x; }\nstatic int[][] f(int[][] x) { return x; }\n"
        "static Map<String, Integer> f(Map<String, Integer> x) { return x; }\n"
        "static Integer f(Integer x) { return x; }\nstatic double f(double x) { return x; }\n}"
    ),
    "csharp": (
        "using System.Collections.Generic;\nclass Solution {\nstatic long[] f(long[] x) { return x; }\n"
        "static double[] f(double[] x) { return x; }\nstatic List<bool> f(List<bool> x) { return x; }\n"
        "static List<string> f(List<string> x) { return x; }\nstatic int[][] f(int[][] x) { return x; }\n"
        "static Dictionary<string, int> f(Dictionary<string, int> x) { return x; }\n"
        "static int? f(int? x) { return x; }\nstatic double f(double x) { return x; }\n}"
    ),
}


def whole(language: str) -> dict[str, Any]:
    """Types and values for one language."""
    nul = CALLERS[language].nul
    return {**WHOLE, "string[]": [text for text in WHOLE["string[]"] if nul or "\0" not in text]}


@pytest.mark.sandbox
def test_values_of_every_type_come_back(each, function_task, roomy):
    """Where a program or a call takes long: in one program with a function for each, or for three of the types."""
    written, values = WRITTEN[each], whole(each)
    if each in (*SLOW, *HEAVY) and each not in MANY:
        values = {kind: values[kind] for kind in ("map[int]", "float[]", "string[]")}
    for kind, value in values.items():
        program = MANY.get(each) or written.program(written.back, kind)
        task = function_task(each, {"x": kind}, kind, [([value], value)])
        found = FunctionVerifier().judge(task, program, roomy)
        assert found.verdict is Verdict.AC, (kind, found)


@pytest.mark.sandbox
@pytest.mark.slow
@pytest.mark.parametrize("kind", VALUES)
def test_values_come_back_as_they_went_in(kind, language, function_task, roomy):
    written = WRITTEN[language]
    if written.types and kind not in written.types:
        pytest.skip(f"no {kind} in {language}")
    values = [value for value in VALUES[kind] if CALLERS[language].nul or value != "\0\x01"]
    task = function_task(language, {"x": kind}, kind, [([value], value) for value in values])
    found = FunctionVerifier().judge(task, written.program(written.back, kind), roomy)
    said = [(value, test.verdict, test.detail) for value, test in zip(values, found.tests, strict=True)]
    assert [test.verdict for test in found.tests] == ["AC"] * len(values), (said, found.detail)


@pytest.mark.sandbox
@pytest.mark.slow
def test_right_is_right_and_wrong_is_wrong(language, judged):
    assert [test.verdict for test in judged(WRITTEN[language].right).tests] == ["AC", "AC"]
    assert [test.verdict for test in judged(WRITTEN[language].wrong).tests] == ["WA", "WA"]


@pytest.mark.sandbox
def test_what_only_looks_like_the_value_is_another(language, judged):
    for result, body in WRITTEN[language].others:
        found = judged(body, result)
        assert found.tests[0].verdict is Verdict.WA, (body, found)


@pytest.mark.sandbox
def test_what_is_no_program_or_lacks_the_function_says_so(language, judged):
    written = WRITTEN[language]
    found = judged("", program=written.broken.replace("%FUNCTION%", written.program(written.right)))
    assert found.verdict is Verdict.CE and found.detail, found
    missing = judged(
        "", program=re.sub(r"\bf(?=\(| <-| \{)", "g", written.program(written.right)).replace("(f x)", "(g x)")
    )
    assert missing.verdict in (Verdict.CE, Verdict.RE), missing


#: answers to "a function f that adds one"
AS_WRITTEN = [
    ("javascript", "'use strict';\nconst f = (x) => x + 1;"),
    ("javascript", "module.exports = (x) => x + 1;"),
    ("javascript", "exports.f = function (x) { return x + 1; };\nconsole.log(exports.f(3));"),
    ("typescript", "export const f = (x: number): number => x + 1;"),
    ("typescript", "export default function f<T extends number>(x: T): number { return x + 1; }"),
    ("ruby", "# frozen_string_literal: true\nrequire 'set'\ndef f(x) = x + 1\nputs f(1) if __FILE__ == $0"),
    ("php", "function f(int $x): int { return $x + 1; }"),
    ("php", "<?php\ndeclare(strict_types=1);\n$one = 1;\nfunction f($x) { global $one; return $x + $one; }\n?>\n"),
    ("perl", "use strict;\nuse warnings;\n\nmy $one = 1;\nsub f { return $_[0] + $one }\nprint f(3), '\n';"),
    ("perl", "sub f { my $x = shift; return int(($x + 1) / 1) }"),
    ("perl", "sub f { return join('', $_[0] + 1) }"),
    ("lua", "function f(x) return (2 * x + 2) / 2 end"),
    ("r", "raw <- substr <- character <- function(...) stop('mine')\nf <- function(x) x + 1"),
    ("lua", "local function f(x) return x + 1 end"),
    ("lua", "local M = {}\nfunction M.f(x) return x + 1 end\nreturn M"),
    ("r", "f = function(x) {\n  as.integer(x) + 1L\n}\nprint(f(1))"),
    ("racket", "(define (f x) (+ x 1))\n(f 3)"),
    ("racket", "#lang racket\n(provide f)\n(define/contract (f x) (-> integer? integer?) (add1 x))"),
    ("cpp", "static long long f(const int &x) noexcept { return x + 1; }"),
    ("cpp", "#include <iostream>\nint main() { return 1; }\nunsigned f(unsigned short x) { return x + 1; }"),
    ("go", "func f(x int) int { return x + 1 }"),
    ("go", "package solution\n\ntype N = int64\n\nfunc f(x N) (y N) {\n\ty = x + 1\n\treturn\n}\n"),
    ("rust", "pub fn f(x: &i32) -> u64 { (*x + 1) as u64 }"),
    ("d", "module one;\nint f(ref int x) { return ++x; }\nint main() { return 0; }"),
    ("d", "pure nothrow long f(in long x) @safe { return x + 1; }"),
    ("java", "package a.b;\nimport java.util.*;\npublic class Main {\n public int f(int x) { return x + 1; }\n}"),
    ("java", "public final class Solution {\n  private static Long f(Long x) { return x + 1; }\n}"),
    ("csharp", "namespace A { class Solution { public long f(long x) => x + 1; } }"),
]  # fmt: skip


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("name", "program"),
    [pytest.param(*row, marks=pytest.mark.slow if row[0] in (*SLOW, *HEAVY) else ()) for row in AS_WRITTEN],
)
def test_answers_as_people_write_them(name, program, sandbox, function_task, roomy):
    task = function_task(there(name, sandbox), {"x": "int"}, "int", [([1], 2), ([5], 6)])
    found = FunctionVerifier().judge(task, program, roomy)
    assert [test.verdict for test in found.tests] == ["AC", "AC"], found


@pytest.mark.sandbox
@pytest.mark.parametrize("kind", VALUES)
def test_values_come_back_in_python_too(kind, function_task, roomy):
    task = function_task("python", {"x": kind}, kind, [([value], value) for value in VALUES[kind]])
    found = FunctionVerifier().judge(task, "def f(x): return x", roomy)
    assert [test.verdict for test in found.tests] == ["AC"] * len(VALUES[kind]), found
