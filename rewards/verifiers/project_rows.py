"""The table of test frameworks for the verifier "project": what is changed in a task's test files, and what must come
back, so that only tests that ran to their end count.

    exit      the status of the run, 0; for runners that start the answer as a process of its own
    unity     C: Unity's own counts, read by a `main` of ours
    bats      TAP, one test per box, with a token behind the test: see `project_bats`
    unittest  Python: `rewards.verifiers.unit_python`, with more files than one
    minitest  Ruby: the same as for "unit_tests", with more files than one

Texts of ours hold @ID@, a suffix of names no answer has seen, and @TOKEN@, the half of a run's token that stands in
them; the other half waits on standard input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from assay.errors import DataError
from rewards.verifiers import project_bats
from rewards.verifiers.harness_row import macros
from rewards.verifiers.harnesses import HARNESSES
from rewards.verifiers.project_unity import C_TEXTS, NEEDED

Texts = Mapping[str, str]  #: path -> text


class Secret(NamedTuple):
    """What is drawn for one judgement."""

    name: str  #: the suffix of our names
    head: str  #: of the token: stands in our text
    tail: str  #: is read from standard input


@dataclass(frozen=True, slots=True, kw_only=True)
class Framework:
    """How a kind of test report comes about."""

    language: str = ""  #: of the tests, where there is but one
    tests: str = ""  #: finds a test in a text of tests; nothing: they are not counted
    own: str = ""  #: the framework's own files among the given ones: none of them holds tests
    skips: str = ""  #: finds what keeps a test from running whatever the answer does
    comments: str = r"\A(?!)"  #: a test in one is none
    #: (given, paths of the tests, answer's paths, secret) -> the given files of each run
    parts: Callable[[Texts, Sequence[str], Sequence[str], Secret], list[Texts]] = lambda given, *_: [given]
    #: (given, paths of the tests) -> the tests' own words; with it the answer is made ready without them
    words: Callable[[Texts, Sequence[str]], frozenset[str]] | None = None
    #: (output, secret, tests) -> "" where all of them passed, or what did not
    passed: Callable[[bytes, Secret, int], str] = lambda *_: ""
    reads_token: bool = False  #: from standard input
    apart: bool = False  #: every test has a run of its own
    tool: str = ""  #: an absolute path
    install: str = ""
    start_cpu_s: float = 0.0  #: what it takes itself; added to the limit of a run
    processes: int = 0  #: at most so many where a task says nothing; 0: any
    beside: int = 0  #: processes of its own, added to the limit


def filled(text: str, secret: Secret) -> str:
    """One of our texts for a run."""
    return text.replace("@ID@", secret.name).replace("@TOKEN@", secret.head)


# --- Unity (C) ------------------------------------------------------------------------------------------------------

#: Before the tests, where no macro of the answer reaches. System calls are made directly, and the token is taken from
#: standard input before anything of the answer runs, as in `sandbox/unit_c.c`; no part of it stands in a file.
_UNITY_MAIN = r"""#include @UNITY@
int assay_tests_@ID@(@PARAMETERS@);
static char assay_token_@ID@[64];
static long assay_size_@ID@, assay_process_@ID@;
#if defined(__x86_64__)
enum { assay_read_@ID@ = 0, assay_write_@ID@ = 1, assay_close_@ID@ = 3, assay_open_@ID@ = 257, assay_pid_@ID@ = 39,
       assay_exit_@ID@ = 231 };
