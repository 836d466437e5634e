"""A checkpoint is written by a thread of its own, from a copy, while training goes on. One at a time.

    writer = Background()
    writer.wait()                    # for the one before; raises what it raised
    writer.start(lambda: ...)        # of a copy made just now
    writer.check()                   # at every step: raises what the one under way has raised by now

A copy costs main memory as long as it is written: 4 bytes a parameter for the weights in fp32 and 8 for AdamW, of
what is trained; of an adapted policy, the merged weights and the adapter.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """At most one call in flight. Not a daemon: leaving the interpreter waits for it too."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._under_way: Future[None] | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin `work`, once the one before has ended. Raises what that one raised."""
        self.wait()
        self._under_way = self._thread.submit(work)

    def check(self) -> None:
        """Raise what a call that has ended raised, once."""
        if self._under_way is not None and self._under_way.done():
            self.wait()

    def wait(self) -> None:
        """Until nothing is under way. Raises what it raised, once."""
        ended, self._under_way = self._under_way, None
        if ended is not None:
            try:
                ended.result()
            except BaseException:
                if not ended.done():  # we were interrupted, not it: whoever closes waits for it
                    self._under_way = ended
                raise

    def close(self) -> None:
        """`wait`, and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
