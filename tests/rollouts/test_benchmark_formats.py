"""Rows of published benchmarks as tasks: tiny rows in each set's form, and the sets themselves where they are."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest

from assay.errors import DataError
from assay.types import Task
from rewards.extract import files_of
from rewards.scorer import check_answers
from rewards.verifiers.project import read
from rollouts.benchmark_formats import BENCHMARK_FORMATS
from rollouts.config import TaskFile
from rollouts.tasks import FORMATS, read_tasks

DATA = Path(os.environ.get("ASSAY_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))

PROMPT = 'import math\n\ndef half(x):\n    return x / 2\n\ndef f(x):\n    """Doubles."""\n'
HUMAN_EVAL = {
    "task_id": "HumanEval/900",
    "prompt": PROMPT,
    "entry_point": "f",
    "canonical_solution": "    return 2 * x\n",
}
PLAIN = "METADATA = {'author': 'us'}\n\ndef check(candidate):\n    big = 10 ** 6\n    assert candidate(1) == 2, 'one'\n    assert True\n    assert candidate(big) == 2 * big\n"  # noqa: E501
LOOP = "def check(candidate):\n    for x in range(3):\n        assert candidate(half(x)) == x\n"


def pack(language: str, **rest: Any) -> dict[str, Any]:
    row = {
        "task_id": f"{language}/0",
        "entry_point": "f",
        "instruction": "Write f.",
        "declaration": "\nconst f = (x) => {\n",
        "canonical_solution": "  return 2 * x;\n}\n",
        "buggy_solution": "  return x;\n}\n",
        "test": "console.assert(f(1) === 2)",
    }
    return row | rest


def test_the_configuration_offers_every_format():
    assert set(get_args(TaskFile.model_fields["format"].annotation)) == set(FORMATS)


def test_human_eval_by_assertions():
    task = FORMATS["human_eval"](HUMAN_EVAL | {"test": PLAIN})
    assert (task.id, task.verifier) == ("HumanEval/900", "asserts")
    assert task.answer == {
        "language": "python",
        "tests": ["assert f(1) == 2", "assert f(big) == 2 * big"],
        "setup": "big = 10 ** 6",
        "prelude": "import math\n\ndef half(x):\n    return x / 2",
    }
    assert task.reference == f"```python\n{PROMPT}    return 2 * x\n```"
    assert "Doubles" in task.messages[0].content and "10 ** 6" not in task.messages[0].content
    check_answers([task])


def test_human_eval_with_a_loop_is_run_as_it_stands():
    task = FORMATS["human_eval"](HUMAN_EVAL | {"test": LOOP})
    assert (task.verifier, task.answer["entry_point"]) == ("unit_tests", "f")
    (text,) = task.answer["tests"]
    assert text.startswith("import math") and text.endswith("\ncheck(f)") and "def half" in text
    check_answers([task])


@pytest.mark.parametrize("test", [PLAIN, LOOP])
def test_a_function_called_check_is_not_taken_for_the_harness(test):
    row = {
        **HUMAN_EVAL,
        "entry_point": "check",
        "prompt": "def half(x):\n    return x\n\ndef check(x):\n",
        "test": test,
    }
    task = FORMATS["human_eval"](row)
    if task.verifier == "asserts":
        assert task.answer["tests"][0] == "assert check(1) == 2"
    else:
        assert task.answer["tests"][0].endswith(
            "def assay_check(candidate):\n    for x in range(3):\n"
            "        assert candidate(half(x)) == x\nassay_check(check)"
        )
    check_answers([task])


@pytest.mark.parametrize("body", ["assert candidate(y) == 1", "y = candidate(1)\n    assert y == 1", "y = 1\n    y = 2\n    assert candidate(y) == 1"])  # fmt: skip  # noqa: E501
def test_what_depends_on_the_order_of_statements_is_not_taken_apart(body):
    task = FORMATS["human_eval"](HUMAN_EVAL | {"test": f"def check(candidate):\n    {body}\n"})
    assert task.verifier == ("asserts" if body.startswith("assert") else "unit_tests")


def test_humanevalpack_asks_for_a_program_and_humanevalfix_for_a_repair():
    task, repair = FORMATS["humanevalpack"](pack("JavaScript")), FORMATS["humanevalfix"](pack("JavaScript"))
    assert (task.id, repair.id) == ("humanevalpack/javascript/0", "humanevalfix/javascript/0")
    assert "return x;" in repair.messages[0].content and "return x;" not in task.messages[0].content
    assert task.reference == "```javascript\nconst f = (x) => {\n  return 2 * x;\n}\n```"
    assert task.answer == {"language": "javascript", "tests": ["console.assert(f(1) === 2)"]}
    check_answers([task, repair])


def test_humanevalpack_gives_imports_that_an_answer_may_leave_out():
    java = pack("Java", declaration="import java.util.*;\n\nclass Solution {\n", test="class Main { throw }")
    assert FORMATS["humanevalpack"](java).answer["prompt"] == "import java.util.*;"
    python = pack("Python", declaration="import math\n\ndef f(x):\n", test=f"{PLAIN}\ncheck(f)\n")
    task = FORMATS["humanevalpack"](python)
    assert (task.verifier, task.answer["prelude"]) == ("asserts", "import math")
    with pytest.raises(ValueError, match="no language 'Basic'"):
        FORMATS["humanevalpack"](pack("Basic"))


GO_TESTS = "func TestF(t *testing.T) {\n    assert := assert.New(t)\n    assert.Equal(2, F(1))\n}\n"


@pytest.mark.parametrize("declaration", ["\nfunc F(x int) int {\n", 'import (\n    "math"\n)\n\nfunc F(x int) int {\n'])
def test_humanevalpack_in_go_has_its_imports_and_the_set_up_of_its_tests(declaration: str):
    parts = {"import": 'import (\n    "math"\n)\n', "test_setup": 'package main\nimport "testing"\n', "test": GO_TESTS}
    task = FORMATS["humanevalpack"](pack("Go", declaration=declaration, **parts))
    assert task.answer["tests"] == [f'package main\nimport "testing"\n\n{GO_TESTS}']
    assert task.answer["prompt"] == 'package main\nimport (\n    "math"\n)\n'
    assert task.reference.count("import (") == task.messages[0].content.count("import (") == 1
    check_answers([task])


def test_humaneval_x_has_prompts_and_no_instruction():
    row = pack(
        "Python", prompt='import math\n\ndef f(x):\n    """Doubles."""\n', declaration="import math\n\ndef f(x):\n"
    )
    row = {key: row[key] for key in row if key not in ("instruction", "entry_point", "buggy_solution")}
    task = FORMATS["humanevalpack"](row | {"test": f"{PLAIN}\ncheck(f)\n", "canonical_solution": "    return 2 * x\n"})
    assert task.verifier == "asserts" and task.messages[0].content.startswith("Complete this program.")
    assert "Doubles" in task.messages[0].content
    with pytest.raises(ValueError, match="begins no function"):
        FORMATS["humanevalpack"](row | {"declaration": "x = 1\n"})


@pytest.mark.parametrize(
    ("language", "prompt", "tests", "expected"),
    [
        ("cpp", "#include<assert.h>\nlong f(long x) {\n", "}\nint main() {\n    assert(f(1) == 2);\n}\n", "int main() {\n    assert(f(1) == 2);\n}\n"),  # noqa: E501
        ("java", "import java.util.*;\nclass Problem {\n", "    }\n    public static void main(String[] args) {\n    assert(f(1) == 2);\n    }\n}\n", "class Tests extends Problem {\n    public static void main(String[] args) {\n    assert(f(1) == 2);\n    }\n}\n"),  # noqa: E501
        ("js", "function f(x){\n", "const assert = require('node:assert');\nassert.equal(f(1), 2);", None),
        ("go_test.go", 'package f_test\n\nimport (\n    "testing"\n    "fmt"\n)\n', "func TestF(t *testing.T) {\n  t.Error()\n}\n", None),  # noqa: E501
    ],
)  # fmt: skip
def test_multipl_e_tests_follow_a_whole_program(language, prompt, tests, expected):
    row = {"name": "HumanEval_900_f", "language": language, "prompt": prompt, "tests": tests, "stop_tokens": []}
    task = FORMATS["multipl_e"](row)
    assert task.verifier == "unit_tests" and task.reference is None
    assert task.answer["tests"] == [expected or tests]
    check_answers([task])


def test_multipl_e_refuses_a_language_it_does_not_know():
    with pytest.raises(ValueError, match="no language 'xyz'"):
        FORMATS["multipl_e"]({"name": "a", "language": "xyz", "prompt": "", "tests": ""})


QUIXBUGS = {
    "name": "f",
    "docstring": '"""\nDoubles\n"""',
    "buggy_program": "def f(x):\n    return x",
    "solution": "def f(x):\n    return 2 * x",
}


def test_quixbugs_by_assertions_or_as_it_stands():
    task = FORMATS["quixbugs"](QUIXBUGS | {"tests": "assert f(*[1]) == 2\nassert f(*[2]) == 4"})
    assert (task.verifier, task.answer["tests"]) == ("asserts", ["assert f(*[1]) == 2", "assert f(*[2]) == 4"])
    assert "return x" in task.messages[0].content and "2 * x" in str(task.reference)
    whole = FORMATS["quixbugs"](
        QUIXBUGS | {"tests": "def test1():\n    result = f(1)\n    assert result == 2\n\ntest1()"}
    )
    assert whole.verifier == "unit_tests"
    check_answers([task, whole])


def test_evalplus_takes_the_base_tests():
    row = {
        "task_id": 2,
        "prompt": '"""\nDouble.\nassert f(1) == 2\n"""',
        "entry_point": "f",
        "canonical_solution": "def f(x): return 2 * x",
        "assertion": "\nassert f(1) == 2\n",
        "test_imports": ["import math"],
    }
    task = FORMATS["evalplus"](row)
    assert (task.id, task.verifier) == ("Mbpp/2", "asserts")
    assert task.answer == {"language": "python", "tests": ["assert f(1) == 2"]}
    near = FORMATS["evalplus"](row | {"assertion": "assert math.isclose(f(1.5), 3.0)"})
    assert "setup" not in near.answer, "an import of the tests would make good one that the answer lacks"
    needed = FORMATS["evalplus"](row | {"assertion": "assert f(math.pi) == 2 * math.pi"})
    assert needed.answer["setup"] == "import math"
    with pytest.raises(ValueError, match="no expected values"):
        FORMATS["evalplus"]({**{key: row[key] for key in row if key != "assertion"}, "plus_input": [[1]]})


KATTIS = {
    "problem": "twice",
    "language": "c",
    "statement": "Read x, write 2x.",
    "tests": [{"name": "1", "in": "1\n", "ans": "2\n"}],
    "custom_validator": False,
    "validator": {},
    "yaml": "limits:\n  memory: 512\n",
}


def test_kattis_compares_words_or_asks_the_problem():
    task = FORMATS["kattis"](KATTIS)
    assert (task.id, task.verifier) == ("kattis/twice/c", "stdio")
    assert task.answer["tests"] == [{"input": "1\n", "output": "2\n"}]
    assert task.answer["limits"] == {"memory_bytes": 512 << 20}
    files = {"output_validators/v/validate.cc": '#include "validate.h"', "output_validators/v/validate.h": "int x;"}
    judged = FORMATS["kattis"]({**KATTIS, "custom_validator": True, "validator": files})
    assert (judged.verifier, judged.answer["checker"]["protocol"]) == ("checker", "domjudge")
    assert judged.answer["checker"]["files"] == {"validate.h": "int x;"}
    check_answers([task, judged])
    with pytest.raises(ValueError, match="interactive"):
        FORMATS["kattis"]({**KATTIS, "yaml": "type: interactive\n"})


EXERCISM = {
    "track": "python", "slug": "twice", "support": {}, "instructions": "Double.", "solution_paths": ["twice.py"],
    "stub": {"twice.py": "def f(x):\n    pass\n"}, "example": {".meta/example.py": "def f(x):\n    return 2 * x\n"},
    "tests": {"twice_test.py": "import unittest\nfrom twice import f\nclass T(unittest.TestCase):\n    @unittest.skip('later')\n    def test_one(self):\n        self.assertEqual(f(1), 2)\n"},  # noqa: E501
}  # fmt: skip


def test_exercism_switches_every_test_on():
    task = FORMATS["exercism"](EXERCISM)
    assert (task.verifier, task.answer["module"]) == ("unit_tests", "twice")
    assert "skip" not in task.answer["tests"][0] and "def f(x):" in task.messages[0].content
    check_answers([task])
    text = (
        "require 'minitest/autorun'\nrequire_relative 'twice'\n"
        "class T < Minitest::Test\n  def test_one\n    skip\n    assert_equal 2, f(1)\n  end\nend\n"
    )
    ruby = FORMATS["exercism"](EXERCISM | {"track": "ruby", "tests": {"t.rb": text}})
    assert "skip" not in ruby.answer["tests"][0] and "require" not in ruby.answer["tests"][0]
    check_answers([ruby])
    for wrong in ({"track": "go"}, {"solution_paths": ["a.py", "b.py"]}, {"support": {"more.py": {"shared": "1"}}}):
        with pytest.raises(ValueError):
            FORMATS["exercism"]({**EXERCISM, **wrong})


def test_exercism_with_more_files_is_a_project(tmp_path: Path):
    beside = FORMATS["exercism"](EXERCISM | {"support": {"more.py": "x = 1\n", "README.md": ""}})
    assert (beside.verifier, beside.answer["report"]) == ("project", "unittest")
    assert set(beside.answer["given"]) == {"more.py", "twice_test.py"}
    tests = '#include "unity.h"\nstatic void test_f(void)\n{\n   TEST_IGNORE();\n   TEST_ASSERT(f(1));\n}\nint main(void)\n{\n   RUN_TEST(test_f);\n}\n'  # noqa: E501
    row = {
        "track": "c", "slug": "f", "instructions": "f.", "solution_paths": ["f.c", "f.h"], "tests": {"test_f.c": tests},
        "stub": {"f.c": "", "f.h": "int f(int);\n"}, "example": {".meta/example.c": "int f(int x) { return x; }\n"},
        "support": {"makefile": "LIBS = -lm\nCFLAGS  = -std=c99\nCFLAGS += -Wall\n", "unity.h": {"shared": "7"}},
    }  # fmt: skip
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps(row) + "\n")
    file = TaskFile(path=str(path), format="exercism")
    with pytest.raises(DataError, match=r"c\.shared\.json\.gz is not in"):
        read_tasks(file)
    (tmp_path / "c.shared.json").write_text(json.dumps({"7": "/* Unity */\n"}))
    (task,) = read_tasks(file)
    assert task.answer["given"]["unity.h"] == "/* Unity */\n" and "TEST_IGNORE" not in task.answer["given"]["test_f.c"]
    assert task.answer["build"] == ["/usr/bin/gcc", "-std=c99", "-Wall", "-o", "tests.out", "f.c", "test_f.c", "-lm"]
    assert task.reference is not None and files_of(task.reference, ["f.c", "f.h"])["f.h"] == "int f(int);\n"
    check_answers([task])
    assert task.messages[0].content.endswith(
        "behind a line with its path. The files are compiled as C99 with gcc -Wall."
    )
    flags = "CFLAGS = -std=c99 -g -Wall\nCFLAGS += -Werror -Wmissing-declarations -DX\n"
    strict = FORMATS["exercism"](row | {"support": {"makefile": flags}})
    assert strict.messages[0].content.endswith(
        " The files are compiled as C99 with gcc -Wall -Werror -Wmissing-declarations, so every warning is an error, "
        "and so is a function that is neither static nor declared in a header."
    )
    plain = FORMATS["exercism"](row | {"support": {}})
    assert plain.messages[0].content.endswith("behind a line with its path.")
    bash = row | {
        "track": "bash", "solution_paths": ["f.sh"], "stub": {"f.sh": "# f\n"}, "example": {"e.sh": "echo\n"},
        "support": {}, "tests": {"f.bats": '@test "a" {\n  true\n}\n@test "b" {\n  (( HAS_TTY )) || skip\n}\n'},
    }  # fmt: skip
    assert read(FORMATS["exercism"](bash)).tests == 1


def test_a_task_file_may_be_of_any_format(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(HUMAN_EVAL | {"test": LOOP}) + "\n")
    assert read_tasks(TaskFile(path=str(path), format="human_eval"))[0].verifier == "unit_tests"
    with pytest.raises(DataError, match="no field 'name', which format 'quixbugs' needs"):
        read_tasks(TaskFile(path=str(path), format="quixbugs"))


def rows_of(*parts: str) -> list[dict[str, Any]]:
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is not there; set ASSAY_DATA")
    data = path.read_bytes()
    lines = (gzip.decompress(data) if path.suffix == ".gz" else data).split(b"\n")
    return [json.loads(line) for line in lines if line.strip()]


@pytest.mark.parametrize(
    ("name", "parts", "verifiers"),
    [
        ("human_eval", ("humaneval", "HumanEval.jsonl.gz"), {"asserts": 159, "unit_tests": 5}),
        ("humanevalpack", ("humanevalpack", "humanevalpack_python.jsonl"), {"asserts": 159, "unit_tests": 5}),
        ("humanevalfix", ("humanevalpack", "humanevalpack_java.jsonl"), {"unit_tests": 164}),
        ("humanevalpack", ("humanevalpack", "humanevalpack_js.jsonl"), {"unit_tests": 164}),
        ("quixbugs", ("quixbugs", "quixbugs_python.jsonl"), {"asserts": 31, "unit_tests": 9}),
        ("evalplus", ("evalplus", "MbppBase.jsonl"), {"asserts": 427}),
        *(
            ("multipl_e", ("humaneval_multi", f"humaneval-{code}.jsonl"), {"unit_tests": count})
            for code, count in {"cpp": 161, "go": 154, "java": 158, "jl": 159, "rkt": 161, "sh": 158, "ts": 159}.items()
        ),
    ],
)
def test_every_row_of_the_real_sets_is_a_task(name, parts, verifiers):
    tasks: list[Task] = [BENCHMARK_FORMATS[name](row) for row in rows_of(*parts)]
    check_answers(tasks)
    assert Counter(task.verifier for task in tasks) == verifiers
    assert len({task.id for task in tasks}) == len(tasks)
