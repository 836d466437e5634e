"""Rows of sets of values, of contests and of unittest files as tasks: tiny rows in each set's form."""

from __future__ import annotations

import ast
import base64
import json
import os
import pickle
import zlib
from dataclasses import replace
from typing import Any

import pytest

from assay.errors import DataError
from assay.types import Verdict
from rewards.config import RewardsConfig, SandboxConfig
from rewards.reward_check import as_group
from rewards.scorer import Scorer, check_answers
from rewards.verifiers.asserts import COMPARED_INSIDE
from rollouts.evalplus_tests import assertions_of
from rollouts.tasks import FORMATS

SUMS = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
ADD = "a, b = map(int, input().split())\nprint(a + b)"
STARTER = "class Solution:\n    def total(self, xs: List[int], y: int) -> int:\n        "
TOTAL = "class Solution:\n    def total(self, xs: List[int], y: int) -> int:\n        return sum(xs) + y"


def packed(value: Any) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def test_word_problems_and_competition_problems_are_answered_by_their_own_solutions(sandbox_free_scorer):
    rows = [
        ("gsm8k", {"question": "Two and three?", "answer": "2+3=<<2+3=5>>5 questions were answered\n#### 5"}),
        ("math", {"problem": "Solve $x^2=4$.", "solution": "So $\\boxed{-2}$ and $\\boxed{2}$.", "idx": 3}),
        ("math", {"problem": "Half?", "solution": "It is $\\fbox{\\frac12}$.", "unique_id": "test/a/1.json"}),
        ("math", {"problem": "n?", "answer": "073", "id": 7}),
    ]
    tasks = [FORMATS[name](row) for name, row in rows]
    check_answers(tasks)
    assert [task.id for task in tasks[1:]] == ["math/3", "math/test/a/1.json", "math/7"]
    for task, wrong in zip(tasks, ("#### 6", "$\\boxed{2}$", "$\\boxed{2}$", "$\\boxed{74}$"), strict=True):
        results = sandbox_free_scorer.score_group(as_group(task, [task.reference, wrong]))
        assert [result.verdict for result in results] == [Verdict.AC, Verdict.WA], task.id
    with pytest.raises(ValueError, match="boxes none"):
        FORMATS["math"]({"problem": "n?", "solution": "It is 7."})


def test_cruxeval_asks_what_a_function_returns(sandbox_free_scorer):
    row = {"code": "def f(xs, n):\n    return xs * n", "input": "[1], 2", "output": "[1, 1]", "id": "sample_900"}
    task = FORMATS["cruxeval"](row)
    assert task.id == "cruxeval/sample_900" and "f([1], 2)" in task.messages[0].content
    computed = f"```python\n{row['code']}\nf([1], 2)\n```"
    results = sandbox_free_scorer.score_group(as_group(task, [task.reference, "[1]", computed]))
    assert [result.reward for result in results] == [1.0, 0.0, 0.0]


@pytest.fixture
def sandbox_free_scorer() -> Scorer:
    return Scorer(RewardsConfig(sandbox=SandboxConfig(tier="local")))


