"""Several processes under one command: rank 0 runs it, the others do beside it what has to be done by all.

    torchrun --nproc-per-node 8 --no-python assay grpo CONFIG

Every rank starts the same command. Rank 0 alone reads the configuration, holds Ray, tasks, rewards, records and the
console; what trains is called through `everywhere` and `held`, and runs on all ranks at once.

    rank 0   -- job: step(batch) -->   rank 1, 2, ...     one connection each, beside the process group of torch
             <-- done | failed, why | asked to stop | where it is --

The connection is how ranks hear of each other's end: the kernel closes it when a process dies, however it dies. Then
all others end within seconds, with the reason, and none waits for a rank that is gone until a collective times out.
"""

from __future__ import annotations

import atexit
import inspect
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, NoReturn

from assay.commands.context import say
from assay.commands.rendezvous import first_line, meet
from assay.errors import AssayError, ConfigError, InfraFailure
from assay.stopping import Stopping

COMMANDS = ("recipe", "sft", "reward-model", "grpo")  #: those that train
TIMEOUT_S = 1800.0  #: of one collective operation, and of finding each other
REPORT_S = 60.0  #: a job that takes longer says so, and where each rank is
NOTICE_S = 2.0  #: a peer's end shows as torch's error first: so long it may take until the reason is known
GRACE_S = 10.0  #: for rank 0 to leave a collective that cannot end; then it is ended
TOGETHER_S = 2.0  #: a launcher passes one Ctrl-C on to every rank: signals so close are one
GONE = "killed, out of memory, or its machine went down"
ROOT = str(Path(__file__).resolve().parents[2])

_lead: Lead | None = None


def everywhere(job: Callable[..., Any], **named: Any) -> Any:
    """`job(**named)` on every rank; returns what it gives here. What can be called, such as a log, stays here."""
    return job(**named) if _lead is None else _lead.run(job, named=named, announced=False)


def held(make: Callable[[], Any]) -> Any:
    """What `make()` makes, one on every rank. A method called here runs on all of them, with the same arguments but
    for what can be called, which stays here; attributes are this rank's."""
    return make() if _lead is None else _lead.hold(make)


def main(command: str, drive: Callable[[], int]) -> int:
    """Run a command as one of several ranks."""
    global _lead
    if command not in COMMANDS:
        if os.environ["RANK"] != "0":
            return 2  # rank 0 says it
        raise ConfigError(f"`assay {command}` takes one process: start it without torchrun or accelerate launch")
    own, first, connections = meet(TIMEOUT_S)
    if own != first:
        return Follower(connections[0][1], own, first).serve()
    _lead = Lead([Peer(*other) for other in connections])
    code = 1
    try:
        code = drive()
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        code = 2 if isinstance(error, AssayError) or _lead.lost is not None else 130 if stopped else 1
        atexit.register(_leave, code)  # nothing may wait for ranks that are gone
        if _lead.lost is not None and stopped:
            raise InfraFailure(str(error)) from None
        raise
    finally:
        _lead.end(code)
    return code


# -- rank 0 -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """`call(*args)` for every rank to do; a name is a method of the object held as `of`."""

    call: Callable[..., Any] | str
    args: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)
    of: int | None = None
    keep: int | None = None  #: hold the result under this number

    @property
    def name(self) -> str:
        call = self.call.func if isinstance(self.call, partial) else self.call
        return call if isinstance(call, str) else call.__name__

    def for_all(self) -> Job:
        """Without what can be called."""
        named = {name: value for name, value in self.named.items() if not callable(value)}
        return replace(self, args=tuple(value for value in self.args if not callable(value)), named=named)

    def do(self, held: dict[int, Any]) -> Any:
        call = getattr(held[self.of], self.call) if isinstance(self.call, str) and self.of is not None else self.call
        assert callable(call)
        result = call(*self.args, **self.named)
        if self.keep is not None:
            held[self.keep] = result
        return result


@dataclass
class Peer:
    """Another rank, as rank 0 sees it."""

    name: str
    connection: Connection
    where: str | None = None  #: its answer, when it was asked
    sending: Any = field(default_factory=threading.Lock)

    def tell(self, *message: Any) -> None:
        with self.sending:
            try:
                self.connection.send(message)
            except OSError:
                """It is gone; the listening thread finds out."""


class Shared:
    """An object of which every rank holds one."""

    def __init__(self, lead: Lead, key: int, own: Any) -> None:
        self._lead, self._key, self._own = lead, key, own

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._own, name)
        if not inspect.ismethod(value):
            return value
        return lambda *args, **named: self._lead.run(name, args, named, of=self._key)