static long assay_call_@ID@(long number, long a, long b, long c)
{
    long result;
    register long r10 __asm__("r10") = 0;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
enum { assay_read_@ID@ = 63, assay_write_@ID@ = 64, assay_close_@ID@ = 57, assay_open_@ID@ = 56, assay_pid_@ID@ = 172,
       assay_exit_@ID@ = 94 };
static long assay_call_@ID@(long number, long a, long b, long c)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = 0;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
}
#else
#error "no system calls for this machine"
#endif
static void assay_take_@ID@(void)
{
    static const char nothing[] = "/dev/null";
    long got;
    while (assay_size_@ID@ < 64
           && (got = assay_call_@ID@(assay_read_@ID@, 0, (long)(assay_token_@ID@ + assay_size_@ID@),
                                     64 - assay_size_@ID@)) > 0)
        assay_size_@ID@ += got;
    assay_call_@ID@(assay_close_@ID@, 0, 0, 0);
    assay_call_@ID@(assay_open_@ID@, -100, (long)nothing, 0);
    assay_process_@ID@ = assay_call_@ID@(assay_pid_@ID@, 0, 0, 0);
}
static void (*const assay_first_@ID@)(void) __attribute__((section(".preinit_array"), used)) = assay_take_@ID@;
static void assay_say_@ID@(long value)
{
    char digits[24];
    long at = 24;
    do digits[--at] = (char)('0' + value % 10);
    while ((value /= 10) > 0 && at > 1);
    digits[--at] = ' ';
    assay_call_@ID@(assay_write_@ID@, 1, (long)(digits + at), 24 - at);
}
@DECLARED@
/* What Unity and tests call is the library's, which lies far from the program; what the answer defines does not. */
static void assay_library_@ID@(void)
{
    static const char said[] = "the answer defines a function of the C library that its tests need\n";
    const long here = (long)assay_take_@ID@, near = 1L << 32;
    const long needed[] = {@NEEDED@here + 2 * near};
    unsigned long each;
    for (each = 0; each < sizeof needed / sizeof *needed; each++)
        if (needed[each] - here < near && here - needed[each] < near) {
            assay_call_@ID@(assay_write_@ID@, 2, (long)said, sizeof said - 1);
            for (;;) assay_call_@ID@(assay_exit_@ID@, 1, 0, 0);
        }
}
int main(int assay_count, char **assay_values)
{
    int status;
    assay_library_@ID@();
    (void)assay_count;
    (void)assay_values;
    status = assay_tests_@ID@(@ARGUMENTS@);
    if (assay_call_@ID@(assay_pid_@ID@, 0, 0, 0) == assay_process_@ID@ && assay_size_@ID@ > 1) {
        assay_call_@ID@(assay_write_@ID@, 1, (long)"\n", 1);
        assay_call_@ID@(assay_write_@ID@, 1, (long)assay_token_@ID@, assay_size_@ID@);
        assay_say_@ID@((long)Unity.NumberOfTests);
        assay_say_@ID@((long)Unity.TestFailures);
        assay_say_@ID@((long)Unity.TestIgnores);
        assay_call_@ID@(assay_write_@ID@, 1, (long)"\n", 1);
    }
    for (;;) assay_call_@ID@(assay_exit_@ID@, status != 0, 0, 0);
}
#line 1 "@PATH@"
"""
_MAIN = re.compile(
    r"\bint\s+main\s*\(\s*(void|int\s+\w+\s*,\s*(?:const\s+)?char\s*\*\s*(?:\*\s*\w+|\w+\s*\[\s*\])|)\s*\)"
)
_INCLUDE = re.compile(r"^[ \t]*(?:#|%:)[ \t]*(?:include(?:_next)?|import)\b[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_UNITY_HEADER = re.compile(r'[<"](?:[\w./-]*/)?unity\.h[>"]')
_UNITY_NAME = re.compile(r"\bUnity(?=\w*\b)")
_C_WORDS = frozenset(
    (
        *("auto", "bool", "break", "case", "char", "const", "continue", "default", "do"),
        *("double", "else", "enum", "extern", "false", "float", "for", "goto", "if"),
        *("inline", "int", "long", "main", "register", "restrict", "return", "short", "signed"),
        *("sizeof", "static", "struct", "switch", "true", "typedef", "typeof", "union", "unsigned"),
        *("void", "volatile", "while", "NULL", "defined", "_Bool", "__attribute__"),
    )
)
_C_COMMENTS = r"//[^\n]*|/\*[\s\S]*?\*/"


def _unity_parts(given: Texts, tests: Sequence[str], files: Sequence[str], secret: Secret) -> list[Texts]:
    """The one run: a `main` of ours in front of the tests' own, and names of Unity that no answer has seen."""
    changed, name = dict(given), secret.name
    having = [each for each in tests if _MAIN.search(given[each])]
    if len(having) != 1:
        raise DataError(f"{len(having)} of the files with tests have an `int main(void)`; there must be one")
    (path,) = having
    header = _UNITY_HEADER.search(given[path])
    if header is None:
        raise DataError(f"{path} does not include unity.h")
    parameters = _MAIN.search(given[path])[1] or "void"  # type: ignore[index]
    declared = [f'extern void assay_{each}_{name}(void) __asm__("{each}");' for each in NEEDED]
    front = (
        filled(_UNITY_MAIN, secret)
        .replace("@DECLARED@", "\n".join(declared))
        .replace("@NEEDED@", "".join(f"(long)assay_{each}_{name}, " for each in NEEDED))
        .replace("@UNITY@", header[0])
        .replace("@PARAMETERS@", parameters)
        .replace("@ARGUMENTS@", "" if parameters == "void" else "assay_count, assay_values")
        .replace("@PATH@", path)
    )
    changed[path] = front + _MAIN.sub(lambda found: f"int assay_tests_{name}({found[1] or 'void'})", given[path])
    return [{each: _UNITY_NAME.sub(f"assay_{name}_", text) if _is_c(each) else text for each, text in changed.items()}]


def _is_c(path: str) -> bool:
    return path.endswith((".c", ".h"))


def _unity_words(given: Texts, tests: Sequence[str]) -> frozenset[str]:
    """The words that tests and Unity use for their own ends, which no header of an answer may define."""
    words = set(_C_WORDS)
    for path, text in given.items():
        if path in tests:
            # what they call or define; but for macros of their own, which come after the headers and so prevail
            later = text[max((found.end() for found in _INCLUDE.finditer(text)), default=0) :]
            words |= set(re.findall(r"\b([A-Za-z_]\w*)\s*\(", text)) - set(macros(later))
        elif _is_c(path):
            words |= set(re.findall(r"\b[A-Za-z_]\w*\b", re.sub(f"{C_TEXTS}|{_C_COMMENTS}", " ", text)))
    return frozenset(words)


