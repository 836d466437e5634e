"""Reward functions in processes of their own: a call that takes too long or kills its process harms no other."""

from __future__ import annotations

import importlib.util
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from assay.errors import AssayError, DataError, EnvironmentProblem, boundary
from rewards.define import Terms

GROUP = "assay.rewards"
_POOLS: dict[tuple[str, int], Any] = {}


@lru_cache(maxsize=64)
def load(name: str) -> Any:
    """What `name` stands for: "path/to/file.py:attribute", or an entry point of the group `assay.rewards`.

    A file is loaded by path under a name nobody imports, so that it shadows no module. Raises DataError.
    """
    path, colon, attribute = name.rpartition(":")
    if not path.endswith(".py"):
        found = [entry for entry in entry_points(group=GROUP) if entry.name == name]
        if colon or not found:
            known = ", ".join(sorted(entry.name for entry in entry_points(group=GROUP))) or "none"
            raise DataError(
                f"function={name!r} is neither path/to/file.py:function nor an entry point of {GROUP} (there: {known})"
            )
        with boundary(f"loading the entry point {name}"):
            return found[0].load()
    function = getattr(_module_at(str(Path(path).expanduser().resolve())), attribute, None)
    if not attribute or not callable(function):
        raise DataError(f"{path} has no function {attribute!r}")
    return function


@lru_cache(maxsize=64)
def _module_at(path: str) -> Any:
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file with reward functions")
    spec = importlib.util.spec_from_file_location(f"assay_custom_{abs(hash(path)):x}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with boundary(f"loading {path}"):
        spec.loader.exec_module(module)
    return module


def call_each(
    name: str, terms: Terms, prompt: str, completions: Sequence[str], columns: Mapping[str, Any]
) -> list[float | str | None]:
    """What the function `name` says of each completion; a text where it failed, saying how."""
    pool = _pool(name, terms.concurrency)
    futures = [
        pool.schedule(_call, args=(name, prompt, completion, dict(columns)), timeout=terms.timeout_s)
        for completion in completions
    ]
    return [_outcome(future, terms) for future in futures]


def _outcome(future: Any, terms: Terms) -> float | str | None:
    try:
        with boundary("the reward function"):
            value: float | str | None = future.result()
            return value
    except AssayError as failure:
        cause = failure.__cause__ or failure
        late = isinstance(cause, FutureTimeout)
        return f"no answer within {terms.timeout_s:g} s" if late else f"{type(cause).__name__}: {cause}"


def _pool(name: str, concurrency: int) -> Any:
    """The processes of a function. Where one is killed that nothing was asked of, a pool takes no more calls: then
    another takes its place."""
    pool = _POOLS.get((name, concurrency))
    if pool is None or not pool.active:
        pool = _POOLS[name, concurrency] = _new_pool(concurrency)
    return pool


def _new_pool(concurrency: int) -> Any:
    try:
        from pebble import ProcessPool
    except ImportError:
        raise EnvironmentProblem("reward functions in processes need pebble (pip install pebble)") from None
    # Not fork: this process may hold threads, locks and a model.
    return ProcessPool(max_workers=concurrency, context=multiprocessing.get_context("forkserver"))


@lru_cache(maxsize=16)
def _judge(name: str) -> Any:
    """The function, or one instance of the class, kept as long as its process lives."""
    found = load(name)
    return found() if isinstance(found, type) else found


def _call(name: str, prompt: str, completion: str, columns: dict[str, Any]) -> float | str | None:
    said = _judge(name)(prompt, completion, **columns)
    return said if said is None else float(said)
