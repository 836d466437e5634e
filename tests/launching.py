"""Several real processes over gloo, as torchrun would start them, without its agent between them and the test."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start(arguments: list[str], world: int) -> list[subprocess.Popen[str]]:
    """`python -m ARGUMENTS` as `world` ranks."""
    port, processes = free_port(), []
    for rank in range(world):
        settings = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        settings |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
        settings |= {"OMP_NUM_THREADS": 1, "PYTHONPATH": ROOT}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env={**os.environ, **{k: str(v) for k, v in settings.items()}},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


def ends(processes: list[subprocess.Popen[str]], within_s: float = 300) -> list[tuple[int, str]]:
    """Status and stderr of each rank; none is left running."""
    try:
        return [(p.wait(), text) for p, text in [(p, p.communicate(timeout=within_s)[1]) for p in processes]]
    finally:
        for process in processes:
            process.kill()


def launch(arguments: list[str], world: int) -> None:
    """Run `python -m ARGUMENTS` as `world` ranks, all of which succeed."""
    found = ends(start(arguments, world))
    assert [code for code, _ in found] == [0] * world, "\n".join(text[-3000:] for _, text in found)


def shard_on_a_cpu() -> None:
    """Accelerate shards on accelerators only: on a CPU it falls back to DistributedDataParallel without a word.
    FSDP2 itself runs there, so set what Accelerate would have set.
    """
    from accelerate import Accelerator
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    state = Accelerator().state
    state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", reshard_after_forward=True
    )
    state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
