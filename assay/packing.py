"""Variable-length sequences into rows and back, without one sequence ever seeing another.

    sequences     A A A   B B   C
    rows (L=4)    A A A C          token_ids
                  B B . .
                  0 1 2 0          position_ids restart at 0 in every sequence
                  0 1 2 3          (padding counts on, see below)
                  0 0 0 2          segment_ids: which sequence, -1 for padding
                  1 1 -1 -1

Sequences are placed first-fit-decreasing, and a micro-batch is trimmed to its longest row. With the default row
length, the longest sequence, this gives length-sorted padded micro-batches in which short sequences share a row:
no padding to speak of, and no attention over a long row of strangers.

Attention stays inside a sequence because transformers (>= 5) derives a block-diagonal causal mask from
`position_ids` that restart, provided no attention mask is given (`masking_utils.find_packed_sequence_indices`).
Padding continues the count of the row's last sequence: it comes after it, so causality hides it, and a row with a
single sequence needs no mask at all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from assay.errors import ConfigError

PADDING = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedBatch:
    """B rows of at most L tokens. `target_mask` marks the tokens whose log-probability is wanted, N of them.

    A target is predicted from the position before it, so the first token of a sequence is never one. Values per
    target are flat [N], in the order of `target_mask.nonzero()`: row by row, left to right.
    """

    token_ids: Tensor  # [B, L] int64
    position_ids: Tensor  # [B, L] int64
    segment_ids: Tensor  # [B, L] int64, index into the packed sequences, -1 = padding
    target_mask: Tensor  # [B, L] bool

    @property
    def num_tokens(self) -> int:
        """Tokens that are not padding."""
        return int((self.segment_ids != PADDING).sum())

    @property
    def num_targets(self) -> int:
        """N: tokens that are predicted."""
        return int(self.target_mask.sum())

    def target_segments(self) -> Tensor:
        """[N] the sequence each target belongs to: `advantages[batch.target_segments()]` broadcasts to targets."""
        return self.segment_ids[self.target_mask]

    def targets(self) -> Tensor:
        """[N] the token ids to be predicted."""
        return self.token_ids[self.target_mask]

    def gather_targets(self, values: Sequence[Sequence[float]]) -> Tensor:
        """Per-sequence values (one per target of that sequence) laid out flat [N] in target order, fp32.

        `values` is indexed by sequence, for all sequences that were packed, also where this is a part of them.
        """
        segments = self.target_segments().tolist()
        for segment, used in Counter(segments).items():
            if used != len(values[segment]):
                raise ValueError(f"sequence {segment}: {len(values[segment])} values for {used} targets")
        streams = [iter(v) for v in values]
        flat = [next(streams[s]) for s in segments]
        return torch.tensor(flat, dtype=torch.float32, device=self.token_ids.device)

    def split_targets(self, values_N: Tensor) -> dict[int, Tensor]:
        """The inverse of `gather_targets`: flat [N] values as {sequence: [its targets]}, sequences ascending."""
        segments = self.target_segments()
        if values_N.shape[0] != segments.shape[0]:
            raise ValueError(f"{values_N.shape[0]} values for {segments.shape[0]} targets")
        return {int(s): values_N[segments == s] for s in segments.unique().tolist()}

    def split_tokens(self, values_BL: Tensor) -> dict[int, Tensor]:
        """Values per position [B, L, ...] as {sequence: [its length, ...]}, padding dropped, sequences ascending."""
        present = [s for s in self.segment_ids.unique().tolist() if s != PADDING]
        return {s: values_BL[self.segment_ids == s] for s in present}

    def last_positions(self) -> tuple[Tensor, Tensor]:
        """Index pair (rows [S], columns [S]) of the last token of each sequence, and so its order: row by row."""
        follows = torch.full_like(self.segment_ids[:, :1], PADDING)
        ends = (self.segment_ids != torch.cat([self.segment_ids[:, 1:], follows], dim=1)) & (
            self.segment_ids != PADDING
        )
        rows, columns = ends.nonzero(as_tuple=True)
        return rows, columns

    def rows(self, index: slice | list[int]) -> PackedBatch:
        """Some of the rows, trimmed to the longest of them."""
        used = int((self.segment_ids[index] != PADDING).sum(dim=1).max())
        return PackedBatch(
            token_ids=self.token_ids[index, :used],
            position_ids=self.position_ids[index, :used],
            segment_ids=self.segment_ids[index, :used],
            target_mask=self.target_mask[index, :used],
        )

    def share(self, rank: int, world: int) -> PackedBatch:
        """Every `world`-th row, from `rank` on. A rank left without rows gets the first one, with no targets in it.

        The empty share adds zero to the loss; it keeps the ranks' collective operations in step.
        """
        if rank < self.token_ids.shape[0]:
            return self.rows(slice(rank, None, world))
        return self.rows(slice(0, 1)).without_targets()

    def without_targets(self) -> PackedBatch:
        """The same tokens, none of which is to be predicted."""
        return replace(self, target_mask=torch.zeros_like(self.target_mask))

    def micro_batches(self, max_tokens: int) -> Iterator[PackedBatch]:
        """Consecutive rows, trimmed, of at most `max_tokens` positions (padding included) or a single row."""
        lengths = (self.segment_ids != PADDING).sum(dim=1).tolist()
        start, widest = 0, 0
        for stop, length in enumerate(lengths):
            widest = max(widest, length)
            if stop > start and widest * (stop + 1 - start) > max_tokens:
                yield self.rows(slice(start, stop))
                start, widest = stop, length
        yield self.rows(slice(start, len(lengths)))

    def balanced(self, max_tokens: int, world: int = 1) -> list[PackedBatch]:
        """Micro-batches of nearly equal size for `world` ranks, which take every `world`-th, from their rank on.

        Rows of like length go together. There are as few micro-batches of at most `max_tokens` positions (or a single
        row) as can be, made up to a multiple of `world`, and the largest of them is as small as that number allows.
        Where rows are too few, the shortest one fills in without targets: ranks that shard a model have to run it
        equally often.
        """
        lengths = (self.segment_ids != PADDING).sum(dim=1).tolist()
        order = sorted(range(len(lengths)), key=lambda r: -lengths[r])
        longest_first = [lengths[r] for r in order]
        count = len(runs_within(longest_first, max_tokens))
        count += -count % world
        bounds = range(longest_first[0], max(max_tokens, longest_first[0]) + 1)
        bound = bounds[bisect_left(bounds, True, key=lambda b: len(runs_within(longest_first, b)) <= count)]
        batches = [self.rows(order[start:stop]) for start, stop in runs_within(longest_first, bound)]
        return batches + [self.rows(order[-1:]).without_targets()] * (count - len(batches))

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same batch on another device."""
        return PackedBatch(
            token_ids=self.token_ids.to(device),
            position_ids=self.position_ids.to(device),
            segment_ids=self.segment_ids.to(device),
            target_mask=self.target_mask.to(device),
        )


