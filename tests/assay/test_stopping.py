"""A limit of time, by a clock of our own; signals, by signals."""

from __future__ import annotations

import os
import signal
import time
from copy import copy

import pytest

from assay.stopping import SPARE, Limit, Stopping


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def steps(self, stop: Stopping, seconds: float, save_s: float = 0.0) -> int:
        """Steps of so many seconds until it says stop, the first of them saved where that is wanted."""
        done = 0
        while not stop():
            self.now += seconds
            done += 1
            if stop.untimed:
                with stop.saving():
                    self.now += save_s
        return done


def test_the_last_step_and_its_checkpoint_end_before_the_limit(monkeypatch: pytest.MonkeyPatch):
    """100 s in steps of 7 and checkpoints of 5: the first step with its checkpoint, which takes 12, is the longest."""
    clock = Clock(monkeypatch)
    stop = Stopping(Limit(100 / 3600, started=990.0))
    done = clock.steps(stop, 7.0, save_s=5.0)
    left = 990.0 + 100 - clock.now
    assert left >= 5.0 and left <= SPARE * (12.0 + 5.0) < left + 7.0, "room for a checkpoint, not for one step more"
    assert done == 10 and clock.now == 1000 + 10 * 7 + 5
    assert stop.why == "max_hours=0.0277778 leaves 15 s, and a step and a checkpoint want 21"


def test_a_slow_step_or_checkpoint_is_reckoned_with_from_then_on(monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)
    stop = Stopping(Limit(1000 / 3600, started=1000.0))
    assert not stop() and stop.untimed
    clock.now += 10.0
    stop.saved(200.0)
    assert not stop() and not stop.untimed
    clock.now += 300.0
    assert not stop()
    clock.now += 60.0
    assert not stop()  # 630 s are left, 625 wanted
    clock.now += 10.0
    assert stop()


def test_without_a_limit_nothing_stops_and_nothing_is_timed(monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)
    stop = Stopping()
    for _ in range(3):
        assert not stop() and not stop.untimed
        clock.now += 1e9


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_and_a_second_one_insists(
    number: signal.Signals, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    before = signal.getsignal(number)
    with Stopping() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop() and stop.why == ""
        assert f"{number.name}: stopping after this step" in capsys.readouterr().err
        os.kill(os.getpid(), number)  # the same Ctrl-C by another way
        assert capsys.readouterr().err == ""
        monkeypatch.setattr("assay.stopping.TOGETHER_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_a_signal_while_time_runs_out_does_not_break_the_checkpoint():
    """A scheduler may send SIGTERM while a run that stops for want of time is writing."""
    with Stopping(Limit(1.0, started=time.monotonic() - 3600)) as stop:
        assert stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop() and "max_hours=1 leaves 0 s" in stop.why


def test_a_checkpoint_in_flight_is_waited_for_before_the_last_is_written(monkeypatch: pytest.MonkeyPatch):
    """Steps of 1 s, checkpoints of 30: with one begun 10 s ago, 20 are to wait for, then a step and 30 for the last."""
    clock = Clock(monkeypatch)
    stop = Stopping(Limit(1000 / 3600, started=1000.0))
    assert not stop()
    stop.writing()
    clock.now += 1.0
    assert not stop()
    assert stop._saves_s(clock.now) == 2.0, "of the first one nothing is known but that it takes longer than that"
    clock.now += 29.0
    stop.saved(30.0)
    for since, wanted in ((None, 31.0), (0.0, 61.0), (10.0, 51.0), (40.0, 41.0)):
        if since is not None:
            stop.writing()
            clock.now += since
        for spare, asked in ((0.1, False), (-0.1, True)):
            again = copy(stop)
            again.limit = Limit((clock.now + SPARE * wanted + spare - 1000.0) / 3600, started=1000.0)
            again._before = None
            assert again() is asked
