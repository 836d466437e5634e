"""SIGKILL for a part of a running run, a seeded moment after one of its phases begins."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil

from assay.metrics import Timer

WITHIN_S = 0.05  #: the moment is drawn from so long after the phase begins: phases of the tiny run are as short


@dataclass(frozen=True)
class Order:
    """Kill `victim` in the `turn`-th `phase` of the run, counted from 1."""

    victim: str
    phase: str
    turn: int


@dataclass
class Saboteur:
    orders: Sequence[Order]
    seed: int
    killed: list[tuple[Order, float]] = field(default_factory=list)  #: and when, by time.time()

    @contextmanager
    def at_work(self) -> Iterator[Saboteur]:
        """For the length of a block every Timer's phases are watched."""
        plain, seen, waiting = Timer.phase, dict[str, int](), list[threading.Timer]()
        draw = random.Random(self.seed)

        def phase(timer: Timer, name: str) -> Any:
            seen[name] = seen.get(name, 0) + 1
            for order in self.orders:
                if (order.phase, order.turn) == (name, seen[name]):
                    waiting.append(threading.Timer(draw.uniform(0, WITHIN_S), self._kill, (order,)))
                    waiting[-1].start()
            return plain(timer, name)

        Timer.phase = phase  # type: ignore[assignment]
        try:
            yield self
        finally:
            Timer.phase = plain  # type: ignore[method-assign]
            for moment in waiting:
                moment.join()

    def _kill(self, order: Order) -> None:
        process = find(order.victim, random.Random(f"{self.seed}/{order}"))
        self.killed.append((order, time.time()))
        print(f"chaos: SIGKILL for {order.victim} in {order.phase} {order.turn}", file=sys.stderr, flush=True)
        os.kill(process.pid, signal.SIGKILL)


def find(victim: str, draw: random.Random) -> psutil.Process:
    """One of the victims among this process and its descendants; waits while there is none."""
    own = psutil.Process()
    if victim == "driver":
        return own
    for _ in range(600):
        found = sorted((p for p in own.children(recursive=True) if _is(p, victim)), key=lambda p: p.pid)
        if found:
            return draw.choice(found)
        time.sleep(0.05)
    raise AssertionError(f"no {victim} to be killed in 30 s")


TITLES = {"engine": "ray::HoldingEngineActor", "reward": "ray::RewardActor", "rm": "ray::RewardModelActor"}


def _is(process: psutil.Process, victim: str) -> bool:
    try:
        words = process.cmdline()
        if victim == "supervisor":
            parent = process.parent()
            return len(words) > 1 and words[-2] == "-c" and parent is not None and _is(parent, "reward")
        return bool(words) and words[0].split(".")[0].strip() == TITLES[victim]
    except psutil.NoSuchProcess:
        return False
