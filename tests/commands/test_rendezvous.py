"""Rank 0's door: ranks are let in by their key, and strangers, who come to every open port, keep nobody out."""

from __future__ import annotations

import secrets
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from assay.commands import rendezvous
from assay.errors import EnvironmentProblem

KEY = secrets.token_bytes(32)


class Door:
    """Rank 0's listening socket, and whoever comes to it."""

    def __init__(self, stack: ExitStack) -> None:
        self.listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._stack = stack

    def come(self, words: bytes = b"") -> socket.socket:
        sock = self._stack.enter_context(socket.create_connection(self.listening.getsockname(), 5))
        sock.sendall(words)
        return sock

    def rank(self, number: int) -> None:
        connection = rendezvous._lasting(self.come(KEY))
        self._stack.callback(connection.close)
        connection.send((number, f"rank {number}"))

    def admit(self, count: int) -> list[str]:
        found = rendezvous._admit(self.listening, KEY, count)
        for _, connection in found:
            self._stack.callback(connection.close)
        return [name for name, _ in found]


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    monkeypatch.setattr(rendezvous, "CONNECT_S", 1.5)
    with ExitStack() as stack:
        yield Door(stack)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("stranger", ["reset", "silent", "half a key", "other words", "gone", "the key and no name"])
def test_a_stranger_is_passed_over(door: Door, stranger: str):
    said = {"half a key": KEY[:16], "other words": b"GET / HTTP/1.0\r\n" * 4, "the key and no name": KEY}
    sock = door.come(said.get(stranger, b""))
    if stranger == "reset":
        reset(sock)
    elif stranger in ("gone", "the key and no name"):
        sock.close()
    began = time.monotonic()
    door.rank(2)
    threading.Timer(0.1, door.rank, [1]).start()
    assert door.admit(2) == ["rank 1", "rank 2"]
    assert time.monotonic() - began < 1.0, "nobody waited for the stranger"


def test_a_key_may_come_in_pieces(door: Door):
    sock = door.come(KEY[:5])
    threading.Timer(0.1, sock.sendall, [KEY[5:]]).start()

    def name() -> None:
        connection = rendezvous._lasting(sock)
        connection.send((1, "slow"))

    threading.Timer(0.2, name).start()
    assert door.admit(1) == ["slow"]


def test_strangers_do_not_put_off_the_end(door: Door):
    """One deadline for all, however many come meanwhile."""
    timers = [threading.Timer(0.3 * n, door.come) for n in range(8)]
    for timer in timers:
        timer.start()
    began = time.monotonic()
    with pytest.raises(EnvironmentProblem, match=r"0 of 1 other ranks reached rank 0 in 1\.5 s"):
        door.admit(1)
    assert 1.4 < time.monotonic() - began < 2.2
    for timer in timers:
        timer.cancel()
