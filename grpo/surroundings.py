"""What an actor finds around it when it starts, and what it says when it fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from assay.types import RolloutGroup
from grpo.daemons import ACTOR
from rollouts.config import RolloutConfig


def python_path() -> dict[str, str]:
    """Our packages as the driver found them, so that an actor can find no other; and that it is one."""
    root = str(Path(__file__).resolve().parent.parent)
    inherited = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != root]
    return {"PYTHONPATH": os.pathsep.join([root, *inherited]), ACTOR: "1"}


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


def token_here(address: str, *, found: bool) -> str:
    """What is wrong with how this process would show its token, and what to do: Ray by itself sends no address any.

    `found`: whether Ray found one here, where RAY_AUTH_MODE asks for it.
    """
    wants = f"the cluster at {address} wants a token, and "
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return wants + "RAY_AUTH_MODE=token is not set here; set it, for every `ray start` too"
    if found:
        which = wants + "the one here is another (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token)"
    else:
        which = "RAY_AUTH_MODE=token is set, and no token is here"
    return f"{which}; copy the head's, which `ray get-auth-token` prints there, to ~/.ray/auth_token"


def home_remedy(error: Exception) -> str:
    """What to do where Ray's token for a cluster of our own could not be written; empty where that is not the cause."""
    if not isinstance(error, OSError) or not error.filename:
        return ""
    token = Path.home() / ".ray" / "auth_token"
    if Path(error.filename) not in (token, *token.parents):
        return ""
    return "; Ray keeps a token in ~/.ray: set HOME to a folder that can be written, or RAY_AUTH_MODE=disabled"


def about(args: Sequence[Any], tasks: Mapping[tuple[int, ...], str]) -> str:
    """` of task 'a/7' and 3 more`: what a call is about, as far as its first argument says."""
    first = args[0] if args else None
    if isinstance(first, RolloutGroup):
        return f" of task {first.task.id!r}, {len(first.completions)} completions"
    if not hasattr(first, "__len__") or not len(first):
        return ""
    name = tasks.get(tuple(first[0])) if tasks and isinstance(first[0], Sequence) else None
    more = f" and {len(first) - 1} more" if len(first) > 1 else ""
    return f" of task {name!r}{more}" if name is not None else f" of {len(first)}"


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
