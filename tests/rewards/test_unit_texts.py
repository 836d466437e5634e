"""Verifier "unit_tests": what is changed in an answer, and what is not: texts that span lines, modules, namespaces."""

from __future__ import annotations

# ruff: noqa: E501 -- many programs, each on a line
import pytest

from assay.types import Message, Task, Verdict
from rewards.languages import LANGUAGES, find
from rewards.verifiers.harness_rows_compiled import rust_imports
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


def judged(language: str, answer: str, tests: str, bench, **rest: str):
    missing = [tool for tool in LANGUAGES[language].tools if not bench.sandbox.has(tool)]
    if missing:
        pytest.skip(f"{missing[0]} is not installed; {LANGUAGES[language].install}")
    record = {"language": language, "tests": [tests], "limits": {"cpu_s": 3, "wall_s": 15}, **rest}
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


BASH_EXITS = """if [ "$(f xy)" != 2 ]; then
  echo no; exit 1
fi
[ "$(f '')" = 0 ] || exit 2
if [[ $(f abc) != 3 ]]; then exit 3; fi
"""
BASH_LINES = """set -e
# [[ $(f x) = 9 ]]
[[ $(f abc) == +([0-9]) ]]
[[ $(f "if for") = 6 ]]
[[ $(f "") = 0 ]]
"""
RACKET = """(require rackunit)
(define (test-f)
  (let (( candidate f))
    ; (check-equal? (candidate "") 9)
    (check-equal? (map candidate (list "" "a")) '(0 1))
    (check-within (list (candidate "abc")) (list 3) 0.001)))
(test-f)"""
BASH_SAID = """# it's "so
[[ $(f) == 'die; exit 1' ]]
if [[ "$(f "a" 'b;')" != "die; exit 1" ]]; then echo 'no; exit 2'; exit 3; fi
[ "$(f)" = "$(cat <<EOF
die; exit 1
EOF
)" ] || exit 4
cat <<EOF > said
die; exit 1
don't
EOF
[ "$(head -n 1 said)" = "$(f it\\'s)" ] || exit 5
"""
BASH_GLOBS = """shopt -s extglob
case $(f) in
  +([0-9])) ;;
  *) exit 1 ;;
esac
"""
RACKET_QUOTED = """(require rackunit)
(check-equal? (f 1) '(a (list 1)))
(check-equal? (f 1) `(a (list ,(car (list 1)))))
(check-equal? (f '(begin (define x 1) x)) (quote (a (list (begin (define x 1) x)))))
(check-equal? (f '(+ 1 (let ([x 2]) x))) (list 'a (list 'list '(+ 1 (let ([x 2]) x)))))
(check-equal? (f "(check-x \\"(list 1)") '(a (list "(check-x \\"(list 1)"))) ; it's "so
(check-equal? (let* ([list f]) (list #\\")) '(a (list #\\"))) ; here"""
LOUD = 'exit() { :; }\nprintf() { builtin printf "$1" "$2" 999 "$4"; }'


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("language", "answer", "tests", "passes"),
    [
        ("bash", "f() { echo ${#1}; }", BASH_EXITS, True),
        ("bash", "f() { echo 2; }", BASH_EXITS, False),
        ("bash", f"f() {{ echo 2; }}\n{LOUD}", BASH_EXITS, False),
        ("bash", "f() { echo ${#1}; }", BASH_LINES, True),
        ("bash", f"f() {{ echo 6; }}\n{LOUD}", BASH_LINES, False),
        ("bash", f"f() {{ echo ${{#1}}; }}\n{LOUD}", BASH_LINES, True),
        ("bash", "set -o posix\nIFS=,\ntrap 'rm -f x' EXIT\nf() {\n  local n=0\n  ((n++))\n  echo ${#1}\n}", BASH_LINES, True),
        ("bash", "print() { printf '%s' \"$1\"; }\nread_it() { read -r it <<< \"$1\"; print ${#it}; }\nf() { read_it \"$1\"; }", BASH_LINES, True),
        ("bash", "f() { echo 'die; exit 1'; }", BASH_SAID, True),
        ("bash", "f() { echo 'die; exit 2'; }", BASH_SAID, False),
        ("bash", f"f() {{ [[ $# == 2 ]] && echo || echo 'die; exit 1'; }}\n{LOUD}", BASH_SAID, False),
        ("bash", f"f() {{ [[ $# == 0 ]] && echo || echo 'die; exit 1'; }}\n{LOUD}", BASH_SAID, False),
        ("bash", f"f() {{ [[ $# == 1 ]] && echo || echo 'die; exit 1'; }}\n{LOUD}", BASH_SAID, False),
        ("bash", "f() { if ! (false); then echo 12; fi; }", BASH_GLOBS, True),
        ("bash", "f() { if !(false); then echo 12; fi; }", BASH_GLOBS, True),
        ("bash", f"f() {{ echo 1a; }}\n{LOUD}", BASH_GLOBS, False),
        ("bash", f"f() {{ echo 1a; }}\nshopt() {{ :; }}\nshopt -u extglob\n{LOUD}", BASH_GLOBS, False),
        ("racket", "(define (f s) (list 'a (list 'list s)))", RACKET_QUOTED, True),
        ("racket", "(define (f s) (list 'a (list 'list 1)))", RACKET_QUOTED, False),
        ("racket", "(define (list . _) 9)\n(define (f s) 9)", "(check-equal? (f 1) `(a ,(list 1)))(check-equal? (f 1) (list 1))", False),
        ("racket", "(define (list . _) 9)\n(define (f s) '(a 9))", "(check-equal? (f 1) `(a ,(list 1)))", False),
        ("racket", "(define-syntax-rule (let . _) (void))\n(define (f s) 9)", "(define (t) (let () (check-equal? (f 1) 1)))(t)", False),
        ("racket", "(define-syntax-rule (unit . x) (void))\n(define (f s) 9)\n#;", "(check-equal? (f 1) 1)", False),
        ("racket", "(define (f s) (string-length s))", RACKET, True),
        ("racket", "#lang racket/base\n(define (f s) (apply + (map (lambda (c) 1) (string->list s))))", RACKET, True),
        ("racket", "(define (range a) a)\n(define (hash x) x)\n(define (f s) (range (hash (string-length s))))", RACKET, True),
        ("racket", "(struct p (x))\n(define (f s) (match (p s) [(p x) (string-length x)]))\n(map add1 '(1 2))", RACKET, True),
        ("racket", "(define-syntax-rule (g x) (list 'x))\n(define (f s) (for/fold ([n 0]) ([c s]) (add1 n)))\n(g 1)", RACKET, True),
        ("racket", "(provide f)\n(define (f s) (string-length s))\n(module+ test (require rackunit) (check-equal? (f \"\") 0))", RACKET, True),
        ("racket", "(define (f s) 3)", RACKET, False),
        ("racket", "(define-syntax-rule (unless c b ...) (begin b ...))\n(define (f s) 3)", RACKET, False),
    ],
)  # fmt: skip
def test_what_tests_and_harness_are_written_in_is_theirs(language: str, answer: str, tests: str, passes: bool, bench):
    found = judged(language, answer, tests, bench)
    assert (found.verdict is Verdict.AC) == passes, found


