"""vLLM one step at a time, so that a prompt's completions are handed on when they are whole, not when all are.

streamed    for one caller: the same requests, order and batches as `LLM.generate`, hence the same bits
Stepper     for several callers at once, in one thread that has the engine to itself

Weights may change between two steps of a Stepper (`rollouts.engine.update_in_flight`). What is under way then goes on:
its further tokens come from the new weights, but attend to keys and values that the old ones computed, so they are
samples of neither version. Their log-probabilities are recorded as the engine computed them, which is what a correction
for off-policy tokens needs, and vLLM says which tokens came from which version (`spans`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from assay.errors import AssayError, InfraFailure, boundary

Answer = TypeVar("Answer")
Arrived = SimpleQueue[tuple[int, Any] | AssayError]


def streamed(llm: Any, prompts: Sequence[Sequence[int]], params: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """(index of the prompt, vLLM's output for it), each as soon as it is whole."""
    with boundary("vLLM generate"):
        waiting = {_outside(name): i for i, name in enumerate(_enqueue(llm, prompts, params))}
    while waiting:
        with boundary("vLLM generate"):
            outputs = llm.llm_engine.step()
        for output in outputs:
            if output.finished and output.request_id in waiting:
                yield waiting.pop(output.request_id), output


class Stepper:
    """Steps an engine for as long as anybody waits for something.

    Requests are taken in, and other work on the engine is done, between two steps and in their order: its thread has
    a queue, and every step goes to the end of it.
    """

    def __init__(self, llm: Any) -> None:
        self._llm, self._thread = llm, ThreadPoolExecutor(1, thread_name_prefix="vllm-step")
        # of the engine's thread alone: name outside -> index, who waits, name inside
        self._waiting: dict[str, tuple[int, Arrived, str]] = {}
        self._held = self._stepping = False

    def between(self, work: Callable[[], Answer]) -> Answer:
        """Do `work` on the engine between two steps. What is under way stays as it is."""
        return self._thread.submit(work).result()

    @contextmanager
    def held(self, until: bool) -> Iterator[None]:
        """No steps from the begin of this block on, through others, until the end of one that is told `until`. Where a
        block fails, so does everything under way: nothing may come of weights that are not proved."""
        self.between(self._hold)
        try:
            yield
        except AssayError as error:
            self.between(partial(self._drop, error))
            raise
        if until:
            self.between(self._go_on)

    def drop(self, error: AssayError) -> None:
        """Give up what is under way: whoever waits for it gets this error."""
        self.between(partial(self._drop, error))

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        params: Sequence[Any],
        priority: int = 0,
        fit: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[int, Any]]:
        """As `streamed`, beside whoever else asks; the lower priority number first, where the engine knows any. `fit`
        raises where the engine may not answer, and is not asked while it is held: then this waits."""
        arrived: Arrived = SimpleQueue()
        self.between(lambda: self._take_in(prompts, params, arrived, priority, fit))
        for _ in prompts:
            item = arrived.get()
            if isinstance(item, AssayError):
                raise item
            yield item

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    # -- in the engine's thread ------------------------------------------------------------------------------------

    def _take_in(
        self,
        prompts: Sequence[Sequence[int]],
        params: Sequence[Any],
        arrived: Arrived,
        priority: int,
        fit: Callable[[], None],
    ) -> None:
        if not self._held:
            fit()
        with boundary("vLLM generate"):
            names = _enqueue(self._llm, prompts, params, priority)
        self._waiting |= {_outside(name): (i, arrived, name) for i, name in enumerate(names)}
        self._next()

    def _next(self) -> None:
        if self._waiting and not self._held and not self._stepping:
            self._stepping = True
            self._thread.submit(self._step)

    def _step(self) -> None:
        self._stepping = False
        if self._held:
            return
        try:
            with boundary("vLLM generate"):
                outputs = self._llm.llm_engine.step()
        except InfraFailure as failure:
            self._tell(failure)
            return
        for output in outputs:
            if output.finished and output.request_id in self._waiting:
                i, arrived, _ = self._waiting.pop(output.request_id)
                arrived.put((i, output))
        self._next()

    def _hold(self) -> None:
        self._held = True

    def _go_on(self) -> None:
        self._held = False
        self._next()

    def _drop(self, error: AssayError) -> None:
        self._held = False
        with boundary("vLLM abort"):
            self._llm.llm_engine.abort_request([name for _, _, name in self._waiting.values()], internal=True)
        self._tell(error)

    def _tell(self, error: AssayError) -> None:
        for _, arrived, _ in self._waiting.values():
            arrived.put(error)
        self._waiting.clear()


def spans(versions: Sequence[Any] | None) -> tuple[tuple[int, int], ...]:
    """(version, tokens) of vLLM's own account of a completion; -1 where weights were never synced."""
    return tuple((-1 if s.version == "default" else int(s.version), s.end - s.start) for s in versions or ())


def _enqueue(llm: Any, prompts: Sequence[Sequence[int]], params: Sequence[Any], priority: int = 0) -> list[str]:
    asked = [{"prompt_token_ids": list(p)} for p in prompts]
    names: list[str] = llm.enqueue(asked, list(params), priority=priority, use_tqdm=False)
    return names


def _outside(name: str) -> str:
    """Inside, vLLM calls a request by its own name with a suffix: "7" is "7-0a1b2c3d"."""
    return name.rpartition("-")[0]
