"""Verifier "project": several files, tests of real frameworks, and no way around them."""

from __future__ import annotations

# ruff: noqa: E501 -- many programs, each on a line
import dataclasses
import gzip
import json
import os
import time
from pathlib import Path

import pytest

from assay.errors import DataError, EnvironmentProblem
from assay.types import Task, Verdict
from rewards.check_tasks import check_tasks
from rewards.config import RewardsConfig, SandboxConfig
from rewards.extract import as_answer, files_of
from rewards.scorer import Scorer
from rewards.verifiers.asserts import COMPARED_INSIDE
from rewards.verifiers.project import read
from tests import projects
from tests.projects import judge, task

DATA = Path(os.environ.get("ASSAY_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
HEADER = "#ifndef F_H\n#define F_H\n#define WRONG -1\nint twice(int x);\nconst char *name(int x);\n#endif\n"
SOURCE = '#include "f.h"\nint twice(int x) { return x < 0 ? WRONG : 2 * x; }\nconst char *name(int x) { return x ? "some" : "none"; }\n'
BAD = SOURCE.replace("2 * x", "x")
UNITY_TESTS = """#include "test-framework/unity.h"
#include "f.h"
#include <string.h>

void setUp(void)
{
}

void tearDown(void)
{
}

static void test_twice(void)
{
   TEST_ASSERT_EQUAL_INT(14, twice(7));
   TEST_ASSERT_EQUAL_INT(WRONG, twice(-7));
}

static void test_name(void)
{
   TEST_ASSERT_EQUAL_STRING("some", name(1));
   TEST_ASSERT_EQUAL_STRING("none", name(0));
}

static void test_compared(void)
{
   TEST_ASSERT_TRUE(strcmp(name(1), name(0)) != 0);
}

int main(void)
{
   UNITY_BEGIN();
   RUN_TEST(test_twice);
   RUN_TEST(test_name);
   RUN_TEST(test_compared);
   return UNITY_END();
}
"""
FLAGS = ["-std=c99", "-g", "-Wall", "-Wextra", "-pedantic", "-Werror", "-Wmissing-declarations", "-DUNITY_SUPPORT_64"]
BATS_TESTS = """#!/usr/bin/env bats
load helper

@test "a word" {
    # [[ $BATS_RUN_SKIPPED == "true" ]] || skip
    run bash twice.sh ab
    assert_output "abab"
}

@test "nothing: (regular) [expressions] *" {
    [[ $BATS_RUN_SKIPPED == "true" ]] || skip
    run bash twice.sh ""
    assert_output ""
    [ "$status" -eq 0 ]
}

@test "two words" {
    [[ $BATS_RUN_SKIPPED == "true" ]] || skip
    run bash twice.sh "c d"
    assert_output "c dc d"
}
"""
BATS_HELPER = 'assert_output() {\n    [[ $output == "$1" ]] || { echo "got $output" >&2; return 1; }\n}\n'
BATS_SOURCED = """load helper
setup() { source twice.sh; }

@test "a word" {
    run twice ab
    assert_output "abab"
}

@test "another" {
    run twice c
    assert_output "cc"
}
"""


@pytest.fixture(scope="session")
def unity() -> Task:
    """Unity itself is that of the data folder."""
    folder = DATA / "exercism"
    if not (folder / "c.shared.json.gz").exists():
        pytest.skip(f"{folder} is not there; set ASSAY_DATA")
    row = json.loads(gzip.decompress((folder / "c.jsonl.gz").read_bytes()).split(b"\n")[0])
    shared = json.loads(gzip.decompress((folder / "c.shared.json.gz").read_bytes()))
    given = {path: shared[text["shared"]] for path, text in row["support"].items() if isinstance(text, dict)}
    build = ["/usr/bin/gcc", *FLAGS, "-o", "tests.out", "test-framework/unity.c", "f.c", "test_f.c", "-lm"]
    return task(
        {
            "language": "c", "files": ["f.c", "f.h"], "given": {**given, "test_f.c": UNITY_TESTS}, "build": build,
            "artefact": "tests.out", "run": ["./tests.out"], "report": "unity",
        }
    )  # fmt: skip


def bats(tests: str = BATS_TESTS) -> Task:
    return projects.bats(tests, BATS_HELPER)


def c(source: str = SOURCE, header: str = HEADER) -> dict[str, str]:
    return {"f.c": source, "f.h": header}


def test_an_honest_answer_in_c_passes_and_says_what_is_left_to_worry_about(unity, bench, nothing_left):
    judged = judge(unity, c(), bench)
    assert (judged.verdict, [test.detail for test in judged.tests]) == (Verdict.AC, [COMPARED_INSIDE])
    assert judged.isolation.startswith("local:")


@pytest.mark.parametrize(
    ("source", "verdict", "said"),
    [
        (SOURCE.replace("2 * x", "3 * x"), Verdict.WA, "1 of 3 tests failed"),
        (SOURCE.replace("2 * x", "3 * y"), Verdict.CE, "undeclared"),
        ("", Verdict.CE, "f.c"),
        (SOURCE.replace("2 * x", "*(int *)0"), Verdict.RE, "SIGSEGV"),
        ('#include "f.h"\nint twice(int x) { for (;;) x++; }\nconst char *name(int x) { return x ? "a" : ""; }\n', Verdict.TLE, "time"),
    ],
)  # fmt: skip
def test_c_answers_that_are_wrong(unity, bench, source, verdict, said):
    judged = judge(unity, c(source), bench)
    assert judged.verdict is verdict and said in judged.detail, judged


def test_the_files_given_cannot_be_replaced(unity, bench):
    tests = UNITY_TESTS.replace("14, twice(7)", "7, twice(7)")
    assert judge(unity, {"test_f.c": tests, **c(BAD)}, bench).verdict is Verdict.WA
    assert judge(unity, {"test_f.c": "int main(void) { return 0; }\n", **c()}, bench).verdict is Verdict.AC


def test_a_missing_file_is_named(unity, bench):
    judged = judge(unity, {"f.c": SOURCE}, bench)
    assert judged.verdict is Verdict.CE and "no block names f.h" in judged.detail


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"given": {"test_f.c": UNITY_TESTS.replace("{\n   TEST_ASSERT_TRUE", "{\n   TEST_IGNORE();\n   TEST_ASSERT_TRUE")}}, "leaves tests out"),
        ({"given": {"test_f.c": '#include "unity.h"\nint main(void) { return 0; }\n'}}, "no tests in"),
        ({"given": {"test_f.c": UNITY_TESTS, "f.h": HEADER}}, "stands for two things"),
        ({"given": {"../test_f.c": UNITY_TESTS}}, "cannot be called"),
        ({"given": {"test_f.c": UNITY_TESTS, "-o/f.c": ""}}, "cannot be called"),
        ({"given": {"test_f.c": UNITY_TESTS, "-x.c": ""}}, "cannot be called"),
        ({"tests": 0}, "at least one"),
        ({"report": "junit"}, "no report 'junit'"),
        ({"language": "bash"}, "is for tests in c"),
        ({"artefact": "f.c"}, "must be a plain name"),
        ({"files": []}, "at least one"),
        ({"run": []}, "at least one"),
        ({"build": ["/bin/sh", "-c", "make"]}, "calls gcc or clang itself"),
        ({"build": ["/usr/bin/gcc", "-o", "tests.out", "test_f.c"]}, "does not name f.c"),
    ],
)  # fmt: skip
def test_records_that_cannot_judge_are_refused(unity, change, complaint):
    with pytest.raises(DataError, match=complaint):
        read(dataclasses.replace(unity, answer={**unity.answer, **change}))


