"""A command in small for `test_ranks.py`: python -m tests.commands.ranks WHAT, with RANK and so on set.

Rank 0 calls `WHAT` of an object that every rank holds; what happens there happens on rank 1.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial

import torch

from assay.commands import ranks
from assay.errors import AssayError, InfraFailure, TrainingDiverged


class Part:
    """What is held: sums over ranks, and ways to fail on rank 1."""

    version = 7

    def __init__(self, start: int) -> None:
        self.rank = torch.distributed.get_rank()
        self.total = start + self.rank

    def add(self, value: int, note: str = "", told: Callable[..., str] | None = None) -> tuple[float, str]:
        """`told` is what this rank alone can call."""
        assert value == 0 or ((note == "mine") and (told is not None) == (self.rank == 0))
        self.total += value
        tensor = torch.tensor(float(self.total))
        torch.distributed.all_reduce(tensor)
        return float(tensor), note

    def fails(self) -> None:
        if self.rank == 1:
            raise InfraFailure("no room\nat all")
        self.add(0)

    def breaks(self) -> None:
        if self.rank == 1:
            raise ValueError("not this")
        self.add(0)

    def diverges(self) -> None:
        self.add(0)
        raise TrainingDiverged("the loss is nan")

    def dies(self) -> None:
        if self.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        self.add(0)

    def stops(self) -> None:
        """Still there, and silent."""
        if self.rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        self.add(0)

    def lags(self) -> None:
        """Silent to torch, not to rank 0."""
        if self.rank == 1:
            time.sleep(120)
        self.add(0)

    def later(self) -> None:
        """Dies while rank 0 does something else."""
        if self.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def summed(value: int, note: Callable[[], str] | None = None) -> str:
    return f"{Part(value).add(0)[0]:g} {note() if note else None}"


def drive(what: str) -> int:
    print(ranks.everywhere(partial(summed, 1), note=lambda: "here"))
    part = ranks.held(partial(Part, 10))
    print(part.version, part.total, part.add(5, note="mine", told=str))
    if what != "works":
        getattr(part, what)()
        time.sleep(120)
    return 0


if __name__ == "__main__":
    ranks.TIMEOUT_S, ranks.GRACE_S = 15.0, 3.0
    torch.set_num_threads(1)
    try:
        sys.exit(ranks.main(sys.argv[2], partial(drive, sys.argv[1])))
    except AssayError as error:
        print(f"said: {error}", file=sys.stderr)
        sys.exit(2)
