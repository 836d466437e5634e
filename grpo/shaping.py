"""What is added to rewards before they become advantages."""

from __future__ import annotations


def soft_overlong(length: int, max_completion_tokens: int, buffer: int) -> float:
    """0 up to max - buffer, then falling in a line to -1 at max: DAPO (arXiv 2503.14476) Eq. 13.

    DAPO has max = 20,480 and buffer = 4,096 and adds it to a reward of 1 or -1.
    """
    free = max_completion_tokens - buffer
    return 0.0 if length <= free else max(-1.0, (free - length) / buffer)