CONTESTS = {
    "apps": {"problem_id": 1, "question": "Add.", "input_output": json.dumps(SUMS), "solutions": json.dumps([ADD])},
    "code_contests": {
        "name": "1_A. Add",
        "description": "Add.",
        "public_tests": {"input": ["1 2\n"], "output": ["3\n"]},
        "private_tests": {"input": [], "output": []},
        "generated_tests": {"input": ["3 4\n"], "output": ["7\n"]},
        "solutions": {"language": [2, 3], "solution": ["int main() {}", ADD]},
        "time_limit": {"seconds": 1, "nanos": 500000000},
    },
    "code_contests of SandboxFusion": {
        "id": "0",
        "content": "Add.",
        "labels": "{}",
        "test": json.dumps([{"input": {"stdin": "1 2\n"}, "output": {"stdout": "3\n"}}]),
    },
    "livecodebench": {
        "question_id": "abc001_a",
        "question_content": "Add.",
        "starter_code": "",
        "public_test_cases": json.dumps([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]),
        "private_test_cases": packed(json.dumps([{"input": "3 4\n", "output": "7\n", "testtype": "stdin"}])),
        "metadata": "{}",
    },
    "livecodebench of SandboxFusion": {
        "id": "1",
        "content": "Add.",
        "test": packed({"input_output": json.dumps({**SUMS, "fn_name": None})}),
    },
}
FUNCTIONS = {
    "apps": {
        "problem_id": 2,
        "question": "Add.",
        "starter_code": STARTER,
        "input_output": json.dumps({"fn_name": "total", "inputs": [[[1, 2], 3], [[], 0]], "outputs": [[6], [0]]}),
    },
    "livecodebench": {
        "question_id": "2727",
        "question_content": "Add.",
        "starter_code": STARTER,
        "public_test_cases": json.dumps([{"input": "[1, 2]\n3", "output": "6", "testtype": "functional"}]),
        "private_test_cases": json.dumps([{"input": "[]\n0", "output": "0", "testtype": "functional"}]),
        "metadata": json.dumps({"func_name": "total"}),
    },
    "livecodebench of SandboxFusion": {
        "id": "10",
        "content": f"Add.\n```python\n{STARTER}\n```",
        "test": packed({"input_output": json.dumps({"fn_name": "total", "inputs": ["[1]\n2"], "outputs": ["3"]})}),
    },
}
UNITTEST = "import unittest\n\nfrom add import add\n\nclass AddTest(unittest.TestCase):\n    def test_add(self):\n        self.assertEqual(add(1, 2), 3)\n"  # noqa: E501
FILES = {
    "aider": {
        "id": "1",
        "content": "Add.",
        "canonical_solution": "def add(a, b):\n    return a + b\n",
        "labels": json.dumps({"task_id": "add"}),
        "test": json.dumps({"code": "", "asset": {"add_test.py": base64.b64encode(UNITTEST.encode()).decode()}}),
    },
    "bigcodebench": {
        "task_id": "BigCodeBench/900",
        "complete_prompt": "import math\n\ndef task_func(x):\n    '''Rounds up.'''\n",
        "canonical_solution": "    return math.ceil(x)\n",
        "entry_point": "task_func",
        "test": UNITTEST.replace("from add import add\n\n", "").replace("add(1, 2)", "task_func(2.5)"),
    },
}


@pytest.fixture(scope="module")
def scorer():
    scorer = Scorer(RewardsConfig(sandbox=SandboxConfig(tier="local", cpu_s=2, wall_s=10), whole_text=True))
    yield scorer
    scorer.close()


@pytest.mark.sandbox
@pytest.mark.parametrize("name", list(CONTESTS))
def test_contests_by_input_and_output(name: str, scorer):
    task = FORMATS[name.partition(" ")[0]](CONTESTS[name])
    assert task.verifier == "stdio" and (task.reference is None) == ("live" in name or "Fusion" in name)
    for program, verdict in ((ADD, Verdict.AC), (ADD.replace("+", "-"), Verdict.WA)):
        assert scorer.score_text(task, f"```python\n{program}\n```").verdict is verdict
    if name == "code_contests":
        assert task.answer["limits"] == {"cpu_s": 1.5} and len(task.answer["tests"]) == 2


@pytest.mark.sandbox
@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_contests_by_function(name: str, scorer):
    task = FORMATS[name.partition(" ")[0]](FUNCTIONS[name])
    assert task.verifier == "asserts" and all("Solution().total(" in test for test in task.answer["tests"])
    for program, verdict in ((TOTAL, Verdict.AC), (TOTAL.replace("+ y", ""), Verdict.WA)):
        assert scorer.score_text(task, f"```python\n{program}\n```").verdict is verdict


@pytest.mark.parametrize(("language", "reference"), [("cpp", "int main() {}"), ("java", None)])
def test_code_contests_in_another_language(language: str, reference: str | None):
    task = FORMATS["code_contests"]({**CONTESTS["code_contests"], "language": language})
    assert task.answer["language"] == language and task.id == f"code_contests/1_A. Add/{language}"
    assert task.reference == (None if reference is None else f"```{language}\n{reference}\n```")
    assert f"one {language} code block" in task.messages[0].content
    with pytest.raises(ValueError, match="no language 'cobol'"):
        FORMATS["code_contests"]({**CONTESTS["code_contests"], "language": "cobol"})


@pytest.mark.sandbox
def test_mbpp_sanitized_imports_what_its_tests_name(scorer):
    row = {
        "task_id": 903,
        "prompt": "Double.",
        "code": "def f(x): return 2 * x",
        "test_imports": ["import math", "import re"],
    }
    task = FORMATS["mbpp"]({**row, "test_list": ["assert f(math.pi) == math.tau"]})
    assert task.answer["setup"] == "import math\n"
    assert scorer.score_text(task, task.reference).verdict is Verdict.AC
    near = FORMATS["mbpp"]({**row, "test_list": ["assert math.isclose(f(1), 2.0)"]})
    assert near.answer["setup"] == ""


