"""A recorded run in the place of the engines: the same completions for the same tasks, in the same order.

    replay = Replay(tokenizer, "runs/x/grpo/samples")
    groups = replay.generate(tasks, sampling)     # what was sampled then: tokens, log-probabilities, experts

Texts are decoded anew from the tokens, so that the reward workers see what they saw then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import DataError
from assay.types import Completion, FinishReason, RolloutGroup, RoutedExperts, Task
from rollouts.config import ProofConfig
from rollouts.engine import Sampling
from rollouts.pool import RolloutPool
from rollouts.recorder import read_samples, recorded_steps

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Replay(RolloutPool):
    """`generate` from recorded samples. It has no engines, so there is nothing to sync and nothing to prove."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, samples: str | Path) -> None:
        super().__init__([], tokenizer, ProofConfig())
        self._folder = Path(samples)
        self.steps = recorded_steps(samples)
        if not self.steps:
            raise DataError(f"{samples}: no recorded samples there; name the folder of a run that made GRPO steps")
        self._recorded = self._read()

    def stream(self, tasks: Sequence[Task], sampling: Sampling) -> Iterator[tuple[int, RolloutGroup]]:
        """The next recorded groups. Raises DataError where they belong to other tasks or there are no more."""
        for index, task in enumerate(tasks):
            yield index, self._next(task)

    def _next(self, task: Task) -> RolloutGroup:
        step, name, completions = next(self._recorded, (self.steps[-1], "nothing more", []))
        if name != task.id:
            raise DataError(
                f"{self._folder}: step {step} holds {name!r} where this configuration takes {task.id!r}; replay needs "
                f"the seed, the tasks, prompts_per_step and max_prompt_tokens of the recorded run, and no grpo.flow"
            )
        return self._group(task, completions)

    def _read(self) -> Iterator[tuple[int, str, list[Completion]]]:
        """(step, task, completions) of every group; steps are read as they are needed."""
        for step in self.steps:
            rows = read_samples(self._folder, [step])
            starts = [row["index"] == 0 for row in rows]
            numbers = [sum(starts[: i + 1]) for i in range(len(rows))]
            for _, group in groupby(zip(numbers, rows, strict=True), key=lambda pair: pair[0]):
                members = [row for _, row in group]
                yield step, members[0]["task_id"], [_completion(row, self._folder) for row in members]


def _completion(row: dict[str, Any], folder: Path) -> Completion:
    if row.get("token_ids") is None or row.get("logprobs") is None:
        raise DataError(
            f"{folder}: step {row['step']} was recorded without tokens and log-probabilities; record it anew"
        )
    return Completion(
        token_ids=tuple(row["token_ids"]),
        logprobs=tuple(row["logprobs"]),
        text="",
        finish_reason=FinishReason(row["finish_reason"]),
        policy_version=(row["policy_version_min"], row["policy_version_max"]),
        experts=_experts(row),
    )


def _experts(row: dict[str, Any]) -> RoutedExperts | None:
    if row.get("experts") is None:
        return None
    positions, layers, each = row["experts_shape"]
    return RoutedExperts(shape=(positions, layers, each), ids=row["experts"])
