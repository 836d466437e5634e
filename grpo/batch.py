"""Scored groups to what the trainer sees: sequences, advantages, weights. No tensors yet, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import Any

from assay.errors import ConfigError, DataError, InfraFailure, TrainingDiverged
from assay.types import Completion, FinishReason, RoutedExperts, ScoredGroup, Verdict
from grpo.advantages import ADVANTAGES, BATCH_ADVANTAGES, process
from grpo.aggregation import AGGREGATIONS
from grpo.config import GRPOConfig
from grpo.shaping import soft_overlong

Advantage = float | tuple[float, ...] | None  #: of a completion, of each of its T tokens, or none to be had


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainBatch:
    """S sequences of one rollout, over all ranks. Worked example: one prompt of 2 tokens, G = 2,
    completions of 3 and 1 tokens with rewards 1 and 0, advantage (R - mean)/std, weights 1/(S |o|):

        prompts     ((5, 6), (5, 6))          completions ((7, 8, 9), (9,))
        advantages  (0.7071, -0.7071)         weights     (1/6, 1/2)
    """

    prompts: tuple[tuple[int, ...], ...]  # [S][P]
    completions: tuple[tuple[int, ...], ...]  # [S][T]
    engine_logprobs: tuple[tuple[float, ...], ...]  # [S][T], of the engine that sampled
    advantages: tuple[float | tuple[float, ...], ...]  # [S], or [S][T] under process supervision
    weights: tuple[float, ...]  # [S], of one token of the sequence, within its mini-batch
    oldest_version: int
    counts: dict[str, float]  #: what was left out, for the metrics
    experts: tuple[RoutedExperts | None, ...] = ()  # [S], those the engine chose, where it was asked; or empty
    mini_batches: tuple[int, ...] = ()  # [S], the optimizer step each sequence belongs to; empty: one for all

    @property
    def num_tokens(self) -> int:
        return sum(map(len, self.completions))

    def parts(self) -> list[TrainBatch]:
        """The batches of one optimizer step each, in order."""
        if len(set(self.mini_batches)) < 2:
            return [self]
        return [self._part(k) for k in sorted(set(self.mini_batches))]

    def _part(self, k: int) -> TrainBatch:
        chosen = [i for i, part in enumerate(self.mini_batches) if part == k]
        per_sequence = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), tuple)}
        cut: dict[str, Any] = {name: tuple(v[i] for i in chosen) for name, v in per_sequence.items() if v}
        return replace(self, **cut)


def estimate_advantages(
    scored: Sequence[ScoredGroup], config: GRPOConfig, max_completion_tokens: int
) -> list[list[Advantage]]:
    """Advantages [groups][G]; None where the harness failed or the engine gave up."""
    if config.advantage == "process":
        return [_process(group) for group in scored]
    rewards = [_shaped(group, config.overlong_buffer_tokens, max_completion_tokens) for group in scored]
    if config.advantage in BATCH_ADVANTAGES:
        return [[*group] for group in BATCH_ADVANTAGES[config.advantage](rewards)]
    return [[*ADVANTAGES[config.advantage](group)] for group in rewards]


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


def is_flat(scored: ScoredGroup, by_steps: bool = True) -> bool:
    """Nothing to learn from the rewards: there are some, and all are equal. `by_steps` those of the steps, where there
    are any: of all completions together, however many steps each has, for they are normalised together."""
    earned = [*zip(rewards_of(scored), scored.results, strict=True)]
    outcomes = {reward for reward, _ in earned if reward is not None}
    steps = {of for reward, result in earned if reward is not None for _, of in result.steps} if by_steps else set()
    return len(steps or outcomes) == 1


def _shaped(scored: ScoredGroup, buffer: int, max_completion_tokens: int) -> list[float | None]:
    rewards = rewards_of(scored)
    if not buffer:
        return rewards
    if buffer > max_completion_tokens:
        raise ConfigError(
            f"grpo.overlong_buffer_tokens={buffer} is longer than a completion "
            f"(rollouts.sampling.max_completion_tokens={max_completion_tokens}); DAPO takes a fifth of it"
        )
    lengths = [len(c.token_ids) for c in scored.group.completions]
    return [
        None if r is None else r + soft_overlong(n, max_completion_tokens, buffer)
        for r, n in zip(rewards, lengths, strict=True)
    ]


def _process(scored: ScoredGroup) -> list[Advantage]:
    task, rewards = scored.group.task, rewards_of(scored)
    steps = [None if r is None else result.steps for r, result in zip(rewards, scored.results, strict=True)]
    if any(s is not None and not s for s in steps):
        raise DataError(
            f"task {task.id!r}: grpo.advantage=process needs a reward per step, and verifier {task.verifier!r} gave "
            f"none; use another advantage, or a reward function that returns (last token, reward) pairs"
        )
    try:
        return [*process(steps, [len(c.token_ids) for c in scored.group.completions])]
    except ValueError as error:
        raise DataError(f"task {task.id!r}: {error}; look at the reward function of {task.verifier!r}") from None


def build_batch(
    scored: Sequence[ScoredGroup],
    advantages: Sequence[Sequence[Advantage]],
    config: GRPOConfig,
    max_completion_tokens: int,
) -> TrainBatch:
    """Everything that has an advantage. Raises InfraFailure where nothing has, with the reasons."""
    kept: list[tuple[int, Completion, float | tuple[float, ...]]] = []  # (group, completion, advantage)
    dropped = truncated = 0
    for index, (group, advantages_G) in enumerate(zip(scored, advantages, strict=True)):
        if config.drop_zero_variance_groups and is_flat(group, config.advantage == "process"):
            dropped += 1
            continue
        for completion, advantage in zip(group.group.completions, advantages_G, strict=True):
            if advantage is None:
                continue
            if config.mask_truncated and completion.finish_reason is FinishReason.LENGTH:
                truncated += 1
                continue
            kept.append((index, completion, advantage))
    if not (kept or truncated or dropped):
        raise InfraFailure(
            f"none of {len(scored)} groups earned a reward: the harness failed on all of them "
            f"({_first_detail(scored)}); nothing was trained"
        )
    groups, lengths = [index for index, _, _ in kept], [len(c.token_ids) for _, c, _ in kept]
    parts = _deal(groups, config.mini_batches)
    return TrainBatch(
        prompts=tuple(scored[index].group.prompt_ids for index in groups),
        completions=tuple(c.token_ids for _, c, _ in kept),
        engine_logprobs=tuple(c.logprobs for _, c, _ in kept),
        advantages=tuple(advantage for _, _, advantage in kept),
        weights=_weights(config.loss_normalisation, lengths, groups, parts, max_completion_tokens),
        oldest_version=min(c.policy_version[0] for group in scored for c in group.group.completions),
        counts=_counts(scored, advantages, config) | {"completions/masked_truncated": float(truncated)},
        experts=tuple(c.experts for _, c, _ in kept),
        mini_batches=parts,
    )


def _deal(groups_S: Sequence[int], mini_batches: int) -> tuple[int, ...]:
    """The mini-batch [S] of each completion: whole groups, in order, as evenly as they go."""
    order = {group: i for i, group in enumerate(dict.fromkeys(groups_S))}
    count = min(mini_batches, len(order))
    return tuple(order[group] * count // len(order) for group in groups_S)


def _weights(
    name: str, lengths_S: Sequence[int], groups_S: Sequence[int], parts_S: Sequence[int], max_completion_tokens: int
) -> tuple[float, ...]:
    """Weights [S] of a token, normalised within each mini-batch."""
    weights: list[float] = []
    for k in sorted(set(parts_S)):  # parts follow each other
        chosen = [i for i, part in enumerate(parts_S) if part == k]
        weights += AGGREGATIONS[name](
            [lengths_S[i] for i in chosen], max_completion_tokens, [groups_S[i] for i in chosen]
        )
    return tuple(weights)


def _counts(
    scored: Sequence[ScoredGroup], advantages: Sequence[Sequence[Advantage]], config: GRPOConfig
) -> dict[str, float]:
    """No group is both trained and without variance: one that punishment for length alone sets apart is trained."""
    flat = [is_flat(group, config.advantage == "process") for group in scored]
    teaching = [any(map(_teaches, advantages_G)) for advantages_G in advantages]
    trained = [t and not (f and config.drop_zero_variance_groups) for t, f in zip(teaching, flat, strict=True)]
    masked = sum(any(r.verdict is Verdict.INFRA for r in group.results) for group in scored)
    return {
        "groups/trained": float(sum(trained)),
        "groups/zero_variance": float(sum(f and not t for f, t in zip(flat, trained, strict=True))),
        "groups/masked_infra": float(masked),
    }


def _teaches(advantage: Advantage) -> bool:
    return any(advantage) if isinstance(advantage, tuple) else bool(advantage)


def _first_detail(scored: Sequence[ScoredGroup]) -> str:
    return next((r.detail for group in scored for r in group.results if r.detail), "no detail given")


def with_gradient(batch: TrainBatch, config: GRPOConfig) -> list[int]:
    """The sequences that move the policy: all where a KL or an entropy bonus does, else those with an advantage.

    At least one, so that the optimizer's step (its momentum and decay) happens as it would with a gradient of zero.
    """
    everywhere = config.kl.coef and config.kl.estimator != "none"
    if everywhere or config.entropy.coef or config.entropy.target:
        return list(range(len(batch.completions)))
    shortest = min(range(len(batch.completions)), key=lambda i: len(batch.completions[i]))
    return [i for i, advantage in enumerate(batch.advantages) if _teaches(advantage)] or [shortest]