@pytest.mark.sandbox
def test_contests_of_leetcode_have_an_input_before_each_assertion(scorer):
    test = """
my_solution = Solution()

test_input = { "xs": [1, 2], "y": 3 }
assert my_solution.total(**test_input) == 6

even = lambda x: x % 2 == 0
test_input = { "xs": [], "y": 2 }
assert even(my_solution.total(**test_input))
"""
    task = FORMATS["leetcode"]({"task_id": "a", "prompt": "", "prompt_sft": f"Add.\n{STARTER}", "test": test})
    assert task.answer["tests"][0] == "assert Solution().total(**{'xs': [1, 2], 'y': 3}) == 6"
    for program, verdict in ((TOTAL, Verdict.AC), (TOTAL.replace("+ y", ""), Verdict.WA)):
        assert scorer.score_text(task, f"```python\n{program}\n```").verdict is verdict


def test_a_function_without_a_class_is_called_by_its_name():
    row = {"problem_id": 3, "question": "?", "input_output": {"fn_name": "f", "inputs": [["a"]], "outputs": [[1, 2]]}}
    task = FORMATS["apps"](row)
    assert task.answer["tests"] == ["assert f('a') == [1, 2]"] and "the function `f`" in task.messages[0].content


@pytest.mark.sandbox
def test_a_tuple_counts_as_the_list_that_json_has(scorer):
    outputs = [[[1, [2]]], [[3, [4]]]]
    row = {"question": "?", "input_output": {"fn_name": "f", "inputs": [[1, 2], [3, 4]], "outputs": outputs}}
    task = FORMATS["apps"]({**row, "problem_id": 4})
    for value, verdict in (
        ("x, (y,)", "AC"),
        ("[x, (y,)]", "AC"),
        ("[x, [y]]", "AC"),
        ("x, (y, y)", "WA"),
        ("y, [x]", "WA"),
    ):
        result = scorer.score_text(task, f"```python\ndef f(x, y): return {value}\n```")
        assert result.verdict is Verdict(verdict), (value, result)
    with pytest.raises(DataError, match="there is only 'lists'"):
        check_answers([replace(task, answer={**task.answer, "tuples": "any"})])


def test_tests_in_a_pickle_that_names_code_are_refused():
    row = {"id": "1", "content": "Add.", "test": packed(os.getcwd)}
    with pytest.raises(ValueError, match=r"cannot be unpacked: names \w+\.getcwd"):
        FORMATS["livecodebench"](row)


@pytest.mark.sandbox
@pytest.mark.parametrize("name", list(FILES))
def test_files_of_unittest(name: str, scorer):
    task = FORMATS[name](FILES[name])
    assert scorer.score_text(task, task.reference).verdict is Verdict.AC
    wrong = task.reference.replace("a + b", "a - b").replace("ceil", "floor")
    assert scorer.score_text(task, wrong).verdict is Verdict.WA


PLUS = """import numpy as np

def is_floats(x) -> bool:
    return isinstance(x, float)

def assertion(out, exp, atol):
    exact_match = out == exp
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if not exact_match and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert exact_match

"""
LOOP = "for i, (inp, exp) in enumerate(zip(inputs, results)):\n    assertion({}(*inp), exp, {})\n"
LISTS = "inputs = [[[1, 2], 2], [[], -1], [['a'], 1]]\nresults = [[1, 2, 1, 2], [], ['a']]\n"


def plus(lists: str, called: str, atol: object = 0) -> str:
    return lists + LOOP.format(called, atol)


def in_check(text: str) -> str:
    return PLUS + "def check(candidate):\n" + "".join(f"    {line}\n" for line in text.splitlines())


@pytest.mark.sandbox
def test_evalplus_inputs_and_results_need_no_numpy(scorer):
    prompt = "def f(xs, n):\n    '''Repeats.'''\n"
    row = {
        "task_id": "HumanEval/900",
        "prompt": prompt,
        "entry_point": "f",
        "canonical_solution": "    return xs * n\n",
    }
    task = FORMATS["human_eval"]({**row, "test": in_check(plus(LISTS, "candidate"))})
    assert task.verifier == "asserts" and task.answer["tests"][1] == "assert f([], -1) == []"
    mbpp = {"task_id": 900, "code": "def f(xs, n):\n    return xs * n", "prompt": "Repeat.", "test_imports": []}
    other = FORMATS["mbpp"]({**mbpp, "test_list": ["assert f([1], 1) == [1]"], "test": PLUS + plus(LISTS, "f")})
    assert other.answer["tests"] == task.answer["tests"] and "f([1], 1)" in other.messages[0].content
    for given in (task, other):
        assert scorer.score_text(given, given.reference).verdict is Verdict.AC
        assert scorer.score_text(given, "```python\ndef f(xs, n): return xs\n```").verdict is Verdict.WA


