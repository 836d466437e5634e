"""Which prompt goes to which engine, and when.

`fixed`: every engine draws its share of a draw in one call. The shares follow from the tasks alone, so a draw repeats
to the bit: vLLM's log-probabilities depend in their last bits on what else is in the batch (measured on a CPU in fp32:
up to 1.4e-6, the same tokens).

`queue`: prompts wait in one queue, the longest expected first, and whichever engine has room takes the next. The last
completions of a draw are then short ones, and no engine waits for the share of another: list scheduling by longest
processing time (Graham 1969: at most 4/3 of the best makespan, were the lengths known).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from assay.types import RolloutGroup

LANES = 16  #: calls of one engine at a time, at most
Take = Callable[[], list[int]]
"""The prompts of the next call, by index; none: there are no more."""


class Expected:
    """How long the completions of a task will be: as its earlier ones on average, or as all earlier ones."""

    def __init__(self) -> None:
        self._tokens: dict[str, tuple[int, int]] = {}  # task -> completions, tokens
        self._all = (0, 0)
        self._lock = threading.Lock()

    def note(self, group: RolloutGroup) -> None:
        count, tokens = len(group.completions), sum(len(c.token_ids) for c in group.completions)
        with self._lock:
            n, before = self._tokens.get(group.task.id, (0, 0))
            self._tokens[group.task.id] = n + count, before + tokens
            self._all = self._all[0] + count, self._all[1] + tokens

    def length(self, task: str) -> float:
        """Tokens. 0 where nothing was drawn yet."""
        with self._lock:
            count, tokens = self._tokens.get(task, self._all)
        return tokens / count if count else 0.0

    def longest_first(self, tasks: Sequence[str], prompt_tokens: Sequence[int]) -> list[int]:
        """Indices of the tasks; those expected alike by the lengths of their prompts."""
        return sorted(range(len(tasks)), key=lambda i: (-self.length(tasks[i]), -prompt_tokens[i], i))


@dataclass(frozen=True, slots=True)
class Room:
    """Of one engine: `lanes` calls at a time, of `prompts` each. `spare`: calls beyond those that fill it, so that it
    never idles."""

    lanes: int
    prompts: int

    @classmethod
    def of(cls, sequences: int, samples: int, spare: int = 1) -> Room:
        """For an engine that decodes so many sequences at once, groups of G = `samples`."""
        lanes = max(1, min(LANES, sequences // samples + spare))
        return cls(lanes, max(1, sequences // (samples * lanes)))


class Gate:
    """Of an engine: calls go in together; not while it is shut for a sync, which goes before calls that wait."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.inside, self.shut = 0, False

    @contextmanager
    def call(self) -> Iterator[None]:
        with self.changed:
            self.changed.wait_for(lambda: not self.shut)
            self.inside += 1
        try:
            yield
        finally:
            with self.changed:
                self.inside -= 1
                self.changed.notify_all()


@contextmanager
def shut(gates: Sequence[Gate]) -> Iterator[None]:
    """No call inside any of the gates, for a block. One such block at a time."""
    for gate in gates:
        with gate.changed:
            gate.shut = True
    try:
        for gate in gates:
            with gate.changed:
                gate.changed.wait_for(lambda gate=gate: not gate.inside)  # type: ignore[misc]
        yield
    finally:
        for gate in gates:
            with gate.changed:
                gate.shut = False
                gate.changed.notify_all()


def shares(count: int, engines: int) -> list[Take]:
    """One call per engine: prompts n, n + engines, ... for the n-th."""
    return [iter([list(range(n, count, engines)), []]).__next__ for n in range(engines)]


def queue(order: Iterable[int], prompts: int) -> Take:
    """Calls of so many prompts each, in an order, for whoever asks next."""
    waiting = deque(order)

    def take() -> list[int]:
        taken: list[int] = []
        while len(taken) < prompts:
            try:
                taken.append(waiting.popleft())  # of one piece, whoever else is taking
            except IndexError:
                break
        return taken

    return take
