"""Ray's processes on this machine: spared a SIGTERM that is meant for the run, and missed aloud."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ACTOR = "ASSAY_ACTOR"  #: in the environment of an actor's process


@contextmanager
def spared() -> Iterator[Callable[[], bool]]:
    """What is started inside never hears SIGTERM; yields what says whether this process was sent one, and takes it.

    Schedulers send it to every process of a run. The driver then finishes its step and writes a checkpoint, for which
    it needs the others; Ray ends a driver within a second of its daemon. They die with the driver whatever ends it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield lambda: signal.sigtimedwait({signal.SIGTERM}, 0) is not None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def outlive_sigterm() -> None:
    """The same for an actor, which was started without hearing it: it goes on, and what it starts hears it again, for
    many a library ends its own processes so. Does nothing in a process that is no actor's."""
    if ACTOR not in os.environ or threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


class Watch:
    """Says that Ray's daemon on this machine is gone: Ray ends this process a second later, without a word."""

    def __init__(self, node: Any) -> None:
        """`node`: Ray's own record of what it started here; nothing where it joined a cluster that was there."""
        self._processes = getattr(node, "all_processes", None) or {}
        started = self._processes.get("raylet", [])
        self._pid = started[0].process.pid if started else None
        self._ended, self._end = os.pipe()
        if self._pid is not None:
            threading.Thread(target=self._wait, name="raylet-watch", daemon=True).start()

    def _wait(self) -> None:
        assert self._pid is not None
        try:
            daemon = os.pidfd_open(self._pid)
        except OSError:  # no such call here, or it is gone already
            return
        waiting = select.poll()  # select takes no descriptor above 1023
        for descriptor in (daemon, self._ended):
            waiting.register(descriptor, select.POLLIN | select.POLLHUP)
        ready = {descriptor for descriptor, _ in waiting.poll()}
        os.close(daemon)
        if self._ended not in ready:
            print(
                f"Ray's daemon on this machine (pid {self._pid}) is gone, and Ray ends this process with it: killed, "
                "or out of memory? A GRPO run that has a checkpoint is taken up with --resume",
                file=sys.stderr,
                flush=True,
            )

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Inside, Ray ends them on purpose: with SIGTERM, which they do not hear, and SIGKILL a second later each. The
        daemon has use for that second, in which its workers end; what it could not end itself is ended after it."""
        os.close(self._end)  # the other end is then ready
        for kind, started in self._processes.items():
            for process in (one.process for one in started if kind != "raylet"):
                process.terminate = process.kill
        children = _children(self._pid) if self._pid is not None else []
        try:
            yield
        finally:
            os.close(self._ended)
            for child in children:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(child, signal.SIGKILL)
                os.close(child)


def _children(pid: int) -> list[int]:
    """A handle of each child of a process: other than its number, it never means another."""
    found = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                with suppress(OSError):  # it ended meanwhile
                    found.append(os.pidfd_open(int(child)))
    return found