def test_a_test_that_is_not_reached_has_not_passed(unity, bench):
    given = unity.answer["given"]
    less = UNITY_TESTS.replace("   RUN_TEST(test_name);", "   if (twice(1) == 3) RUN_TEST(test_name);")
    later = UNITY_TESTS.replace(
        "   TEST_ASSERT_EQUAL_INT(14", "   if (twice(7)) UNITY_SKIP_EXECUTION = 1;\n   TEST_ASSERT_EQUAL_INT(14"
    )
    for tests in (less, later.replace("UNITY_SKIP_EXECUTION = 1", "Unity.TestIgnores++")):
        judged = judge(
            dataclasses.replace(unity, answer={**unity.answer, "given": {**given, "test_f.c": tests}}), c(), bench
        )
        assert judged.verdict is Verdict.WA, judged


# --- bats


TWICE = '#!/usr/bin/env bash\nprintf "%s%s\\n" "$1" "$1"\n'


def test_an_honest_script_passes_every_test_in_a_box_of_its_own(bench, nothing_left):
    judged = judge(bats(), TWICE, bench)
    assert judged.verdict is Verdict.AC, judged
    assert [test.detail for test in judged.tests] == [COMPARED_INSIDE] * 3


_OK = 'for i in 1 2 3; do echo "ok $i a word"; echo "ok $i a word" >&3; done 2>/dev/null\n'
SCRIPTS = {
    "wrong": "echo no\n",
    "nothing": "",
    "exit": "exit 0\n",
    "a forged report": _OK + "exit 0\n",
    "a forged report, and its tests killed": _OK + "kill -9 $PPID $(ps -o ppid= -p $PPID) 2>/dev/null; exit 0\n",
    "everything killed": _OK + "kill -9 -1\n",
    "reads the tests": "grep -h -A1 \"run bash twice.sh .*$1\" ./*.bats /tmp/bats-run-*/*.src /tmp/bats-run-*/*/*.src 2>/dev/null | sed -n 's/.*assert_output \"\\(.*\\)\"/\\1/p' | head -1\n",
    "writes the helper": "echo 'assert_output() { :; }' > helper.bash; exit 0\n",
    "writes the tests": "for f in ./*.bats /tmp/bats-run-*/*; do echo 'test_a_word() { :; }' > $f; done 2>/dev/null; exit 0\n",
    "syntax": "if then\n",
}  # fmt: skip


