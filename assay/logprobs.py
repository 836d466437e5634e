"""Log-probabilities of completion tokens, computed only where a completion token is predicted.

The backbone runs over the packed rows; the head runs over the selected hidden states alone, a chunk of positions at
a time, forward and backward. No [tokens, V] tensor is ever held for more than one chunk.

A chunk costs three products with the head's weight: logits, gradient of the hidden states, gradient of the weight.
The last two want the gradient of the loss by each log-probability, which the backward pass is the first to know; by
then the logits are gone, and computing them again is a fourth product. A caller who can say what the loss of some
tokens is (`loss=`) has the gradients accumulated in the forward pass instead. What it says is checked against what
the backward pass brings, so a wrong `loss` costs the fourth product and never the right gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from assay.errors import ConfigError
from assay.packing import PackedBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK_LOGITS = 1 << 26  #: numbers in one chunk of logits: 256 MiB of fp32
SAME = 2e-6  #: of the largest gradient: what may lie between the foreseen gradient and the one that came

WithEntropy = bool | Literal["gradient"]
TokenLoss = Callable[[Tensor, "Tensor | None", slice], Tensor]
"""Loss, summed, of some of the N tokens: (log-probabilities [n], differentiable entropies [n] or None, which of N)."""


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
    model: PreTrainedModel,
    packed: PackedBatch,
    temperature: float = 1.0,
    with_entropy: WithEntropy = False,
    loss: TokenLoss | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Log-probability [N] of each target of `packed`, differentiable, and the entropy [N] at its position if asked.

    The entropy carries a gradient where `with_entropy` is "gradient". Order: `packed.target_mask.nonzero()`;
    `packed.split_targets` gives it back per sequence. `model` may be wrapped (DistributedDataParallel, PEFT): its own
    forward is called. `loss` foresees the loss that will be computed of the result, up to a factor, and saves a
    product where the positions take several chunks. Raises ConfigError where the head is not a linear layer.
    """
    head = head_of(model)
    if type(head).forward is not nn.Linear.forward:
        raise ConfigError(
            f"the policy's head is a {type(head).__name__}, and log-probabilities are read off a plain linear layer; "
            "leave the head out of what is adapted or quantised"
        )
    reading = Reading(temperature, with_entropy, loss)

    def read(hidden_BLH: Tensor) -> Tensor:
        hidden_NH = hidden_BLH[:, :-1][packed.target_mask[:, 1:]].to(head.weight.dtype)
        with torch.autocast(hidden_NH.device.type, enabled=False):  # in the head's own precision: assay.precision
            return torch.stack(head_logprobs(hidden_NH, head.weight, head.bias, packed.targets(), reading))

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


@dataclass(frozen=True, slots=True)
class Reading:
    """What is wanted of the head's logits."""

    temperature: float = 1.0
    with_entropy: WithEntropy = False
    loss: TokenLoss | None = None

    @property
    def slopes(self) -> bool:
        return self.with_entropy == "gradient"


def head_logprobs(
    hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, targets_N: Tensor, reading: Reading
) -> tuple[Tensor, ...]:
    """Log-probability [N] of each target under softmax((hidden @ weight.T + bias) / temperature), and the entropy
    [N] if asked: `token_logprobs` and `token_entropies` of logits that exist a chunk at a time.
    """
    values = _Head.apply(hidden_NH, weight_VH, bias_V, targets_N, reading, torch.is_grad_enabled())
    return values if reading.with_entropy else values[:1]