class Lead:
    """Rank 0: gives out jobs and does them too; hears of the others' ends."""

    def __init__(self, peers: Sequence[Peer]) -> None:
        self.peers, self.held = peers, dict[int, Any]()
        self.lost: str | None = None  #: who is gone, and why
        self._noticed = self._over = False
        self._doing: tuple[Job, float, bool] | None = None
        self._stopped = -TOGETHER_S
        self._one_at_a_time = threading.Lock()  # all ranks do jobs in the same order
        signal.signal(signal.SIGUSR1, self._interrupt)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        threading.Thread(target=self._listen, name="ranks", daemon=True).start()

    def hold(self, make: Callable[[], Any]) -> Shared:
        key = len(self.held)
        return Shared(self, key, self.run(make, keep=key))

    def run(
        self,
        call: Callable[..., Any] | str,
        args: tuple[Any, ...] = (),
        named: dict[str, Any] | None = None,
        *,
        of: int | None = None,
        keep: int | None = None,
        announced: bool = True,
    ) -> Any:
        """Do a job on all ranks. `announced`: say so when it takes long; else it has a progress of its own."""
        if self.lost is not None:
            raise InfraFailure(self.lost)
        job = Job(call, args, named or {}, of, keep)
        packed = pickle.dumps(job.for_all())
        with self._one_at_a_time, self._blaming(job, announced):
            for peer in self.peers:
                peer.tell("job", packed)
            return job.do(self.held)

    @contextmanager
    def _blaming(self, job: Job, announced: bool) -> Iterator[None]:
        """What fails inside for want of another rank says so. Raises InfraFailure."""
        self._doing, self._noticed = (job, time.monotonic(), announced), False
        try:
            yield
        except AssayError:
            self._noticed = True  # it has a reason of its own, maybe the others' too
            raise
        except RuntimeError as error:  # torch's word for a peer that is gone or silent
            until, silent = time.monotonic() + NOTICE_S, "imed out" in str(error)
            self._ask()
            while time.monotonic() < until and (silent or self.lost is None):
                time.sleep(0.02)
            if self.lost is None and not silent:
                raise
            self._noticed = True
            line = f"{job.name}: {first_line(error)}; meanwhile {self._whereabouts()}" if silent else self.lost
            raise InfraFailure(line) from None
        finally:
            self._doing = None

    def end(self, code: int) -> None:
        """Send the other ranks home."""
        self._over = True
        for peer in self.peers:
            peer.tell("end", code, self.lost or "")
        if code == 0:
            _part()

    # -- what the listening thread does ---------------------------------------------------------------------------

    def _listen(self) -> None:
        peers = {peer.connection: peer for peer in self.peers}
        reported = 0.0
        while peers:
            for connection in wait(list(peers), timeout=1.0):
                peer = peers[connection]  # type: ignore[index]
                try:
                    self._heard(peer, *peer.connection.recv())
                except (EOFError, OSError):
                    del peers[peer.connection]
                    self._lose(f"{peer.name} is gone: {GONE}")
            doing, now = self._doing, time.monotonic()
            if doing and doing[2] and now - max(doing[1], reported) > REPORT_S:
                self._ask()
                time.sleep(NOTICE_S / 2)
                reported = now
                say(f"still waiting: {doing[0].name}, {now - doing[1]:.0f} s; {self._whereabouts()}")

    def _heard(self, peer: Peer, kind: str, text: str) -> None:
        if kind == "failed":
            peer.where = text
            self._lose(f"{peer.name}: {text}")
        elif kind == "where":
            peer.where = text
        elif kind == "asked":
            time.sleep(TOGETHER_S / 4)  # a launcher tells every rank, and this one as well
            if time.monotonic() - max(self._stopped, Stopping.heard) > TOGETHER_S:
                say(f"{peer.name} was asked to stop by {text}")
                self._stopped = time.monotonic()
                os.kill(os.getpid(), signal.Signals[text])

    def _lose(self, reason: str) -> None:
        """One rank less: all others end. Later reasons follow from the first."""
        if self.lost is None and not self._over:
            self.lost = reason
            threading.Thread(target=self._turn_back, daemon=True).start()

    def _turn_back(self) -> None:
        """Get the main thread out of whatever it does; out of this process, where it waits for the lost rank."""
        until = time.monotonic() + NOTICE_S
        while self._doing is not None and not self._noticed and time.monotonic() < until:
            time.sleep(0.02)  # its own error is the better one
        for peer in self.peers:
            peer.tell("end", 2, self.lost or "")
        until = time.monotonic() + GRACE_S
        if not self._noticed:
            signal.pthread_kill(int(threading.main_thread().ident or 0), signal.SIGUSR1)
        while not self._noticed and not self._over:
            if time.monotonic() > until:
                say(f"assay: {self.lost}; rank 0 waits for it in torch and is ended; give the command again to go on")
                _leave(2)
            time.sleep(0.05)

    def _ask(self) -> None:
        for peer in self.peers:
            peer.where = None
            if peer.sending.acquire(blocking=False):
                peer.sending.release()
                peer.tell("where")

    def _whereabouts(self) -> str:
        return "; ".join(f"{peer.name} {peer.where or 'does not answer'}" for peer in self.peers)

    # -- signals, in the main thread ------------------------------------------------------------------------------

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self._noticed and not self._over:
            self._noticed = True
            raise KeyboardInterrupt(self.lost)  # as an order: nothing tries again what failed by it

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.lost is None:
            Stopping.heard = time.monotonic()
            raise KeyboardInterrupt


