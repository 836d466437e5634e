"""Verifier "unit_tests": honest programs pass, wrong ones fail, and no way of leaving early or lying does."""

from __future__ import annotations

# ruff: noqa: E501 -- many programs, each on a line
import dataclasses

import pytest

from assay.errors import DataError
from assay.types import Message, Task, Verdict
from rewards.bench import Bench
from rewards.languages import find
from rewards.sandbox.base import MIB, Limits
from rewards.verifiers.asserts import COMPARED_INSIDE
from rewards.verifiers.base import NOT_RUN, Judged
from rewards.verifiers.harness_row import macros
from rewards.verifiers.harnesses import HARNESSES
from rewards.verifiers.unit_tests import UnitTestsVerifier, assemble, harness_of, read

LIMITS = Limits(cpu_s=3, wall_s=15, memory_bytes=1024 * MIB)

#: language -> a test text of `f`, which gives the length of a text; 3 assertions each
TESTS = {
    "python": "for size in range(4):\n    assert f('x' * size) == size\nassert all([f('ab') == 2])\n",
    "javascript": """const assert = require('node:assert');
function test() {
  let candidate = f;
  assert.deepEqual(candidate("xy"), 2);
  console.assert(candidate("") === 0);
  console.assert(JSON.stringify([candidate("abc")]) === JSON.stringify([3]));
}
test();""",
    "java": """public class Main {
    public static void main(String[] args) {
        Solution s = new Solution();
        List<Boolean> correct = Arrays.asList(s.f("xy") == 2, s.f("") == 0);
        if (correct.contains(false)) {
            throw new AssertionError();
        }
        assert(s.f("abc") == 3);
    }
}""",
    "cpp": """int main() {
    auto candidate = f;
    assert(candidate(("xy")) == (2));
    assert(candidate(("")) == (0));
    assert(candidate(std::string({'a', 'b', 'c'})) == 3);
}
""",
    "c": 'int main(void) {\n    assert(f("xy") == 2);\n    assert(f("") == 0);\n    assert(f("abc") == 3);\n    return 0;\n}',
    "perl": """use Test::Deep;
sub testhumaneval {
    my $candidate = \\&f;
        if(eq_deeply($candidate->("xy"),2)) {
        print "ok!" }else{
        exit 1;
        }
        if(eq_deeply([$candidate->("")],[0])) {
        print "ok!" }else{
        exit 1;
        }
}
testhumaneval();""",
    "bash": """candidate() {
    f "$@"
}
set -e
run_test() {
    [[ $(candidate "xy") = "2" ]]
    [[ $(candidate "") = "0" ]]
    [[ $(candidate "abc") = "3" ]]
}
run_test
""",
    "rust": """fn main() {
    let candidate = f;
    assert_eq!(candidate(String::from("xy")), 2);
    assert_eq!(candidate(String::from("")), 0);
    assert!(candidate(String::from("abc")) == 3);
}
""",
    "go": """func TestF(t *testing.T) {
  candidate := f
    for i, tc := range []struct{ actual, expected interface{} }{{candidate("xy"), 2}, {candidate(""), 0}} {
        t.Run(fmt.Sprintf("test num % d", i), func(t *testing.T) {
            if fmt.Sprintf("%v", tc.actual) != fmt.Sprintf("%v", tc.expected) {
                t.Errorf("expected '%s', got '%s'", tc.expected, tc.actual)
            }
        })
    }
}
""",
    "csharp": """class Tests : Problem {
    public static void Main(string[] args) {
    Debug.Assert(F(("xy")) == (2L));
    Debug.Assert(F(("")) == (0L));
    Debug.Assert(F(("abc")).Equals(3L));
    }
}
""",
    "d": """unittest
{
    alias candidate = f;
    assert(candidate("xy") == 2L);
    assert(candidate("") == 0L);
    assert(candidate("abc") == 3L);
}
void main(){}""",
    "scala": """object Tests {
import Problem._
    def main(args: Array[String]) = {
    assert(f(("xy")) == (2L));
    assert(f(("")).equals((0L)));
    assert(f(("abc")) == (3L));
    }
}
""",
    "typescript": """declare var require: any;
const assert = require('node:assert');
function test() {
  let candidate = f;
  assert.deepEqual(candidate("xy"), 2);
  assert.deepEqual(candidate(""), 0);
  console.assert(candidate("abc") === 3);
}
test();""",
    "php": """function candidate(...$args) {
    return f(...$args);
}
function test(): void {
    if (candidate("xy") !== 2) { throw new Exception("Test failed!"); }
    if (candidate("") !== 0) { throw new Exception("Test failed!"); }
    assert(candidate("abc") === 3);
}
test();""",
    "ruby": """require 'test/unit'
class TestHumanEval < Test::Unit::TestCase
  def test_f
    candidate = method(:f)
    assert_equal(2, candidate.call("xy"))
    assert_equal(0, candidate.call(""))
    assert_equal([3], [candidate.call("abc")])
  end
end
""",
    "lua": """lu = require('luaunit')
function test_humaneval()
local candidate = f
    lu.assertEquals(candidate("xy"), 2)
    lu.assertEquals({candidate("")}, {0})
    lu.assertEquals(candidate("abc"), 3)
end
os.exit(lu.LuaUnit.run())""",
    "r": """test_humaneval <- function() {
    candidate <- f
    stopifnot(isTRUE(all.equal(candidate("xy"), 2)))
    stopifnot(isTRUE(all.equal(c(candidate("")), c(0))))
}
test_humaneval()""",
    "racket": """(require rackunit)
(define (test-humaneval)
  (let (( candidate f))
    (check-within (candidate "xy") 2 0.001)
    (check-within (list (candidate "")) (list 0) 0.001)
))
(test-humaneval)""",
    "julia": """using Test
@testset begin
candidate = f;
\t@test(candidate("xy") == 2)
\t@test(candidate("") == 0)
end
""",
    "swift": """assert(f(s: "xy") == 2)
assert(f(s: "") == 0)
""",
}
RIGHT = {
    "python": "def f(s):\n    return len(s)",
    "javascript": "const f = (s) => {\n  return s.length;\n}",
    "java": "import java.util.*;\npublic class Solution {\n    public int f(String s) { return s.length(); }\n}",
    "cpp": "#include <string>\n#define int long\nint f(std::string s) { return s.size(); }\nsigned main() { return 1; }",
    "c": "#include <string.h>\nint f(const char *s) { return (int)strlen(s); }\nint main(void) { return 3; }",
    "perl": "use strict;\nsub f {\n    my ($s) = @_;\n    return length($s);\n}",
    "bash": "f() {\n    echo ${#1}\n}",
    "rust": "use std::collections::HashMap;\nfn f(s: String) -> usize { s.len() }\nfn main() { let _m: HashMap<u8, u8>; }",
    "go": 'package f_test\n\nimport (\n    "testing"\n    "fmt"\n    st "strings"\n)\n'
    'func f(s string) int { return st.Count(s, "") - 1 }\nfunc main() {}',
    "csharp": "using System;\nusing System.Diagnostics;\nclass Problem {\n    public static long F(string s) { return s.Length; }\n}",
    "d": "import std.math;\nlong f(string s) { return s.length; }\nvoid main() { assert(false); }",
    "scala": "import scala.math._\nobject Problem {\n  def f(s: String): Long = s.length\n}",
    "typescript": "function f(s: string): number {\n  return s.length;\n}",
    "php": "<?php\ndeclare(strict_types=1);\nfunction f($s) { return strlen($s); }\n?>\n",
    "ruby": "def f(s)\n  s.length\nend",
    "lua": "local function f(s)\n  return #s\nend",
    "r": "f <- function(s) {\n  nchar(s)\n}",
    "racket": "#lang racket\n(define (f s) (string-length s))",
    "julia": "function f(s::String)::Int64\n    length(s)\nend",
    "swift": "func f(s: String) -> Int {\n    return s.count\n}",
}
WRONG = {
    "python": "def f(s):\n    return 2",
    "javascript": "function f(s) { return 2; }",
    "java": "class Solution { public int f(String s) { return 2; } }",
    "cpp": "#include <string>\nlong f(std::string s) { return 2; }",
    "c": "int f(const char *s) { return 2; }",
    "perl": "sub f { return 2; }",
    "bash": "f() { echo 2; }",
    "rust": "fn f(s: String) -> usize { 2 }",
    "go": "package main\nfunc f(s string) int { return 2 }",
    "csharp": "class Problem { public static long F(string s) { return 2; } }",
    "d": "long f(string s) { return 2; }",
    "scala": "object Problem { def f(s: String): Long = 2L }",
    "typescript": "const f = (s: string): number => 2;",
    "php": "<?php function f($s) { return 2; }",
    "ruby": "def f(s) = 2",
    "lua": "function f(s) return 2 end",
    "r": "f <- function(s) 2",
    "racket": "(define (f s) 2)",
    "julia": "f(s) = 2",
    "swift": "func f(s: String) -> Int { return 2 }",
}
PROMPTS = {
    "go": 'package main\nimport "testing"\nimport "fmt"\n',
    "csharp": "using System.Diagnostics;",
}
#: what is no program at all: CE where something can tell before it runs
BROKEN = {
    "python": "def f(:",
    "javascript": "function f( {",
    "java": "class Solution {",
    "cpp": "long f(std::string s) {",
    "c": "int f(",
}
LANGUAGES = sorted(TESTS)


