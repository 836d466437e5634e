"""Rewards to advantages. No critic: the group is the baseline.

A reward of None (the harness failed) takes no part in any mean or deviation and gets no advantage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Rewards = Sequence[float | None]  # [G]
Steps = Sequence[tuple[int, float]]  # [K] of one completion: (index of the step's last token, its reward)


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


def leave_one_out(rewards_G: Rewards) -> list[float | None]:
    """A_i = R_i - mean of the other rewards = G / (G - 1) (R_i - mean(R)): RLOO (arXiv 2402.14740)."""
    count = sum(r is not None for r in rewards_G)
    return [a if not a else a * count / (count - 1) for a in mean(rewards_G)]


def batch_std(rewards: Sequence[Rewards]) -> list[list[float | None]]:
    """A = (R - mean over its group) / std over the whole batch [groups][G]: arXiv 2508.08221.

    One deviation (the sample one) for all groups, so a question of rare success is not blown up as by `mean_std`.
    """
    present = [r for group in rewards for r in group if r is not None]
    deviation = _sample_deviation(present)
    return [[a if not a else a / deviation for a in mean(group)] for group in rewards]


def process(steps_G: Sequence[Steps | None], lengths_G: Sequence[int]) -> list[tuple[float, ...] | None]:
    """A_t = sum of the normalised rewards of the steps that end at or after token t: [G][T].

    The rewards of all steps of all completions of the group are normalised together, r~ = (r - mean) / std:
    DeepSeekMath section 4.1.3. A completion of None has no step rewards to be had; its advantage is None.
    """
    rewards = [r for steps in steps_G if steps is not None for _, r in steps]
    deviation = _sample_deviation(rewards)
    average = math.fsum(rewards) / len(rewards) if rewards else 0.0
    out: list[tuple[float, ...] | None] = []
    for steps, length in zip(steps_G, lengths_G, strict=True):
        if steps is None:
            out.append(None)
            continue
        ends = {end: (r - average) / deviation if deviation > 0 else 0.0 for end, r in steps}
        if len(ends) < len(steps) or not all(0 <= end < length for end in ends):
            raise ValueError(f"steps end at tokens {[end for end, _ in steps]} of a completion of {length} tokens")
        out.append(_sums_from_behind([ends.get(t, 0.0) for t in range(length)]))
    return out


def _sums_from_behind(values_T: Sequence[float]) -> tuple[float, ...]:
    sums, total = [], 0.0
    for value in reversed(values_T):
        total += value
        sums.append(total)
    return tuple(reversed(sums))


def _sample_deviation(values: Sequence[float]) -> float:
    if len(values) < 2 or min(values) == max(values):
        return 0.0
    average = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - average) ** 2 for v in values) / (len(values) - 1))


#: Of one group [G].
ADVANTAGES: dict[str, Callable[[Rewards], list[float | None]]] = {
    "mean_std": mean_std,
    "mean": mean,
    "leave_one_out": leave_one_out,
}
#: Of the whole batch [groups][G].
BATCH_ADVANTAGES: dict[str, Callable[[Sequence[Rewards]], list[list[float | None]]]] = {"batch_std": batch_std}