@pytest.mark.parametrize("how", SCRIPTS)
def test_no_script_passes_by_anything_but_its_output(bench, how):
    judged = judge(bats(), SCRIPTS[how] or "# nothing", bench)
    assert judged.verdict not in (Verdict.AC, Verdict.INFRA), judged
    assert len(judged.tests) == 3


def test_a_script_that_does_not_end_is_out_of_time(bench):
    assert judge(bats(), "while :; do :; done\n", bench).verdict is Verdict.TLE


SOURCED = {
    "wrong": 'twice() { echo "$1"; }',
    "exit": "exit 0",
    "return": "return 0",
    "another assertion": 'assert_output() { :; }\ntwice() { echo "$1"; }',
    "another run": 'run() { output=abab; }\ntwice() { echo "$1"; }',
    "skips": 'skip "not today"',
    "skips later": "twice() { :; }\nBATS_TEST_SKIPPED=1\nBATS_TEST_COMPLETED=1\nexit 0",
    "says it is done": "BATS_TEST_COMPLETED=1\nexit 0",
    "a forged report": 'echo "ok 1 $BATS_TEST_DESCRIPTION" >&3\ntrap - EXIT ERR DEBUG\nexit 0',
    "another end": 'teardown() { :; }\nbats_exit_trap() { echo "ok 1 $BATS_TEST_DESCRIPTION" >&3; exit 0; }\nexit 0',
    "an exit of its own": 'exit() { BATS_TEST_COMPLETED=1; builtin exit 0; }\ntwice() { echo "$1"; }',
    "an end at the first command": "trap 'BATS_TEST_COMPLETED=1; exit 0' DEBUG",
    "no errors": 'set +e\ntrap - ERR\ntwice() { echo "$1"; }',
    "the tests' own file": 'twice() { sed -n "s/.*assert_output \\"\\(.*\\)\\"/\\1/p" "$BATS_TEST_FILENAME" | head -1; }',
}  # fmt: skip


