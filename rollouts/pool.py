"""Several engines as one: tasks are dealt out, groups come back in order, weights go to all.

The engines may be objects in this process or proxies of Ray actors; the pool calls each from a thread of its own
and does not know the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from assay.chat import completion_text, encode_prompt
from assay.errors import DataError, WeightMismatch
from assay.types import Completion, Message, RolloutGroup, Task
from rollouts.config import ProofConfig
from rollouts.engine import Engine, Sampling
from rollouts.weights import Probe, SyncReport, WeightBundle, compare_probe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class RolloutPool:
    """`generate` and `sync` over a fixed list of engines."""

    def __init__(self, engines: Sequence[Engine], tokenizer: PreTrainedTokenizerBase, proof: ProofConfig) -> None:
        self._engines, self._tokenizer, self._proof = list(engines), tokenizer, proof
        self._threads = ThreadPoolExecutor(max_workers=len(self._engines), thread_name_prefix="rollout")
        self._prompts: dict[tuple[Message, ...], tuple[int, ...]] = {}

    def prompt_ids(self, task: Task) -> tuple[int, ...]:
        """Token ids [P] of a task's prompt."""
        if task.messages not in self._prompts:
            try:
                self._prompts[task.messages] = tuple(encode_prompt(self._tokenizer, task.messages))
            except DataError as error:
                raise DataError(f"task {task.id!r}: {error}") from None
        return self._prompts[task.messages]

    def within(self, tasks: Sequence[Task], max_prompt_tokens: int) -> tuple[list[Task], int]:
        """The tasks whose prompt fits, and how many do not. Raises DataError where none does."""
        kept = [task for task in tasks if len(self.prompt_ids(task)) <= max_prompt_tokens]
        if not kept:
            raise DataError(f"no prompt fits into max_prompt_tokens={max_prompt_tokens}; the shortest is longer")
        return kept, len(tasks) - len(kept)

    def generate(self, tasks: Sequence[Task], sampling: Sampling) -> list[RolloutGroup]:
        """One group of G completions per task, in the order of the tasks."""
        count = len(self._engines)
        shares = [list(range(i, len(tasks), count)) for i in range(count)]
        futures = [
            self._threads.submit(
                engine.generate, [self.prompt_ids(tasks[i]) for i in share], replace(sampling, seed=sampling.seed + n)
            )
            for n, (engine, share) in enumerate(zip(self._engines, shares, strict=True))
            if share
        ]
        groups: dict[int, RolloutGroup] = {}
        for share, future in zip(shares, futures, strict=False):
            for i, completions in zip(share, future.result(), strict=True):
                groups[i] = self._group(tasks[i], completions)
        return [groups[i] for i in range(len(tasks))]

    def _group(self, task: Task, completions: Sequence[Completion]) -> RolloutGroup:
        return RolloutGroup(
            task=task,
            prompt_ids=self.prompt_ids(task),
            completions=tuple(replace(c, text=completion_text(self._tokenizer, c.token_ids)) for c in completions),
        )

    def sync(self, bundle: WeightBundle, probe: Probe) -> tuple[list[SyncReport], float]:
        """Give every engine the weights and demand the proof from each. Raises WeightMismatch.

        Returns the engines' reports and the largest probe difference.
        """
        reports = list(self._threads.map(lambda engine: engine.load_weights(bundle), self._engines))
        for report in reports:
            if report.version != bundle.version:
                raise WeightMismatch(f"an engine answers with weights version {report.version}, sent {bundle.version}")
        answers = self._threads.map(lambda engine: engine.score(probe.sequences), self._engines)
        differences = [compare_probe(a, probe.expected, self._proof, bundle.version) for a in answers]
        return reports, max(differences)

    def close(self) -> None:
        """End the threads; the engines belong to whoever started them."""
        self._threads.shutdown(wait=False, cancel_futures=True)
