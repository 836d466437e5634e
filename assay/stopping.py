"""When training ends before its last step: by SIGINT, SIGTERM or a limit of time; between two steps, with a checkpoint.

    with Stopping(limit) as stop:
        for step in ...:
            if stop():                       # asked to, or no time for one more step and a checkpoint after it
                break                        # and leave a checkpoint, where the newest is older
            ...
            if due or stop.untimed:          # under a limit the first step is saved, to know how long that takes
                with stop.saving():
                    ...

A step takes as long as the longest so far, a checkpoint as long as the longest so far; SPARE times both are left, and
what a checkpoint that is written beside the steps still wants.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

SPARE = 1.25
TOGETHER_S = 1.0  #: a terminal and a launcher may both pass on one Ctrl-C


@dataclass(frozen=True)
class Limit:
    """So many hours of this process, from `started` (time.monotonic) on. `hours` None: no limit."""

    hours: float | None
    started: float

    def left_s(self, now: float) -> float:
        return float("inf") if self.hours is None else self.started + 3600 * self.hours - now


NO_LIMIT = Limit(None, 0.0)


class Stopping:
    """Inside `with`, SIGINT and SIGTERM ask to stop after the step at hand; a second one stops at once."""

    heard = 0.0  #: when any of them was asked by a signal, for those who pass signals on

    def __init__(self, limit: Limit = NO_LIMIT) -> None:
        self.limit = limit
        self.asked = self.signalled = False  #: by whatever; by a person or a scheduler
        self._since = 0.0
        self.why = ""  #: for people; empty where a person or a scheduler asked
        self._step_s = self._save_s = 0.0  # the longest so far
        self._before: float | None = None  # when it was last asked
        self._writing: float | None = None  # since when a checkpoint is
        self._handlers: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether to stop here. Called once before every step, which is how it knows what a step takes."""
        now = time.monotonic()
        if self._before is not None:
            self._step_s = max(self._step_s, now - self._before)
        self._before = now
        left, wanted = self.limit.left_s(now), SPARE * (self._step_s + self._saves_s(now))
        if left <= wanted and not self.asked:
            self.asked = True
            self.why = (
                f"max_hours={self.limit.hours:g} leaves {max(0.0, left):.0f} s, and a step and a checkpoint want "
                f"{wanted:.0f}"
            )
        return self.asked

    @property
    def untimed(self) -> bool:
        """There is a limit, and nothing was saved yet that would tell how long saving takes."""
        return self.limit.hours is not None and not self._save_s

    def _saves_s(self, now: float) -> float:
        """A checkpoint, and what one under way still wants: of the first that is taken to be as much as it has had."""
        began = self._writing
        if began is None:
            return self._save_s
        had = now - began
        return max(self._save_s, had) + (max(0.0, self._save_s - had) if self._save_s else had)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around a checkpoint, to learn how long it takes."""
        began = time.monotonic()
        yield
        self.saved(time.monotonic() - began)

    def writing(self) -> None:
        """A checkpoint is begun, which the steps do not wait for; until `saved` it is in flight."""
        self._writing = time.monotonic()

    def saved(self, seconds: float) -> None:
        """A checkpoint took so long until it was whole."""
        self._save_s, self._writing = max(self._save_s, seconds), None

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signalled:
            if time.monotonic() - self._since < TOGETHER_S:
                return
            raise KeyboardInterrupt
        self.asked, self.signalled, self._since = True, True, time.monotonic()
        Stopping.heard = self._since
        name = signal.Signals(number).name
        print(
            f"{name}: stopping after this step and writing a checkpoint; again to stop at once",
            file=sys.stderr,
            flush=True,
        )
