"""What is trained on at which step, and how fast: pure functions of sizes and a seed, so that a resumed run agrees."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from assay.errors import ConfigError
from assay.optimization import warmup_cosine
from sft.config import SFTConfig


def plan_steps(lengths: Sequence[int], config: SFTConfig) -> list[list[int]]:
    """The examples (as indices) of every optimizer step, in order.

    Each epoch is a fresh permutation, drawn from (seed, epoch). A step takes examples until the next one would pass
    `batch_tokens`, across the ends of epochs; the run ends with the step that reaches `total_tokens` or `epochs`.
    """
    budget = _budget(lengths, config)
    steps: list[list[int]] = []
    step: list[int] = []
    step_tokens, tokens, epoch = 0, 0, 0
    while True:
        for i in random.Random(f"{config.seed}/{epoch}").sample(range(len(lengths)), len(lengths)):
            if tokens >= budget:
                return [*steps, step] if step else steps
            if step and step_tokens + lengths[i] > config.batch_tokens:
                steps.append(step)
                step, step_tokens = [], 0
            step.append(i)
            step_tokens += lengths[i]
            tokens += lengths[i]
        epoch += 1


def learning_rate(step: int, steps: int, config: SFTConfig) -> float:
    """The rate of step 0 <= step < steps: linear warm-up, then half a cosine."""
    return warmup_cosine(
        step,
        steps,
        peak=config.learning_rate,
        warmup_steps=config.warmup_steps,
        final_ratio=config.final_learning_rate_ratio,
    )


def check_warmup(steps: int, config: SFTConfig) -> None:
    """A run that ends before its warm-up does never reaches its learning rate: ConfigError."""
    if config.warmup_steps >= steps:
        raise ConfigError(
            f"sft.warmup_steps={config.warmup_steps} but the run has only {steps} steps; lower it, or lower "
            f"sft.batch_tokens={config.batch_tokens} for more steps"
        )


def split_heldout(count: int, config: SFTConfig) -> tuple[list[int], list[int]]:
    """Indices to train on and indices held out: a seeded draw, at least one example on each side that is wanted."""
    held = min(count - 1, math.ceil(count * config.heldout_fraction)) if config.heldout_fraction else 0
    shuffled = random.Random(f"{config.seed}/heldout").sample(range(count), count)
    return sorted(shuffled[held:]), sorted(shuffled[:held])


def _budget(lengths: Sequence[int], config: SFTConfig) -> float:
    by_epochs = math.inf if config.epochs is None else config.epochs * sum(lengths)
    return min(by_epochs, math.inf if config.total_tokens is None else config.total_tokens)
