"""What an actor finds around it when it starts, and what it says when it fails."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rollouts.config import RolloutConfig


def python_path() -> dict[str, str]:
    """Our packages as the driver found them, so that an actor can find no other."""
    root = str(Path(__file__).resolve().parent.parent)
    inherited = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != root]
    return {"PYTHONPATH": os.pathsep.join([root, *inherited])}


def engine_env(config: RolloutConfig) -> dict[str, str]:
    """Environment of an engine process. Allocator and OpenMP runtime must be loaded before Python starts.

    Threads wait for 1 ms before they sleep: decoding is hundreds of short parallel regions a second, and a thread that
    sleeps between them (0) makes it 3.3 times as slow; one that waits for long (200, the default) takes the other
    actors' time.
    """
    env = {"OMP_NUM_THREADS": str(config.engine.threads_each), "VLLM_LOGGING_LEVEL": "ERROR", "KMP_BLOCKTIME": "1"}
    preload = [
        *map(str, Path("/usr/lib").glob("*/libtcmalloc_minimal.so.4")),
        *map(str, (Path(sys.prefix) / "lib").glob("libiomp5.so")),
    ]
    if preload:
        env["LD_PRELOAD"] = ":".join(preload)
    return env


def last_line(error: BaseException) -> str:
    """The cause at the end of a traceback that Ray hands over as text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
