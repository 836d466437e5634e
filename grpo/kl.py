"""Estimators of KL(pi || pi_ref) from tokens drawn from pi_old, one value per token.

With d = log pi_ref - log pi (J. Schulman, "Approximating KL divergence", 2020):

    none       0             the reference policy is never run
    k1         -d            unbiased, of either sign; no gradient on average
    k2         d^2 / 2       biased, never negative; its gradient is the one of the divergence
    k3         e^d - d - 1   unbiased, never negative: DeepSeekMath (arXiv 2402.03300) Eq. 4
    unbiased   r (e^d - d - 1), r = pi / pi_old: DeepSeek-V3.2 (arXiv 2512.02556) section 3.1. Value and gradient are
               those of the divergence also when pi has moved away from the policy that drew the tokens
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def none(logprobs_N: Tensor, reference_N: Tensor, old_N: Tensor | None = None) -> Tensor:
    return torch.zeros_like(logprobs_N)


def k1(logprobs_N: Tensor, reference_N: Tensor, old_N: Tensor | None = None) -> Tensor:
    return logprobs_N - reference_N


def k2(logprobs_N: Tensor, reference_N: Tensor, old_N: Tensor | None = None) -> Tensor:
    return (logprobs_N - reference_N).square() / 2


def k3(logprobs_N: Tensor, reference_N: Tensor, old_N: Tensor | None = None) -> Tensor:
    log_ratio = reference_N - logprobs_N
    return log_ratio.expm1() - log_ratio


def unbiased(logprobs_N: Tensor, reference_N: Tensor, old_N: Tensor) -> Tensor:
    return (logprobs_N - old_N).exp() * k3(logprobs_N, reference_N)


KL: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "none": none,
    "k1": k1,
    "k2": k2,
    "k3": k3,
    "unbiased": unbiased,
}
