"""Log-probabilities of completion tokens, computed only where a completion token is predicted.

The backbone runs over the packed rows; the head runs over the selected hidden states alone, in chunks whose
logits are recomputed in the backward pass. No [tokens, V] tensor is ever held for more than one chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from assay.packing import PackedBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK_LOGITS = 1 << 24  #: numbers in one chunk of logits: 64 MiB of fp32
WithEntropy = bool | Literal["gradient"]


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
    model: PreTrainedModel, packed: PackedBatch, temperature: float = 1.0, with_entropy: WithEntropy = False
) -> tuple[Tensor, Tensor | None]:
    """Log-probability [N] of each target of `packed`, differentiable, and the entropy [N] at its position if asked.

    The entropy carries a gradient where `with_entropy` is "gradient". Order: `packed.target_mask.nonzero()`;
    `packed.split_targets` gives it back per sequence. `model` may be wrapped (DistributedDataParallel, PEFT): its own
    forward is called.
    """
    head = head_of(model)

    def read(hidden_BLH: Tensor) -> Tensor:
        hidden_NH = hidden_BLH[:, :-1][packed.target_mask[:, 1:]]
        return _logprobs_of_hidden(project, hidden_NH, packed.targets(), temperature, with_entropy, rows)

    project, rows = head.forward, max(1, CHUNK_LOGITS // head.weight.shape[0])
    with _head_reads(head, read):
        values = model(input_ids=packed.token_ids, position_ids=packed.position_ids, use_cache=False).logits
    if not with_entropy:
        return values[0], None
    return values[0], values[1] if with_entropy == "gradient" else values[1].detach()


def head_of(model: PreTrainedModel) -> nn.Module:
    """The module that turns hidden states into logits."""
    return getattr(model, "module", model).get_output_embeddings()


@contextmanager
def _head_reads(head: nn.Module, read: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let `read` stand in for the head inside the model's own forward.

    Calling the backbone and the head by hand would bypass whatever Accelerate wrapped around the forward, and with
    it the gradient exchange between ranks.
    """
    head.forward = read  # on the instance, over the method of its class
    try:
        yield
    finally:
        del head.forward


def _logprobs_of_hidden(
    project: Callable[[Tensor], Tensor],
    hidden_NH: Tensor,
    targets_N: Tensor,
    temperature: float,
    with_entropy: WithEntropy,
    rows: int,
) -> Tensor:
    """[1, N] log-probabilities, or [2, N] with entropies, of `rows` positions at a time."""
    one_chunk = hidden_NH.shape[0] <= rows
    chunks = []
    for hidden, targets in zip(hidden_NH.split(rows), targets_N.split(rows), strict=True):
        if one_chunk or not torch.is_grad_enabled():
            chunks.append(_chunk(project, hidden, targets, temperature, with_entropy))
        else:
            chunks.append(checkpoint(_chunk, project, hidden, targets, temperature, with_entropy, use_reentrant=False))
    return torch.cat(chunks, dim=1)


def _chunk(
    project: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, temperature: float, with_entropy: WithEntropy
) -> Tensor:
    logits = project(hidden)
    logprobs = token_logprobs(logits, targets, temperature)
    if not with_entropy:
        return logprobs[None]
    with torch.set_grad_enabled(with_entropy == "gradient" and torch.is_grad_enabled()):
        entropies = token_entropies(logits, temperature)
    return torch.stack([logprobs, entropies])


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
