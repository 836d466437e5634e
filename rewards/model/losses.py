"""What a reward model can minimise. Pure functions of scores, sums over terms that are counted apart.

A loss is a pair: `total` adds up its terms over some samples, `terms` counts them over the whole batch. The step
divides one by the other, so micro-batches and ranks never change the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from rewards.model.data import Sample


class Loss(NamedTuple):
    """`total(scores [S], passed [S], tasks [S])` is a sum; `terms(samples)` is how many terms it has."""

    total: Callable[[Tensor, Tensor, Tensor], Tensor]
    terms: Callable[[Sequence[Sample]], int]
    needs_whole_tasks: bool


def pointwise(scores: Tensor, passed: Tensor, tasks: Tensor) -> Tensor:
    """Binary cross-entropy on the pass bit: sum of -[y log s(r) + (1 - y) log(1 - s(r))], s the logistic function.

    DeepSeek-V2 (2405.04434) section 4.2 allows it; the bit is the compiler feedback of DeepSeek-Coder-V2
    (2406.11931) section 3.5.2. Its minimiser is the probability of passing, so the score is calibrated.
    """
    return binary_cross_entropy_with_logits(scores, passed.to(scores.dtype), reduction="sum")


def pairwise(scores: Tensor, passed: Tensor, tasks: Tensor) -> Tensor:
    """Bradley-Terry within a task: sum over (passing p, failing f) of -log s(r_p - r_f).

    Every pair of completions of one task that the tests tell apart (Ouyang et al. 2203.02155, equation 1). Only
    differences count, so the score ranks and is no probability.
    """
    passed = passed.bool()
    pairs = (tasks[:, None] == tasks[None, :]) & passed[:, None] & ~passed[None, :]
    return -logsigmoid(scores[:, None] - scores[None, :])[pairs].sum()


def count_samples(samples: Sequence[Sample]) -> int:
    """The terms of `pointwise`."""
    return len(samples)


def count_pairs(samples: Sequence[Sample]) -> int:
    """The terms of `pairwise`: passing times failing completions, task by task."""
    tally: dict[str, list[int]] = {}
    for sample in samples:
        tally.setdefault(sample.task_id, [0, 0])[bool(sample.passed)] += 1
    return sum(failing * passing for failing, passing in tally.values())


LOSSES = {
    "pointwise": Loss(pointwise, count_samples, needs_whole_tasks=False),
    "pairwise": Loss(pairwise, count_pairs, needs_whole_tasks=True),
}
