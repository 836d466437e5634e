"""From the signals of a completion to its reward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

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
    return [_combined(result, score, mode, weights) for result, score in zip(results, rm_scores, strict=True)]


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