OTHER = {
    "as sets": plus(LISTS.replace("[1, 2, 1, 2]", "[2, 1]"), "f").replace("f(*inp), exp", "set(f(*inp)), set(exp)"),
    "by a function": plus(LISTS, "f").replace("assertion(f(*inp), exp", "assertion(f(*inp), inp[0] * inp[1]"),
    "near": plus("inputs = [[0.5, 2]]\nresults = [1.0 + 1e-9]\n", "f"),
}


@pytest.mark.sandbox
@pytest.mark.parametrize("name", list(OTHER))
def test_other_tests_of_evalplus_run_as_they_are(name: str, scorer):
    row = {
        "task_id": 902,
        "code": "def f(xs, n):\n    return xs * n",
        "prompt": "Repeat.",
        "test_list": ["assert f([1], 1) == [1]"],
    }
    task = FORMATS["mbpp"]({**row, "test": PLUS + OTHER[name]})
    assert task.verifier == "unit_tests" and "numpy" not in task.answer["tests"][0]
    wrong = "```python\ndef f(xs, n): return 1.1 if xs == 0.5 else ['b']\n```"
    verdicts = [scorer.score_text(task, text).verdict for text in (task.reference, wrong)]
    assert verdicts == [Verdict.AC, Verdict.WA]


@pytest.mark.parametrize(
    ("lists", "atol", "tests"),
    [
        ("inputs = [[1]]\nresults = [0.5]\n", 0, ["assert math.isclose(f(1), 0.5, rel_tol=1e-7, abs_tol=1e-06)"]),
        ("inputs = [[1]]\nresults = [3]\n", 0.1, ["assert math.isclose(f(1), 3, rel_tol=1e-7, abs_tol=0.1)"]),
        ("inputs = [[1]]\nresults = [[{3}]]\n", 0.1, ["assert f(1) == [set([3])]"]),
        ("inputs = [[(1, {2: {3}})]]\nresults = [True]\n", 0, ["assert f((1, {2: set([3])}, )) == True"]),
        ("inputs = [[-inf]]\nresults = [inf]\n", 0, ["assert f(float('-inf')) == float('inf')"]),
        ("inputs = [[nan]]\nresults = [None]\n", 0, ["assert f(float('nan')) == None"]),
        ("inputs = [[1]]\nresults = [g(1)]\n", 0, None),
        ("inputs = [[1]]\n", 0, None),
    ],
)  # fmt: skip
def test_evalplus_tests_one_by_one(lists: str, atol: object, tests: list[str] | None):
    assert assertions_of(ast.parse(PLUS + plus(lists, "f", atol)).body) == tests


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("value", "verdict"),
    [("[0.1 + 0.2, 1.0]", Verdict.AC), ("[0.3]", Verdict.WA), ("(0.3, 1.0)", Verdict.WA), ("[0.4, 1.0]", Verdict.WA)],
)
def test_evalplus_lists_of_floats_are_near(value: str, verdict: Verdict, scorer):
    mbpp = {"task_id": 901, "code": "def f(x):\n    return x", "prompt": "?", "test_list": ["assert f(1) == 1"]}
    task = FORMATS["mbpp"]({**mbpp, "test": PLUS + plus("inputs = [[1]]\nresults = [[0.3, 1.0]]\n", "f")})
    assert scorer.score_text(task, f"```python\ndef f(x): return {value}\n```").verdict is verdict


@pytest.mark.sandbox
@pytest.mark.parametrize(
    "program",
    [
        "def all(*a): return True\ndef f(x): return [9.0, 9.0]",
        "def abs(x): return 0\ndef f(x): return [9.0, 9.0]",
        "class L(list):\n    def __eq__(self, other): return True\ndef f(x): return L([9.0, 9.0])",
        "import builtins\nbuiltins.all = lambda *a: True\ndef f(x): return [9.0, 9.0]",
        "import math\nmath.isclose = lambda *a, **k: True\ndef f(x): return [9.0, 9.0]",
    ],
)
def test_an_answer_has_no_say_in_how_evalplus_lists_are_compared(program: str, scorer):
    mbpp = {"task_id": 901, "code": "def f(x):\n    return x", "prompt": "?", "test_list": ["assert f(1) == 1"]}
    task = FORMATS["mbpp"]({**mbpp, "test": PLUS + plus("inputs = [[1]]\nresults = [[0.3, 1.0]]\n", "f")})
    result = scorer.score_text(task, f"```python\n{program}\n```")
    assert result.verdict is Verdict.WA and COMPARED_INSIDE not in str(result), result