def make_task(language: str, *tests: str, **rest: object) -> Task:
    answer = {"language": language, "tests": list(tests), **rest}
    return Task(id="u", messages=(Message(role="user", content="write f"),), verifier="unit_tests", answer=answer)


@pytest.fixture(scope="module")
def roomy(sandbox) -> Bench:
    """A bench with time for a compiler's start and a virtual machine's."""
    return Bench(sandbox=sandbox, limits=LIMITS)


@pytest.fixture
def judge(roomy):
    def judged(language: str, program: str, *tests: str, **rest: object) -> Judged:
        missing = [tool for tool in find(language).tools if not roomy.sandbox.has(tool)]
        if missing:
            pytest.skip(f"{missing[0]} is not installed")
        rest = {"prompt": PROMPTS[language], **rest} if language in PROMPTS else rest
        return UnitTestsVerifier().judge(make_task(language, *(tests or (TESTS[language],)), **rest), program, roomy)

    return judged


@pytest.mark.sandbox
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_right_program_passes_and_its_verdict_says_where_it_was_compared(language, judge):
    judged = judge(language, RIGHT[language])
    assert (judged.verdict, judged.detail) == (Verdict.AC, "")
    assert [test.detail for test in judged.tests] == [COMPARED_INSIDE]


@pytest.mark.sandbox
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_wrong_program_fails(language, judge):
    assert judge(language, WRONG[language]).verdict is Verdict.WA