def runs_within(lengths: Sequence[int], max_tokens: int) -> list[tuple[int, int]]:
    """Runs (start, stop) of rows, longest first, each padded to its first: as long as `max_tokens` positions allow."""
    runs, start = [], 0
    while start < len(lengths):
        stop = min(len(lengths), start + max(1, max_tokens // lengths[start]))
        runs.append((start, stop))
        start = stop
    return runs


def plan_rows(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """First-fit-decreasing: each sequence, longest first, into the first row with room. Rows of sequence indices.

    At most 11/9 of the optimal number of rows plus one (Johnson 1973). Ties keep the given order.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        for r, free in enumerate(room):
            if lengths[i] <= free:
                rows[r].append(i)
                room[r] -= lengths[i]
                break
        else:
            rows.append([i])
            room.append(row_tokens - lengths[i])
    return rows


def pack(
    sequences: Sequence[Sequence[int]],
    target_masks: Sequence[Sequence[bool]],
    *,
    pad_id: int,
    row_tokens: int | None = None,
) -> PackedBatch:
    """Pack token ids and their target masks into rows of at most `row_tokens` (default: the longest sequence).

    Raises ConfigError where a sequence is longer than a row.
    """
    lengths = [len(s) for s in sequences]
    if not lengths or min(lengths) == 0:
        raise ValueError("nothing to pack: no sequences, or one without tokens")
    row_tokens = row_tokens or max(lengths)
    if max(lengths) > row_tokens:
        longest = lengths.index(max(lengths))
        raise ConfigError(
            f"sequence {longest} has {lengths[longest]} tokens and a row holds row_tokens={row_tokens}; "
            "raise row_tokens or shorten the sequence"
        )
    plan = plan_rows(lengths, row_tokens)
    width = max(sum(lengths[i] for i in row) for row in plan)
    batch = PackedBatch(
        token_ids=torch.full((len(plan), width), pad_id, dtype=torch.int64),
        position_ids=torch.zeros((len(plan), width), dtype=torch.int64),
        segment_ids=torch.full((len(plan), width), PADDING, dtype=torch.int64),
        target_mask=torch.zeros((len(plan), width), dtype=torch.bool),
    )
    for r, row in enumerate(plan):
        start = 0
        for i in row:
            stop = start + lengths[i]
            batch.token_ids[r, start:stop] = torch.tensor(sequences[i], dtype=torch.int64)
            batch.target_mask[r, start + 1 : stop] = torch.tensor(target_masks[i][1:], dtype=torch.bool)
            batch.segment_ids[r, start:stop] = i
            batch.position_ids[r, start:] = torch.arange(width - start)  # padding counts on
            start = stop
    return batch


def pack_completions(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    pad_id: int,
    row_tokens: int | None = None,
    only: Sequence[int] | None = None,
) -> PackedBatch:
    """Pack prompt + completion pairs, with exactly the completion tokens as targets.

    `only` leaves out all other pairs; segments stay numbered as the pairs are, so per-sequence values need no change.
    """
    pairs = list(zip(prompts, completions, strict=True))
    chosen = range(len(pairs)) if only is None else only
    sequences = [[*pairs[i][0], *pairs[i][1]] for i in chosen]
    masks = [[False] * len(pairs[i][0]) + [True] * len(pairs[i][1]) for i in chosen]
    packed = pack(sequences, masks, pad_id=pad_id, row_tokens=row_tokens)
    if only is None:
        return packed
    numbers = torch.tensor([*chosen, PADDING])  # padding, -1, finds itself at the end
    return replace(packed, segment_ids=numbers[packed.segment_ids])
