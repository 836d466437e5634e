"""What to do about tokens that engine and trainer, holding equal weights, give different probabilities.

The ratio of the loss is the trainer's own: pi / pi_old, both recomputed by the trainer. The engine's probability mu
enters here alone, as a factor w on the policy loss of each token. With r_t = pi_old / mu of a token:

    none            w = 1
    tis             w = min(r_t, high)                    high 2       truncated importance sampling (Yao et al. 2025)
    icepop          w = r_t inside [low, high], else 0    0.5, 5       IcePop (arXiv 2510.18855)
    sequence_mask   w = R inside [low, high], else 0      0, 3         R = prod r_t of the completion (TRL's default)
    geometric       w = 1 where G is inside, else 0       0.99, 1.01   G = R^(1/|o|) (SkyRL; verl has 0.999, 1.001)

No gradient flows through w.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from grpo.sequences import sequence_mean, sequence_sum

Band = tuple[float, float]


def none(log_ratio_N: Tensor, segments_N: Tensor, band: Band) -> Tensor:
    return torch.ones_like(log_ratio_N)


def tis(log_ratio_N: Tensor, segments_N: Tensor, band: Band) -> Tensor:
    return log_ratio_N.exp().clamp(*band)


def icepop(log_ratio_N: Tensor, segments_N: Tensor, band: Band) -> Tensor:
    return _inside_or_0(log_ratio_N.exp(), band)


def sequence_mask(log_ratio_N: Tensor, segments_N: Tensor, band: Band) -> Tensor:
    return _inside_or_0(sequence_sum(log_ratio_N, segments_N).exp(), band)


def geometric(log_ratio_N: Tensor, segments_N: Tensor, band: Band) -> Tensor:
    return (~_outside(sequence_mean(log_ratio_N, segments_N).exp(), band)).to(log_ratio_N.dtype)


def _inside_or_0(ratio_N: Tensor, band: Band) -> Tensor:
    return ratio_N.masked_fill(_outside(ratio_N, band), 0.0)


def _outside(ratio_N: Tensor, band: Band) -> Tensor:
    return (ratio_N < band[0]) | (ratio_N > band[1])


class Correction(NamedTuple):
    """A row of the table: the factor [N] of log-ratios [N], segments [N] and a band; and the band's default."""

    weigh: Callable[[Tensor, Tensor, Band], Tensor]
    band: Band
    source: str


CORRECTIONS: dict[str, Correction] = {
    "none": Correction(none, (0.0, float("inf")), "the engine's log-probabilities are measured and not used"),
    "tis": Correction(tis, (0.0, 2.0), "verl rollout_is_threshold, slime --tis-clip, open-instruct: C = 2"),
    "icepop": Correction(icepop, (0.5, 5.0), "IcePop, arXiv 2510.18855; OpenRLHF"),
    "sequence_mask": Correction(sequence_mask, (0.0, 3.0), "TRL vllm_importance_sampling_clip_max"),
    "geometric": Correction(geometric, (0.99, 1.01), "SkyRL; verl documents 0.999 to 1.001, wider for MoE"),
}


def off_policy_mask(
    logprobs_N: Tensor, engine_N: Tensor, advantages_N: Tensor, segments_N: Tensor, threshold: float
) -> Tensor:
    """M [N]: 0 for the tokens of a completion with A < 0 and mean_t log(mu / pi) > threshold, else 1.

    DeepSeek-V3.2 (arXiv 2512.02556) section 3.1: a bad answer the policy has moved away from already teaches
    nothing but noise; good ones stay. mu is the engine's probability. The threshold is unpublished (TRL shows 0.5).
    """
    drift = sequence_mean(engine_N - logprobs_N.detach(), segments_N)
    return 1.0 - ((advantages_N < 0) & (drift > threshold)).to(logprobs_N.dtype)
