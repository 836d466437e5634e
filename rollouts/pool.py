"""Several engines as one: tasks are dealt out, groups come back in order, weights go to all.

The engines may be objects in this process or proxies of Ray actors; the pool calls each from a thread of its own
and does not know the difference. An engine that dies is replaced, given the weights the dead one held, with the
proof, and asked again with the same seed: nobody above the pool can tell from what comes back.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from assay.chat import completion_text, encode_prompt
from assay.errors import DataError, InfraFailure, WeightMismatch
from assay.types import Completion, Message, RolloutGroup, Task
from rollouts.config import ProofConfig
from rollouts.engine import Engine, Sampling
from rollouts.weights import Probe, Publication, SyncReport, WeightBundle, compare_probe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Answer = TypeVar("Answer")
Published = WeightBundle | Publication
RESTARTS = 3  #: an engine that dies more often than this over one request stops the run


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """An engine died and another stands in its place."""

    engine: int
    seconds: float  #: from noticing the death until the new engine had proved its weights
    version: int | None  #: of the weights it proved; None where it died while new ones were being handed over


class RolloutPool:
    """`generate` and `sync` over a fixed number of engines.

    `restart(n)` makes the n-th engine anew, without weights; without it a death is an InfraFailure and the run stops.
    With it the pool keeps what the last sync published, to ask it again for whoever comes.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        tokenizer: PreTrainedTokenizerBase,
        proof: ProofConfig,
        restart: Callable[[int], Engine] | None = None,
    ) -> None:
        self._engines, self._tokenizer, self._proof = list(engines), tokenizer, proof
        self._restart, self._closed = restart, False
        self._asleep = False
        self._held: tuple[Published, Probe] | None = None
        self.recoveries: list[Recovery] = []
        self._threads = ThreadPoolExecutor(max_workers=max(1, len(self._engines)), thread_name_prefix="rollout")
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
                self._generate, n, [self.prompt_ids(tasks[i]) for i in share], replace(sampling, seed=sampling.seed + n)
            )
            for n, share in enumerate(shares)
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

    def sync(self, published: Published, probe: Probe) -> tuple[list[SyncReport], float]:
        """Give every engine the weights, bucket by bucket, and demand the proof from each. Raises WeightMismatch.

        Returns the engines' reports and the largest probe difference.
        """
        self._held = None  # neither the old weights nor the new are everywhere now
        engines = range(len(self._engines))
        reports, fallen = self._hand_out(published)
        self._asleep = False
        proved = list(
            self._threads.map(lambda n: self._hand_over(n, published, probe, reports.get(n), n in fallen), engines)
        )
        if self._restart is not None:
            self._held = published, probe
        return [report for report, _ in proved], max(difference for _, difference in proved)

    def sleep(self) -> None:
        """Let every engine give back what memory it can. The next sync wakes them; until then none may be asked."""
        if self._asleep:
            return
        self._asleep = True
        list(self._threads.map(lambda n: self._on(n, lambda engine: engine.sleep()), range(len(self._engines))))

    def release(self) -> None:
        """Let go of what is kept for an engine that dies: new weights are about to be published, and one copy is
        enough. Until the next sync no engine can be replaced with its weights proved, and none should be asked."""
        self._held = None

    def _hand_out(self, published: Published) -> tuple[dict[int, SyncReport], set[int]]:
        """Every bucket to all engines at once: what each says of the last, and who died on the way."""
        reports, fallen = dict[int, Any](), set[int]()

        def each(work: Callable[[Engine], Any]) -> None:
            def one(n: int) -> None:
                try:
                    reports[n] = work(self._engines[n])
                except InfraFailure as failure:
                    self._mourn(failure, self._restart is not None)
                    fallen.add(n)

            list(self._threads.map(one, [n for n in range(len(self._engines)) if n not in fallen]))

        if self._asleep:
            each(lambda engine: engine.wake_up())
        for bucket in published:
            shared = self._shared(bucket)
            each(lambda engine, of=shared: engine.load_weights(of))  # type: ignore[misc]
            del bucket, shared  # or two are held while the next one is made
        return {n: report for n, report in reports.items() if n not in fallen}, fallen

    def _shared(self, bucket: WeightBundle) -> Any:
        """What each engine is handed of a bucket: here the bucket itself."""
        return bucket

    # -- one engine -----------------------------------------------------------------------------------------------

    def _generate(self, n: int, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        return self._on(n, lambda engine: engine.generate(prompts, sampling))

    def _hand_over(
        self, n: int, published: Published, probe: Probe, report: SyncReport | None = None, dead: bool = False
    ) -> tuple[SyncReport, float]:
        """The proof of engine n, which took the weights and reported so. Without a report it is given them now."""

        def prove(engine: Engine) -> tuple[SyncReport, float]:
            nonlocal report
            done, report = report, None  # an heir has taken nothing yet
            return self._prove(engine, published, probe, done)

        return self._on(n, prove, dead)

    def _prove(
        self, engine: Engine, published: Published, probe: Probe, report: SyncReport | None = None
    ) -> tuple[SyncReport, float]:
        if report is None:
            *_, report = (engine.load_weights(bucket) for bucket in published)
        if report is None or report.version != published.version:
            held = None if report is None else report.version
            raise WeightMismatch(f"an engine answers with weights version {held}, sent {published.version}")
        answers = engine.score(probe.sequences)
        return report, compare_probe(answers, probe.expected, self._proof, published.version)

    def _on(self, n: int, work: Callable[[Engine], Answer], dead: bool = False) -> Answer:
        """`work` on engine n; where that fails, on a new one in its place. Raises InfraFailure after RESTARTS."""
        for left in range(RESTARTS, -1, -1):
            try:
                if dead:
                    self._replace(n)
                return work(self._engines[n])
            except InfraFailure as failure:
                self._mourn(failure, self._restart is not None and left > 0)
                dead = True
        raise AssertionError("the last try returns or raises")

    def _mourn(self, failure: InfraFailure, again: bool) -> None:
        """Say that another takes its place, where one does; else raise the failure."""
        if not again or self._closed:
            raise failure
        print(f"{failure}; starting another in its place", file=sys.stderr, flush=True)

    def _replace(self, n: int) -> None:
        """Another engine for the n-th place; it stands there only once its weights are proved."""
        assert self._restart is not None
        started = time.monotonic()
        self._engines[n].close()
        engine = self._restart(n)
        try:
            if self._held is not None:
                self._prove(engine, *self._held)
        except BaseException:
            engine.close()
            raise
        self._engines[n] = engine
        version = self._held[0].version if self._held is not None else None
        recovery = Recovery(engine=n, seconds=time.monotonic() - started, version=version)
        self.recoveries.append(recovery)
        proved = "" if version is None else f", weights version {version} proved"
        print(f"engine {n} is back after {recovery.seconds:.1f} s{proved}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the threads; the engines belong to whoever started them, and none is started in place of another."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
