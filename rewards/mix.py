"""From the signals of a completion to its reward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, stdev

from assay.types import RewardResult, Verdict
from rewards.config import MixWeights, Signal


def combine(
    results: Sequence[RewardResult], rm_scores: Sequence[float | None], mode: Signal, weights: MixWeights
) -> list[RewardResult]:
    """The results with the reward that `mode` asks for; `parts` keeps "compiler" and "rm" whatever the mode.

    `results` come from the tests (their reward is the compiler signal); `rm_scores` [G] from the reward model, None
    where there is none. A completion lacking a signal its reward needs becomes INFRA without a reward: an unknown
    score is no zero. Under `rm` the tests are only recorded, yet a harness failure stays INFRA.
    """
    if len(results) != len(rm_scores):
        raise ValueError(f"{len(results)} results but {len(rm_scores)} reward-model scores")
    combined = [_combined(result, score, mode, weights) for result, score in zip(results, rm_scores, strict=True)]
    return _normalised(combined, weights) if mode == "mix" and weights.normalise else combined


def standardised(values_G: Sequence[float | None]) -> list[float | None]:
    """(v - mean) / sample deviation over the group [G]; 0 where all are equal, None where there is none."""
    present = [v for v in values_G if v is not None]
    if len(present) < 2 or min(present) == max(present):
        return [None if v is None else 0.0 for v in values_G]
    return [None if v is None else (v - fmean(present)) / stdev(present) for v in values_G]


def _normalised(combined: Sequence[RewardResult], weights: MixWeights) -> list[RewardResult]:
    """The mix of signals that have the same spread in this group, so that the weights decide and not the spreads."""
    both = [result.reward is not None for result in combined]
    parts = {
        name: standardised([r.parts[name] if has else None for r, has in zip(combined, both, strict=True)])
        for name in ("compiler", "rm")
    }
    return [
        result if c is None or m is None else replace(result, reward=weights.compiler * c + weights.rm * m)
        for result, c, m in zip(combined, parts["compiler"], parts["rm"], strict=True)
    ]


def _combined(result: RewardResult, score: float | None, mode: Signal, weights: MixWeights) -> RewardResult:
    if score is not None and not math.isfinite(score):
        score = None
    parts = dict(result.parts)
    if result.reward is not None:
        parts["compiler"] = result.reward
    if score is not None:
        parts["rm"] = score
    if result.reward is None:
        return replace(result, parts=parts)
    if mode == "compiler":
        return replace(result, parts=parts)
    if score is None:
        return replace(result, verdict=Verdict.INFRA, reward=None, parts=parts, detail="the reward model gave no score")
    reward = score if mode == "rm" else weights.compiler * result.reward + weights.rm * score
    return replace(result, parts=parts, reward=reward)
