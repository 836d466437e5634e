"""Scored groups to what the trainer sees: sequences, advantages, weights. No tensors yet, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from assay.errors import InfraFailure, TrainingDiverged
from assay.types import FinishReason, ScoredGroup, Verdict
from grpo.advantages import ADVANTAGES
from grpo.aggregation import AGGREGATIONS
from grpo.config import GRPOConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainBatch:
    """S sequences of one optimizer step, over all ranks. Worked example: one prompt of 2 tokens, G = 2,
    completions of 3 and 1 tokens with rewards 1 and 0, advantage (R - mean)/std, weights 1/(S |o|):

        prompts     ((5, 6), (5, 6))          completions ((7, 8, 9), (9,))
        advantages  (0.7071, -0.7071)         weights     (1/6, 1/2)
    """

    prompts: tuple[tuple[int, ...], ...]  # [S][P]
    completions: tuple[tuple[int, ...], ...]  # [S][T]
    engine_logprobs: tuple[tuple[float, ...], ...]  # [S][T], of the engine that sampled
    advantages: tuple[float, ...]  # [S]
    weights: tuple[float, ...]  # [S], of one token of the sequence
    oldest_version: int
    counts: dict[str, float]  #: what was left out, for the metrics

    @property
    def num_tokens(self) -> int:
        return sum(map(len, self.completions))


def estimate_advantages(scored: Sequence[ScoredGroup], config: GRPOConfig) -> list[list[float | None]]:
    """Advantages [groups][G]; None where the harness failed or the engine gave up."""
    return [ADVANTAGES[config.advantage](rewards_of(group)) for group in scored]


def rewards_of(scored: ScoredGroup) -> list[float | None]:
    """Rewards [G], None where there is none to be had. A reward that is no finite number stops the run."""
    rewards: list[float | None] = []
    for result, completion in zip(scored.results, scored.group.completions, strict=True):
        aborted = completion.finish_reason is FinishReason.ABORT or not completion.token_ids
        if result.reward is not None and not isfinite(result.reward):
            raise TrainingDiverged(
                f"task {scored.group.task.id!r}: reward {result.reward} is not a finite number; look at the reward "
                f"function of verifier {scored.group.task.verifier!r}"
            )
        rewards.append(None if aborted else result.reward)
    return rewards


def build_batch(
    scored: Sequence[ScoredGroup],
    advantages: Sequence[Sequence[float | None]],
    config: GRPOConfig,
    max_completion_tokens: int,
) -> TrainBatch:
    """Everything that has an advantage. Raises InfraFailure where nothing has, with the reasons."""
    prompts, completions, logprobs, kept = [], [], [], []
    dropped = 0
    for group, advantages_G in zip(scored, advantages, strict=True):
        if config.drop_zero_variance_groups and _is_flat(advantages_G):
            dropped += 1
            continue
        for completion, advantage in zip(group.group.completions, advantages_G, strict=True):
            if advantage is not None:
                prompts.append(group.group.prompt_ids)
                completions.append(completion.token_ids)
                logprobs.append(completion.logprobs)
                kept.append(advantage)
    counts = _counts(scored, advantages)
    if not kept and dropped < len(scored):
        raise InfraFailure(
            f"none of {len(scored)} groups earned a reward: the harness failed on all of them "
            f"({_first_detail(scored)}); nothing was trained"
        )
    versions = [c.policy_version[0] for group in scored for c in group.group.completions]
    return TrainBatch(
        prompts=tuple(prompts),
        completions=tuple(completions),
        engine_logprobs=tuple(logprobs),
        advantages=tuple(kept),
        weights=tuple(AGGREGATIONS[config.loss_normalisation]([len(c) for c in completions], max_completion_tokens)),
        oldest_version=min(versions),
        counts=counts,
    )


def _counts(scored: Sequence[ScoredGroup], advantages: Sequence[Sequence[float | None]]) -> dict[str, float]:
    flat = sum(_is_flat(a) for a in advantages)
    masked = sum(any(r.verdict is Verdict.INFRA for r in group.results) for group in scored)
    return {
        "groups/trained": float(len(scored) - flat),
        "groups/zero_variance": float(flat),
        "groups/masked_infra": float(masked),
    }


def _is_flat(advantages_G: Sequence[float | None]) -> bool:
    """No gradient from the rewards: there are advantages, and all are zero."""
    return any(a is not None for a in advantages_G) and not any(advantages_G)


def _first_detail(scored: Sequence[ScoredGroup]) -> str:
    return next((r.detail for group in scored for r in group.results if r.detail), "no detail given")


def with_gradient(batch: TrainBatch, kl_coef: float) -> list[int]:
    """The sequences that move the policy: all where a KL pulls on them, else those with an advantage.

    At least one, so that the optimizer's step (its momentum and decay) happens as it would with a gradient of zero.
    """
    if kl_coef:
        return list(range(len(batch.completions)))
    shortest = min(range(len(batch.completions)), key=lambda i: len(batch.completions[i]))
    return [i for i, advantage in enumerate(batch.advantages) if advantage] or [shortest]
