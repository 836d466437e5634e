"""Adapters alone on the way (`rollouts.engine.lora_sync: adapter`): where factors go, and an engine that merges them.

    W' = W + alpha/rank B A        W frozen: sent once and kept by the engine; A, B: all that a version sends

Every version is merged from the W that came, never from what a version before left, so it does not depend on how many
syncs there were. What is merged goes on as if the trainer had sent it: the modules are filled, packed and asked.

That would prove a wrong merge as well as a right one. So three things are asked before: the factors are this version's,
for just these frozen weights (`Publication.name`); these still have the digests they came with; and each merged tensor,
on random inputs, gives the products of its parts, W x + alpha/rank B (A x), in which nothing merged takes part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from zlib import crc32

import torch
import torch.nn.functional as F

from assay.adapter import adapters_of, base_of
from assay.errors import ConfigError, WeightMismatch
from rollouts.weights import (
    Arrival,
    Place,
    Received,
    WeightBundle,
    as_array,
    check_base,
    checkpoint_state,
    digest,
    named,
)

COLUMNS = 2  # of numbered rows: a single one would be taken for none
ROWS = 4  # random inputs per tensor
RTOL = 1e-5  # of float32 products, as for modules (`rollouts.vllm.TENSOR_RTOL`)
ROUNDING = 2 * 2.0**-8  # of an update of experts held in bfloat16, which is rounded to it


def places(model: Any) -> dict[str, Place]:
    """Where the factors of an adapted model go among its checkpoint tensors.

    transformers itself is asked: rows of each adapted parameter are numbered, and the numbers renamed and un-fused in
    place of the weights. Raises ConfigError where a checkpoint tensor is not made of consecutive rows.
    """
    found = {}
    for name, adapter in adapters_of(model).items():
        fused = hasattr(adapter, "get_param") and adapter.get_param().ndim == 3
        experts = adapter.num_experts if fused else 1
        rows = next(iter(adapter.lora_B.values())).weight.shape[0]
        numbers = torch.arange(experts * rows)[:, None].expand(-1, COLUMNS)
        state = {name: numbers.reshape(experts, rows, COLUMNS) if fused else numbers}
        for tensor, own in checkpoint_state(base_of(model), state).items():
            first, count = int(own.flatten()[0]), len(own)
            expert, start = divmod(first, rows)
            transposed = fused and getattr(adapter.get_base_layer(), "is_transposed", False)
            if transposed or start + count > rows or not torch.equal(own, numbers[first : first + count]):
                raise ConfigError(
                    f"rollouts.engine.lora_sync: adapter: {tensor} is not made of rows of {name}; set merged"
                )
            found[tensor] = Place(parameter=name, experts=experts, expert=expert, start=start, stop=start + count)
    return found


class Base:
    """The frozen weights of a policy, as an engine keeps them in main memory."""

    def __init__(self) -> None:
        self._arrival, self._name = Arrival(), ""
        self._bundles: list[WeightBundle] = []
        self._places: Mapping[str, Place] = {}

    def take(self, bundle: WeightBundle) -> None:
        """Keep a copy of a bucket. Raises WeightMismatch where it is not the next one, or not as it was sent."""
        if bundle.part == 0:
            self._bundles, self._name = [], ""
        self._arrival.take(bundle)
        self._bundles.append(replace(bundle, tensors={name: array.copy() for name, array in bundle.tensors.items()}))
        if bundle.published is not None:
            self._places = bundle.places or {}
            self._name = named(bundle.published, self._places)

    def check(self, factors: WeightBundle) -> None:
        """Raises WeightMismatch where they are for other weights."""
        check_base(factors, self._name)

    def merged(self, factors: Mapping[str, torch.Tensor], last: WeightBundle) -> Iterator[tuple[str, Any]]:
        """(checkpoint name, tensor to be read alone), one at a time: what has factors merged and in float32, all else
        as it came. `last` is the bucket that ended the version. Raises WeightMismatch naming what is wrong."""
        assert last.adapter is not None and last.published is not None
        wanted = {f"{place.parameter}.lora_{kind}" for place in self._places.values() for kind in "AB"}
        if other := sorted(wanted ^ factors.keys()):
            raise WeightMismatch(f"version {last.version} has not one pair of factors for each parameter: {other[0]}")
        for name, tensor in factors.items():
            if digest(as_array(tensor)) != last.published.get(name):
                raise WeightMismatch(f"{name} that is to be merged is not the factor of version {last.version}")
        for bundle in self._bundles:
            for name, tensor in Received(bundle).look():
                if digest(bundle.tensors[name]) != bundle.digests[name]:
                    raise WeightMismatch(f"{name}: the frozen weights that the engine keeps are not what came")
                place = self._places.get(name)
                if place is not None:
                    a, b = own_factors(place, factors)
                    frozen, scale = tensor, last.adapter.scale
                    tensor = merge(frozen, a, b, scale, rounded=place.experts > 1)
                    check_merged(name, tensor, frozen, a, b, scale, last.version)
                yield name, tensor


def check_merged(
    name: str, got: torch.Tensor, weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float, version: int
) -> None:
    """Raises WeightMismatch where `got` is not W + scale B A: their products with random inputs differ.

    Rounding each element of a row u of the update by at most 2^-8 of itself moves its product with a normal input by
    at most about 2^-8 |u|, and |u| <= scale |b| |A|, b being the row's own of B.
    """
    generator = torch.Generator().manual_seed(crc32(f"{version} {name}".encode()))
    inputs = torch.randn(ROWS, weight.shape[1], generator=generator)
    expected = F.linear(inputs, weight.float()) + scale * F.linear(F.linear(inputs, a), b)
    error, size = (F.linear(inputs, got) - expected).abs().max().item(), expected.abs().max().item()
    moved = 0.0 if weight.dtype == torch.float32 else ROUNDING * scale * (b.norm(dim=1).max() * a.norm()).item()
    if not error <= RTOL * size + moved:
        raise WeightMismatch(
            f"{name} is not the frozen weight with the factors of version {version} added: "
            f"relative error {error / max(size, 1e-30):.1e}"
        )


def own_factors(place: Place, factors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """A [rank, in] and B [rows, rank] of one checkpoint tensor, out of PEFT's factors of the whole parameter."""
    a, b = factors[f"{place.parameter}.lora_A"], factors[f"{place.parameter}.lora_B"]
    rank = a.shape[0] // place.experts
    own_a = a.view(place.experts, rank, a.shape[1])[place.expert]
    own_b = b.view(b.shape[0], rank, place.experts)[place.start : place.stop, :, place.expert]
    return own_a, own_b


def merge(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float, rounded: bool) -> torch.Tensor:
    """W + scale B A in float32, in the order of PEFT and `assay.adapter.merged_items`: an update of experts is
    `rounded` to what they are held in. A seam: the mutation tests break merging here and must be caught."""
    update = (b @ a) * scale
    return weight.float() + (update.to(weight.dtype) if rounded else update).float()
