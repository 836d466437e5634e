"""The nouns of assay, on one page: what flows from a task to a gradient.

    Task --rollouts--> RolloutGroup --rewards--> ScoredGroup --grpo--> TrainBatch --> one optimizer step

Standard library only. Everything is frozen, keyword-only and survives pickling, because every one of these
values crosses a process. Shapes are written beside the fields: G completions in a group, T completion tokens,
P prompt tokens. Tuples rather than lists where a value is shared between workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What became of one test, or of a whole program. INFRA is the only one that is not the program's doing."""

    AC = "AC"  #: accepted: the value or output is the expected one
    WA = "WA"  #: wrong answer: ran to its end and claimed another value, or none
    RE = "RE"  #: runtime error: exception, signal, or a non-zero exit where zero was required
    TLE = "TLE"  #: time limit: processor time, or wall time as the backstop
    MLE = "MLE"  #: memory limit
    OLE = "OLE"  #: output limit
    CE = "CE"  #: does not compile, or the answer holds no program at all
    SV = "SV"  #: security violation: the box refused what the program tried
    INFRA = "INFRA"  #: the harness failed; nothing is known about the program


class FinishReason(StrEnum):
    """Why generation ended."""

    STOP = "stop"  #: the end-of-sequence token, which is the last of `token_ids`
    LENGTH = "length"  #: ran into `max_completion_tokens`
    ABORT = "abort"  #: the engine gave up; such a completion is never trained on


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation. `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A prompt and what is needed to judge an answer to it.

    `verifier` names a row of `rewards.verifiers.VERIFIERS`; `answer` is that verifier's own record (tests,
    expected values). The answer key stays with the reward workers: it is never shown to the policy and never
    enters a sandbox.
    """

    id: str
    messages: tuple[Message, ...]
    verifier: str
    answer: Mapping[str, Any]
    source: str = ""
    reference: str | None = None  #: a known-good answer, as the assistant would write it
    family: str = ""  #: what tasks of one problem share, such as one in two languages; unset, it is alone

    def __post_init__(self) -> None:
        if not self.messages:
            raise ValueError(f"task {self.id!r} has no messages")
        if self.messages[-1].role != "user":
            raise ValueError(f"task {self.id!r} must end with a user message, not {self.messages[-1].role!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedExperts:
    """Which experts the engine sent each position of prompt + completion to, from the first position on.

    As bytes: 1,000 tokens of DeepSeek-V2 (59 layers, 6 experts) are 354 kB; tuples of int would be ten times that.
    """

    shape: tuple[int, int, int]  #: positions, layers with experts, experts per token
    ids: bytes  #: in that order, one byte each, or two (little end first) where an id needs them

    def __post_init__(self) -> None:
        count = self.shape[0] * self.shape[1] * self.shape[2]
        if len(self.ids) not in (count, 2 * count):
            raise ValueError(f"{len(self.ids)} bytes for experts of shape {self.shape}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One sampled answer: T tokens, with the engine's log-probability of each under the weights it held."""

    token_ids: tuple[int, ...]  # [T]
    logprobs: tuple[float, ...]  # [T], at the sampling temperature
    text: str
    finish_reason: FinishReason
    policy_version: tuple[int, int]  #: oldest and newest weights any of its tokens came from
    experts: RoutedExperts | None = None  #: where the engine was asked to return them
    spans: tuple[
        tuple[int, int], ...
    ] = ()  #: (version, tokens) in order, where weights changed on the way; adds up to T

    def __post_init__(self) -> None:
        if len(self.token_ids) != len(self.logprobs):
            raise ValueError(f"{len(self.token_ids)} tokens but {len(self.logprobs)} log-probabilities")
        if self.spans and sum(count for _, count in self.spans) != len(self.token_ids):
            raise ValueError(f"{len(self.token_ids)} tokens but spans of versions {self.spans}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutGroup:
    """G completions of one prompt."""

    task: Task
    prompt_ids: tuple[int, ...]  # [P]
    completions: tuple[Completion, ...]  # [G]


@dataclass(frozen=True, slots=True, kw_only=True)
class TestVerdict:
    """What one test said. `detail` is for people; nothing is decided by reading it."""

    __test__ = False  # not a pytest class

    verdict: Verdict
    cpu_s: float = 0.0
    wall_s: float = 0.0
    memory_bytes: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardResult:
    """A reward that was earned, or the statement that none could be given.

    `reward is None` exactly when `verdict is INFRA`. A failed harness is not a zero: it is retried, then left
    out of the group's mean, the advantage and the loss, and counted.
    """

    verdict: Verdict
    reward: float | None
    parts: Mapping[str, float] = field(default_factory=dict)  #: every signal, unweighted: compiler, rm, ...
    tests: tuple[TestVerdict, ...] = ()
    steps: tuple[tuple[int, float], ...] = ()  #: process supervision: a step's last token, and what the step is worth
    program: str = ""  #: what was extracted from the completion and run
    detail: str = ""  #: compiler message or last lines of stderr, for people
    isolation: str = ""  #: the isolation the run really had, e.g. "local:user,pid,mnt,net,ipc,uts"
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if (self.reward is None) != (self.verdict is Verdict.INFRA):
            raise ValueError(f"reward={self.reward} does not go with verdict={self.verdict}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredGroup:
    """A group with one result per completion."""

    group: RolloutGroup
    results: tuple[RewardResult, ...]  # [G]

    def __post_init__(self) -> None:
        if len(self.results) != len(self.group.completions):
            raise ValueError(
                f"task {self.group.task.id!r}: {len(self.results)} results for "
                f"{len(self.group.completions)} completions"
            )
