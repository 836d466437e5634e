"""Estimators of KL(pi || pi_ref) from tokens drawn from pi, one value per token.

With d = log pi_ref - log pi (J. Schulman, "Approximating KL divergence", 2020):

    k1 = -d              unbiased, of either sign
    k2 = d^2 / 2         biased, never negative
    k3 = e^d - d - 1     unbiased, never negative: DeepSeekMath (arXiv 2402.03300) Eq. 4
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def k1(logprobs_N: Tensor, reference_N: Tensor) -> Tensor:
    return logprobs_N - reference_N


def k2(logprobs_N: Tensor, reference_N: Tensor) -> Tensor:
    return (logprobs_N - reference_N).square() / 2


def k3(logprobs_N: Tensor, reference_N: Tensor) -> Tensor:
    log_ratio = reference_N - logprobs_N
    return log_ratio.expm1() - log_ratio


KL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": k1, "k2": k2, "k3": k3}