@pytest.mark.parametrize(
    ("language", "comment"),
    [
        ("c", "/* assert(f(1) == 2);\n */"),
        ("cpp", "// assert(f(1) == 2);"),
        ("d", "// assert(f(1) == 2);"),
        ("scala", "// assert(f(1) == 2);"),
        ("swift", "// assert(f(1) == 2);"),
        ("csharp", "// Debug.Assert(F(1) == 2);"),
        ("javascript", "// assert(f(1) === 2);"),
        ("typescript", "/* assert(f(1) === 2); */"),
        ("php", "# assert(f(1) === 2);"),
        ("perl", "# eq_deeply(f(1), 2)"),
        ("lua", "--[==[ lu.assertEquals(f(1), 2)\n]==]"),
        ("rust", "// assert!(f(1) == 2);"),
        ("racket", "; (check-equal? (f 1) 2)"),
        ("bash", "# [[ $(f 1) = 2 ]]"),
    ],
)
def test_an_assertion_in_a_comment_is_none(language: str, comment: str):
    def asserts(tests: str) -> int:
        return assemble(find(language), HARNESSES[language], "", "x", tests).asserts

    tests = {
        "csharp": 'class T { public static void Main(string[] a) {\nDebug.Assert(F("//") == 1);\n',
        "javascript": "assert(f('//') === 1);\n",
        "typescript": "assert(f('/*') === 1);\n",
        "php": "assert(f('#') === 1);\n",
        "perl": "eq_deeply(f(' #'), 1)\n",
        "lua": "lu.assertEquals(f('--'), 1)\n",
        "rust": "fn main() {\nassert!(f(1) == 2);\n",
        "racket": '(check-equal? (f "; #|") 1)\n',
        "bash": '[[ $(f " #") = 1 ]]\n',
    }.get(language, 'int main() {\nassert(f("//") == 1);\n')
    assert asserts(tests) == asserts(tests + comment) == 1
    assert asserts(tests + tests) == 2


