"""The policy-gradient losses, token by token. Pure functions of flat tensors [N]: N completion tokens of a batch.

Nothing here averages. A loss is `(weights_N * per_token_N).sum()` with weights from `grpo.aggregation`, which are
computed over the whole global batch, so that no split into micro-batches, ranks or rows changes the gradient.
Sequences are never cut: all tokens of one are in the same call.

What papers call GRPO, DAPO, Dr. GRPO, BNPO are rows of `grpo.algorithms`: the first loss with other bounds, weights
and advantages.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from grpo.sequences import sequence_mean


def clipped_surrogate(
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    advantages_N: Tensor,
    clip_low: float,
    clip_high: float,
    segments_N: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """-min(r A, clip(r, 1 - low, 1 + high) A) with r = pi / pi_old: DeepSeekMath (arXiv 2402.03300) Eq. 3.

    Returns the loss [N] and whether the clipped branch was the one taken [N], where no gradient flows. With one
    update per rollout r is 1 and the gradient is that of -A log pi. DAPO (arXiv 2503.14476) sets high above low.
    """
    return _clipped((logprobs_N - old_logprobs_N).exp(), advantages_N, clip_low, clip_high)


def gspo(
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    advantages_N: Tensor,
    clip_low: float,
    clip_high: float,
    segments_N: Tensor,
) -> tuple[Tensor, Tensor]:
    """The same with one ratio for the whole completion, s_i = (pi(o_i) / pi_old(o_i))^(1 / |o_i|).

    GSPO (arXiv 2507.18071); bounds there 3e-4 and 4e-4. With the weights of `per_sequence_mean` a completion adds up
    to the paper's min(s A, clip(s) A) / G. All tokens of a completion are clipped, or none.
    """
    ratio = sequence_mean(logprobs_N - old_logprobs_N, segments_N).exp()
    return _clipped(ratio, advantages_N, clip_low, clip_high)


def cispo(
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    advantages_N: Tensor,
    clip_low: float,
    clip_high: float,
    segments_N: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """-sg(min(r, 1 + high)) A log pi: MiniMax-M1 (arXiv 2506.13585) section 3.1. No lower bound: low is not used.

    The weight is capped, the token is not dropped: gradient flows everywhere. M1 publishes no bound; ScaleRL
    (arXiv 2510.13786) caps at 5, which is high = 4. Returns the loss [N] and whether the weight was capped [N].
    """
    ratio = (logprobs_N.detach() - old_logprobs_N).exp()
    return -ratio.clamp(max=1 + clip_high) * advantages_N * logprobs_N, ratio > 1 + clip_high


def _clipped(ratio_N: Tensor, advantages_N: Tensor, clip_low: float, clip_high: float) -> tuple[Tensor, Tensor]:
    clipped = ratio_N.clamp(1 - clip_low, 1 + clip_high)
    loss = -torch.minimum(ratio_N * advantages_N, clipped * advantages_N)
    return loss, (clipped * advantages_N < ratio_N * advantages_N)


Loss = Callable[[Tensor, Tensor, Tensor, float, float, Tensor], tuple[Tensor, Tensor]]

LOSSES: dict[str, Loss] = {"clipped": clipped_surrogate, "gspo": gspo, "cispo": cispo}
