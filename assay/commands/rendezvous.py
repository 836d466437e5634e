"""How the ranks a launcher started find each other: torch's process group, and a connection to rank 0 for each.

The group is Accelerate's to make, from the variables that torchrun and `accelerate launch` set. What rank 0 says over
it lets the others connect: a port, and a key that whoever else reaches the port does not know.
"""

from __future__ import annotations

import hmac
import os
import secrets
import selectors
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any, cast

from assay.errors import ConfigError, EnvironmentProblem

CONNECT_S = 60.0
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
BEGINNINGS = ("GROUP_", "ROLE_", "TORCHELASTIC_")  #: of torchrun's others


@contextmanager
def without_launcher() -> Iterator[None]:
    """What a launcher told this process about its rank is none of its children's: they would take it for theirs."""
    told = {name: os.environ.pop(name) for name in list(os.environ) if name in VARIABLES or name.startswith(BEGINNINGS)}
    try:
        yield
    finally:
        os.environ.update(told)


def check_launcher(told: Mapping[str, str]) -> None:
    """What `accelerate launch` was told must be what the trainers do. Raises ConfigError."""
    fsdp = told.get("ACCELERATE_USE_FSDP", "false") == "true"
    if told.get("ACCELERATE_MIXED_PRECISION", "no") != "no":
        raise ConfigError("mixed_precision of accelerate launch: set it to no; policy.dtype says what GRPO computes in")
    if fsdp and told.get("FSDP_VERSION") != "2":
        raise ConfigError("use_fsdp of accelerate launch: set fsdp_version: 2; the first version is not supported")
    if fsdp and told.get("FSDP_CPU_RAM_EFFICIENT_LOADING", "false") == "true":
        raise ConfigError(
            "fsdp_cpu_ram_efficient_loading of accelerate launch: set it to false; every rank loads itself"
        )


def meet(timeout_s: float) -> tuple[str, str, list[tuple[str, Connection]]]:
    """Names of this rank and of rank 0, and the connections: rank 0 has one to each other, by rank, they one to it.

    `timeout_s` bounds this and every collective operation of the group. Raises EnvironmentProblem.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env
    from torch.distributed import broadcast_object_list

    check_launcher(os.environ)
    if not torch.cuda.is_available():  # else Accelerate makes of each rank a process by itself, without a word
        os.environ["ACCELERATE_USE_CPU"] = "true"
    try:
        state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=timedelta(seconds=timeout_s))
    except (RuntimeError, ValueError) as error:
        whole = f"rank {os.environ.get('RANK')} of {os.environ.get('WORLD_SIZE')}"
        raise EnvironmentProblem(f"{whole}: the ranks did not find each other: {first_line(error)}") from None
    if state.num_processes != int(os.environ["WORLD_SIZE"]):
        raise EnvironmentProblem(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, and Accelerate made {state.num_processes} of it on "
            f"{state.device}: the ranks would each train by themselves"
        )
    if parse_flag_from_env("ACCELERATE_USE_FSDP") and state.device.type == "cpu":
        raise EnvironmentProblem("use_fsdp: on a CPU Accelerate replicates instead, without a word; leave it out there")
    own = f"rank {state.process_index} ({socket.gethostname()}, pid {os.getpid()})"
    one_node = os.environ.get("WORLD_SIZE") == os.environ.get("LOCAL_WORLD_SIZE")
    door: list[Any] = [None]
    if state.process_index == 0:
        listening = socket.create_server(("127.0.0.1" if one_node else "", 0))
        door = [(listening.getsockname()[1], secrets.token_bytes(32), own)]
    broadcast_object_list(door, src=0)
    port, key, first = door[0]
    if state.process_index == 0:
        return own, own, _admit(listening, key, state.num_processes - 1)
    sock = socket.create_connection(("127.0.0.1" if one_node else os.environ["MASTER_ADDR"], port), CONNECT_S)
    sock.sendall(key)
    connection = _lasting(sock)
    connection.send((state.process_index, own))
    return own, first, [(first, connection)]


def _admit(listening: socket.socket, key: bytes, count: int) -> list[tuple[str, Connection]]:
    """The connections of the other ranks, which know the key; whoever else comes is passed over. Raises
    EnvironmentProblem where some are not there after CONNECT_S."""
    found: dict[int, tuple[str, Connection]] = {}
    deadline = time.monotonic() + CONNECT_S
    with selectors.DefaultSelector() as open_:
        listening.setblocking(False)
        open_.register(listening, selectors.EVENT_READ)
        try:
            while len(found) < count:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise EnvironmentProblem(f"{len(found)} of {count} other ranks reached rank 0 in {CONNECT_S:g} s")
                for ready, _ in open_.select(left_s):
                    sock: Any = ready.fileobj
                    if sock is listening:
                        with suppress(OSError):  # gone again already
                            open_.register(sock.accept()[0], selectors.EVENT_READ, bytearray())
                    elif _said(sock, ready.data, key):
                        open_.unregister(sock)
                        found |= _named(sock, ready.data, key, deadline)
        finally:
            for ready in [*open_.get_map().values()]:
                cast("socket.socket", ready.fileobj).close()
    return [found[rank] for rank in sorted(found)]


def _said(sock: socket.socket, words: bytearray, key: bytes) -> bool:
    """Take what has come from a socket into `words`; whether they are as long as the key, or nothing more will come."""
    try:
        more = sock.recv(len(key) - len(words))
    except OSError:
        more = b""
    words += more
    return not more or len(words) == len(key)


def _named(sock: socket.socket, words: bytearray, key: bytes, deadline: float) -> dict[int, tuple[str, Connection]]:
    """The rank behind a socket that said so much, its name and connection; nothing where that was not the key."""
    if not hmac.compare_digest(words, key):
        sock.close()
        return {}
    connection = _lasting(sock)
    with suppress(OSError, EOFError):
        if connection.poll(max(0.0, deadline - time.monotonic())):
            rank, name = connection.recv()
            return {rank: (name, connection)}
    connection.close()
    return {}


def _lasting(sock: socket.socket) -> Connection:
    """Open as long as both ends live, and not much longer where a machine vanished without a word."""
    sock.settimeout(None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000)  # no probes are sent while words are unheard
    for option, value in ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3)):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Connection(sock.detach())


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
