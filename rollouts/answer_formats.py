r"""Rows of published sets whose answer is a value and no program: made into tasks for verifiers that run nothing.

gsm8k     question, answer ("... #### 18") (Cobbe et al. 2021, arXiv 2110.14168)
math      problem, solution (with \boxed{...}), or answer where a row has one, as MATH-500's and AIME's have
          (Hendrycks et al. 2021, arXiv 2103.03874)
cruxeval  code, input, output: what does f return? (Gu et al. 2024, arXiv 2401.03065)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from assay.types import Message, Task
from rollouts.wording import block

Row = Mapping[str, Any]

_BOXED = r"Reason step by step, and put the final answer in \boxed{}."
_VALUE = "Answer with the value alone, as Python writes it, in one code block. Do not write a program."
_NUMBER = re.compile(r"[-+]?\$?[-+]?[\d,]*\.?\d+\.?%?|[-+]?\d+/\d+")  #: as answers of word problems are written


def gsm8k(row: Row) -> Task:
    """GSM8K: word problems with a number for an answer, alone or behind ####."""
    answer = _said(row["answer"], "answer")
    if isinstance(row["answer"], str) and "####" not in answer and not _NUMBER.fullmatch(answer.strip()):
        raise ValueError(f"answer {answer!r:.60} is no number, and has none behind ####")
    return Task(
        id=f"gsm8k/{row['id'] if 'id' in row else _named(row['question'])}",
        messages=(Message(role="user", content=f"{row['question'].strip()}\n\n{_BOXED}"),),
        verifier="math",
        answer={"answer": answer},
        source="gsm8k",
        reference=answer,
    )


def math(row: Row) -> Task:
    """MATH, MATH-500, AIME. Without `answer` the solution's boxes count, all that math-verify reads."""
    name = next((str(row[key]) for key in ("unique_id", "id", "idx") if key in row), "") or _named(row["problem"])
    solution, given = row.get("solution"), row.get("answer")
    absent = given is None or given == ""
    if absent and r"\boxed" not in str(solution) and r"\fbox" not in str(solution):
        raise ValueError("has no answer, and its solution boxes none")
    answer = str(solution).replace(r"\fbox", r"\boxed") if absent else _said(given, "answer")
    return Task(
        id=f"math/{name}",
        messages=(Message(role="user", content=f"{row['problem'].strip()}\n\n{_BOXED}"),),
        verifier="math",
        answer={"answer": answer},
        source="math",
        reference=solution if absent else rf"\boxed{{{answer}}}",
    )


def cruxeval(row: Row) -> Task:
    """CRUXEval's prediction of outputs. Nothing runs: an answer that calls the function is no value."""
    if not isinstance(row["output"], str):
        raise ValueError(f"output is {row['output']!r:.60}, expected the text of a value")
    call = f"f({row['input']})"
    asked = f"What does `{call}` return?\n\n{block('python', row['code'])}\n\n{_VALUE}"
    return Task(
        id=f"cruxeval/{row['id'] if 'id' in row else _named(row['code'] + call)}",
        messages=(Message(role="user", content=asked),),
        verifier="literal",
        answer={"answer": row["output"]},
        source="cruxeval",
        reference=block("python", row["output"]),
    )


def _said(value: Any, field: str) -> str:
    """A field that holds text or a number, as text. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{field} is {value!r:.60}, expected text or a number")
    return str(value)


def _named(text: str) -> str:
    """A name for a row that has none, drawn from what it says."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


#: name of a task file's `format` -> a row of it as a task
ANSWER_FORMATS: dict[str, Callable[[Row], Task]] = {"gsm8k": gsm8k, "math": math, "cruxeval": cruxeval}
