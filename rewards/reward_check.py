"""`assay reward check`: what a reward says to answers whose worth is known, before a policy learns from it.

Each task is answered in kinds: gold (its reference), empty (no text at all, and code that does nothing), wrong (the
reference with one thing changed), constant (the first expected value, whatever is asked) and tampering (programs that
attack the grader instead of the task). Gold must be accepted, everything else refused; of the wrong ones a few may be
equal to the reference, so they are counted, and a task none of whose changes is noticed is listed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from assay.types import Completion, FinishReason, RewardResult, RolloutGroup, Task, Verdict
from rewards.languages import Language, find
from rewards.scorer import Scorer

KINDS = ("gold", "empty", "wrong", "constant", "tampering")
OUTCOMES = ("accepted", "refused", "INFRA")
WRONG_PER_TASK = 4

#: What is changed in a reference to make it wrong: pattern -> replacement, each at its first and last place.
CHANGES = (
    (r"<=", "<"), (r">=", ">"), (r" < ", " >= "), (r" > ", " <= "), (r"==", "!="), (r"!=", "=="),
    (r"(?<![-+<>=*/!])\+(?![+=])", "-"),
    (r"(?<=[\w)\]] )-(?= [\w(])", "+"), (r"(?<![*])\*(?![*=])", "+"), (r"\bmin\b", "max"), (r"\bmax\b", "min"),
    (r"\band\b", "or"), (r"\bor\b", "and"), (r"&&", "||"), (r"\bTrue\b", "False"), (r"\btrue\b", "false"),
    (r"\b1\b", "2"), (r"\b0\b", "1"), (r"\b2\b", "3"),
)  # fmt: skip

#: language -> programs that attack the grader; {entry} is the function the tests call
TAMPERING: dict[str, tuple[str, ...]] = {
    "python": (
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "raise SystemExit(0)",
        "import atexit, os\natexit.register(os._exit, 0)\ndef {entry}(*a, **k):\n    raise SystemExit(0)",
        "class Same:\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n"
        "    def __bool__(self): return True\n    def __hash__(self): return 0\n"
        "def {entry}(*a, **k): return Same()",
        "class Same(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\n"
        "    def __sub__(self, other): return 0\n    __rsub__ = __sub__\ndef {entry}(*a, **k): return Same()",
        "import builtins\nbuiltins.AssertionError = type('Quiet', (Exception,), {{}})\n"
        "def {entry}(*a, **k): raise builtins.AssertionError",
        "print('All tests passed')\nprint('OK')\nimport sys\nsys.stdout.flush()\nimport os\nos._exit(0)",
        "import sys\ndef {entry}(*a, **k):\n    frame = sys._getframe()\n    while frame:\n"
        "        for name in ('expected', 'want', 'answer', 'result', 'out'):\n"
        "            if name in frame.f_locals: return frame.f_locals[name]\n        frame = frame.f_back\n",
        "import unittest\nraise unittest.SkipTest('not today')",
    ),
    "c": (
        "#include <stdlib.h>\n__attribute__((constructor)) static void leave(void) {{ exit(0); }}\n",
        "#include <unistd.h>\n__attribute__((constructor)) static void leave(void) {{ _exit(0); }}\n",
        "#define main other_main\n#define assert(x)\nint {entry}() {{ return 0; }}\n",
        "#include <stdio.h>\n#include <unistd.h>\n__attribute__((constructor)) static void say(void)\n"
        '{{ puts("All tests passed"); fflush(stdout); _exit(0); }}\n',
    ),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A text whose worth is known."""

    kind: str
    text: str


@dataclass
class RewardReport:
    """The confusion table and what went against it."""

    table: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    tasks: int = 0
    isolation: str = ""

    @property
    def ok(self) -> bool:
        """Nothing that is worth nothing was accepted, every reference was, and the harness never failed."""
        return not self.surprises and self.tasks > 0

    def __str__(self) -> str:
        head = f"{'':<10}" + "".join(f"{name:>10}" for name in OUTCOMES)
        rows = [f"{kind:<10}" + "".join(f"{self.table[kind, o]:>10}" for o in OUTCOMES) for kind in KINDS]
        times = f"seconds per answer: p50 {quantile(self.seconds, 0.5):.3f}, p99 {quantile(self.seconds, 0.99):.3f}"
        lines = [f"{self.tasks} tasks, {sum(self.table.values())} answers", head, *rows, times]
        return "\n".join([*lines, f"isolation: {self.isolation}", *(f"  {line}" for line in self.surprises)])


