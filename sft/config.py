"""What supervised fine-tuning can be told. Defaults are DeepSeek-Coder-V2's where the paper gives them.

Batches and budgets are counted in tokens of whole dialogues, prompt included, as the paper does (section 3.5.1).
"""

from __future__ import annotations

from pydantic import Field, model_validator

from assay.config import Section


class SFTConfig(Section):
    """Supervised fine-tuning on dialogues, loss on the assistant's tokens and their end-of-sequence token."""

    data: str | None = Field(default=None, description='JSONL of {"messages": [{"role", "content"}, ...]}')
    total_tokens: int | None = Field(
        default=1_000_000_000, ge=1, description="stop once so many tokens were trained on"
    )
    epochs: float | None = Field(
        default=None, gt=0, description="stop after so many passes; with total_tokens, at the first"
    )
    batch_tokens: int = Field(default=1_000_000, ge=1, description="tokens per optimizer step, over all ranks")
    micro_batch_tokens: int = Field(default=8192, ge=1, description="positions in one forward pass of one rank")
    max_length: int = Field(default=4096, ge=2, description="dialogues with more tokens are left out and counted")
    learning_rate: float = Field(default=5e-6, gt=0)
    final_learning_rate_ratio: float = Field(default=0.0, ge=0, le=1)
    warmup_steps: int = Field(default=100, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.1, ge=0)
    grad_clip: float = Field(default=1.0, gt=0)
    balance_alpha: float = Field(
        default=0.001, ge=0, description="weight of the sequence-level expert balance loss; 0 = off"
    )
    heldout_fraction: float = Field(
        default=0.02, ge=0, lt=1, description="share of the dialogues kept for the held-out loss"
    )
    evaluate_every: int = Field(default=50, ge=0, description="steps between held-out losses; 0 = only at the end")
    checkpoint_every: int = Field(default=100, ge=0, description="steps between checkpoints; 0 = none")
    keep_last: int = Field(default=2, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _ends(self) -> SFTConfig:
        if self.total_tokens is None and self.epochs is None:
            raise ValueError("training would never end: set sft.total_tokens, sft.epochs or both")
        return self
