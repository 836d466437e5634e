"""The policy-gradient losses, token by token. Pure functions of flat tensors [N]: N completion tokens of a batch.

Nothing here averages. A loss is `(weights_N * per_token_N).sum()` with weights from `grpo.aggregation`, which are
computed over the whole global batch, so that no split into micro-batches, ranks or rows changes the gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_surrogate(
    logprobs_N: Tensor, old_logprobs_N: Tensor, advantages_N: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """-min(r A, clip(r, 1 - low, 1 + high) A) with r = pi / pi_old: DeepSeekMath (arXiv 2402.03300) Eq. 3.

    Returns the loss [N] and whether the clipped branch was the one taken [N], where no gradient flows. With one
    update per rollout r is 1 and the gradient is that of -A log pi.
    """
    ratio = (logprobs_N - old_logprobs_N).exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = -torch.minimum(ratio * advantages_N, clipped * advantages_N)
    return loss, (clipped * advantages_N < ratio * advantages_N)
