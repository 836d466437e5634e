"""Log-probabilities of completion tokens, computed only where a completion token is predicted.

The backbone runs over the packed rows; the head runs over the selected hidden states alone, in chunks whose
logits are recomputed in the backward pass. No [tokens, V] tensor is ever held for more than one chunk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from assay.packing import PackedBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK_LOGITS = 1 << 24  #: numbers in one chunk of logits: 64 MiB of fp32


def token_logprobs(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """log p(target) of the tempered distribution: log softmax(logits / temperature)[target].

    Args: logits [N, V], targets [N]. Returns [N], at least fp32.
    """
    tempered = _wide(logits) / temperature
    return tempered.gather(-1, targets[:, None]).squeeze(-1) - tempered.logsumexp(dim=-1)


def token_entropies(logits: Tensor, temperature: float) -> Tensor:
    """Entropy in nats of the tempered distribution: H = logsumexp(z) - sum softmax(z) z with z = logits / temperature.

    Args: logits [N, V]. Returns [N], at least fp32.
    """
    tempered = _wide(logits) / temperature
    return tempered.logsumexp(dim=-1) - (tempered.softmax(dim=-1) * tempered).sum(dim=-1)


def completion_logprobs(
    model: PreTrainedModel, packed: PackedBatch, temperature: float = 1.0, with_entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Log-probability [N] of each target of `packed`, differentiable, and the entropy [N] at its position if asked.

    The entropy carries no gradient. Order: `packed.target_mask.nonzero()`; `packed.split_targets` gives it back
    per sequence.
    """
    return logprobs_of_hidden(head_of(model), target_hidden(model, packed), packed.targets(), temperature, with_entropy)


def target_hidden(model: PreTrainedModel, packed: PackedBatch) -> Tensor:
    """Hidden states [N, H] at the positions just before each target."""
    hidden_BLH = backbone_hidden(model, packed)
    return hidden_BLH[:, :-1][packed.target_mask[:, 1:]]


def backbone_hidden(model: PreTrainedModel, packed: PackedBatch) -> Tensor:
    """Last hidden states [B, L, H]; attention stays inside each sequence (see `assay.packing`)."""
    inner = _unwrapped(model)
    backbone = getattr(inner, inner.base_model_prefix)
    return backbone(input_ids=packed.token_ids, position_ids=packed.position_ids, use_cache=False).last_hidden_state


def logprobs_of_hidden(
    head: torch.nn.Module, hidden_NH: Tensor, targets_N: Tensor, temperature: float, with_entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """The head and the two formulas above over [N, H], chunk by chunk."""
    out_features = getattr(head, "out_features", None) or head.weight.shape[0]
    rows = max(1, CHUNK_LOGITS // out_features)
    one_chunk = hidden_NH.shape[0] <= rows
    logprobs, entropies = [], []
    for hidden, targets in zip(hidden_NH.split(rows), targets_N.split(rows), strict=True):
        if one_chunk or not torch.is_grad_enabled():
            chunk = _chunk(head, hidden, targets, temperature, with_entropy)
        else:
            chunk = checkpoint(_chunk, head, hidden, targets, temperature, with_entropy, use_reentrant=False)
        logprobs.append(chunk[0])
        entropies.append(chunk[1])
    return torch.cat(logprobs), torch.cat(entropies) if with_entropy else None


def head_of(model: PreTrainedModel) -> torch.nn.Module:
    """The module that turns hidden states into logits."""
    return _unwrapped(model).get_output_embeddings()


def _chunk(
    head: torch.nn.Module, hidden: Tensor, targets: Tensor, temperature: float, with_entropy: bool
) -> tuple[Tensor, Tensor | None]:
    logits = head(hidden)
    logprobs = token_logprobs(logits, targets, temperature)
    if not with_entropy:
        return logprobs, None
    with torch.no_grad():
        return logprobs, token_entropies(logits, temperature)


def _unwrapped(model: PreTrainedModel) -> PreTrainedModel:
    """The model inside DistributedDataParallel, if it is wrapped."""
    return getattr(model, "module", model)


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
