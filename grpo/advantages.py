"""Rewards of one group to advantages. No critic: the group is the baseline.

A reward of None (the harness failed) takes no part in the mean or the deviation and gets no advantage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Rewards = Sequence[float | None]  # [G]


def mean_std(rewards_G: Rewards) -> list[float | None]:
    """A_i = (R_i - mean(R)) / std(R): DeepSeekMath (arXiv 2402.03300) section 4.1.2.

    The deviation is the sample one (G - 1), as public implementations of GRPO have it; the paper does not say.
    Where all rewards are equal every advantage is 0: nothing can be learned from such a group.
    """
    centred = mean(rewards_G)
    present = [a for a in centred if a is not None]
    if len(present) < 2:
        return centred
    deviation = math.sqrt(sum(a * a for a in present) / (len(present) - 1))
    return [None if a is None else (a / deviation if deviation > 0 else 0.0) for a in centred]


def mean(rewards_G: Rewards) -> list[float | None]:
    """A_i = R_i - mean(R): Dr. GRPO (arXiv 2503.20783) section 3.2, DeepSeek-V3.2 (arXiv 2512.02556) section 3.1."""
    present = [r for r in rewards_G if r is not None]
    if len(present) < 2 or min(present) == max(present):
        return [None if r is None else 0.0 for r in rewards_G]
    average = math.fsum(present) / len(present)
    return [None if r is None else r - average for r in rewards_G]


ADVANTAGES: dict[str, Callable[[Rewards], list[float | None]]] = {"mean_std": mean_std, "mean": mean}