SQUARE = "int f(int x) { return x * x; }"
EARLY = """int main() {
    if (f(2) != 4) { return 1; }
    const char *s = "}"; char c = '{'; // }
    assert(s[0] != c && f(3) == 9);
}
int other(void) { return 2; }
"""
LAMBDA = 'int main(){ auto sq=[](int x){return x*x;}; assert(f(3)==sq(3)); const char *s = R"(})"; assert(*s); }'
SET = """use std::collections::HashSet;
fn main() {
    assert_eq!(f(3), HashSet::from([3]));
}
"""
RUST_PROMPT = "use std::collections::HashMap;\nuse ::std::fmt::Display;\n"
SIZE = "import os\nsize = len"


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("language", "prompt", "answer", "wrong", "tests"),
    [
        ("c", "", SQUARE, "int f(int x) { return 4; }", EARLY),
        ("cpp", "", SQUARE, "int f(int x) { return x == 3 ? 9 : 1; }", EARLY),
        ("cpp", "", SQUARE, "int f(int x) { return 4; }", EARLY),
        ("cpp", "", SQUARE, "int f(int x) { return 4; }", LAMBDA),
        ("cpp", "", SQUARE, "int f(int x) { return 4; }", "int main() {\n// assert(f(1)==7);\nassert(f(3) == 9);\n}"),
        (
            "rust",
            RUST_PROMPT,
            "use std::collections::{HashMap, HashSet};\nuse std::{fmt::{self, Display}, io::*};\nuse std::fmt;\n"
            "fn f(x: u8) -> HashSet<u8> { let _: HashMap<u8, fmt::Error> = HashMap::new(); HashSet::from([x]) }",
            "use std::collections::HashSet;\nfn f(x: u8) -> HashSet<u8> { HashSet::new() }",
            SET,
        ),
        (
            "python",
            SIZE,
            "from __future__ import annotations\nimport re\n\ndef f(x: Unknown) -> int:\n    return size(x)",
            "from __future__ import annotations\ndef f(x): return 2",
            "# assert f('') == 1\nassert f('abc') == 3",
        ),
        (
            "python",
            SIZE,
            '"""Of\nfrom __future__ import annotations\n"""\nfrom __future__ import (annotations,\n    division)\n'
            "def f(x):\n    return size(x)",
            "def f(x): return 2",
            "assert f('abc') == 3",
        ),
        ("python", "def f(x):", "    return len(x)", "    return 2", "assert f('abc') == 3"),
        (
            "javascript",
            "",
            "import fs from 'fs';\nexport function f(x) { return fs.existsSync('/') ? x + 1 : 0 }",
            "import fs from 'fs';\nexport function f(x) { return x }",
            "// console.assert(f(2) === 9)\nconsole.assert(f(1) === 2)",
        ),
        (
            "javascript",
            "",
            'import { join as j, sep } from "node:path"\nimport * as os from \'os\'\nimport util, { inspect } from \'util\'\n'
            "import 'fs'\nimport {\n  default as fs,\n} from 'fs'\n"
            "export const f = (x) => j('a', 'b') === 'a/b' && sep === '/' && os.EOL && util.inspect === inspect && "
            "fs.readFileSync ? x + 1 : 0;",
            "import assert from 'assert';\nexport const f = (x) => x;",
            "const assert = require('assert');\nassert.equal(f(1), 2)",
        ),
    ],
)  # fmt: skip
def test_right_answers_in_other_forms(language: str, prompt: str, answer: str, wrong: str, tests: str, bench):
    for program, verdict in ((answer, Verdict.AC), (wrong, Verdict.WA)):
        found = judged(language, program, tests, bench, prompt=prompt)
        assert found.verdict is verdict, found


@pytest.mark.parametrize(
    ("line", "paths"),
    [
        ("use std::fmt;", {"std::fmt": "use std::fmt;"}),
        ("use ::std::fmt::{self, /* , */ Display};", {"std::fmt": "use ::std::fmt::{self};", "std::fmt::Display": "use ::std::fmt::Display;"}),
        ("use {a::b as c,\n d::{e::*,}};", {"a::basc": "use a::b as c;", "d::e::*": "use d::e::*;"}),
        ("use a::{self as b};", {"a::{selfasb}": "use a::{self as b};"}),
        ("use a::{b;", {"use a::{b;": "use a::{b;"}),
    ],
)  # fmt: skip
def test_imports_of_rust_one_by_one(line: str, paths: dict[str, str]):
    assert dict(rust_imports(line)) == paths
