"""The loss of one micro-batch, from log-probabilities to one number and the sums behind the metrics.

    J = sum_t weight_t ( w_t M_t policy_t + coef KL_t )  -  bonus * sum_t H_t / (tokens of the optimizer step)

policy_t is a row of `grpo.losses`, w_t of `grpo.correction`, KL_t of `grpo.kl`, M_t the off-policy mask. The weights
come from the whole optimizer step, so the sum of J over any split of it is the same number. No model here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from grpo.config import GRPOConfig
from grpo.correction import CORRECTIONS, off_policy_mask
from grpo.kl import KL, k3
from grpo.losses import LOSSES
from grpo.mismatch import THRESHOLDS, share_above
from grpo.sequences import count_sequences


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The N completion tokens of a micro-batch. Whole sequences: every token of a completion is among them."""

    logprobs: Tensor  # [N] of the policy, with gradient
    old: Tensor  # [N] of the policy before the first update, the trainer's own
    engine: Tensor  # [N] of the engine that drew them
    reference: Tensor | None  # [N], None without a KL
    entropy: Tensor | None  # [N], with gradient where there is a bonus
    advantages: Tensor  # [N]
    weights: Tensor  # [N]
    segments: Tensor  # [N] whose token it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of N tokens before the policy is run on them: `Tokens` but for its log-probabilities."""

    old: Tensor | None  # [N], None where the policy has not moved since
    engine: Tensor
    reference: Tensor | None
    advantages: Tensor
    weights: Tensor
    segments: Tensor

    def tokens(self, logprobs: Tensor, entropy: Tensor | None, at: slice = slice(None)) -> Tokens:
        """Some of the tokens, with what the policy says of them."""
        return Tokens(
            logprobs=logprobs,
            old=logprobs.detach() if self.old is None else self.old[at],
            engine=self.engine[at],
            reference=None if self.reference is None else self.reference[at],
            entropy=entropy,
            advantages=self.advantages[at],
            weights=self.weights[at],
            segments=self.segments[at],
        )


def by_token(config: GRPOConfig) -> bool:
    """Whether J is a sum of terms that each look at one token, so that it can be had of part of a completion."""
    correction = config.correction
    return (
        config.loss in ("clipped", "cispo")
        and correction.kind in ("none", "tis", "icepop")
        and correction.off_policy_threshold is None
    )


def objective(
    tokens: Tokens, config: GRPOConfig, bonus: float = 0.0, step_tokens: int = 1
) -> tuple[Tensor, dict[str, Tensor | float]]:
    """J, to be minimised, and the sums that `grpo.trainer` adds up and divides by global counts.

    `bonus` is the coefficient of the entropy now, `step_tokens` the completion tokens of the whole optimizer step.
    """
    policy, clipped = LOSSES[config.loss](tokens.logprobs, tokens.old, tokens.advantages, *config.clip, tokens.segments)
    policy, counts = _corrected(policy, tokens, config)
    loss = (tokens.weights * policy).sum()
    penalty = torch.zeros_like(loss)
    if tokens.reference is not None:
        estimate = KL[config.kl.estimator](tokens.logprobs, tokens.reference, tokens.old)
        penalty = config.kl.coef * (tokens.weights * estimate).sum()
        counts["kl"] = k3(tokens.logprobs.detach(), tokens.reference).sum()
    total = loss + penalty
    if tokens.entropy is not None:
        counts["entropy"] = tokens.entropy.detach().sum()
        if bonus:
            gain = -bonus * tokens.entropy.sum() / step_tokens
            counts["bonus"] = gain.detach()
            total = total + gain
    return total, {"policy": loss.detach(), "penalty": penalty.detach(), "clipped": clipped.sum(), **counts}


def _corrected(policy: Tensor, tokens: Tokens, config: GRPOConfig) -> tuple[Tensor, dict[str, Tensor | float]]:
    """The policy loss [N] with what the engine's log-probabilities do to it, and how many tokens that changed."""
    correction = config.correction
    counts: dict[str, Tensor | float] = {"masked": 0.0, "truncated": 0.0, "off_policy": 0.0}
    if correction.kind != "none":
        row = CORRECTIONS[correction.kind]
        log_ratio = tokens.old - tokens.engine
        factor = row.weigh(log_ratio, tokens.segments, correction.band or row.band)
        counts["masked"] = (factor == 0).sum()
        counts["truncated"] = (factor < log_ratio.exp()).sum() if correction.kind == "tis" else 0.0
        policy = policy * factor
    if correction.off_policy_threshold is not None:
        mask = off_policy_mask(
            tokens.logprobs, tokens.engine, tokens.advantages, tokens.segments, correction.off_policy_threshold
        )
        counts["off_policy"] = float(count_sequences(mask == 0, tokens.segments))
        policy = policy * mask
    return policy, counts


def disagreement(tokens: Tokens) -> tuple[dict[str, Tensor | float], float]:
    """Sums over tokens of how engine and trainer differ, and the largest |log-ratio|."""
    log_ratio = (tokens.old - tokens.engine).abs()
    sums: dict[str, Tensor | float] = {"mismatch": k3(tokens.engine, tokens.old).sum()}
    sums |= {share_above(threshold): (log_ratio > threshold).sum() for threshold in THRESHOLDS}
    return sums, log_ratio.max().item() if log_ratio.numel() else 0.0
