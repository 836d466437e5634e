"""How evenly the routers spread their tokens: a loss that asks for it, and numbers that tell.

transformers' DeepSeek-V2 computes no auxiliary loss and ignores `aux_loss_alpha`; whether the alignment stages of
DeepSeek-Coder-V2 used one is not published. Hence the coefficient is 0 unless it is set.

Shapes: N positions, S sequences, E experts, K per token, M layers with experts.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sequence_balance(probabilities_NE: Tensor, ids_NK: Tensor, segments_N: Tensor, sequences: int) -> Tensor:
    """L_ExpBal / alpha of each sequence [S]: DeepSeek-V2 (arXiv 2405.04434) Eq. 23-25, `seq_aux: true`.

    sum_i f_i P_i with, over the T tokens of a sequence,
        f_i = E / (K T) * number of tokens that chose expert i       (carries no gradient)
        P_i = 1 / T * sum_t s_(t,i)                                  (softmax over all E)

    1 when both are uniform, E / K at worst. Args: softmax [N, E], chosen [N, K], sequence of each position [N].
    """
    experts, k = probabilities_NE.shape[1], ids_NK.shape[1]
    lengths = torch.bincount(segments_N, minlength=sequences).clamp_min(1).to(probabilities_NE)[:, None]
    cells = (segments_N[:, None] * experts + ids_NK).flatten()
    chosen = torch.bincount(cells, minlength=sequences * experts).view(sequences, experts).to(probabilities_NE)
    sums = probabilities_NE.new_zeros(sequences, experts).index_add(0, segments_N, probabilities_NE)
    return (experts / k * chosen / lengths * (sums / lengths)).sum(dim=1)


def batch_balance(probabilities_NE: Tensor, ids_NK: Tensor) -> Tensor:
    """The same over all N tokens as if they were one sequence: the published code's `seq_aux: false`.

    Both published sizes say true, and a product of two sums over the batch is not a sum over its micro-batches.
    The trainer therefore uses `sequence_balance`, which no split of the batch changes.
    """
    segments = torch.zeros(ids_NK.shape[0], dtype=torch.int64, device=ids_NK.device)
    return sequence_balance(probabilities_NE, ids_NK, segments, 1)[0]


def load_metrics(counts_ME: Tensor) -> dict[str, float]:
    """From tokens per expert: `moe/max_violation` (arXiv 2408.15664, MaxVio) and `moe/dead_experts`.

    Counts (3, 1, 0, 0): the mean is 1, so the violation is 2, and two experts are dead.
    """
    counts = counts_ME.double()
    violation = counts.amax(dim=1) / counts.mean(dim=1).clamp_min(1e-30) - 1
    return {"moe/max_violation": violation.max().item(), "moe/dead_experts": float((counts == 0).sum())}
