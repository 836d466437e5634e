"""Drawing ahead: order, lag, and who has the engines. Every wait has an end, so that a deadlock is a failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from grpo.ahead import Ahead


class Engines:
    """Notes who has them, fails when two do, and holds a version of the weights."""

    def __init__(self) -> None:
        self.version, self.inside, self.events = 0, 0, list[tuple[str, int]]()

    def used(self, what: str, number: int, seconds: float = 0.0) -> None:
        self.inside += 1
        assert self.inside == 1, f"{what} {number} beside another"
        time.sleep(seconds)
        self.events.append((what, number))
        self.inside -= 1


def drawing(engines: Engines, judge_s: float = 0.0) -> Callable[[int, Callable[[], None]], tuple[int, int]]:
    def draw(step: int, done: Callable[[], None]) -> tuple[int, int]:
        version = engines.version
        engines.used("draw", step, 0.002)
        done()
        time.sleep(judge_s)
        return step, version

    return draw


def train(max_lag: int, steps: int = 8, judge_s: float = 0.0, start: int = 0) -> tuple[list[int], Engines]:
    """Train on every step in turn; returns how many versions behind each step's draw was."""
    engines = Engines()
    engines.version = start
    ahead = Ahead(drawing(engines, judge_s), max_lag=max_lag, start=start, end=steps)
    lags = []
    for step in range(start, steps):
        drawn, version = ahead.take(step)
        assert drawn == step
        lags.append(step - version)
        time.sleep(0.004)
        with ahead.engines():
            engines.version = step + 1
            engines.used("sync", step, 0.001)
        ahead.trained(step + 1)
    ahead.close()
    return lags, engines


def test_without_lag_everything_happens_in_the_order_of_the_synchronous_loop():
    lags, engines = train(0)
    assert lags == [0] * 8
    assert engines.events == [(what, step) for step in range(8) for what in ("draw", "sync")]


@pytest.mark.parametrize("max_lag", [1, 2, 5])
@pytest.mark.parametrize("start", [0, 3])
def test_no_draw_is_further_ahead_than_allowed_and_each_is_drawn_once_in_order(max_lag: int, start: int):
    lags, engines = train(max_lag, judge_s=0.003, start=start)
    assert max(lags) <= max_lag
    assert lags[0] == 0
    assert [step for what, step in engines.events if what == "draw"] == list(range(start, 8))


def test_the_lag_allowed_is_used():
    assert max(train(1)[0]) == 1
    assert max(train(2, judge_s=0.01)[0]) == 2


def test_judging_runs_beside_the_next_draw():
    began = [threading.Event() for _ in range(4)]

    def draw(step: int, done: Callable[[], None]) -> int:
        began[step].set()
        done()
        if step < 3:
            assert began[step + 1].wait(5), "the next draw waits for this one to be judged"
        return step

    ahead = Ahead(draw, max_lag=3, start=0, end=4)
    assert [ahead.take(step) for step in range(4)] == [0, 1, 2, 3]
    ahead.close()


def test_a_sync_goes_before_a_draw_that_waits():
    engines, began, free = Engines(), threading.Event(), threading.Event()

    def draw(step: int, done: Callable[[], None]) -> int:
        if step == 0:
            began.set()
            assert free.wait(5)
        engines.used("draw", step)
        return step

    ahead = Ahead(draw, max_lag=2, start=0, end=3)
    taker = threading.Thread(target=ahead.take, args=(0,))
    taker.start()
    assert began.wait(5)
    syncing = threading.Thread(target=lambda: _sync(ahead, engines))
    syncing.start()
    time.sleep(0.05)  # by now the sync waits, and so do the draws of steps 1 and 2
    free.set()
    for thread in (taker, syncing):
        thread.join(5)
    assert ahead.take(1) == 1 and ahead.take(2) == 2
    assert engines.events[:2] == [("draw", 0), ("sync", 0)]
    ahead.close()


def _sync(ahead: Ahead[int], engines: Engines) -> None:
    with ahead.engines():
        engines.used("sync", 0)


@pytest.mark.parametrize("max_lag", [0, 2])
def test_what_a_draw_raises_is_raised_where_its_step_is_taken(max_lag: int):
    def draw(step: int, done: Callable[[], None]) -> int:
        if step == 1:
            raise ValueError("no engine")
        return step

    ahead = Ahead(draw, max_lag=max_lag, start=0, end=5)
    assert ahead.take(0) == 0
    ahead.trained(1)
    with pytest.raises(ValueError, match="no engine"):
        ahead.take(1)
    with ahead.engines():
        pass  # and the engines are free
    ahead.close()


def test_nothing_begins_after_closing():
    begun: list[int] = []
    ahead = Ahead(lambda step, done: begun.append(step), max_lag=1, start=0, end=9)
    ahead.take(0)
    ahead.close()
    time.sleep(0.05)
    ahead.trained(5)
    time.sleep(0.05)
    assert set(begun) <= {0, 1}