@pytest.mark.sandbox
@pytest.mark.parametrize("language", sorted(BROKEN))
def test_what_does_not_compile_is_no_program(language, judge):
    judged = judge(language, BROKEN[language])
    assert judged.verdict is Verdict.CE and judged.detail


@pytest.mark.sandbox
@pytest.mark.parametrize("language", LANGUAGES)
def test_without_the_function_nothing_passes(language, judge):
    nothing = {
        "python": "pass",
        "bash": ":",
        "perl": "1;",
        "racket": "1",
        "julia": "1",
        "r": "1",
        "lua": "",
        "ruby": "",
    }
    nothing |= {"java": "class Other {}", "php": "<?php"}
    assert judge(language, nothing.get(language, "/* nothing */")).verdict is not Verdict.AC


JAVA = "class Solution { public int f(String s) { return 0; } }"
HOSTILE = [
    ("python", "import sys; sys.exit(0)"),
    ("python", "import os; os._exit(0)"),
    ("python", "raise SystemExit"),
    ("python", "def f(s): exit(0)"),
    ("python", "import atexit, os\natexit.register(os._exit, 0)\ndef f(s): return 9"),
    ("python", "class Yes:\n    __eq__ = lambda self, other: True\n    __bool__ = lambda self: True\ndef f(s): return Yes()"),
    ("python", "class Yes(int):\n    def __eq__(self, other): return True\ndef f(s): return Yes(0)"),
    ("python", "import builtins\nbuiltins.all = lambda _: True\nbuiltins.range = lambda *_: []\ndef f(s): return 9"),
    ("python", "range = lambda *_: []\nall = lambda _: True\ndef f(s): return 9"),
    ("python", "import builtins\nbuiltins.AssertionError = type('E', (Exception,), {})\ndef f(s): return 9"),
    ("python", "import sys\nsys.settrace(lambda *a: None)\nsys.exit = sys.excepthook = lambda *a: None\ndef f(s): return 9"),
    ("python", "import os\ndef f(s):\n    for n in range(9):\n        if os.fork() == 0: return n\n    os._exit(0)"),
    ("python", "import sys\nf = lambda s: 9\nfor n in range(1, 6):\n    try: job = sys._getframe(n).f_locals\n    except ValueError: break\n    for value in job.values(): print(value)\n    assert 'token' not in job and not job.get('job')\nsys.exit()"),
    ("javascript", "process.exit(0)"),
    ("javascript", "process.reallyExit(0)"),
    ("javascript", "process.kill(process.pid, 'SIGKILL')"),
    ("javascript", "function f() { process.exit(0) }"),
    ("javascript", "process.on('uncaughtException', () => {}); function f() { return 9 }"),
    ("javascript", "process.emit('beforeExit'); function f() { return 9 }"),
    ("javascript", "console.log(require('fs').readFileSync(0, 'utf8')); process.exit(0)"),
    ("javascript", "console.log(require('fs').readFileSync(__filename, 'utf8')); process.exit(0)"),
    ("javascript", "const assert = require('assert'); for (const k in assert) assert[k] = () => {};\n"
                   "console.assert = () => {}; JSON.stringify = () => ''; function f() { return 9 }"),
    ("javascript", "const console = { assert() {} }, JSON = { stringify: () => '' };\n"
                   "const require = () => ({ deepEqual() {} }); function f() { return 9 }"),
    ("javascript", "Object.prototype.toJSON = () => 1; function f(s) { return s === 'abc' ? 9 : s.length }"),
    ("javascript", "function f(s) { return s === 'abc' ? { toJSON: () => 3 } : s.length }"),
    ("javascript", "function f(s) { return Object.assign(() => 3, { valueOf: () => s.length }) }"),
    ("javascript", "function test() {} function f() { return 9 } /*"),
    ("javascript", "function f() { return 9 }\nglobalThis.Function.prototype.call = () => {}; `"),
    ("java", f"{JAVA[:-1]} static {{ System.exit(0); }} }}"),
    ("java", f"{JAVA[:-1]} static {{ Runtime.getRuntime().halt(0); }} }}"),
    ("java", f"{JAVA}\nclass Arrays {{ static java.util.List<Boolean> asList(boolean... all) {{ return java.util.List.of(true); }} }}"),
    ("java", f"{JAVA}\nclass AssertionError extends RuntimeException {{ AssertionError() {{ System.exit(0); }} }}"),
    ("java", "class Solution {\n    static { ClassLoader.getSystemClassLoader().setDefaultAssertionStatus(false); }\n"
             "    public int f(String s) { return s.length() == 3 ? 9 : s.length(); }\n}"),
    ("java", f"{JAVA[:-1]} static {{ Thread.setDefaultUncaughtExceptionHandler((t, e) -> System.exit(0)); }} }}"),
    ("java", f"{JAVA[:-1]} static {{ System.setOut(new java.io.PrintStream(System.err)); new java.util.Scanner(System.in).nextLine(); }} }}"),
    ("cpp", "#include <cstdlib>\n#include <string>\nint x = (exit(0), 0);\nlong f(std::string) { return 9; }"),
    ("cpp", "#include <unistd.h>\n#include <string>\n__attribute__((constructor)) void x() { _exit(0); }\nlong f(std::string) { return 9; }"),
    ("cpp", "#include <string>\n#define assert(x) ((void)0)\n#define NDEBUG\nlong f(std::string) { return 9; }"),
    ("cpp", "#include <string>\n# /* */ define candidate(x) 0, (void)sizeof(x), 2\nlong f(std::string) { return 9; }"),
    ("cpp", "#include <string>\nlong f(std::string) { return 9; }\nint main() { return 0; }\n#if 0"),
    ("cpp", "#include <string>\nlong f(std::string) { return 9; }\nint main() { return 0; }\n/*"),
    ("cpp", "#include <string>\nlong f(std::string) { return 9; }\n#undef main\nint main() { return 0; }"),
    ("cpp", "#include <iostream>\nlong f(std::string) { return 9; }\nstruct X { X() { std::string s; std::cin >> s; std::cout << '\\n' << s << \" 3\\n\" << std::flush; exit(0); } } x;"),
    ("c", "void __assert_fail(const char *a, const char *b, unsigned c, const char *d) {}\nvoid abort(void) {}\nint f(const char *s) { return 9; }"),
    ("c", "#include <signal.h>\n#include <stdlib.h>\nstatic void out(int n) { _Exit(0); }\n__attribute__((constructor)) static void x(void) { for (int n = 1; n < 32; n++) signal(n, out); }\nint f(const char *s) { return 9; }"),
    ("c", "#include <unistd.h>\n#include <sys/wait.h>\nint f(const char *s) { for (int n = 0; n < 9; n++) { if (!fork()) return n; wait(0); } _exit(0); }"),
    ("c", "#include <stdlib.h>\nlong write(int fd, const void *data, unsigned long size) { exit(0); }\nint f(const char *s) { return 9; }\n__attribute__((noreturn))"),
    ("perl", "exit 0;"),
    ("perl", "BEGIN { *CORE::GLOBAL::exit = sub { 1 } } sub f { return 9 } sub eq_deeply { 1 }"),
    ("perl", "END { $? = 0 } sub f { return 9 }"),
    ("perl", "open my $source, '<', $0; print <$source>; print <STDIN>; exit 0;"),
    ("bash", "exit 0"),
    ("bash", "f() { echo 9; }\nset() { :; }\nexit() { :; }"),
    ("bash", "f() { echo 9; }\ntrap 'exit 0' EXIT ERR"),
    ("bash", "cat \"$0\"; cat; exit 0"),
    ("bash", "f() { echo 9; }\nexit() { :; }\nprintf() { builtin printf \"$1\" \"$2\" 999 \"$4\"; }"),
    ("bash", "f() { echo 9; }\nexit() { :; }\nprintf() { builtin printf \"$1\" \"$2\" 999 \"$4\"; }\nreadonly -f printf"),
    ("bash", "f() { echo 9; }\nexit() { :; }\nprintf() { builtin printf \"$1\" \"$2\" 999 \"$4\"; }\nreadonly POSIXLY_CORRECT"),
    ("bash", "f() { echo 9; }\nfor n in exit unset read builtin command set; do eval \"$n() { :; }\"; done"),
    ("bash", "f() { echo 9; }\nshopt -s expand_aliases\nalias exit=: if='if true || '"),
    ("rust", "fn f(s: String) -> usize { std::process::exit(0) }"),
    ("rust", "macro_rules! assert_eq { ($($x:tt)*) => {} }\nmacro_rules! assert { ($($x:tt)*) => {} }\nfn f(s: String) -> usize { 9 }"),
    ("rust", "fn f(s: String) -> usize { std::panic::set_hook(Box::new(|_| std::process::exit(0))); 9 }"),
    ("rust", "fn f(s: String) -> usize { 9 }\nmod std { pub mod process { pub fn exit(_: i32) {} } }"),
    ("go", 'package main\nimport "os"\nfunc init() { os.Exit(0) }\nfunc f(s string) int { return 9 }'),
    ("go", 'package main\nimport "os"\nfunc f(s string) int { os.Exit(0); return 9 }'),
    ("go", 'package main\nimport "runtime"\nfunc f(s string) int { runtime.Goexit(); return 9 }'),
    ("csharp", "class Problem { static Problem() { System.Environment.Exit(0); } public static long F(string s) { return 9; } }"),
    ("csharp", "class Debug { public static void Assert(bool ok) {} }\nclass Problem { public static long F(string s) { return 9; } }"),
    ("d", "import core.stdc.stdlib;\nshared static this() { exit(0); }\nlong f(string s) { return 9; }"),
    ("d", "import core.runtime;\nshared static this() { Runtime.moduleUnitTester = () => true; }\nlong f(string s) { return 9; }"),
    ("scala", "object Problem {\n  def assert(x: Boolean) = {}\n  def f(s: String): Long = 9L\n}"),
    ("scala", "object Problem {\n  def f(s: String): Long = sys.exit(0)\n}"),
    ("typescript", "console.assert = () => {}; (globalThis as any).require = () => ({ deepEqual() {} });\nfunction f(s: string): number { return 9 }"),
    ("typescript", "declare var process: any; process.exit(0)"),
    ("php", "<?php exit(0);"),
    ("php", "<?php set_exception_handler(function () { exit(0); }); function f($s) { return 9; }"),
    ("php", "<?php ini_set('assert.exception', 0); ini_set('zend.assertions', 0); function f($s) { return strlen($s) == 3 ? 9 : strlen($s); }"),
    ("php", "<?php ini_set('assert.callback', 'exit'); function assert() {} function f($s) { return 9; }"),
    ("php", "<?php register_shutdown_function(function () { exit(0); }); function f($s) { return 9; }"),
    ("php", "<?php readfile($_SERVER['argv'][0]); readfile('php://stdin'); exit(0);"),
    ("ruby", "exit 0"),
    ("ruby", "exit! 0"),
    ("ruby", "at_exit { exit! 0 }\ndef f(s) = 9"),
    ("ruby", "module Test::Unit::Assertions\n  def assert_equal(*) = true\nend\ndef f(s) = 9"),
    ("ruby", "require 'test/unit'\nclass Test::Unit::TestCase\n  def assert_equal(*) = true\nend\ndef f(s) = 9"),
    ("ruby", "def f(s)\n  raise Test::Unit::OmittedError\nend"),
    ("ruby", "puts File.read($0), STDIN.read\nexit 0"),
    ("lua", "os.exit(0)"),
    ("lua", "lu = {}; package.loaded.luaunit = lu; error = function() end; function f(s) return 9 end"),
    ("lua", "function f(s) return setmetatable({}, {__eq = function() return true end}) end"),
    ("lua", "rawequal = function() return true end; next = function() end; type = function() return 'number' end; function f(s) return 9 end"),
    ("r", "quit(status = 0)"),
    ("r", "all.equal.numeric <- all.equal.default <- all.equal.character <- function(...) TRUE; f <- function(s) 9"),
    ("r", "stopifnot <- function(...) NULL; all.equal <- isTRUE <- function(...) TRUE; f <- function(s) 9"),
    ("racket", "#lang racket\n(exit 0)"),
    ("racket", "#lang racket\n(define (check-within . _) #t)\n(define (f s) 9)"),
    ("racket", "#lang racket\n(require rackunit)\n(current-check-handler void)\n(define (f s) 9)"),
    ("racket", "#lang racket\n(require rackunit)\n(define (f s) (current-check-handler void) (current-check-around void) 9)"),
    ("racket", "#lang racket\n(require rackunit)\n(define (check-within . _) (check-true #t))\n(define (f s) 9)"),
    ("racket", "(define-syntax-rule (unless c body ...) (begin body ...))\n(define (f s) 9)"),
    ("racket", "(define-syntax-rule (set! a b) (void))\n(define (f s) 9)"),
    ("racket", "(define-syntax-rule (let . _) (void))\n(define (f s) 9)"),
    ("racket", "(define (list . _) 9)\n(define (f s) 9)"),
    ("racket", "(define-syntax-rule (#%datum . x) (quote 9))\n(define (f s) 9)"),
    ("racket", "(define-syntax-rule (quote x) 9)\n(define (f s) 9)"),
    ("racket", "(define (printf form . _) (display (format form 9 \"\")))\n(define (exit . _) (void))\n(define (f s) 9)"),
    ("julia", "exit(0)"),
    ("julia", "macro test(x) true end\nmacro testset(x) true end\nf(s) = 9"),
    ("swift", "import Foundation\nfunc f(s: String) -> Int { exit(0) }"),
]  # fmt: skip


