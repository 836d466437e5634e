"""Attention over packed rows, one sequence at a time: `policy.attention: segments`.

A row of S sequences of T tokens costs (S T)^2 scores under a block-diagonal mask, nearly all of them masked, and a mask
keeps torch from its causal kernels; sequence by sequence it is S T^2 / 2. No number changes but by rounding.

It is an attention function in transformers' own registry. The mask function beside it makes no mask where position ids
alone say who attends to whom, and else the one that sdpa has; then this is sdpa. FlashAttention is no choice here:
transformers reads packing off position ids for a single row only, and takes each of several for one sequence.
"""

from __future__ import annotations

import weakref
from functools import cache
from typing import Any

import torch
from torch import Tensor

from assay.errors import ConfigError

NAME = "assay_segments"
Bounds = tuple[tuple[int, int, int, int], ...]


def attend_by_segment(model: Any) -> None:
    """Let `model`, whose attention is sdpa, attend to one packed sequence at a time."""
    _register()
    model.set_attn_implementation(NAME)


def segment_bounds(position_ids_BL: Tensor) -> Bounds:
    """(first row, last row + 1, start, stop) of each block of sequences; rows of one sequence alone share a block.

    ((0 1 2 0 1), (0 1 2 3 4), (0 1 2 3 4)) has three blocks: (0, 1, 0, 3), (0, 1, 3, 5) and (1, 3, 0, 5).
    """
    rows, length = position_ids_BL.shape
    breaks: dict[int, list[int]] = {row: [0] for row in range(rows)}
    for row, column in (position_ids_BL.diff(dim=1) != 1).nonzero().tolist():
        breaks[row].append(column + 1)
    blocks: list[tuple[int, int, int, int]] = []
    for row, starts in breaks.items():
        if len(starts) == 1 and blocks and blocks[-1][1:] == (row, 0, length):
            blocks[-1] = (blocks[-1][0], row + 1, 0, length)
        else:
            blocks += [(row, row + 1, a, b) for a, b in zip(starts, [*starts[1:], length], strict=True)]
    return tuple(blocks)


def attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **given: Any
) -> tuple[Tensor, None]:
    """transformers' attention interface: query [B, heads, L, D] and so on to [B, L, heads, D of the value]."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if attention_mask is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **given)
    positions = given.get("position_ids")
    if positions is None:
        raise ConfigError(
            f"policy.attention=segments: a {type(module).__name__} does not tell its positions; leave it out"
        )
    rows: dict[int, list[Tensor]] = {}
    for first, last, start, stop in _bounds(positions):
        alike = slice(first, last) if len(positions) > 1 else slice(None)  # one row of positions is everybody's
        part = (alike, slice(None), slice(start, stop))
        out, _ = sdpa_attention_forward(module, query[part], key[part], value[part], None, **given)
        rows.setdefault(first, []).append(out)
    return torch.cat([torch.cat(parts, dim=1) for parts in rows.values()]), None


_last: tuple[Any, Bounds] = (lambda: None, ())  # of the forward pass under way: every layer asks about the same tensor


def _bounds(position_ids: Tensor) -> Bounds:
    global _last
    if _last[0]() is not position_ids:
        _last = (weakref.ref(position_ids), segment_bounds(position_ids))
    return _last[1]


def _mask(attention_mask: Tensor | None = None, local_size: int | None = None, **given: Any) -> Tensor | None:
    from transformers.masking_utils import sdpa_mask

    whole = given["q_length"] == given["kv_length"] and not given.get("use_vmap")
    if attention_mask is None and local_size is None and whole:
        return None
    return sdpa_mask(attention_mask=attention_mask, local_size=local_size, **given)


@cache
def _register() -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, _mask)