def test_a_script_that_its_tests_source_passes(bench):
    assert judge(bats(BATS_SOURCED), 'twice() { echo "$1$1"; }', bench).verdict is Verdict.AC


@pytest.mark.parametrize("how", SOURCED)
def test_no_script_that_is_sourced_stands_in_for_its_tests(bench, how):
    judged = judge(bats(BATS_SOURCED), SOURCED[how], bench)
    assert judged.verdict not in (Verdict.AC, Verdict.INFRA), judged


def test_a_test_that_is_skipped_has_not_run(bench):
    given = bats()
    run = [part for part in given.answer["run"] if not part.startswith("BATS_")]
    judged = judge(dataclasses.replace(given, answer={**given.answer, "run": run}), TWICE, bench)
    assert judged.verdict is Verdict.WA and "not run" in judged.detail
    with pytest.raises(DataError, match="no tests"):
        read(dataclasses.replace(given, answer={**given.answer, "given": {"twice.bats": "load helper\n"}}))


def test_a_framework_that_is_missing_says_what_to_install(bench, sandbox):
    class Without:
        def __getattr__(self, name):
            return getattr(sandbox, name)

        def has(self, tool: str) -> bool:
            return tool != "/usr/bin/bats"

    with pytest.raises(EnvironmentProblem, match="apt-get install bats"):
        judge(bats(), TWICE, dataclasses.replace(bench, sandbox=Without()))


# --- Python and Ruby


PYTHON = {
    "language": "python", "files": ["shop/cart.py", "shop/__init__.py"], "report": "unittest",
    "given": {
        "data.txt": "7",
        "prices.py": "def price(name):\n    with open('data.txt') as file:\n        return int(file.read())\n",
        "test_cart.py": "import unittest\nfrom prices import price\nfrom shop.cart import Cart\nfrom shop import total\n\nclass CartTest(unittest.TestCase):\n    def test_cart(self):\n        cart = Cart()\n        cart.add(price('tea'))\n        self.assertEqual(cart.items, [7])\n\n    def test_total(self):\n        self.assertEqual(total([1, 2]), 3)\n",
    },
}  # fmt: skip
CART = "class Cart:\n    def __init__(self):\n        self.items = []\n    def add(self, item):\n        self.items.append(item)\n"
TOTAL = "def total(items):\n    return sum(items)\n"


@pytest.mark.parametrize(
    ("cart", "total", "verdict"),
    [
        (CART, TOTAL, Verdict.AC),
        (CART, TOTAL.replace("sum", "len"), Verdict.WA),
        (CART, "def total(items)\n", None),
        ("import os\nos._exit(0)\n", TOTAL, None),
        ("import sys\nsys.exit(0)\n", TOTAL, None),
        ("import unittest\nraise unittest.SkipTest('no')\n", TOTAL, None),
        (CART, "import unittest\ndef total(items):\n    raise unittest.SkipTest('no')\n", Verdict.WA),
        (CART, "class Same:\n    def __eq__(self, other): return True\ndef total(items): return Same()\n", Verdict.WA),
        (CART, "open('test_cart.py', 'w').close()\nopen('data.txt', 'w').write('8')\nopen('prices.py', 'w').write('def price(n): return 7')\ndef total(items): return 0\n", Verdict.WA),
        (CART, "def total(items):\n    while 1: pass\n", Verdict.TLE),
    ],
)  # fmt: skip
def test_several_files_of_python(bench, cart, total, verdict):
    judged = judge(task(PYTHON), {"shop/cart.py": cart, "shop/__init__.py": total}, bench)
    assert judged.verdict is verdict if verdict else judged.verdict not in (Verdict.AC, Verdict.INFRA), judged