class _Head(torch.autograd.Function):
    """(hidden, weight, bias) -> (log-probabilities, entropies), with the gradient written out.

    With z the tempered logits, p = softmax(z), t the target and H = -sum p log p:

        d log p_t / dz = onehot(t) - p          dH / dz = -p (log p + H)
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        reading: Reading,
        differentiable: bool,
    ) -> tuple[Tensor, Tensor]:
        chunks = _chunks(hidden.shape[0], weight.shape[0])
        wanted = ctx.needs_input_grad[:3] if differentiable else (False,) * 3
        logprobs, entropies = hidden.new_zeros((2, hidden.shape[0]), dtype=_wide_dtype(hidden.dtype))
        ctx.foreseen = ctx.kept = None
        if reading.loss is not None and any(wanted) and len(chunks) > 1:
            ctx.foreseen = _Foreseen.of(logprobs, _Gradients.zeros(hidden, weight, bias, wanted))
        soft = None
        for at in chunks:
            del soft  # the chunk before goes before the next one comes
            soft = _Softmax.of(hidden[at], weight, bias, targets[at], reading.temperature)
            logprobs[at] = soft.logprobs()
            if reading.with_entropy:
                entropies[at] = soft.entropies()
            if ctx.foreseen is not None:
                ctx.foreseen.add(at, soft, logprobs[at], entropies[at], hidden, weight, reading)
        if len(chunks) == 1 and any(wanted):
            ctx.kept = soft  # no larger than a chunk, so nothing is gained by computing it again
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.reading, ctx.chunks = reading, chunks
        if not reading.slopes:
            ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_logprob: Tensor, by_entropy: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        foreseen, kept, ctx.foreseen, ctx.kept = ctx.foreseen, ctx.kept, None, None  # both are used up in place
        slope = by_entropy if ctx.reading.slopes else None
        factor = foreseen.factor(by_logprob, slope) if foreseen is not None else None
        if factor is not None:
            return *foreseen.gradients.scaled(factor), None, None, None
        del foreseen
        gradients = _Gradients.zeros(hidden, weight, bias, ctx.needs_input_grad[:3])
        soft = None
        for at in ctx.chunks:
            del soft
            soft = kept or _Softmax.of(hidden[at], weight, bias, targets[at], ctx.reading.temperature)
            gradients.add(at, soft.logit_gradient(by_logprob[at], None if slope is None else slope[at]), hidden, weight)
        return *gradients.scaled(1.0), None, None, None


@dataclass(slots=True)
class _Softmax:
    """The tempered distributions of n positions, unnormalised, and what can be read off them. Two [n, V] tensors."""

    shifted: Tensor  # [n, V] z - max(z)
    exps: Tensor  # [n, V] its exponential
    sums: Tensor  # [n, 1] of the exponentials
    targets: Tensor  # [n, 1]
    temperature: float

    @classmethod
    def of(cls, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: float) -> _Softmax:
        logits = _wide(linear(hidden, weight, bias))
        if temperature != 1.0:
            logits.div_(temperature)
        shifted = logits.sub_(logits.amax(dim=-1, keepdim=True))
        exps = shifted.exp()
        return cls(shifted, exps, exps.sum(dim=-1, keepdim=True), targets[:, None], temperature)

    def logprobs(self) -> Tensor:
        return (self.shifted.gather(-1, self.targets) - self.sums.log()).squeeze(-1)

    def entropies(self) -> Tensor:
        expected = torch.linalg.vecdot(self.exps, self.shifted)[:, None] / self.sums
        return (self.sums.log() - expected).squeeze(-1)

    def logit_gradient(self, by_logprob: Tensor, by_entropy: Tensor | None) -> Tensor:
        """[n, V] gradient by the untempered logits, from those by log-probability and entropy [n]. Uses up `exps`."""
        g = by_logprob[:, None] / self.temperature
        if by_entropy is None:
            gradient = self.exps.mul_(-g / self.sums)
        else:
            u = by_entropy[:, None] / self.temperature
            offset = self.entropies()[:, None] - self.sums.log()
            gradient = self.exps.mul_(self.shifted.add_(offset).mul_(-u / self.sums).sub_(g / self.sums))
        return gradient.scatter_add_(-1, self.targets, g)


@dataclass(slots=True)
class _Gradients:
    """By hidden states, weight and bias, those that are wanted; the last two sum over chunks, at least in fp32."""

    hidden: Tensor | None  # [N, H]
    weight: Tensor | None  # [V, H]
    bias: Tensor | None  # [V]
    dtype: torch.dtype  #: of the layer

    @classmethod
    def zeros(cls, hidden: Tensor, weight: Tensor, bias: Tensor | None, wanted: tuple[bool, ...]) -> _Gradients:
        wide = _wide_dtype(weight.dtype)
        return cls(
            torch.empty_like(hidden) if wanted[0] else None,
            torch.zeros_like(weight, dtype=wide) if wanted[1] else None,
            torch.zeros_like(bias, dtype=wide) if bias is not None and wanted[2] else None,
            weight.dtype,
        )

    def add(self, at: slice, logit_gradient: Tensor, hidden: Tensor, weight: Tensor) -> None:
        gradient = logit_gradient.to(hidden.dtype)
        if self.hidden is not None:
            self.hidden[at] = gradient @ weight
        if self.weight is not None and self.weight.dtype == hidden.dtype:
            self.weight.addmm_(gradient.T, hidden[at])
        elif self.weight is not None:
            self.weight += gradient.T @ hidden[at]
        if self.bias is not None:
            self.bias += logit_gradient.sum(dim=0)

    def scaled(self, factor: float) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        for tensor in (self.hidden, self.weight, self.bias):
            if tensor is not None and factor != 1.0:
                tensor.mul_(factor)
        narrow = [None if t is None else t.to(self.dtype) for t in (self.weight, self.bias)]
        return self.hidden, *narrow


@dataclass(slots=True)
class _Foreseen:
    """Gradients under the loss the caller announced, and the gradients by token that they were made with."""

    by_logprob: Tensor  # [N]
    by_entropy: Tensor  # [N]
    gradients: _Gradients

    @classmethod
    def of(cls, like_N: Tensor, gradients: _Gradients) -> _Foreseen:
        return cls(torch.zeros_like(like_N), torch.zeros_like(like_N), gradients)

    def add(
        self, at: slice, soft: _Softmax, logprobs: Tensor, entropies: Tensor, hidden: Tensor, weight: Tensor, r: Reading
    ) -> None:
        values = [t.clone().requires_grad_() for t in ((logprobs, entropies) if r.slopes else (logprobs,))]
        with torch.enable_grad():
            loss = r.loss(values[0], values[1] if r.slopes else None, at)
        g, *u = torch.autograd.grad(loss, values, allow_unused=True, materialize_grads=True)
        self.by_logprob[at] = g
        if u:
            self.by_entropy[at] = u[0]
        self.gradients.add(at, soft.logit_gradient(g, u[0] if u else None), hidden, weight)

    def factor(self, by_logprob: Tensor, by_entropy: Tensor | None) -> float | None:
        """f where the gradients that came are f times the foreseen ones, else None."""
        came = torch.cat([by_logprob, torch.zeros_like(by_logprob) if by_entropy is None else by_entropy]).double()
        said = torch.cat([self.by_logprob, self.by_entropy]).double()
        factor = (came @ said) / (said @ said).clamp_min(torch.finfo(torch.float64).tiny)
        close = (came - factor * said).abs().max() <= SAME * came.abs().max()
        return float(factor) if close else None


def _chunks(positions: int, vocabulary: int) -> list[slice]:
    rows = max(1, CHUNK_LOGITS // vocabulary)
    return [slice(start, min(start + rows, positions)) for start in range(0, positions, rows)]


def _wide_dtype(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype == torch.float64 else torch.float32


def _wide(logits: Tensor) -> Tensor:
    return logits.to(_wide_dtype(logits.dtype))
