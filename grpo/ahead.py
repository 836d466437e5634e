"""Drawing rollouts ahead of training: at most `max_lag` steps, in order, and never while weights change hands.

    max_lag 0   generate 1, judge 1, train 1, sync, generate 2, judge 2, train 2, sync, ...
    max_lag 1   generate 1, generate 2 | judge 1, generate 3 | judge 2 | train 1, sync, ...

The engines belong to one at a time: to the draw whose turn it is, or to a sync. A sync goes before waiting draws. So
every completion comes from one version of the weights, and the draw of step s from at least version s - max_lag. Draws
take their prompts in their turn: a prompt is drawn once, in the order of the tasks, whatever the lag.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")
Draw = Callable[[int, Callable[[], None]], T]
"""Draw of one step: (step, done) -> what was drawn. It has the engines until it calls `done`, or returns."""


class Ahead(Generic[T]):
    """Draws for the steps from `start` up to `end`, each by `draw`."""

    def __init__(self, draw: Draw[T], *, max_lag: int, start: int, end: int) -> None:
        self._draw, self._max_lag, self._end = draw, max_lag, end
        self._changed = threading.Condition()
        self._turn = start  #: the step that may draw next
        self._synced = start  #: steps of training that the engines know of
        self._busy = self._closed = False
        self._syncs = 0  #: that wait or are under way
        self._threads = ThreadPoolExecutor(max_lag + 1, thread_name_prefix="draw") if max_lag else None
        self._coming: dict[int, Future[T]] = {}

    def take(self, step: int) -> T:
        """What was drawn for `step`; drawn now where nothing is drawn ahead. Raises what the draw raised."""
        if self._threads is None:
            return self._in_turn(step)
        for later in range(step, min(step + self._max_lag + 1, self._end)):
            if later not in self._coming:
                self._coming[later] = self._threads.submit(self._in_turn, later)
        return self._coming.pop(step).result()

    @contextmanager
    def engines(self) -> Iterator[None]:
        """Have the engines for a block, before any draw that waits for them."""
        with self._changed:
            self._syncs += 1
            self._changed.wait_for(lambda: not self._busy)
            self._busy = True
        try:
            yield
        finally:
            with self._changed:
                self._syncs -= 1
                self._busy = False
                self._changed.notify_all()

    def trained(self, steps: int) -> None:
        """The engines hold the weights of so many steps: further draws may begin."""
        with self._changed:
            self._synced = steps
            self._changed.notify_all()

    def close(self) -> None:
        """Let nothing begin any more. What runs is not waited for: its engines may be gone."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _in_turn(self, step: int) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._may_begin(step))
            if self._closed:
                raise RuntimeError("closed")  # nobody waits for this draw
            self._busy = True

        def done() -> None:
            with self._changed:
                if self._turn == step:  # else it was called before
                    self._busy, self._turn = False, step + 1
                    self._changed.notify_all()

        try:
            return self._draw(step, done)
        finally:
            done()

    def _may_begin(self, step: int) -> bool:
        return self._turn == step and not self._busy and not self._syncs and step <= self._synced + self._max_lag