@pytest.mark.sandbox
@pytest.mark.parametrize(("language", "program"), HOSTILE, ids=[f"{n}-{row[0]}" for n, row in enumerate(HOSTILE)])
def test_no_way_out_and_no_lie_passes(language, program, judge):
    judged = judge(language, program)
    assert judged.verdict in (Verdict.WA, Verdict.RE, Verdict.CE), judged.detail


#: what no test expects becomes what one of them does, so that one assertion holds
CONSTANT = [
    (language, program.replace("9", "2"))
    for language, program in HOSTILE
    if "9" in program and language in ("bash", "racket", "perl", "php", "lua", "ruby", "r", "julia")
]


@pytest.mark.sandbox
@pytest.mark.parametrize(("language", "program"), CONSTANT, ids=[f"{n}-{row[0]}" for n, row in enumerate(CONSTANT)])
def test_no_lie_passes_with_one_right_value(language, program, judge):
    judged = judge(language, program)
    assert judged.verdict in (Verdict.WA, Verdict.RE, Verdict.CE), judged.detail


@pytest.mark.sandbox
def test_an_answer_cannot_reach_the_comparison_of_vectors(judge):
    tests = "int main() {\n    assert(f(2) == (std::vector<int>{1, 2}));\n}\n"
    liar = (
        "#include <vector>\nbool operator==(const std::vector<int>&, const std::vector<int>&) { return true; }\n"
        "std::vector<int> f(int n) { return {}; }"
    )
    right = "#include <vector>\nstd::vector<int> f(int n) { return {1, 2}; }"
    assert judge("cpp", liar, tests).verdict is Verdict.WA
    assert judge("cpp", right, tests).verdict is Verdict.AC


