"""Verifier "unit_tests": test texts that use a package no box has, as those of HumanEvalPack and HumanEval-X do."""

from __future__ import annotations

# ruff: noqa: E501 -- programs, each on a line
from typing import Any

import pytest

from assay.errors import DataError
from assay.types import Message, Task, Verdict
from rewards.check_tasks import check_tasks
from rewards.config import RewardsConfig, SandboxConfig
from rewards.languages import LANGUAGES
from rewards.scorer import Scorer
from rewards.verifiers.unit_tests import UnitTestsVerifier
from rollouts.tasks import FORMATS

GO_SETUP = 'package main\n\nimport (\n    "fmt"\n    "testing"\n    "github.com/stretchr/testify/assert"\n)\n'
RUST_DECLARATION = (
    "\nfn main(){\n}\n\nuse std::{slice::Iter, cmp::{max, self}, collections::{HashSet, HashMap}};\n"
    "use rand::Rng;\nuse regex::Regex;\nuse md5;\nuse std::any::{Any, TypeId};\nfn twice(x: i32) -> i32 {\n"
)
ROWS: dict[str, dict[str, Any]] = {
    "rust": {
        "task_id": "Rust/900",
        "declaration": RUST_DECLARATION,
        "canonical_solution": "    let seen = HashSet::from([x]);\n    max(2 * x, seen.len() as i32)\n}\n",
        "buggy_solution": "    x\n}\n",
        "test": "#[cfg(test)]\nmod tests {\n    use super::*;\n\n    #[test]\n    fn test_twice() {\n"
        "        assert_eq!(twice(2), 4);\n        assert!(twice(3) == 6);\n    }\n}\n",
    },
    "rust at top": {
        "task_id": "Rust/901",
        "declaration": "fn twice(x: i32) -> i32 {\n",
        "canonical_solution": "    2 * x\n}\n",
        "buggy_solution": "    x\n}\n",
        "test": "#[test]\nfn test_two() {\n    assert_eq!(twice(2), 4);\n}\n\n#[test]\nfn test_three() {\n"
        "    assert!(twice(3) == 6);\n}\n",
    },
    "go": {
        "task_id": "Go/900",
        "import": 'import (\n    "math"\n)\n',
        "test_setup": GO_SETUP,
        "declaration": "\nfunc Twice(x float64) float64 {\n",
        "canonical_solution": "    return math.Abs(2 * x)\n}\n\n",
        "buggy_solution": "    return math.Abs(x)\n}\n\n",
        "test": "func TestTwice(t *testing.T) {\n    assert := assert.New(t)\n    assert.Equal(4.0, Twice(2))\n"
        '    assert.Equal("6", fmt.Sprint(Twice(-3)))\n}\n',
    },
    "cpp": {
        "task_id": "CPP/900",
        "declaration": "#include<stdio.h>\n#include<vector>\nusing namespace std;\n#include<algorithm>\n"
        "vector<int> twice(vector<int> x){\n",
        "canonical_solution": "    for (auto &i : x) i *= 2;\n    return x;\n}\n",
        "buggy_solution": "    return x;\n}\n",
        "test": "#undef NDEBUG\n#include<assert.h>\nbool issame(vector<int> a,vector<int> b){\n"
        "    if (a.size()!=b.size()) return false;\n    for (int i=0;i<a.size();i++)\n    if (a[i]!=b[i])\n"
        "    return false;\n    return true;\n}\nint main(){\n    assert (issame(twice({1,2}) , {2,4}));\n"
        "    assert (issame(twice({}) , {}));\n}\n",
    },
}


@pytest.fixture(scope="module")
def scorer(sandbox) -> Scorer:
    return Scorer(RewardsConfig(sandbox=SandboxConfig(tier="local", cpu_s=4, wall_s=20)), sandbox)


def of_humanevalpack(name: str, scorer: Scorer) -> Any:
    language = name.partition(" ")[0]
    missing = [tool for tool in LANGUAGES[language].tools if not scorer.sandbox.has(tool)]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    return FORMATS["humanevalpack"]({"entry_point": "twice", "instruction": "Write twice.", **ROWS[name]})


@pytest.mark.sandbox
@pytest.mark.parametrize("name", list(ROWS))
def test_humanevalpack_in_compiled_languages(name: str, scorer):
    task, row = of_humanevalpack(name, scorer), ROWS[name]
    good, bad = (
        f"```{task.answer['language']}\n{row['declaration']}{row[key]}```"
        for key in ("canonical_solution", "buggy_solution")
    )
    for text, verdict in ((task.reference, Verdict.AC), (good, Verdict.AC), (bad, Verdict.WA)):
        found = scorer.score_text(task, text)
        assert found.verdict is verdict, found.detail


@pytest.mark.sandbox
def test_an_answer_in_go_need_not_use_the_imports_it_is_given(scorer):
    task = of_humanevalpack("go", scorer)
    for imports in ("", 'import "math" // math.Abs\n'):
        program = f"package main\n{imports}func Twice(x float64) float64 {{\nif x < 0 {{ x = -x }}\nreturn 2 * x }}"
        found = scorer.score_text(task, f"```go\n{program}\n```")
        assert found.verdict is Verdict.AC, found.detail
    text = '```go\npackage main\nimport "os"\nfunc Twice(x float64) float64 { return 2 * x }\n```'
    assert scorer.score_text(task, text).verdict is Verdict.CE


