"""Routing replay: let the trainer's gates use experts that were chosen elsewhere.

A router decides by the order of nearly equal numbers, so engine and trainer, equal but for rounding, send some tokens
to different experts, and such a token's log-probability differs visibly. Two remedies, named as in the literature:

    r3   the experts the *engine* chose while it sampled (arXiv 2510.11370)
    r2   the experts the *trainer* chose in the first pass over the rollouts, kept for the later updates on them

The chosen ids are given; the weights are not. They are the trainer's own probabilities at those ids, so the gradient
flows through the gate as ever (`Architecture.weigh`: full-softmax for DeepSeek-V2, where the masked and renormalised
form of the papers would be another model). With the ids a gate would choose anyway nothing changes.

Works on the plain transformers modules, through forward hooks on the gates: under gradient checkpointing the hooks see
the recomputation too, therefore *the backward pass belongs inside the same `with`*, and leaving without it is an error.
The reference model is another object and is never touched.

Shapes: B rows of L positions, M layers with experts, E experts, K per token; -1 means "the gate's own choice".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from assay.errors import ConfigError
from assay.moe import ARCHITECTURES, architecture_of, gates_of
from assay.moe_balance import load_metrics, sequence_balance
from assay.packing import PADDING, PackedBatch
from assay.types import RoutedExperts

OWN = -1
Mode = Literal["off", "r2", "r3"]


def to_tensor(experts: RoutedExperts) -> Tensor:
    """Ids [T, M, K] int16."""
    wide = len(experts.ids) > experts.shape[0] * experts.shape[1] * experts.shape[2]
    flat = torch.frombuffer(bytearray(experts.ids), dtype=torch.int16 if wide else torch.uint8)
    return flat.to(torch.int16).view(experts.shape)


def from_tensor(ids_TMK: Tensor) -> RoutedExperts:
    """The inverse of `to_tensor`, in one byte per id where every id fits."""
    narrow = ids_TMK.numel() == 0 or int(ids_TMK.max()) < 256
    array = ids_TMK.to("cpu", torch.uint8 if narrow else torch.int16).contiguous().numpy()
    return RoutedExperts(shape=tuple(ids_TMK.shape), ids=array.tobytes())


def lay_out(packed: PackedBatch, experts: Sequence[RoutedExperts | None]) -> Tensor:
    """Experts per sequence, from its first position on, as [B, L, M, K] int16 in the places the packing gave them.

    `experts` is indexed by sequence, for all that were packed. Positions beyond what is known, and padding, are OWN:
    an engine never routes the last token it sampled, since nothing was predicted from it.
    """
    known = {s: to_tensor(chosen) for s in _present(packed) if (chosen := experts[s]) is not None}
    shapes = {tuple(ids.shape[1:]) for ids in known.values()}
    if len(shapes) != 1:
        raise ValueError(f"experts of {len(known)} sequences have {len(shapes)} different shapes {sorted(shapes)}")
    out = torch.full((*packed.token_ids.shape, *shapes.pop()), OWN, dtype=torch.int16)
    for segment, ids in known.items():
        rows, columns = (packed.segment_ids == segment).nonzero(as_tuple=True)
        used = min(len(rows), len(ids))
        out[rows[:used].cpu(), columns[:used].cpu()] = ids[:used]
    return out.to(packed.token_ids.device)


def _present(packed: PackedBatch) -> list[int]:
    return sorted(set(packed.segment_ids.unique().tolist()) - {PADDING})


class Routers:
    """The gates of one model: what they chose, what they shall choose, how evenly they did.

    routers = Routers(model, replay="r3", aux_coef=0.0)
    route = routers.route(micro_batch, experts)     # per micro-batch, kept for all passes over it
    with route:                                     # forward and backward
        logprobs = ...
        (loss + routers.balance(sequences)).backward()
    routers.metrics(accelerator.reduce)             # per update
    """

    def __init__(self, model: nn.Module, replay: Mode = "off", aux_coef: float = 0.0) -> None:
        self.model, self.replay, self.aux_coef = model, replay, aux_coef
        self.row, self.gates = architecture_of(model), [gate for _, gate in gates_of(model)]
        if not self.gates and (replay != "off" or aux_coef):
            raise ConfigError(
                f"grpo.moe: set for a policy without routers assay knows (it knows {', '.join(ARCHITECTURES)}); "
                f"leave out grpo.moe.replay and grpo.moe.aux_coef"
            )
        self._current: Route | None = None
        self._counts: Tensor | None = None  # [M, E] tokens per expert, over the update's passes
        self._agreement = [0.0, 0.0]  # (token, layer) pairs that agree with the engine, and all that were compared

    def route(self, packed: PackedBatch, experts: Sequence[RoutedExperts | None] | None = None) -> Route:
        """What one micro-batch's passes share. `experts`: the engine's choice, by sequence, where it was captured."""
        known = [experts[s] is not None for s in _present(packed)] if experts else [False]
        if self.replay == "r3" and not all(known):
            raise ConfigError(
                "grpo.moe.replay=r3 needs the experts the engine chose, and some completions have none; "
                "set rollouts.engine.return_experts=true"
            )
        engine = lay_out(packed, experts).flatten(0, 1) if self.gates and experts and any(known) else None
        return Route(self, packed, engine, engine if self.replay == "r3" else None)

    def balance(self, sequences: int) -> Tensor | float:
        """aux_coef * sum over layers of the mean of `sequence_balance` over the step's `sequences`; 0.0 when off.

        Inside a route: the sum over its micro-batch, divided by the global count, so that micro-batches add up.
        """
        if not self.aux_coef or self._current is None:
            return 0.0
        return self.aux_coef / sequences * self._current.balance_sum()

    def metrics(self, reduce: Callable[[Tensor], Tensor] = lambda t: t) -> dict[str, float]:
        """`moe/*` of the gradient passes since the last call, summed over ranks by `reduce`; {} without routers."""
        if self._counts is None:
            return {}
        counts = reduce(self._counts)
        same, compared = reduce(torch.tensor(self._agreement, dtype=torch.float64, device=counts.device)).tolist()
        self._counts, self._agreement = None, [0.0, 0.0]
        return {**load_metrics(counts), **({"moe/agreement": same / compared} if compared else {})}

    def count(self, ids_MNK: Tensor, own_MNK: Tensor, engine_MNK: Tensor | None) -> None:
        """Add one pass over real positions to the metrics: ids used, ids the gates would choose, the engine's ids."""
        experts = self.gates[0].weight.shape[0]
        counts = torch.stack([torch.bincount(ids.flatten(), minlength=experts) for ids in ids_MNK]).double()
        self._counts = counts if self._counts is None else self._counts + counts
        if engine_MNK is not None:
            known = (engine_MNK >= 0).all(dim=-1)
            same = (own_MNK.sort(dim=-1).values == engine_MNK.long().sort(dim=-1).values).all(dim=-1) & known
            self._agreement[0] += float(same.sum())
            self._agreement[1] += float(known.sum())


