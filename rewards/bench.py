"""Where programs are judged: a sandbox, limits, and what may be kept from one program to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from rewards.sandbox.base import Limits, Sandbox

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where a program is judged: a sandbox, the limits of one test, and what may be kept between programs."""

    sandbox: Sandbox
    limits: Limits
    stop_on_timeout: bool = True  #: tests after one that ran out of time cannot change an all-or-nothing reward
    stop_on_failure: bool = True  #: nor can tests after one that failed, where each test has a box of its own
    isolate: Literal["test", "task"] = "test"  #: calls of a function: a box for each test, or one for all of a task
    value_bytes: int = 1 << 20  #: largest value one test may claim
    kept: dict[Any, Any] = field(default_factory=dict)  #: drivers and expected values, by what they were made from

    def keep(self, key: Any, make: Callable[[], T]) -> T:
        """The kept value of `key`, made when it is not there. Two threads may both make it; that is harmless."""
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    def limits_for(self, overrides: Mapping[str, float]) -> Limits:
        """The limits of one test, with those the task sets itself."""
        return with_own(self.limits, overrides)


def with_own(limits: Limits, own: Mapping[str, Any]) -> Limits:
    """`limits` with those a task sets itself.

    More processor time without a word about wall time is more of both, in the same ratio: wall time is there to stop
    what waits, and would stop the busy instead. It never becomes less.
    """
    share = own.get("cpu_s", limits.cpu_s) / limits.cpu_s
    return replace(limits, **{"wall_s": limits.wall_s * max(share, 1.0), **own})