def _unity_passed(output: bytes, secret: Secret, tests: int) -> str:
    said = re.search(rf"\n{secret.tail} (\d+) (\d+) (\d+)\n\Z".encode(), output)
    if said is None:
        return "left before its tests had run to their end"
    ran, failed, ignored = map(int, said.groups())
    if failed or ignored or ran < tests:
        first = re.search(rb"[^\n]*:FAIL[^\n]*", output)
        shown = f": {first[0][-300:].decode('utf-8', 'replace')}" if first else ""
        return f"{failed} of {tests} tests failed, {ignored} ignored, {max(tests - ran, 0)} not run{shown}"
    return ""


UNITY = Framework(
    language="c",
    tests=r"\bRUN_TEST\s*\([^;{}]*\)\s*;",
    own=r"(?:.*/)?unity\w*\.[ch]",
    skips=r"\bTEST_IGNORE(?:_MESSAGE)?\s*\(",
    comments=_C_COMMENTS,
    parts=_unity_parts,
    words=_unity_words,
    passed=_unity_passed,
    reads_token=True,
    processes=1,
)

# --- bats (Bash) ----------------------------------------------------------------------------------------------------


def _bats_parts(given: Texts, tests: Sequence[str], files: Sequence[str], secret: Secret) -> list[Texts]:
    """A run for every test, see `project_bats`."""
    return list(project_bats.parts(given, tests, files, secret.name, secret.head))


def _bats_passed(output: bytes, secret: Secret, tests: int) -> str:
    lines = output.decode("utf-8", "replace").splitlines()
    plans = [line for line in lines if re.match(r"\d+\.\.\d+", line)]
    results = [line for line in lines if re.match(r"(?:not )?ok\b", line)]
    if plans != [f"1..{tests}"] or len(results) != tests or not all(line.startswith("ok 1 ") for line in results):
        shown = " ".join(
            line for line in lines if not re.match(r"\d+\.\.\d+|# +(?:\(?from |in test file |`' failed)", line)
        )
        return re.sub(r" *\(from [^)]*\)", "", shown)[:300] or "no report of the test"
    if re.search(r" # skip\b", results[0], re.IGNORECASE):
        return f"not run: {results[0]}"
    return "" if lines.count(f"# {secret.head}") == 1 else "left before its test had run to its end"


BATS = Framework(
    language="bash",
    tests=project_bats.TEST,
    parts=_bats_parts,
    passed=_bats_passed,
    apart=True,
    tool="/usr/bin/bats",
    install="apt-get install bats",
    start_cpu_s=1.0,
    beside=16,
)

# --- minitest (Ruby) ------------------------------------------------------------------------------------------------

_MINITEST = HARNESSES["ruby"].instead[1]  # type: ignore[index]


def _minitest_parts(given: Texts, tests: Sequence[str], files: Sequence[str], secret: Secret) -> list[Texts]:
    """The one run: what stands around a text of tests for "unit_tests" stands around the file of tests."""
    (path,) = tests
    text = re.sub(r"^[ \t]*require ['\"]minitest/(?:autorun|pride)['\"][ \t]*$", "", given[path], flags=re.MULTILINE)
    load = "\n".join(f"require './{file}'" for file in files if file.endswith(".rb"))
    before = _MINITEST.before.replace("load './@GIVEN@'", load)
    after = _MINITEST.after.replace("@SECRET@", "@TOKEN@").replace("+= result.assertions", "+= 1")
    return [{**given, path: f"{filled(before, secret)}{text}{filled(after, secret)}"}]


def _minitest_passed(output: bytes, secret: Secret, tests: int) -> str:
    said = re.search(rf"\n{secret.head} (\d+) {secret.tail}\Z".encode(), output)
    if said is None:
        return "left before its tests had run to their end"
    return "" if int(said[1]) >= tests else f"{tests - int(said[1])} of {tests} tests not run"


MINITEST = Framework(
    language="ruby",
    tests=r"^[ \t]*def[ \t]+test_\w+",
    skips=r"^[ \t]*skip\b",
    comments=r"#[^\n]*",
    parts=_minitest_parts,
    passed=_minitest_passed,
    reads_token=True,
)

#: Judged by `rewards.verifiers.unit_python`; here stands what the record is checked by.
UNITTEST = Framework(
    language="python", tests=r"^[ \t]+def[ \t]+test\w*", skips=r"@(?:unittest\.)?skip\b(?!\w)", comments=r"#[^\n]*"
)

FRAMEWORKS: dict[str, Framework] = {
    "exit": Framework(),
    "unity": UNITY,
    "bats": BATS,
    "unittest": UNITTEST,
    "minitest": MINITEST,
}
