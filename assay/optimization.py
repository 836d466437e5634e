"""The optimizer and the learning-rate schedule that the supervised stages share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def warmup_cosine(step: int, steps: int, *, peak: float, warmup_steps: int, final_ratio: float) -> float:
    """The rate of step 0 <= step < steps: linear warm-up, then half a cosine down to the final ratio.

    lr = peak (r + (1 - r)(1 + cos(pi t)) / 2) with t from 0 at the end of the warm-up to 1 after the last step.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    t = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * (final_ratio + (1 - final_ratio) * (1 + math.cos(math.pi * t)) / 2)


def adamw(
    parameters: Sequence[torch.nn.Parameter], *, rate: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves vectors (norms) alone."""
    import torch

    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=rate, betas=betas, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the learning rate of the step."""
    for group in optimizer.param_groups:
        group["lr"] = rate
