from __future__ import annotations

import threading

import pytest

from assay.background import Background


def test_one_at_a_time_and_a_failure_is_raised_once_at_the_next_look():
    free, order = threading.Event(), list[str]()
    writer = Background()

    def slow() -> None:
        assert free.wait(10)
        order.append("slow")
        raise OSError(28, "full")

    writer.start(slow)
    writer.check()  # under way, so nothing to say yet
    second = threading.Thread(target=lambda: order.append("looked on"))
    second.start()
    second.join()
    free.set()
    with pytest.raises(OSError, match="full"):
        writer.wait()
    writer.check()
    writer.start(lambda: order.append("next"))
    writer.start(lambda: order.append("after"))
    writer.close()
    assert order == ["looked on", "slow", "next", "after"]


def test_a_failed_write_is_raised_by_whoever_wants_to_write_next_or_closes():
    writer = Background()

    def fail() -> None:
        raise OSError(28, "full")

    writer.start(fail)
    with pytest.raises(OSError, match="full"):
        writer.start(lambda: None)
    writer.start(fail)
    with pytest.raises(OSError, match="full"):
        writer.close()