GO_TWICE = "func Twice(x float64) float64 { if x < 0 { x = -x }; return 2 * x }"


@pytest.mark.sandbox
@pytest.mark.parametrize(
    "program",
    [
        f'package main\nimport "errors"\nvar e = errors.New("no math. here")\n{GO_TWICE}',
        f"package main\nvar s, r = `math.`, '`'\n{GO_TWICE} // it`s",
        'package main\nimport "math"; import "fmt"\nfunc Twice(x float64) float64 { fmt.Sprint(); return math.Abs(2*x) }',
        f'package main; import "fmt"\nvar _ = fmt.Sprint\n{GO_TWICE}',
        f'package main\nimport (\n\t"fmt" // (not "os")\n\t. "strings" /* ) */\n)\nvar _, _ = fmt.Sprint, ToUpper\n{GO_TWICE}',
        f'// Package main\n/*\nimport "os"\n*/\npackage main\n{GO_TWICE}',
        f'package main\nvar s = `\nimport "os"\npackage main\n`\n{GO_TWICE}',
    ],
)
def test_imports_of_an_answer_in_go_are_those_outside_texts_and_comments(program: str, scorer):
    task = of_humanevalpack("go", scorer)
    found = scorer.score_text(task, f"```go\n{program}\n```")
    assert found.verdict is Verdict.AC, found.detail
    wrong = scorer.score_text(task, f"```go\n{program.replace('2 * x', '3 * x').replace('2*x', '3*x')}\n```")
    assert wrong.verdict is Verdict.WA, wrong.detail


@pytest.mark.sandbox
def test_an_answer_in_rust_may_write_the_crates_it_is_given_in_other_words(scorer):
    task = of_humanevalpack("rust", scorer)
    lines = "use rand::{self, Rng};\nuse rand::seq::*;\nuse ::regex::Regex as R;\nuse std::collections::HashMap;"
    found = scorer.score_text(task, f"```rust\n{lines}\nfn twice(x: i32) -> i32 {{ 2 * x }}\nfn main() {{}}\n```")
    assert found.verdict is Verdict.AC, found.detail


@pytest.mark.sandbox
def test_a_program_that_uses_a_crate_does_not_compile(scorer):
    task = of_humanevalpack("rust", scorer)
    used = "```rust\nuse rand::Rng;\nfn twice(x: i32) -> i32 { rand::thread_rng().gen_range(x..2 * x) }\n```"
    found = scorer.score_text(task, used)
    assert found.verdict is Verdict.CE and "rand" in found.detail


HOLDS = """assert.Equal([]int{1}, f([]int{1}))
assert.NotEqual([]int{}, f([]int(nil)))
assert.NotEqual(1, f(int64(1)))
assert.EqualValues(1, f(int64(1)), "with a message %d", 1)
assert.True(f(true).(bool))
assert.False(f(false).(bool))
assert.Nil(f(nil))
assert.Nil(f([]int(nil)))
assert.NotNil(f([]int{}))
assert.InDelta(0.3, f(0.1+0.2), 1e-9)
assert.InDelta(math.NaN(), f(math.NaN()), 1e-9)
assert.Len(f([]int{1, 2}), 2)
assert.Empty(f(""))
assert.Empty(f(0))
assert.NotEmpty(f("a"))
assert.Contains(f("banana"), "nan")
assert.Contains(f([]int{1, 2}), 2)
assert.Contains(f(map[string]int{"a": 1}), "a")
assert.NotContains(f([]int{1, 2}), 3)
assert.ElementsMatch([]int{1, 2, 2}, f([]int{2, 1, 2}))
assert.NoError(nil)
assert.Error(fmt.Errorf("no"))
assert.Panics(func() { panic("no") })""".splitlines()
FAILS = """assert.Equal([]int{1}, f([]int{2}))
assert.Equal([]int{}, f([]int(nil)))
assert.Equal(1, f(int64(1)))
assert.EqualValues(1, f("1"))
assert.True(f(false).(bool))
assert.Nil(f(0))
assert.NotNil(f(nil))
assert.InDelta(0.3, f(0.4), 0.05)
assert.InDelta(0.3, f(math.NaN()), 0.05)
assert.InDelta(0.3, f("0.3"), 0.05)
assert.Len(f([]int{1, 2}), 1)
assert.Len(f(3), 3)
assert.Empty(f("a"))
assert.NotEmpty(f([]int{}))
assert.Contains(f("banana"), "nab")
assert.Contains(f(3), 3)
assert.ElementsMatch([]int{1, 2, 2}, f([]int{2, 1, 1}))
assert.NoError(fmt.Errorf("no"))
assert.Error(nil)
assert.Panics(func() {})""".splitlines()
GO_ANY = "package main\nfunc f(x interface{}) interface{} { return x }"


