"""More sets for `known_programs.py`: answers that are values and no programs, and sets in a few other shapes.

Where a set has no bad programs an honest one is made: another row's answer, whose value differs.
"""

from __future__ import annotations

import ast
import gzip
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from assay.types import Task
from rollouts.tasks import FORMATS

Row = Mapping[str, Any]
_EXIT = "import sys; sys.exit(0)"


class Given(NamedTuple):
    """A program, or a whole answer, and what is known about it."""

    name: str
    language: str
    text: str
    good: bool
    make: Callable[[], Task]


def cruxeval(data: Path) -> Iterator[Given]:
    """The functions, held to their own row's output and to another's."""
    rows = _rows(data / "cruxeval" / "cruxeval.jsonl")
    for row, other in _others(rows, lambda row: ast.literal_eval(row["output"])):
        for good, output in ((True, row["output"]), (False, other["output"])):
            made = {
                "task_id": row["id"],
                "text": "f",
                "code": row["code"],
                "test_list": [f"assert f({row['input']}) == {output}"],
            }
            yield Given(f"{row['id']} {good}", "Python", row["code"], good, partial(FORMATS["mbpp"], made))


def cruxeval_outputs(data: Path) -> Iterator[Given]:
    """The outputs, as answers to what a function returns."""
    rows = _rows(data / "cruxeval" / "cruxeval.jsonl")
    for row, other in _others(rows, lambda row: ast.literal_eval(row["output"])):
        for good, output in ((True, row["output"]), (False, other["output"])):
            yield Given(
                f"{row['id']} {good}", "text", f"```python\n{output}\n```", good, partial(FORMATS["cruxeval"], row)
            )


def gsm8k(data: Path) -> Iterator[Given]:
    """The solutions of both splits as they were written."""
    for split in ("test", "train"):
        rows = _rows(data / "gsm8k" / f"{split}.jsonl")
        yield from _solutions(rows, "gsm8k", split, "answer", lambda row: row["answer"].rpartition("####")[2].strip())


def math(data: Path) -> Iterator[Given]:
    """MATH's solutions."""
    rows = _rows(data / "math" / "math_test.json")
    yield from _solutions(rows, "math", "math", "solution", lambda row: _boxed(row["solution"]))


def aime(data: Path) -> Iterator[Given]:
    """AIME 2024, whose solutions several people wrote one below the other."""
    rows = _rows(data / "math" / "aime24.jsonl")
    yield from _solutions(rows, "math", "aime", "solution", lambda row: row["answer"])


def mbpp_test(data: Path) -> Iterator[Given]:
    """MBPP's test split in the form of DeepSeek-Coder."""
    for row in _rows(data / "mbpp" / "mbpp_test.jsonl"):
        yield Given(f"mbpp/{row['task_id']}", "Python", row["code"], True, partial(FORMATS["mbpp"], row))


def mbpp_sanitized(data: Path) -> Iterator[Given]:
    """MBPP-sanitized in HumanEval's form."""
    for row in _rows(data / "codegen_samples" / "mbpp_sanitized_for_code_generation.jsonl"):
        # the docstring is indented by four blanks, and many solutions by two
        program = (
            re.sub(r"\n *\'\'\'.*?\'\'\'\n", "\n", row["prompt"], count=1, flags=re.DOTALL) + row["canonical_solution"]
        )
        yield Given(row["task_id"], "Python", program, True, partial(FORMATS["human_eval"], row))


def humaneval_plus(data: Path) -> Iterator[Given]:
    """EvalPlus' own references, in HumanEval's order, against HumanEval's tests."""
    tasks = _rows(data / "humaneval" / "HumanEval.jsonl.gz")
    for row, plus in zip(tasks, _rows(data / "evalplus" / "HumanEvalPlus_reference.jsonl"), strict=True):
        program = row["prompt"] + plus["reference"]
        yield Given(row["task_id"], "Python", program, True, partial(FORMATS["human_eval"], row))


def formats(data: Path) -> Iterator[Given]:
    """A few rows each of four sets; LiveCodeBench's canonical solution is a program that leaves at once."""
    folder = data / "formats"
    for row in _rows(folder / "aider_benchmark_v1.jsonl"):
        stub = json.loads(row["labels"])["reference"]
        for good, program in ((True, row["canonical_solution"]), (False, stub)):
            yield Given(f"aider/{row['id']}", "Python (Aider)", program, good, partial(FORMATS["aider"], row))
    for row in _rows(folder / "bigcodebench.jsonl"):
        program = row["content"] + row["canonical_solution"]
        yield Given(row["id"], "Python (BigCodeBench)", program, True, partial(_of_the_library, row, program))
    for row in _rows(folder / "live_code_bench_v1.jsonl"):
        made = partial(FORMATS["livecodebench"], row)
        yield Given(f"lcb/{row['id']}", "Python (LiveCodeBench)", row["canonical_solution"], False, made)
    for row in _rows(folder / "code_contests.jsonl"):
        name = f"code_contests/{row['id']}"
        yield Given(name, "Python (CodeContests)", _EXIT, False, partial(FORMATS["code_contests"], row))


def _of_the_library(row: Row, program: str) -> Task:
    """A task of BigCodeBench whose program needs no package. Raises ValueError naming what another one needs."""
    nodes = ast.walk(ast.parse(f"{program}\n{row['test']}"))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(n.module) for n in ast.walk(ast.parse(program)) if isinstance(n, ast.ImportFrom)}
    missing = sorted({name.partition(".")[0] for name in names} - sys.stdlib_module_names)
    if missing:
        raise ValueError(f"needs the package {missing[0]}")
    return FORMATS["bigcodebench"](row)


def _boxed(solution: str) -> str:
    """What the last box of a solution holds, with fractions and units written in one way."""
    rest = solution.rpartition("\\boxed")[2]
    depths = accumulate((letter == "{") - (letter == "}") for letter in rest)
    held = rest[: next((at for at, depth in enumerate(depths) if depth == 0 and at), len(rest))].strip("{} $.")
    return re.sub(r"\\[dt]frac", r"\\frac", re.sub(r"\s|\^\\circ|\\%|\\text\{.*?\}|\\[!,]|\\\$", "", held))


def _rows(path: Path) -> list[Row]:
    data = path.read_bytes()
    lines = (gzip.decompress(data) if path.suffix == ".gz" else data).split(b"\n")
    return [json.loads(line) for line in lines if line.strip()]


def _solutions(rows: Sequence[Row], form: str, name: str, key: str, value: Callable[[Row], Any]) -> Iterator[Given]:
    for number, (row, other) in enumerate(_others(rows, value)):
        for good, text in ((True, row[key]), (False, other[key])):
            yield Given(f"{name}/{number} {good}", "text", text, good, partial(FORMATS[form], row))


def _others(rows: Sequence[Row], value: Callable[[Row], Any]) -> Iterator[tuple[Row, Row]]:
    """Each row with the next one whose value is another."""
    values = [value(row) for row in rows]
    for at, row in enumerate(rows):
        others = (number % len(rows) for number in range(at + 1, at + len(rows)))
        yield row, rows[next(number for number in others if values[number] != values[at])]
