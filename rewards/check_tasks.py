"""The verifier, verified: a task whose reference does not pass, or whose tests an empty answer passes, is no task."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from assay.errors import DataError
from assay.types import RewardResult, Task, Verdict
from rewards.languages import Language
from rewards.reward_check import empty_answer
from rewards.scorer import Scorer, verifier_of
from rewards.verifiers.base import GroupVerifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """A task that does not judge as it should, and why."""

    task_id: str
    cause: str

    def __str__(self) -> str:
        return f"{self.task_id}: {self.cause}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """What checking found. `unchecked` counts tasks without a reference or with a reward function of the user's."""

    checked: int
    unchecked: int
    disagreements: tuple[Disagreement, ...]
    isolation: str

    @property
    def ok(self) -> bool:
        """Every task that could be checked judges as it should."""
        return not self.disagreements

    def __str__(self) -> str:
        head = f"{self.checked} tasks checked, {len(self.disagreements)} disagree, {self.unchecked} unchecked"
        return "\n".join([head, *(f"  {found}" for found in self.disagreements)])


def check_tasks(tasks: Iterable[Task], scorer: Scorer) -> TaskReport:
    """Judge every task's reference, which must pass, and code that does nothing, which must not.

    A malformed task is listed like any other disagreement, so that one report names them all. Raises
    EnvironmentProblem where the sandbox or a compiler is missing.
    """
    checked, unchecked, found = 0, 0, []
    for task in tasks:
        try:
            verifier = verifier_of(task)
            if isinstance(verifier, GroupVerifier):
                verifier.check_group(task)
                unchecked += 1
                continue
            language = verifier.check(task)
        except DataError as error:
            found.append(Disagreement(task_id=task.id, cause=str(error)))
            continue
        unchecked += task.reference is None
        checked += 1
        try:
            cause = _cause(task, language, scorer)
        except DataError as error:  # what only a run can show
            cause = str(error)
        if cause:
            found.append(Disagreement(task_id=task.id, cause=cause))
    isolation = str(scorer.sandbox.isolation)
    return TaskReport(checked=checked, unchecked=unchecked, disagreements=tuple(found), isolation=isolation)


def _cause(task: Task, language: Language, scorer: Scorer) -> str:
    empty = scorer.score_text(task, empty_answer(task, language))
    if empty.verdict in (Verdict.AC, Verdict.INFRA):
        return f"an empty program should fail: {_told(empty)}"
    if task.reference is None:
        return ""
    reference = scorer.score_text(task, task.reference)
    return "" if reference.verdict is Verdict.AC else f"the reference should pass: {_told(reference)}"


def _told(result: RewardResult) -> str:
    return f"{result.verdict} {' '.join(result.detail.split())[:300]}"