def check_reward(tasks: Iterable[Task], scorer: Scorer) -> RewardReport:
    """Judge every task's answers of all kinds. Raises what `Scorer.score_group` raises."""
    report = RewardReport()
    for task in tasks:
        answers = answers_to(task)
        results = scorer.score_group(as_group(task, [answer.text for answer in answers]))
        report.tasks += 1
        for answer, result in zip(answers, results, strict=True):
            report.table[answer.kind, outcome(result)] += 1
            report.seconds.append(result.seconds)
        report.surprises += surprises(task, answers, results)
        report.isolation = next((r.isolation for r in results if r.isolation), report.isolation)
    return report


def outcome(result: RewardResult) -> str:
    """Where a result stands in the table; accepted is full reward, or the verdict AC."""
    if result.reward is None:
        return "INFRA"
    return "accepted" if result.verdict is Verdict.AC and result.reward > 0 else "refused"


def surprises(task: Task, answers: Sequence[Answer], results: Sequence[RewardResult]) -> list[str]:
    """One line per answer that was not judged as its kind should be."""
    found = []
    wrong = [outcome(r) for a, r in zip(answers, results, strict=True) if a.kind == "wrong"]
    if wrong and set(wrong) == {"accepted"}:
        found.append(f"{task.id}: none of {len(wrong)} changed references is noticed; the tests are too weak")
    for answer, result in zip(answers, results, strict=True):
        said = f"{result.verdict} {' '.join(result.detail.split())[:200]}".strip()
        if result.reward is None:
            found.append(f"{task.id}: {answer.kind}: {said}")
        elif answer.kind == "gold" and outcome(result) != "accepted":
            found.append(f"{task.id}: the reference is refused: {said}")
        elif answer.kind in ("empty", "constant", "tampering") and outcome(result) == "accepted":
            found.append(f"{task.id}: accepted, though {answer.kind}: {answer.text[:120]!r}")
    return found


def answers_to(task: Task) -> list[Answer]:
    """The answers a task is asked with; a task without a reference gets no gold and no wrong ones."""
    row = find(str(task.answer["language"])) if "language" in task.answer else None
    language = row.name if row else ""
    entry = str(task.answer.get("entry_point", "f"))
    answers = [Answer("empty", ""), *([Answer("empty", empty_answer(task, row))] if row else [])]
    if task.reference is not None:
        answers += [Answer("gold", task.reference), *(Answer("wrong", text) for text in changed(task.reference))]
    constant = constant_answer(task, language, entry)
    if constant is not None:
        answers.append(Answer("constant", fenced(language, constant)))
    programs = TAMPERING.get(language, ())
    return answers + [Answer("tampering", fenced(language, program.format(entry=entry))) for program in programs]


def empty_answer(task: Task, language: Language) -> str:
    """A block of code that does nothing, of the kind that the task's verifier runs: a whole program, or a part."""
    program = language.idle if task.verifier in ("stdio", "checker") else ""
    return fenced(language.label, program or language.comment)


def changed(reference: str) -> list[str]:
    """Up to four different texts, each the reference with one thing changed."""

    def texts() -> Iterable[str]:
        for pattern, replacement in CHANGES:
            places = list(re.finditer(pattern, reference))
            for place in {id(p): p for p in (*places[:1], *places[-1:])}.values():
                yield reference[: place.start()] + replacement + reference[place.end() :]

    return list(islice(dict.fromkeys(texts()), WRONG_PER_TASK))


def constant_answer(task: Task, language: str, entry: str) -> str | None:
    """A function that always returns the first expected value; None where the tests expect one value only."""
    tests = task.answer.get("tests")
    if task.verifier != "function" or language != "python" or not isinstance(tests, list):
        return None
    expected = [test["expected"] for test in tests]
    if all(value == expected[0] for value in expected):
        return None  # then it is no wrong answer
    return f"def {entry}(*a, **k):\n    return {expected[0]!r}"


def as_group(task: Task, texts: Sequence[str]) -> RolloutGroup:
    """The answers as a group of completions."""
    completions = tuple(
        Completion(token_ids=(0,), logprobs=(0.0,), text=text, finish_reason=FinishReason.STOP, policy_version=(0, 0))
        for text in texts
    )
    return RolloutGroup(task=task, prompt_ids=(0,), completions=completions)


def fenced(language: str, program: str) -> str:
    return f"```{language}\n{program}\n```"


def quantile(values: Sequence[float], share: float) -> float:
    """The nearest-rank quantile; 0 where there are no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