# -- the others ---------------------------------------------------------------------------------------------------


class Follower:
    """Any other rank: does what rank 0 does, and ends with it."""

    def __init__(self, connection: Connection, name: str, lead: str) -> None:
        self._connection, self._name, self._lead = connection, name, lead
        self._jobs: SimpleQueue[bytes | None] = SimpleQueue()
        self._doing = ""
        self._stopped = 0.0
        self._sending = threading.Lock()

    def serve(self) -> int:
        """Do jobs until rank 0 has no more; returns its exit status. Errors of ours are rank 0's to print."""
        self._be_quiet()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._asked)
        threading.Thread(target=self._listen, name="ranks", daemon=True).start()
        held: dict[int, Any] = {}
        while (packed := self._jobs.get()) is not None:
            try:
                job: Job = pickle.loads(packed)
                self._doing = job.name
                job.do(held)
                self._doing = ""
            except BaseException as error:
                self._tell("failed", f"{self._doing}: {type(error).__name__}: {first_line(error)}")
                if isinstance(error, AssayError):
                    _leave(2)
                atexit.register(_leave, 1)
                raise
        _part()
        return 0

    def _be_quiet(self) -> None:
        """Warnings about a model, or of a library, are on rank 0's console once."""
        import warnings

        from transformers.utils import logging

        warnings.simplefilter("ignore")
        logging.set_verbosity_error()

    def _listen(self) -> None:
        code, reason = 2, f"{self._lead} is gone: {GONE}"
        try:
            while True:
                kind, *rest = self._connection.recv()
                if kind == "job":
                    self._jobs.put(rest[0])
                elif kind == "where":
                    self._tell("where", self._where())
                else:
                    code, reason = rest
                    break
        except (EOFError, OSError):
            """Rank 0 closed it, or was closed."""
        finally:
            if code == 0:
                self._jobs.put(None)
            else:
                if reason and not reason.startswith(self._name):
                    say(f"{self._name}: {reason}; this rank ends")
                _leave(code)

    def _tell(self, *message: str) -> None:
        with self._sending:
            try:
                self._connection.send(message)
            except OSError:
                """Rank 0 is gone; the listening thread finds out."""

    def _where(self) -> str:
        """`in step at grpo/trainer.py:173`: the innermost line of ours."""
        if not self._doing:
            return "waits for a job"
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        while frame is not None:
            file = frame.f_code.co_filename
            if file.startswith(ROOT) and "site-packages" not in file:
                return f"in {self._doing} at {os.path.relpath(file, ROOT)}:{frame.f_lineno}"
            frame = frame.f_back
        return f"in {self._doing}"

    def _asked(self, number: int, frame: FrameType | None) -> None:
        """Rank 0 decides when all stop. A second time this rank ends, and all with it."""
        now = time.monotonic()
        if not self._stopped:
            self._stopped = now
            threading.Thread(target=self._tell, args=("asked", signal.Signals(number).name), daemon=True).start()
        elif now - self._stopped > TOGETHER_S:
            raise KeyboardInterrupt


def _part() -> None:
    """An orderly end of the process group, which every rank has to take part in."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _leave(code: int) -> NoReturn:
    """End this process without a look at threads and communicators that may wait for ever."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