def test_several_files_of_tests_in_python(bench):
    more = "import unittest\nfrom shop import total\n\nclass Empty(unittest.TestCase):\n    def test_none(self):\n        self.assertEqual(total([]), 0)\n"
    given = task({**PYTHON, "given": {**PYTHON["given"], "test_empty.py": more}})
    every = dataclasses.replace(bench, stop_on_failure=False)
    for total, passed in ((TOTAL, [True, True]), (TOTAL.replace("sum(items)", "3"), [True, False])):
        judged = judge(given, {"shop/cart.py": CART, "shop/__init__.py": total}, every)
        assert [test.verdict is Verdict.AC for test in judged.tests] == passed


RUBY = {
    "language": "ruby", "files": ["twice.rb"], "report": "minitest", "run": ["/usr/bin/ruby", "twice_test.rb"],
    "given": {
        "song.txt": "la la\n",
        "twice_test.rb": "require 'minitest/autorun'\nrequire_relative 'twice'\n\nclass TwiceTest < Minitest::Test\n  def test_song\n    assert_equal IO.read('song.txt'), twice('la')\n  end\n\n  def test_other\n    assert_equal \"b b\\n\", twice('b')\n  end\nend\n",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("program", "verdict"),
    [
        ('def twice(x)\n  "#{x} #{x}\\n"\nend\n', Verdict.AC),
        ("def twice(x)\n  x\nend\n", Verdict.WA),
        ("exit!(0)\n", None),
        ("exit(0)\n", None),
        ("puts '2 runs, 2 assertions, 0 failures, 0 errors, 0 skips'\nexit!(0)\n", None),
        ("def twice(x)\n  raise Minitest::Skip\nend\n", None),
        ("module Minitest\n  module Assertions\n    def assert_equal(*); end\n  end\nend\ndef twice(x) = x\n", None),
        ("class Any\n  def ==(o) = true\nend\nFile.write('twice_test.rb', '')\ndef twice(x) = x\n", None),
    ],
)  # fmt: skip
def test_ruby_with_a_file_beside(bench, program, verdict):
    roomy = dataclasses.replace(bench, limits=dataclasses.replace(bench.limits, cpu_s=3.0, wall_s=10.0))
    judged = judge(task(RUBY), program, roomy)
    assert judged.verdict is verdict if verdict else judged.verdict not in (Verdict.AC, Verdict.INFRA), judged


# --- status alone


def runner(text: str) -> Task:
    run = ["{python}", "run.py"]
    return task({"language": "python", "files": ["add.py", "mul.py"], "given": {"run.py": text}, "run": run, "report": "exit"})  # fmt: skip


APART = "import subprocess, sys\nfor path, wanted in (('add.py', b'5'), ('mul.py', b'6')):\n    out = subprocess.run([sys.executable, path, '2', '3'], capture_output=True).stdout.strip()\n    assert out == wanted, out\n"


def test_a_runner_that_starts_the_answer_as_a_process_of_its_own(bench):
    roomy = dataclasses.replace(bench, limits=dataclasses.replace(bench.limits, cpu_s=3.0, wall_s=10.0))
    right = {"add.py": "import sys\nprint(int(sys.argv[1]) + int(sys.argv[2]))\n", "mul.py": "print(6)\n"}
    assert judge(runner(APART), right, roomy).verdict is Verdict.AC
    for wrong in (
        "print(7)\n",
        "import os\nos._exit(0)\n",
        "print('OK')\n",
        "import os, signal\nos.kill(os.getppid(), 9)\n",
    ):
        assert judge(runner(APART), {**right, "mul.py": wrong}, roomy).verdict in (Verdict.WA, Verdict.RE)


def test_a_status_that_the_answer_could_decide_is_refused_as_data(bench):
    with pytest.raises(DataError, match="only leaves with status 0 passes"):
        judge(
            runner("import sys\nsys.path.insert(0, '.')\nimport add, mul\nassert add.f() == mul.f()\n"),
            {"add.py": "x", "mul.py": "y"},
            bench,
        )
    with pytest.raises(DataError, match="would believe the answer itself"):
        read(
            task(
                {
                    "language": "python",
                    "files": ["a.py"],
                    "given": {"b.py": ""},
                    "run": ["{python}", "a.py"],
                    "report": "exit",
                }
            )
        )


# --- blocks and their names


@pytest.mark.parametrize(
    "text",
    [
        "```c:f.h\nH\n```\n```c:src/f.c\nC\n```",
        "```c title=\"f.h\"\nH\n```\n```src/f.c\nC\n```",
        "**f.h**\n```c\nH\n```\n\n### `src/f.c`:\n\n```c\nC\n```",
        "In `f.h`:\n```\nH\n```\nand then `f.c`\n```\nC\n```",
        "1. f.h\n   ```c\n   H\n   ```\n2. src/f.c\n   ```c\n   C\n   ```",
        "```c:f.h\nold\n```\n```c:./f.h\nH\n```\n~~~~c src/f.c\nC\n~~~~",
    ],
)  # fmt: skip
def test_blocks_name_their_files(text):
    assert files_of(text, ["f.h", "src/f.c"]) == {"f.h": "H\n", "src/f.c": "C\n"}


def test_a_first_comment_names_a_file_and_an_include_does_not():
    text = 'Now:\n\n\n```c\n// f.h\nint f;\n```\nand\n```c\n#include "f.h"\nint g;\n```\n```c\n/* src/f.c */\n#include "f.h"\n```'
    assert files_of(text, ["f.h", "src/f.c"]) == {
        "f.h": "// f.h\nint f;\n",
        "src/f.c": '/* src/f.c */\n#include "f.h"\n',
    }
    assert files_of("f.h and src/f.c\n```c\nx\n```", ["f.h", "src/f.c"]) == {}
    files = {"f.h": "```\na\n````\n", "src/f.c": "~~~\n"}
    assert files_of(as_answer(files), list(files)) == files


@pytest.mark.parametrize("label", ["bash", "sh", "console", "diff"])
def test_how_a_file_is_compiled_is_not_the_file(label):
    answer = as_answer({"f.h": "H\n", "src/f.c": "C\n"})
    behind = f"\n\nTo compile `src/f.c` on its own:\n\n```{label}\ngcc -c src/f.c\n```\n"
    assert files_of(answer + behind, ["f.h", "src/f.c"]) == {"f.h": "H\n", "src/f.c": "C\n"}
    assert files_of(behind, ["f.h", "src/f.c"]) == {"src/f.c": "gcc -c src/f.c\n"}  # a label may be wrong
    script = as_answer({"run.sh": "one\n"}) + behind.replace("src/f.c", "run.sh")
    assert files_of(script, ["run.sh"]) == {"run.sh": "one\n" if label == "diff" else "gcc -c run.sh\n"}


def test_a_line_of_fences_is_read_in_linear_time():
    text = ("`" * 50_000 + "x```" + "y" * 50_000 + "\n") * 3
    started = time.process_time()
    assert files_of(text, ["f.h", "src/f.c"]) == {}
    assert time.process_time() - started < 2  # a fence whose length was tried again and again took 12 s


def test_tasks_of_several_files_are_checked_like_any_other(sandbox, unity):
    scorer = Scorer(RewardsConfig(sandbox=SandboxConfig(tier="local")), sandbox)
    good = dataclasses.replace(unity, reference=as_answer(c()))
    assert check_tasks([good], scorer).ok
    assert not check_tasks([dataclasses.replace(unity, id="q", reference=as_answer(c(BAD)))], scorer).ok


def test_a_scorer_takes_several_files(sandbox, unity):
    scorer = Scorer(RewardsConfig(sandbox=SandboxConfig(tier="local")), sandbox)
    assert (
        scorer.score_text(unity, f"First `f.h`:\n```c\n{HEADER}```\nThen\n```c:f.c\n{SOURCE}```\nDone.").reward == 1.0
    )
    refused = scorer.score_text(unity, f"```c\n{SOURCE}```")
    assert (refused.verdict, refused.reward) == (Verdict.CE, 0.0) and "f.c, f.h" in refused.detail
