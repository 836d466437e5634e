"""`@reward`: how a domain says what an answer is worth.

    from rewards.define import reward

    @reward(timeout_s=5, concurrency=4)
    def brevity(prompt: str, completion: str, *, target_length: int) -> float | None:
        return 1.0 if len(completion) <= target_length else 0.0

A decorated function, or a class whose instances are called (made once per process: a place to open a database), judges
one completion at a time, in a process of its own kind that is killed when the time is over. It is named in a task as
`{"function": "my_rewards.py:brevity", "columns": {"target_length": 80}}`, or, from an installed package, by the name
of an entry point in the group `assay.rewards`.

None, an exception, a time-out, a number that is not finite or a process that dies is a failure of the function and
never of the completion: INFRA, no reward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__assay_reward__"


@dataclass(frozen=True, slots=True)
class Terms:
    """How a reward function is called."""

    timeout_s: float
    concurrency: int


def reward(*, timeout_s: float = 10.0, concurrency: int = 1) -> Callable[[F], F]:
    """Mark a function or class as judging one completion at a time.

    Args:
        timeout_s: wall time of one call; the process is killed after it.
        concurrency: how many processes call it at once.
    """
    if not timeout_s > 0 or concurrency < 1:
        raise ValueError(f"reward(timeout_s={timeout_s}, concurrency={concurrency}): both must be positive")

    def mark(function: F) -> F:
        setattr(function, _MARK, Terms(timeout_s=float(timeout_s), concurrency=int(concurrency)))
        return function

    return mark


def terms_of(function: Any) -> Terms | None:
    """The terms of a decorated function; None for one that is called with a whole group."""
    return getattr(function, _MARK, None)
