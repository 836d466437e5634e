"""Several engines as one: tasks are dealt out (`rollouts.routing`), groups come back, weights go to all.

The engines may be objects in this process or proxies of Ray actors; the pool calls each from a thread of its own
and does not know the difference. An engine that dies is replaced, given the weights the dead one held, with the
proof, and asked again with the same seed: nobody above the pool can tell from what comes back.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from assay.chat import completion_text, encode_prompt
from assay.errors import DataError, InfraFailure, WeightMismatch
from assay.types import Completion, Message, RolloutGroup, Task
from rollouts.config import ProofConfig
from rollouts.engine import Engine, Sampling
from rollouts.routing import LANES, Expected, Gate, Room, Take, queue, shares, shut
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

    `room`: sequences an engine decodes at once; with it the engines take prompts from one queue as they have room, in
    several calls at a time. 0: every engine gets its share in one call. `in_flight`: an engine takes over weights in
    the midst of its calls; else a sync waits for them.
    `restart(n)` makes the n-th engine anew, without weights; without it a death is an InfraFailure and the run stops.
    With it the pool keeps what the last sync published, to ask it again for whoever comes.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        tokenizer: PreTrainedTokenizerBase,
        proof: ProofConfig,
        restart: Callable[[int], Engine] | None = None,
        room: int = 0,
        in_flight: bool = False,
    ) -> None:
        self._engines, self._tokenizer, self._proof = list(engines), tokenizer, proof
        self._restart, self._room, self._closed = restart, room, False
        self._in_flight, self._asleep = in_flight, False
        self._lanes: list[Future[None]] = []  #: that draw while other engines take over weights
        self._replacing = [threading.Lock() for _ in self._engines]
        self._gates = [Gate() for _ in self._engines]
        self.expected = Expected()
        self._held: tuple[Published, Probe] | None = None
        self.recoveries: list[Recovery] = []
        self.sent_bytes = 0  #: of the buckets of the last sync, however many engines read them
        lanes = max(1, len(self._engines)) * (LANES if room else 1)
        self._threads = ThreadPoolExecutor(max_workers=lanes, thread_name_prefix="rollout")
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
        groups = dict(self.stream(tasks, sampling))
        return [groups[i] for i in range(len(tasks))]

    def stream(self, tasks: Sequence[Task], sampling: Sampling) -> Iterator[tuple[int, RolloutGroup]]:
        """(index of the task, its group), each as soon as it is whole."""
        prompts = [self.prompt_ids(task) for task in tasks]
        arrived: SimpleQueue[tuple[int, list[Completion]] | Future[None]] = SimpleQueue()
        running = 0
        for n, take in self._calls(tasks, sampling):
            self._threads.submit(self._draw, n, take, prompts, sampling, arrived.put).add_done_callback(arrived.put)
            running += 1
        while running:
            item = arrived.get()
            if isinstance(item, Future):
                running -= 1
                item.result()
                continue
            group = self._group(tasks[item[0]], item[1])
            self.expected.note(group)
            yield item[0], group

    def serve(
        self,
        ask: Callable[[], tuple[int, Task] | None],
        give: Callable[[int, RolloutGroup], None],
        sampling: Sampling,
    ) -> list[Future[None]]:
        """Keep every engine at work: each of its lanes asks for a task and its number, and gives its group, until it is
        told None. A sync meanwhile waits for the calls under way, unless engines may take weights over in flight."""
        # no call more than fills an engine that is to find a place for the probe at any time
        lanes = max(1, self._room // sampling.samples + int(not self._in_flight)) if self._room else 1
        engines = range(len(self._engines))
        threads = ThreadPoolExecutor(lanes * max(1, len(self._engines)), thread_name_prefix="serve")

        def lane(n: int) -> None:
            while (asked := ask()) is not None:
                number, task = asked
                give(number, self._one(n, task, replace(sampling, numbers=(number,))))

        self._lanes = [threads.submit(lane, n) for _ in range(lanes) for n in engines]
        threads.shutdown(wait=False)  # when these are done
        return self._lanes

    def _serves(self) -> bool:
        return not all(lane.done() for lane in self._lanes)

    def _calls(self, tasks: Sequence[Task], sampling: Sampling) -> list[tuple[int, Take]]:
        """(engine, what it takes next) of every thread that shall call an engine."""
        engines = range(len(self._engines))
        if not self._room:
            return [*enumerate(shares(len(tasks), len(self._engines)))]
        room = Room.of(self._room, sampling.samples)
        order = self.expected.longest_first([t.id for t in tasks], [len(self.prompt_ids(t)) for t in tasks])
        take = queue(order, room.prompts)
        return [(n, take) for _ in range(room.lanes) for n in engines]

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
        # neither the old weights nor the new are everywhere now; yet an engine that dies while it draws needs some
        self._held = (published, probe) if self._serves() and self._restart is not None else None
        engines = range(len(self._engines))
        with nullcontext() if self._in_flight else shut(self._gates):
            reports, fallen = self._hand_out(published)
            self._asleep = False
            proved = list(
                self._threads.map(
                    lambda n: self._hand_over(n, published, probe, reports.get(n), fallen.get(n)), engines
                )
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
        enough. Until the next sync no engine can be replaced with its weights proved, and none should be asked: where
        engines draw all the time (`serve`), both are kept."""
        if not self._serves():
            self._held = None

    def _hand_out(self, published: Published) -> tuple[dict[int, SyncReport], dict[int, Engine]]:
        """Every bucket to all engines at once: what each says of the last, and who died on the way."""
        reports, fallen = dict[int, Any](), dict[int, Engine]()
        everyone, self.sent_bytes = list(range(len(self._engines))), 0

        def each(work: Callable[[Engine], Any], of: Sequence[int] = everyone) -> None:
            def one(n: int) -> None:
                try:
                    reports[n] = work(self._engines[n])
                except InfraFailure as failure:
                    self._mourn(failure, self._restart is not None)
                    fallen[n] = self._engines[n]

            list(self._threads.map(one, [n for n in of if n not in fallen]))

        def hand(buckets: Iterable[WeightBundle], of: Sequence[int]) -> None:
            for bucket in buckets:
                self.sent_bytes += bucket.size_bytes
                shared = self._shared(bucket)
                each(lambda engine, it=shared: engine.load_weights(it), of)  # type: ignore[misc]
                del bucket, shared  # or two are held while the next one is made

        with ExitStack() as stays:
            for lock in self._replacing:  # an engine that dies in its flight is replaced when all buckets are out
                stays.enter_context(lock)
            if self._asleep:
                each(lambda engine: engine.wake_up())
            if (base := _base_of(published)) is not None:
                each(lambda engine: engine.keeps())
                if lacking := [n for n in everyone if n not in fallen and _lacks(reports[n], base)]:
                    hand(base, lacking)
            hand(published, everyone)
        return {n: report for n, report in reports.items() if n not in fallen}, fallen

    def _shared(self, bucket: WeightBundle) -> Any:
        """What each engine is handed of a bucket: here the bucket itself."""
        return bucket

    # -- one engine -----------------------------------------------------------------------------------------------

    def _draw(
        self,
        n: int,
        take: Take,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        give: Callable[[tuple[int, list[Completion]]], None],
    ) -> None:
        """Draw on engine n whatever is to be taken. One that dies half-way repeats its call; nothing is given twice."""
        given = set[int]()

        def call(engine: Engine) -> None:
            own = replace(sampling, numbers=tuple(map(sampling.number, indices)))
            for k, completions in engine.stream([prompts[i] for i in indices], own):
                if indices[k] not in given:
                    _whole(n, completions, sampling)
                    given.add(indices[k])
                    give((indices[k], completions))
            if lacking := set(indices) - given:  # a prompt that nobody asks for again would be lost
                raise InfraFailure(f"rollouts/{n} ended its answer without {len(lacking)} of {len(indices)} prompts")

        while indices := take():
            with self._gates[n].call():
                self._on(n, call)

    def _one(self, n: int, task: Task, sampling: Sampling) -> RolloutGroup:
        prompt = self.prompt_ids(task)

        def ask(engine: Engine) -> list[Completion]:
            answers = [*engine.stream([prompt], sampling)]
            if len(answers) != 1:
                raise InfraFailure(f"rollouts/{n} gave {len(answers)} answers to one prompt")
            _whole(n, answers[0][1], sampling)
            return answers[0][1]

        with self._gates[n].call():
            completions = self._on(n, ask)
        group = self._group(task, completions)
        self.expected.note(group)
        return group

    def _hand_over(
        self, n: int, published: Published, probe: Probe, report: SyncReport | None, dead: Engine | None
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
            base = _base_of(published)
            if base is not None and _lacks(engine.keeps(), base):
                for bucket in base:
                    engine.load_weights(bucket)
            *_, report = (engine.load_weights(bucket) for bucket in published)
        if report is None or report.version != published.version:
            held = None if report is None else report.version
            raise WeightMismatch(f"an engine answers with weights version {held}, sent {published.version}")
        answers = engine.score(probe.sequences)
        return report, compare_probe(answers, probe.expected, self._proof, published.version)

    def _on(self, n: int, work: Callable[[Engine], Answer], dead: Engine | None = None) -> Answer:
        """`work` on engine n; where that fails, on a new one in its place. Raises InfraFailure after RESTARTS."""
        for left in range(RESTARTS, -1, -1):
            engine = self._engines[n]
            try:
                if dead is not None:
                    self._replace(n, dead)
                    engine = self._engines[n]
                return work(engine)
            except InfraFailure as failure:
                self._mourn(failure, self._restart is not None and left > 0)
                dead = engine
        raise AssertionError("the last try returns or raises")

    def _mourn(self, failure: InfraFailure, again: bool) -> None:
        """Say that another takes its place, where one does; else raise the failure."""
        if not again or self._closed:
            raise failure
        print(f"{failure}; starting another in its place", file=sys.stderr, flush=True)

    def _replace(self, n: int, dead: Engine) -> None:
        """Another engine for the n-th place; it stands there only once its weights are proved."""
        with self._replacing[n]:
            if self._engines[n] is dead:  # else another call has seen it die too, and was faster
                self._stand_in(n)

    def _stand_in(self, n: int) -> None:
        assert self._restart is not None
        started = time.monotonic()
        self._engines[n].close()
        engine = self._restart(n)
        held = self._held  # a sync may change it meanwhile, and comes to this engine itself then
        try:
            if held is not None:
                self._prove(engine, *held)
        except BaseException:
            engine.close()
            raise
        self._engines[n] = engine
        version = held[0].version if held is not None else None
        recovery = Recovery(engine=n, seconds=time.monotonic() - started, version=version)
        self.recoveries.append(recovery)
        proved = "" if version is None else f", weights version {version} proved"
        print(f"engine {n} is back after {recovery.seconds:.1f} s{proved}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the threads; the engines belong to whoever started them, and none is started in place of another."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)


def _lacks(kept: str, base: Publication) -> bool:
    """Whether an engine that keeps these frozen weights has to be given others. One that keeps none does not need their
    name, for which they are read once over."""
    return not kept or kept != base.name


def _whole(n: int, completions: Sequence[Completion], sampling: Sampling) -> None:
    """Raises InfraFailure where a group lacks members: its mean and deviation would be others."""
    if len(completions) != sampling.samples:
        raise InfraFailure(f"rollouts/{n} gave {len(completions)} of {sampling.samples} completions of a prompt")


def _base_of(published: Published) -> Publication | None:
    """The frozen weights that an engine has to keep before these come, where these are factors."""
    return published.base if isinstance(published, Publication) else None
