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
import hmac
import inspect
import os
import pickle
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, NoReturn

from assay.commands.context import say
from assay.errors import AssayError, ConfigError, EnvironmentProblem, InfraFailure

COMMANDS = ("recipe", "sft", "reward-model", "grpo")  #: those that train
TIMEOUT_S = 1800.0  #: of one collective operation, and of finding each other
REPORT_S = 60.0  #: a job that takes longer says so, and where each rank is
NOTICE_S = 2.0  #: a peer's end shows as torch's error first: so long it may take until the reason is known
GRACE_S = 10.0  #: for rank 0 to leave a collective that cannot end; then it is ended
TOGETHER_S = 2.0  #: a launcher passes one Ctrl-C on to every rank: signals so close are one
GONE = "killed, out of memory, or its machine went down"
ROOT = str(Path(__file__).resolve().parents[2])

_lead: Lead | None = None


def everywhere(job: Callable[..., Any], **here: Any) -> Any:
    """`job()` on every rank; returns what it gives here. `here`: what this rank alone is given besides."""
    return job(**here) if _lead is None else _lead.run(job, here=here, announced=False)


def held(make: Callable[[], Any]) -> Any:
    """What `make()` makes, one on every rank. A method called here runs on all of them; attributes are this rank's."""
    return make() if _lead is None else _lead.hold(make)


def world() -> int:
    """How many processes a launcher started for this command."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def main(command: str, drive: Callable[[], int]) -> int:
    """Run a command as one of several ranks."""
    global _lead
    if command not in COMMANDS:
        if os.environ["RANK"] != "0":
            return 2  # rank 0 says it
        raise ConfigError(f"`assay {command}` takes one process: start it without torchrun or accelerate launch")
    joined = _join()
    if isinstance(joined, Follower):
        return joined.serve()
    _lead = joined
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


# -- finding each other -------------------------------------------------------------------------------------------


def _join() -> Lead | Follower:
    """The process group, and a connection between rank 0 and each other rank. Raises EnvironmentProblem."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env
    from torch.distributed import broadcast_object_list

    try:
        state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=timedelta(seconds=TIMEOUT_S))
    except (RuntimeError, ValueError) as error:
        raise EnvironmentProblem(
            f"rank {os.environ['RANK']} of {world()}: the ranks did not find each other: {_first_line(error)}"
        ) from None
    one_node = world() == int(os.environ.get("LOCAL_WORLD_SIZE", "0"))
    door: list[Any] = [None]
    if state.process_index == 0:
        listening = socket.create_server(("127.0.0.1" if one_node else "", 0))
        door = [(listening.getsockname()[1], secrets.token_bytes(32), _here(0))]
    broadcast_object_list(door, src=0)
    port, key, lead = door[0]
    if state.process_index > 0:
        sock = socket.create_connection(("127.0.0.1" if one_node else os.environ["MASTER_ADDR"], port), TIMEOUT_S)
        sock.sendall(key)
        connection = _lasting(sock)
        connection.send((state.process_index, _here(state.process_index)))
        return Follower(connection, _here(state.process_index), lead)
    return Lead(_admit(listening, key, state.num_processes - 1))


def _here(rank: int) -> str:
    return f"rank {rank} ({socket.gethostname()}, pid {os.getpid()})"


def _admit(listening: socket.socket, key: bytes, count: int) -> list[Peer]:
    """The connections of the other ranks, which know the key by the process group."""
    peers: list[Peer] = []
    listening.settimeout(60.0)
    while len(peers) < count:
        try:
            sock, _ = listening.accept()
            sock.settimeout(60.0)
            knows = hmac.compare_digest(sock.recv(len(key), socket.MSG_WAITALL), key)
        except OSError as error:
            raise EnvironmentProblem(f"{len(peers)} of {count} other ranks reached rank 0: {error}") from None
        if not knows:
            sock.close()
            continue
        connection = _lasting(sock)
        rank, name = connection.recv()
        peers.append(Peer(rank, name, connection))
    listening.close()
    return sorted(peers, key=lambda peer: peer.rank)


def _lasting(sock: socket.socket) -> Connection:
    """Open as long as both ends live, and not much longer where a machine vanished without a word."""
    sock.settimeout(None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3)):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Connection(sock.detach())


# -- rank 0 -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """`call(*args)` for every rank to do; a name is a method of the object held as `of`."""

    call: Callable[..., Any] | str
    args: tuple[Any, ...] = ()
    of: int | None = None
    keep: int | None = None  #: hold the result under this number

    @property
    def name(self) -> str:
        call = self.call.func if isinstance(self.call, partial) else self.call
        return call if isinstance(call, str) else call.__name__

    def do(self, held: dict[int, Any], **here: Any) -> Any:
        call = getattr(held[self.of], self.call) if isinstance(self.call, str) and self.of is not None else self.call
        assert callable(call)
        result = call(*self.args, **here)
        if self.keep is not None:
            held[self.keep] = result
        return result


@dataclass
class Peer:
    """Another rank, as rank 0 sees it."""

    rank: int
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
        return lambda *args, **here: self._lead.run(name, args, of=self._key, here=here)


class Lead:
    """Rank 0: gives out jobs and does them too; hears of the others' ends."""

    def __init__(self, peers: Sequence[Peer]) -> None:
        self.peers, self.held = peers, dict[int, Any]()
        self.lost: str | None = None  #: who is gone, and why
        self._noticed = self._over = False
        self._doing: tuple[Job, float, bool] | None = None
        self._stopped = -TOGETHER_S
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
        *,
        of: int | None = None,
        keep: int | None = None,
        here: dict[str, Any] | None = None,
        announced: bool = True,
    ) -> Any:
        """Do a job on all ranks. `announced`: say so when it takes long; else it has a progress of its own."""
        if self.lost is not None:
            raise InfraFailure(self.lost)
        job = Job(call, args, of, keep)
        packed = pickle.dumps(job)
        with self._blaming(job, announced):
            for peer in self.peers:
                peer.tell("job", packed)
            return job.do(self.held, **(here or {}))

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
            line = f"{job.name}: {_first_line(error)}; meanwhile {self._whereabouts()}" if silent else self.lost
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
        elif kind == "asked" and time.monotonic() - self._stopped > TOGETHER_S:
            say(f"{peer.name} was asked to stop by {text}")
            os.kill(os.getpid(), signal.SIGTERM)

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
        if self.lost is None and time.monotonic() - self._stopped > TOGETHER_S:
            self._stopped = time.monotonic()
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
                self._tell("failed", f"{self._doing}: {type(error).__name__}: {_first_line(error)}")
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


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