class Route:
    """The routing of one micro-batch; as a context manager, of one pass over it. Made by `Routers.route`."""

    def __init__(
        self, routers: Routers, packed: PackedBatch | None, engine_NMK: Tensor | None, given_NMK: Tensor | None
    ) -> None:
        self._routers, self._packed = routers, packed
        self.engine, self.given = engine_NMK, given_NMK
        self._handles: list[Any] = []
        self._clear()

    def _clear(self) -> None:
        layers = len(self._routers.gates)
        self._calls = [0] * layers
        self._logits: list[Tensor] = []  # of the layers passed so far, kept only where a loss needs them
        self._trained = [False] * layers
        self._own: list[Tensor] = [torch.empty(0)] * layers
        self._used: list[Tensor] = [torch.empty(0)] * layers

    def __enter__(self) -> Route:
        self._clear()
        self._routers._current = self
        for layer, gate in enumerate(self._routers.gates):
            self._handles.append(gate.register_forward_hook(self._hook(layer)))
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._routers._current = None
        if kind is None and self._calls and all(self._calls):
            self._leave()
        self._logits = []  # the graph goes with them

    def _leave(self) -> None:
        recomputes = getattr(self._routers.model, "is_gradient_checkpointing", False) and self._routers.model.training
        pending = any(trained and calls < 2 for trained, calls in zip(self._trained, self._calls, strict=True))
        if self.given is not None and recomputes and pending:
            raise ValueError(
                "routing replay was left before the backward pass: gradient checkpointing would recompute with the "
                "gates' own choice; call backward() inside the same `with`"
            )
        if any(self._trained) and self._packed is not None:
            real = self._real()
            engine = None if self.engine is None else self.engine[real].transpose(0, 1)
            own = torch.stack([ids[real] for ids in self._own])
            self._routers.count(torch.stack([ids[real] for ids in self._used]), own, engine)
        if self._routers.replay == "r2" and self.given is None:
            self.given = self.chosen()

    def _hook(self, layer: int) -> Callable[..., Any]:
        def after(gate: nn.Module, arguments: Any, output: tuple[Tensor, Tensor, Tensor]) -> Any:
            logits, _, own = output
            used = own if self.given is None else self._replayed(layer, own)
            self._calls[layer] += 1
            if self._calls[layer] == 1:  # later calls are recomputations
                self._own[layer], self._used[layer] = own.detach(), used.detach()
                self._trained[layer] = logits.requires_grad
                if self._routers.aux_coef:
                    self._logits.append(logits)
            if self.given is None:
                return None
            row: Any = self._routers.row
            return logits, row.weigh(self._routers.model.config, logits, used), used

        return after

    def _replayed(self, layer: int, own_NK: Tensor) -> Tensor:
        given: Any = self.given
        if (own_NK.shape[0], len(self._routers.gates), own_NK.shape[1]) != tuple(given.shape):
            raise ValueError(
                f"experts {tuple(given.shape)} do not fit {own_NK.shape[0]} positions, {len(self._routers.gates)} "
                f"layers and {own_NK.shape[1]} experts per token"
            )
        ids = given[:, layer].to(own_NK.device, torch.int64)
        return torch.where(ids >= 0, ids, own_NK)

    def chosen(self) -> Tensor:
        """What the gates used in the last pass, [N, M, K] int16, N = B L positions."""
        return torch.stack(self._used, dim=1).to(torch.int16)

    def balance_sum(self) -> Tensor:
        """Sum over layers and sequences of `sequence_balance`."""
        real = self._real()
        packed: Any = self._packed
        _, segments = packed.segment_ids.flatten()[real].unique(return_inverse=True)
        count = int(segments.max()) + 1 if len(segments) else 0
        sums = [
            sequence_balance(logits[real].float().softmax(dim=-1), used[real], segments, count).sum()
            for logits, used in zip(self._logits, self._used, strict=True)
        ]
        return torch.stack(sums).sum()

    def _real(self) -> Tensor:
        """[N] positions of sequences that are trained on: no padding, and no row that only keeps ranks in step."""
        packed: Any = self._packed
        trained = packed.target_segments().unique()
        return torch.isin(packed.segment_ids, trained).flatten()


@contextmanager
def replay_routing(model: nn.Module, experts_BLMK: Tensor) -> Iterator[Route]:
    """Inside, `model` routes every position to the experts given (OWN: as it would); see this module's docstring.

    with replay_routing(model, experts):
        loss = f(model(input_ids=...).logits)
        loss.backward()
    """
    with Route(Routers(model), None, None, experts_BLMK.flatten(0, -3)) as route:
        if not route._routers.gates:
            raise ConfigError(f"no routers to replay in {type(model).__name__}; known: {', '.join(ARCHITECTURES)}")
        yield route


@contextmanager
def record_routing(model: nn.Module) -> Iterator[Route]:
    """Inside, `model` runs as ever; `chosen()` of what is yielded then gives its experts [B L, M, K]."""
    with Route(Routers(model), None, None, None) as route:
        yield route
