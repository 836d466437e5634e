"""RolloutGroup -> one RewardResult per completion, from tests.

    completion text --extract--> program --verifier, in a box--> verdicts --> 1.0 or 0.0 (or the share passed)

The reward model's score and the mix of both are added elsewhere (`rewards.pool`, `rewards.mix`).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence

from assay.errors import DataError, InfraFailure, boundary
from assay.types import RewardResult, RolloutGroup, Task, Verdict
from rewards.bench import Bench
from rewards.config import RewardsConfig
from rewards.extract import NoProgram, program_of
from rewards.languages import Language
from rewards.sandbox.base import Sandbox
from rewards.sandbox.tiers import open_sandbox
from rewards.verifiers import VERIFIERS
from rewards.verifiers.base import Extracting, GroupVerifier, Judged, Probing, ProgramVerifier

TRIES = 2  #: a harness failure is tried once more, on a fresh box, before the sample is given up
CACHE_SIZE = 4096


class Scorer:
    """Judges completions, one at a time, in a sandbox of its own. Needs no Ray; an actor may hold one."""

    def __init__(self, config: RewardsConfig, sandbox: Sandbox | None = None) -> None:
        """Takes `config.sandbox` unless a sandbox is given, which it then closes as its own."""
        self.config = config
        self.sandbox = sandbox if sandbox is not None else open_sandbox(config.sandbox)
        self._bench = Bench(
            sandbox=self.sandbox,
            limits=config.sandbox.limits(),
            stop_on_timeout=not config.partial,
            stop_on_failure=not config.partial,
            isolate=config.isolate,
        )
        self._judged: OrderedDict[tuple[str, str, str], RewardResult] = OrderedDict()

    def score_group(self, group: RolloutGroup) -> list[RewardResult]:
        """One result per completion, in order; equal programs run once. Raises DataError for a task without tests,
        EnvironmentProblem where the tier or a compiler is missing. A harness failure is a result: INFRA, no reward.
        """
        verifier = verifier_of(group.task)
        if isinstance(verifier, GroupVerifier):
            return self._by_group(verifier, group)
        language = verifier.check(group.task)
        return [self._score(verifier, group.task, language, completion.text) for completion in group.completions]

    def score_text(self, task: Task, text: str) -> RewardResult:
        """The result for one answer as the assistant would write it; only for verifiers of programs."""
        verifier = verifier_of(task)
        if isinstance(verifier, GroupVerifier):
            raise DataError(f"task {task.id!r}: verifier {task.verifier!r} judges whole groups, not single answers")
        return self._score(verifier, task, verifier.check(task), text)

    def probe(self, tasks: Sequence[Task]) -> None:
        """Run what shows that a task's tests can fail, where its verifier knows no other way. Raises DataError for the
        first task that cannot judge; what a failing sandbox leaves open is asked again when the task is judged.
        """
        for task in tasks:
            verifier = verifier_of(task)
            if isinstance(verifier, Probing):
                try:
                    verifier.probe(task, self._bench)
                except InfraFailure:
                    continue

    def close(self) -> None:
        """End the sandbox. Idempotent."""
        self.sandbox.close()

    def _score(self, verifier: ProgramVerifier, task: Task, language: Language, text: str) -> RewardResult:
        try:
            program = self._program(verifier, task, language, text)
        except NoProgram as reason:
            isolation = str(self.sandbox.isolation)
            return RewardResult(
                verdict=Verdict.CE, reward=0.0, parts={"compiler": 0.0}, detail=str(reason), isolation=isolation
            )
        key = (task.id, repr(task.answer), program)
        if key in self._judged:
            self._judged.move_to_end(key)
            return self._judged[key]
        result = self._judge(verifier, task, program)
        if result.verdict is not Verdict.INFRA:
            self._judged[key] = result
            if len(self._judged) > CACHE_SIZE:
                self._judged.popitem(last=False)
        return result

    def _program(self, verifier: ProgramVerifier, task: Task, language: Language, text: str) -> str:
        if isinstance(verifier, Extracting):
            return verifier.extract(task, text, whole_text=self.config.whole_text)
        program = program_of(text, language, whole_text=self.config.whole_text)
        if program is None:
            raise NoProgram("no program")
        return program

    def _judge(self, verifier: ProgramVerifier, task: Task, program: str) -> RewardResult:
        started = time.monotonic()
        failure = ""
        for _ in range(TRIES):
            try:
                judged = verifier.judge(task, program, self._bench)
            except InfraFailure as error:
                failure = str(error)
                continue
            return self._result(judged, program, time.monotonic() - started)
        return RewardResult(
            verdict=Verdict.INFRA, reward=None, program=program, detail=failure, seconds=time.monotonic() - started
        )

    def _result(self, judged: Judged, program: str, seconds: float) -> RewardResult:
        passed = sum(test.verdict is Verdict.AC for test in judged.tests)
        if self.config.partial and judged.tests:
            reward = passed / len(judged.tests)
        else:
            reward = 1.0 if judged.verdict is Verdict.AC else 0.0
        return RewardResult(
            verdict=judged.verdict,
            reward=reward,
            parts={"compiler": reward},
            tests=judged.tests,
            program=program,
            detail=judged.detail,
            isolation=judged.isolation,
            seconds=seconds,
        )

    def _by_group(self, verifier: GroupVerifier, group: RolloutGroup) -> list[RewardResult]:
        verifier.check_group(group.task)
        failure = ""
        for _ in range(TRIES):
            try:
                with boundary(f"task {group.task.id!r}"):
                    return verifier.judge_group(group)
            except InfraFailure as error:
                failure = str(error)
        return [RewardResult(verdict=Verdict.INFRA, reward=None, detail=failure) for _ in group.completions]


def verifier_of(task: Task) -> ProgramVerifier | GroupVerifier:
    """The verifier a task names. Raises DataError with the names there are."""
    if task.verifier not in VERIFIERS:
        raise DataError(f"task {task.id!r}: no verifier {task.verifier!r}; there are {', '.join(sorted(VERIFIERS))}")
    return VERIFIERS[task.verifier]


def probes(tasks: Sequence[Task]) -> bool:
    """Whether `Scorer.probe` has anything to do for these."""
    return any(isinstance(verifier_of(task), Probing) for task in tasks)


def check_answers(tasks: Sequence[Task]) -> None:
    """Check every task's answer record without running anything. Raises DataError for the first bad one."""
    for task in tasks:
        verifier = verifier_of(task)
        if isinstance(verifier, GroupVerifier):
            verifier.check_group(task)
        else:
            verifier.check(task)