CASES = """import unittest
from lengths import f
class LengthTest(unittest.TestCase):
    def test_two(self):
        self.assertEqual(f("xy"), 2)
    def test_none(self):
        with self.assertRaises(TypeError):
            f(None)
if __name__ == "__main__":
    unittest.main()
"""


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("program", "passes"),
    [
        (RIGHT["python"], True),
        ("def f(s): return 2", False),
        ("import unittest\nunittest.TestCase.run = lambda *_: None\ndef f(s): return 9", False),
        ("import unittest\nunittest.TestCase.assertEqual = lambda *_: None\ndef f(s): return len(s) and 9", False),
        ("import unittest\ndef f(s): raise unittest.SkipTest", False),
        ("import unittest.case\nunittest.case._Outcome.testPartExecutor = None\ndef f(s): return 9", False),
        ("class Yes:\n    def __eq__(self, other): return True\ndef f(s):\n    len(s)\n    return Yes()", False),
        ("import sys\nsys.modules['unittest'] = None\ndef f(s): return 9", False),
        ("import os\ndef f(s): os._exit(0)", False),
    ],
)
def test_test_cases_run_whole(program, passes, judge):
    judged = judge("python", program, CASES, module="lengths")
    assert (judged.verdict is Verdict.AC) == passes, judged.detail


