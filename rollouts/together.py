"""The processes of one tensor-parallel engine: they end together, are named when they do, and leave nothing behind.

vLLM starts a process for each slice of the model beside the engine's own. Left to itself

- a process whose partner was killed waits for it. On a CPU it spins in shared memory, where it hears no signal but
  SIGKILL; vLLM sees the death, waits 5 s for the others to leave, asks them, waits 4 s, and kills them then. Here
  `Together` kills them at once, so that whoever waits for an answer has a failure within a second;
- where the engine's own process is killed, they look for it only between two orders, and one whose partner is gone too
  would never come to that. Here each waits for its parent's end in a thread of its own, and kills itself;
- shared memory and sockets have names until somebody removes them, and whoever is killed does not. Here names are
  removed as soon as all processes have opened what they stand for.
"""

from __future__ import annotations

import os
import select
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from assay.errors import InfraFailure

NOTICE_S = 2.0  #: for the guard to say who died, once an answer failed
END_S = 10.0  #: for a killed process to be gone
MEMORY = Path("/dev/shm")
OPENED = ("psm_", "sem.mp-", "vllm_dist_", "__KMP_REGISTERED_LIB_")  #: by Python, by vLLM, by the OpenMP runtime


class Together:
    """The processes of one engine, seen from the one that started them. Ask in `answering`; `end` before it closes."""

    def __init__(self, llm: Any) -> None:
        self._executor = llm.llm_engine.engine_core.engine_core.model_executor
        told = llm.collective_rpc(stay, args=(os.getpid(),))
        self.pids = [pid for pid, _ in told]
        self._rendezvous = told[0][1]
        self._handles = [os.pidfd_open(pid) for pid in self.pids]
        self._ending, self._lost, self._known = False, "", threading.Event()
        self._forget_names()
        threading.Thread(target=self._guard, daemon=True, name="engine-guard").start()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Whatever fails inside because a process is gone says which one."""
        try:
            yield
        except InfraFailure as failure:
            if self._gone(timeout_s=0):
                self._known.wait(NOTICE_S)
            if self._lost:
                raise InfraFailure(f"{self._lost} ({failure})") from failure
            raise

    def end(self) -> None:
        """Kill all of them, and wait until they are gone: what they hold is held elsewhere, or worth nothing."""
        self._ending = self._executor.shutting_down = True  # vLLM would call it unexpected
        self._kill()
        until = time.monotonic() + END_S
        while len(self._gone(timeout_s=0.1)) < len(self._handles) and time.monotonic() < until:
            time.sleep(0.01)
        Path(self._rendezvous).unlink(missing_ok=True)

    # -- in the guard's thread, but for close ----------------------------------------------------------------------

    def _guard(self) -> None:
        first = self._gone(timeout_s=None)
        if not self._ending:
            self._kill()
            of = len(self.pids)
            self._lost = "; ".join(f"process {i} of {of} (pid {self.pids[i]}) {self._cause(i)}" for i in first)
            self._known.set()

    def _gone(self, timeout_s: float | None) -> list[int]:
        """Ranks of the processes that have ended; waits for the first."""
        ended = select.poll()
        for handle in self._handles:
            ended.register(handle, select.POLLIN)
        ready = {handle for handle, _ in ended.poll(None if timeout_s is None else timeout_s * 1000)}
        return [i for i, handle in enumerate(self._handles) if handle in ready]

    def _kill(self) -> None:
        for handle in self._handles:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)

    def _cause(self, rank: int) -> str:
        """vLLM waits for it too: who comes second is told only by the object both know."""
        until = time.monotonic() + NOTICE_S / 2
        while (code := self._executor.workers[rank].proc.exitcode) is None and time.monotonic() < until:
            time.sleep(0.01)
        if code is None:
            return "ended"
        return f"was killed by signal {-code}" if code < 0 else f"left with status {code}"

    def _forget_names(self) -> None:
        """Remove the names of shared memory, semaphores and sockets that all processes have opened."""
        queue = self._executor.rpc_broadcast_mq
        queue.buffer.is_creator = False  # or it would look for the name at its end
        for path in _named_memory(self.pids):
            path.unlink(missing_ok=True)
            if path.name.startswith("psm_"):
                resource_tracker.unregister(f"/{path.name}", "shared_memory")
            elif path.name.startswith("sem."):
                resource_tracker.unregister(f"/{path.name.removeprefix('sem.')}", "semaphore")
        for pid in self.pids:
            for path in MEMORY.glob(f"__KMP_REGISTERED_LIB_{pid}_*"):
                path.unlink(missing_ok=True)
        for path in _sockets((os.getpid(), *self.pids)):
            path.unlink(missing_ok=True)


def stay(worker: Any, parent: int) -> tuple[int, str]:
    """In a process of the engine: live no longer than `parent`. Its pid, and the file where they found each other."""
    met = str(worker.distributed_init_method).removeprefix("file://")
    threading.Thread(target=_end_with, args=(os.pidfd_open(parent), met), daemon=True, name="parent-watch").start()
    return os.getpid(), met


def _end_with(parent: int, met: str) -> None:
    ended = select.poll()  # select takes no descriptor above 1023
    ended.register(parent, select.POLLIN)
    ended.poll()
    Path(met).unlink(missing_ok=True)
    os.kill(os.getpid(), signal.SIGKILL)


def _named_memory(pids: Sequence[int]) -> set[Path]:
    """What these processes have opened of shared memory and still has a name. By inode: glibc gives a semaphore its
    name after it was opened under another."""
    lines = (line for pid in pids for line in Path(f"/proc/{pid}/maps").read_text().splitlines())
    inodes = {line.split(maxsplit=5)[4] for line in lines if f" {MEMORY}/" in line}
    found = set()
    for path in MEMORY.iterdir():
        with suppress(FileNotFoundError):  # others come and go there
            if path.name.startswith(OPENED) and str(path.stat().st_ino) in inodes:
                found.add(path)
    return found


def _sockets(pids: Sequence[int]) -> set[Path]:
    """Paths of vLLM's listening sockets in these processes."""
    folder = Path(os.environ.get("VLLM_RPC_BASE_PATH") or tempfile.gettempdir())
    theirs = {_target(link) for pid in pids for link in Path(f"/proc/{pid}/fd").iterdir()}
    found = set()
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        columns = line.split(maxsplit=7)
        if len(columns) == 8 and f"socket:[{columns[6]}]" in theirs:
            found.add(Path(columns[7]))
    return {path for path in found if path.parent == folder and path.name.count("-") == 4}


def _target(link: Path) -> str:
    with suppress(OSError):  # closed since
        return str(link.readlink())
    return ""
