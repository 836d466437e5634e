"""What the reward model and the samples it learns from can be told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from assay.config import Section


class PreferencesConfig(Section):
    """How many programs are sampled from the SFT policy and judged by their tests."""

    prompts: int = Field(default=4000, ge=1, description="training prompts, drawn without replacement")
    samples_per_prompt: int = Field(default=8, ge=1)
    temperature: float = Field(default=1.0, gt=0)


class RewardModelConfig(Section):
    """A scalar head on the SFT policy that learns whether a completion passes its tests.

    The papers publish neither sizes nor rates; the defaults are those of DeepSeek-R1's reward model (lr, batch,
    epochs, length) and of AceCoder (cosine with a tenth of warm-up).
    """

    loss: Literal["pointwise", "pairwise"] = "pointwise"
    learning_rate: float = Field(default=6e-6, gt=0)
    batch_size: int = Field(default=256, ge=1, description="completions per optimizer step, over all ranks")
    epochs: int = Field(default=1, ge=1)
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.1, ge=0)
    grad_clip: float = Field(default=1.0, gt=0)
    micro_batch_tokens: int = Field(default=8192, ge=1)
    max_length: int = Field(default=8192, ge=2, description="longer samples are left out and counted")
    checkpoint_every: int = Field(default=100, ge=1, description="steps between checkpoints")
    keep_last: int = Field(default=2, ge=1)
    heldout_fraction: float = Field(default=0.1, gt=0, lt=1, description="share of the tasks kept for the report")
    seed: int = 0