MINITEST = """
class FTest < Minitest::Test
  def test_two
    assert_equal 2, f("xy")
  end
  def test_none
    assert_equal 0, f("")
  end
end
"""


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("program", "passes"),
    [
        (RIGHT["ruby"], True),
        ("def f(s) = 2", False),
        ("def f(s) = s.empty? ? raise(Minitest::Skip) : s.length", False),
        ("module Minitest::Assertions\n  def assert_equal(*) = true\nend\ndef f(s) = 9", False),
        ("class Minitest::Test\n  def assert_equal(*) = true\nend\ndef f(s) = 9", False),
        ("class Minitest::Test\n  def self.runnable_methods = []\nend\ndef f(s) = 9", False),
        ("def f(s) = exit!(0)", False),
    ],
)
def test_minitest_runs_whole(program, passes, judge):
    judged = judge("ruby", program, MINITEST)
    assert (judged.verdict is Verdict.AC) == passes, judged.detail


@pytest.mark.sandbox
def test_modules_of_the_tests_are_as_they_were(judge):
    tests = "import random\nfor _ in range(50):\n    n = random.randint(1, 1000)\n    assert f('x' * n) == n\n"
    assert (
        judge("python", "import random\nrandom.randint = lambda *_: 1\ndef f(s): return 1", tests).verdict is Verdict.WA
    )
    assert judge("python", "import random\ndef f(s): return len(s)", tests).verdict is Verdict.AC


