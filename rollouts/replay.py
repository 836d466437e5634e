"""A recorded run in the place of the engines: what each of its steps learned from, in its order.

    replay = Replay(tokenizer, "runs/x/grpo/samples")
    groups = replay.step(1, {task.id: task for task in tasks})   # tokens, log-probabilities, versions, experts

Nothing is drawn, so it is the record that says which prompts a step takes, and how many: a flow takes what was ready,
and a step that replaced groups holds those too. Texts are decoded anew from the tokens, so that the reward workers see
what they saw then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import DataError
from assay.types import Completion, FinishReason, RolloutGroup, RoutedExperts, Task
from rollouts.config import ProofConfig
from rollouts.pool import RolloutPool
from rollouts.recorder import messages_digest, read_samples, recorded_steps

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NEEDS = "replay needs the tasks, their prompts and max_prompt_tokens of the recorded run"


class Replay(RolloutPool):
    """`step` from recorded samples. It has no engines, so there is nothing to sync and nothing to prove."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, samples: str | Path) -> None:
        super().__init__([], tokenizer, ProofConfig())
        self._folder = Path(samples)
        self.steps = recorded_steps(samples)
        if not self.steps:
            raise DataError(f"{samples}: no recorded samples there; name the folder of a run that made GRPO steps")

    def step(self, step: int, tasks: Mapping[str, Task]) -> list[RolloutGroup]:
        """The groups of a step, counted from 1; `tasks` by id. Raises DataError where they do not fit the record."""
        if step not in self.steps:
            raise DataError(f"{self._folder}: nothing recorded of step {step}")
        return [self._again(step, rows, tasks) for rows in _by_group(read_samples(self._folder, [step]))]

    def _again(self, step: int, rows: list[dict[str, Any]], tasks: Mapping[str, Task]) -> RolloutGroup:
        """The group of these rows."""
        name, task = rows[0]["task_id"], tasks.get(rows[0]["task_id"])
        if task is None:
            raise DataError(
                f"{self._folder}: step {step} holds {name!r}, which this configuration does not train on; {NEEDS}"
            )
        if task.messages[-1].content != rows[0]["prompt"]:
            raise DataError(
                f"{self._folder}: step {step} answers another prompt of {name!r} than this configuration has; {NEEDS}"
            )
        if rows[0].get("messages_digest") not in (None, messages_digest(task.messages)):  # older records have none
            raise DataError(
                f"{self._folder}: step {step} answers {name!r} behind another system message or other turns than this "
                f"configuration has; {NEEDS}"
            )
        group = self._group(task, [_completion(row, self._folder) for row in rows])
        # a template may have put something of its own there since, such as a date
        drawn = rows[0].get("prompt_ids")
        return group if drawn is None else replace(group, prompt_ids=tuple(drawn))


def _by_group(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    starts = [k for k, row in enumerate(rows) if row["index"] == 0]
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        yield rows[start:end]


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
        spans=tuple((version, count) for version, count in row.get("spans") or ()),
    )


def _experts(row: dict[str, Any]) -> RoutedExperts | None:
    if row.get("experts") is None:
        return None
    positions, layers, each = row["experts_shape"]
    return RoutedExperts(shape=(positions, layers, each), ids=row["experts"])