def of_go(body: str, bench) -> Any:
    if not bench.sandbox.has(LANGUAGES["go"].tools[0]):
        pytest.skip("go is not installed")
    head = GO_SETUP.replace('"fmt"', '"fmt"\n    "math"')
    tests = f"{head}var _, _ = fmt.Sprint, math.Abs\nfunc TestF(t *testing.T) {{\n{body}\n}}\n"
    answer = {"language": "go", "tests": [tests], "limits": {"cpu_s": 4, "wall_s": 20}}
    task = Task(id="g", messages=(Message(role="user", content="f"),), verifier="unit_tests", answer=answer)
    return UnitTestsVerifier().judge(task, GO_ANY, bench)


@pytest.mark.sandbox
@pytest.mark.parametrize("form", ["assert := assert.New(t)\n{}", "{}"])
def test_assertions_of_testify_hold_where_they_should(form: str, bench):
    lines = HOLDS if "New" in form else [line.replace("(", "(t, ", 1) for line in HOLDS]
    found = of_go(form.format("\n".join(lines)), bench)
    assert found.verdict is Verdict.AC, found.detail


@pytest.mark.sandbox
def test_each_assertion_of_testify_fails_where_it_should(bench):
    case = "t.Run(`{line}`, func(t *testing.T) {{\nassert := assert.New(t)\n{line}\n}})"
    for lines in (FAILS[:7], FAILS[7:14], FAILS[14:]):  # the end of the output is looked at
        found = of_go("\n".join(case.format(line=line) for line in lines), bench)
        assert found.verdict is Verdict.WA
        assert found.tests[0].detail.count("--- FAIL: TestF/") == len(lines), found.tests[0].detail


@pytest.mark.parametrize(
    ("name", "old", "new", "called"),
    [
        ("go", "assert.Equal(4.0,", "assert.Eventually(4.0,", "assert.Eventually"),
        ("rust", "twice(2), 4", "twice(2), rand::thread_rng().gen_range(4..5)", "rand::thread_rng"),
    ],
)
def test_tests_that_call_what_no_box_has_are_refused(name: str, old: str, new: str, called: str):
    row = {**ROWS[name], "entry_point": "Twice", "instruction": "Write Twice."}
    task = FORMATS["humanevalpack"](row | {"test": row["test"].replace(old, new)})
    with pytest.raises(DataError, match=rf"calls {called}, of a package that no box has"):
        UnitTestsVerifier().check(task)


CASES = "import unittest\nclass T(unittest.TestCase):\n    def test_f(self):\n        {}self.assertEqual(f(1), 2)\n"


def python_task(tests: str, **rest: str) -> Task:
    asked = (Message(role="user", content="?"),)
    answer = {"language": "python", "tests": [tests], **rest}
    reference = "```python\ndef f(x): return x + 1\n```"
    return Task(id="p", messages=asked, verifier="unit_tests", answer=answer, reference=reference)


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("tests", "absent"),
    [
        (f"import assay_absent as pd\n{CASES.format('')}", "assay_absent"),
        (
            f"from assay_absent.data import load\nimport assay_gone, json\n{CASES.format('')}",
            "assay_absent, assay_gone",
        ),
        (CASES.format("from assay_absent import one; "), "assay_absent"),
        ("from assay_absent import f\nassert f(1) == 2", "assay_absent"),
    ],
)
def test_python_tests_that_import_what_no_box_has_are_refused(tests: str, absent: str, bench):
    task = python_task(tests)
    with pytest.raises(DataError, match=rf"task 'p', test 0: imports {absent}, which no box of this machine has"):
        UnitTestsVerifier().judge(task, "def f(x): return x + 1", bench)


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("tests", "rest"),
    [
        ("import xml.etree.ElementTree, unittest.mock\nassert f(1) == 2", {}),
        ("from answer import f as g\nassert g(1) == 2", {}),
        ("from own import f\nassert f(1) == 2", {"module": "own"}),
        ("try:\n    import assay_absent\nexcept ImportError:\n    pass\nassert f(1) == 2", {}),
        ("if f(1) != 2:\n    import assay_absent\nassert f(1) == 2", {}),
        ("import sys\nsys.modules['assay_absent'] = sys\nimport assay_absent\nassert f(1) == 2", {}),
    ],
)
def test_python_tests_that_can_run_do(tests: str, rest: dict[str, str], bench):
    judged = UnitTestsVerifier().judge(python_task(tests, **rest), "def f(x): return x + 1", bench)
    assert judged.verdict is Verdict.AC, judged


@pytest.mark.sandbox
def test_a_report_on_tasks_goes_on_behind_tests_that_import_what_no_box_has():
    scorer = Scorer(RewardsConfig(sandbox=SandboxConfig(tier="local")))
    try:
        report = check_tasks([python_task("import assay_absent\nassert f(1)"), python_task("assert f(1) == 2")], scorer)
    finally:
        scorer.close()
    assert report.checked == 1 and [found.cause for found in report.disagreements] == [
        "task 'p', test 0: imports assay_absent, which no box of this machine has"
    ]
