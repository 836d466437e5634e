"""The expert balance loss DeepSeek-V2 trains with, which transformers' class does not compute.

Hooks on the routers collect what they decided in a forward pass; the loss is a pure function of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def sequence_balance(logits_NE: Tensor, chosen_NK: Tensor, segments_N: Tensor) -> Tensor:
    """Sum over sequences of sum_e f_e P_e, the expert-level balance loss at sequence level, before alpha.

    For a sequence of T tokens: f_e = E / (K T) * how often expert e was chosen (no gradient) and P_e = 1/T * sum_t
    softmax(logits_t)_e. Equal use of all experts gives 1 per sequence. Source: DeepSeek-V2 (2405.04434) section
    2.2.3, equations 23-25, with `seq_aux: true` as in the published V2-Lite configuration.

    Args: logits [N, E] and chosen experts [N, K] of all positions, segments [N] with -1 for padding.
    """
    present = segments_N >= 0
    _, sequence = segments_N[present].unique(return_inverse=True)
    scores, chosen = logits_NE[present].float().softmax(dim=-1), chosen_NK[present]
    experts, k = scores.shape[1], chosen.shape[1]
    shape = (int(sequence.max()) + 1, experts)
    lengths = torch.bincount(sequence).to(scores.dtype)[:, None]
    counts = torch.zeros(shape, dtype=scores.dtype, device=scores.device)
    counts.index_put_((sequence[:, None].expand_as(chosen), chosen), scores.new_ones(()), accumulate=True)
    means = torch.zeros(shape, dtype=scores.dtype, device=scores.device).index_add(0, sequence, scores) / lengths
    return (counts * experts / (k * lengths) * means).sum()


@contextmanager
def routing(model: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collect (logits [N, E], chosen experts [N, K]) of every router that runs inside the block, in order."""
    seen: list[tuple[Tensor, Tensor]] = []

    def remember(_module: nn.Module, _inputs: object, output: tuple[Tensor, Tensor, Tensor]) -> None:
        seen.append((output[0], output[2]))

    hooks = [m.register_forward_hook(remember) for m in model.modules() if "Router" in type(m).__name__]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
