"""Processes that end together, with real processes and shared memory in place of vLLM's; vLLM's own are killed in
`tests/grpo/test_cluster_parallel.py`."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assay.errors import InfraFailure
from rollouts.together import Together, stay

SPAWN = multiprocessing.get_context("spawn")


def slice_of_an_engine(orders: Connection, memory: str, met: str) -> None:
    """Opens the shared memory, does one thing that it is told, and then spins, deaf."""
    opened = SharedMemory(memory)
    work, args = orders.recv()
    orders.send(work(SimpleNamespace(distributed_init_method=f"file://{met}"), *args))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while opened.size:
        pass


class Slices:
    """As much of vLLM's `LLM` as `Together` looks at."""

    def __init__(self, folder: Path) -> None:
        self.met = folder / "met"
        self.met.touch()
        self.memory = SharedMemory(create=True, size=64)
        queue = SimpleNamespace(buffer=SimpleNamespace(is_creator=True))
        self.workers, self._orders = [], []
        for _ in range(2):
            here, there = SPAWN.Pipe()
            proc = SPAWN.Process(target=slice_of_an_engine, args=(there, self.memory.name, str(self.met)), daemon=True)
            proc.start()
            self.workers.append(SimpleNamespace(proc=proc))
            self._orders.append(here)
        executor = SimpleNamespace(workers=self.workers, rpc_broadcast_mq=queue, shutting_down=False)
        self.llm_engine = SimpleNamespace(
            engine_core=SimpleNamespace(engine_core=SimpleNamespace(model_executor=executor))
        )

    def collective_rpc(self, work: Any, args: tuple[Any, ...]) -> list[Any]:
        for orders in self._orders:
            orders.send((work, args))
        return [orders.recv() for orders in self._orders]


def test_one_death_ends_all_at_once_and_is_named(tmp_path: Path):
    slices = Slices(tmp_path)
    name = Path("/dev/shm", slices.memory.name)
    assert name.exists()
    together = Together(slices)
    assert not name.exists()
    with together.answering():
        pass
    with pytest.raises(InfraFailure, match=r"^not one of them$"), together.answering():
        raise InfraFailure("not one of them")
    started = time.monotonic()
    os.kill(together.pids[1], signal.SIGKILL)
    slices.workers[1].proc.join(5)
    said = rf"^process 1 of 2 \(pid {together.pids[1]}\) was killed by signal 9 \(no answer\)$"
    with pytest.raises(InfraFailure, match=said), together.answering():
        raise InfraFailure("no answer")
    slices.workers[0].proc.join(5)
    assert slices.workers[0].proc.exitcode == -signal.SIGKILL and time.monotonic() - started < 5
    together.end()
    assert not slices.met.exists()


def test_an_end_in_peace_is_nobodys_death(tmp_path: Path):
    slices = Slices(tmp_path)
    together = Together(slices)
    together.end()
    assert [worker.proc.exitcode for worker in slices.workers] == [-signal.SIGKILL] * 2
    with pytest.raises(InfraFailure, match=r"^asked too late$"), together.answering():
        raise InfraFailure("asked too late")


def test_whoever_loses_its_parent_ends_itself(tmp_path: Path):
    slices = Slices(tmp_path)
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    slices.collective_rpc(stay, args=(parent.pid,))
    parent.kill()
    parent.wait()
    for worker in slices.workers:
        worker.proc.join(10)
        assert worker.proc.exitcode == -signal.SIGKILL
    assert not slices.met.exists()
    slices.memory.unlink()