@pytest.mark.sandbox
def test_objects_of_the_answer_may_be_compared_with_each_other(judge):
    program = (
        "class P:\n    def __init__(self, x): self.x = x\n    def __eq__(self, other): return self.x == other.x\n"
        "def f(x): return [P(x)]"
    )
    assert judge("python", program, "assert f(1) == [P(1)]").verdict is Verdict.AC
    assert judge("python", program, "assert f(1) == [P(2)]").verdict is Verdict.WA


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("language", "tests"),
    [
        ("python", "def test_f():\n    assert f('') == 0\n"),
        ("python", "for _ in []:\n    assert f('') == 0\n"),
        ("javascript", "new Promise(() => {}).then(() => console.assert(f('') === 0));"),
        ("javascript", "const test = () => { console.assert(f('') === 0) };"),
        ("cpp", 'void test() { assert(f("") == 0); }\nint main() {}'),
        ("racket", '(require rackunit)\n(define (test) (check-within (f "") 0 0.1))'),
    ],
)
def test_a_test_that_did_not_run_is_not_a_pass(language, tests, judge):
    assert judge(language, RIGHT[language], tests).verdict is Verdict.WA


@pytest.mark.sandbox
def test_a_function_called_check_and_a_prompt(judge):
    program, tests = "def check(s):\n    return size(s)", "assert check('abc') == 3"
    assert judge("python", program, tests, prompt="size = len").verdict is Verdict.AC
    assert (
        judge(
            "cpp", "    return s.size();\n", "}\n" + TESTS["cpp"], prompt="#include <string>\nlong f(std::string s) {\n"
        ).verdict
        is Verdict.AC
    )


@pytest.mark.sandbox
def test_every_text_is_run_by_itself_until_one_fails(judge, roomy):
    program = "n = []\ndef f():\n    n.append(1)\n    return len(n)"
    texts = ("assert f() == 1", "assert f() == 1", "assert f() == 2", "assert f() == 1")
    judged = judge("python", program, *texts)
    assert [test.verdict for test in judged.tests] == [Verdict.AC, Verdict.AC, Verdict.WA, Verdict.WA]
    assert judged.tests[3].detail.startswith(NOT_RUN)
    whole = dataclasses.replace(roomy, stop_on_failure=False)
    judged = UnitTestsVerifier().judge(make_task("python", *texts), program, whole)
    assert [test.verdict for test in judged.tests] == [Verdict.AC, Verdict.AC, Verdict.WA, Verdict.AC]


