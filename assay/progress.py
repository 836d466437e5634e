"""How far a long task has come: a bar on a terminal, a line every ten seconds in a log file.

    for task in progress(tasks, "scoring"):
        ...

    with progress(len(tasks), "scoring") as bar:     # work that finishes out of order
        bar.advance(8)

Written to stderr: stdout belongs to results. rich is imported only for a terminal.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Any, Generic, TextIO, TypeVar

T = TypeVar("T")


def progress(
    work: Iterable[T] | int,
    label: str,
    *,
    total: int | None = None,
    every_s: float = 10.0,
    stream: TextIO | None = None,
) -> Progress[T]:
    """Show how far `work` has come: iterate over the result, or give a number of items and call `advance`.

    `total` is needed only for an iterable without a length. `every_s` is the time between lines when `stream`
    (stderr) is not a terminal.
    """
    if isinstance(work, int):
        return Progress((), label, work, every_s, stream or sys.stderr)
    return Progress(work, label, len(work) if isinstance(work, Sized) else total, every_s, stream or sys.stderr)


class Progress(Generic[T]):
    """Made by `progress`; either iterate over it, or enter it and call `advance`."""

    def __init__(self, items: Iterable[T], label: str, total: int | None, every_s: float, stream: TextIO) -> None:
        self.items, self.label, self.total, self.every_s, self.stream = items, label, total, every_s, stream
        self.done = 0
        self._note = ""
        self._bar: Any = None

    def __iter__(self) -> Iterator[T]:
        with self:
            for item in self.items:
                yield item
                self.advance()

    def __enter__(self) -> Progress[T]:
        self._start = self._spoke = time.monotonic()
        if self.stream.isatty():
            self._bar = _bar(self.stream)
            self._task = self._bar.add_task(self.label, total=self.total, note="")
            self._bar.start()
        return self

    def advance(self, items: int = 1, note: str = "") -> None:
        """Count `items` more as done; `note` is shown behind the count."""
        self.done += items
        self._note = note or self._note
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, note=self._note)
        elif now - self._spoke >= self.every_s:
            self._spoke = now
            self._say(now)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        else:
            self._say(time.monotonic(), "done" if kind is None else "stopped")

    def _say(self, now: float, end: str = "") -> None:
        elapsed = now - self._start
        count = f"{self.done}/{self.total}" if self.total is not None else f"{self.done}"
        parts = [f"{self.label}: {count}"]
        if self.total:
            parts.append(f"({self.done / self.total:.0%})")
        parts.append(f"{end} in {_duration(elapsed)}" if end else _duration(elapsed))
        if not end and self.total and self.done:
            parts.append(f"~{_duration(elapsed * (self.total - self.done) / self.done)} left")
        print(" ".join([*parts, self._note] if self._note else parts), file=self.stream, flush=True)


def _bar(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    return RichProgress(*columns, console=Console(file=stream))


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"