@pytest.mark.sandbox
def test_a_loop_runs_out_of_time(judge):
    limits = {"cpu_s": 0.3, "wall_s": 1}
    assert judge("python", "def f(s):\n    while True: pass", limits=limits).verdict is Verdict.TLE
    assert judge("c", "int f(const char *s) { for (volatile int x = 0;; x++); }", limits=limits).verdict is Verdict.TLE


@pytest.mark.sandbox
def test_promises_are_waited_for(judge):
    tests = "f().then((value) => { console.assert(value === 1) });"
    assert judge("javascript", "const f = async () => 1", tests).verdict is Verdict.AC
    assert judge("javascript", "const f = async () => 2", tests).verdict is not Verdict.AC
    swallowed = "process.on('unhandledRejection', () => {}); const f = async () => 2"
    assert judge("javascript", swallowed, tests).verdict is not Verdict.AC


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ({"tests": []}, "at least one test"),
        ({"tests": ["f(1)"]}, "asserts nothing"),
        ({"tests": ["assert True"]}, "asserts nothing"),
        ({"tests": ["assert f("]}, "not Python"),
        ({"tests": ["assert f()"], "test": "assert f()"}, "either `tests`"),
        ({}, "either `tests`"),
        ({"tests": [1]}, "test 0 is a int"),
        ({"tests": ["f()"], "language": "javascript"}, "nothing that could fail"),
        ({"tests": ["assert f()"], "language": "fortran"}, "no harness for tests in fortran"),
        ({"tests": ["assert f()"], "expected": 1}, "unknown keys 'expected'"),
    ],
)
def test_a_record_that_cannot_be_judged_by_is_refused(answer, complaint):
    task = make_task("python", "assert f()")
    with pytest.raises(DataError, match=complaint):
        read(dataclasses.replace(task, answer={"language": "python", **answer}))


def test_macros_are_found_however_they_are_written():
    text = "#define A 1\n  # define B(x) x\n%:define C\n#/* */define D\n#def\\\nine E\n// #define F\nint define;"
    assert macros(text) == list("ABCDEF")


@pytest.mark.parametrize("language", sorted(HARNESSES))
def test_every_harness_fills_all_its_places(language):
    tests = {
        "go": "func TestF(t *testing.T) { t.Error() }",
        "java": TESTS["java"],
        "csharp": "class T { public static void Main(string[] a) { Debug.Assert(true); } }",
        "scala": "object T { def main(a: Array[String]) = { assert(true) } }",
    }.get(language, TESTS.get(language, "assert f(1) == 2"))
    unit = assemble(find(language), HARNESSES[language], "", "x", tests)
    other = assemble(find(language), HARNESSES[language], "", "x", tests)
    text = "".join(unit.files.values())
    assert not [name for name in ("@ID@", "@SECRET@", "@OWNER@", "@GIVEN@", "@CALLS@", "@FIRST@") if name in text]
    assert unit.head != other.head
    assert not unit.passed(f"{unit.head} 9 {unit.tail}\nand more\n".encode())
    assert unit.passed(f"x\n{unit.head} 9 {unit.tail}\n".encode())
    assert not unit.passed(f"x\n{other.head} 9 {other.tail}\n".encode())


JAVA_MAIN = "public static void main(String[] a) { assert(Problem.f(1) == 2); } }"


@pytest.mark.parametrize(
    ("answer", "tests", "owner"),
    [
        ("class Problem { static int f(int x) { return x + 1; }", f"    {JAVA_MAIN}", "Problem"),
        ("class Problem { static class Node { } static int f(int x) { return x + 1; }", JAVA_MAIN, "Problem"),
        (
            "class Problem { char c = '{'; String s = \"}{\"; // }\n static int f(int x) { return 2; }",
            JAVA_MAIN,
            "Problem",
        ),
        ("class Problem { static void main(String[] a) { } }", f"class Tests {{ {JAVA_MAIN}", "Tests"),
        ("class Problem { } class Main { }", f"class Outer {{ static class In {{ {JAVA_MAIN} }}", "Outer.In"),
        (
            'class Problem { String s = """\n  a \\""" " } class Other {\n  """; static int f(int x) { return 2; }',
            JAVA_MAIN,
            "Problem",
        ),
    ],
)
def test_the_main_that_runs_is_the_one_of_the_tests(answer: str, tests: str, owner: str):
    unit = assemble(find("java"), harness_of(find("java"), tests), "", answer, tests, name="7")
    assert f"\n        {owner}.unit_main_7(arguments);" in unit.files["Main.java"]
