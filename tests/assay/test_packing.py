"""Packing and its inverse, and the proof that packed sequences do not see each other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.errors import ConfigError
from assay.packing import PADDING, pack, pack_completions, plan_rows

PAD = 9


def test_the_example_of_the_docstring() -> None:
    packed = pack([[1, 1, 1], [2, 2], [3]], [[0, 1, 1], [0, 1], [0]], pad_id=PAD, row_tokens=4)
    assert packed.token_ids.tolist() == [[1, 1, 1, 3], [2, 2, PAD, PAD]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 0], [0, 1, 2, 3]]
    assert packed.segment_ids.tolist() == [[0, 0, 0, 2], [1, 1, PADDING, PADDING]]
    assert packed.target_mask.tolist() == [[False, True, True, False], [False, True, False, False]]
    assert (packed.num_tokens, packed.num_targets) == (6, 3)
    assert packed.target_segments().tolist() == [0, 0, 1]


def test_first_fit_decreasing_keeps_order_among_equals() -> None:
    assert plan_rows([3, 5, 2, 5], 8) == [[1, 0], [3, 2]]


def test_a_sequence_longer_than_a_row_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="sequence 1 has 5 tokens and a row holds row_tokens=4"):
        pack([[1], [1] * 5], [[0], [0] * 5], pad_id=PAD, row_tokens=4)


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=12),
    extra=st.integers(0, 20),
    max_tokens=st.integers(1, 60),
)
def test_values_come_back_exactly_from_any_packing(pairs: list[tuple[int, int]], extra: int, max_tokens: int) -> None:
    prompts = [[100 + i] * p for i, (p, _) in enumerate(pairs)]
    completions = [[1000 * i + t for t in range(c)] for i, (_, c) in enumerate(pairs)]
    packed = pack_completions(prompts, completions, pad_id=PAD, row_tokens=max(p + c for p, c in pairs) + extra)
    wanted = {i: c for i, c in enumerate(completions) if c}

    assert {i: v.tolist() for i, v in packed.split_targets(packed.targets()).items()} == wanted
    whole = {i: v.tolist() for i, v in packed.split_tokens(packed.token_ids).items()}
    assert whole == {i: p + c for i, (p, c) in enumerate(zip(prompts, completions, strict=True))}
    assert packed.gather_targets(completions).tolist() == packed.targets().tolist()

    parts = list(packed.micro_batches(max_tokens))
    assert sum(p.num_targets for p in parts) == packed.num_targets
    assert all(p.token_ids.numel() <= max_tokens or p.token_ids.shape[0] == 1 for p in parts)
    again = {i: v.tolist() for p in parts for i, v in p.split_targets(p.targets()).items()}
    assert again == wanted


def test_the_last_token_of_every_sequence_is_found() -> None:
    packed = pack([[1, 2, 3], [4, 5], [6]], [[0] * 3, [0] * 2, [0]], pad_id=PAD, row_tokens=4)
    rows, columns = packed.last_positions()
    assert packed.token_ids[rows, columns].tolist() == [3, 6, 5]
    assert packed.segment_ids[rows, columns].tolist() == [0, 2, 1]


def test_ranks_share_rows_and_an_idle_rank_gets_a_share_without_targets() -> None:
    packed = pack([[1, 1], [2, 2], [3, 3]], [[0, 1]] * 3, pad_id=PAD)
    shares = [packed.share(rank, 2) for rank in range(2)]
    assert [s.token_ids[:, 0].tolist() for s in shares] == [[1, 3], [2]]
    idle = packed.share(3, 4)
    assert idle.num_targets == 0 and idle.token_ids.shape[0] == 1


def test_values_that_do_not_fit_are_an_error() -> None:
    packed = pack([[1, 1, 1]], [[0, 1, 1]], pad_id=PAD)
    with pytest.raises(ValueError, match="1 values for 2 targets"):
        packed.gather_targets([[0.5]])
    with pytest.raises(ValueError, match="3 values for 2 targets"):
        packed.split_targets(torch.zeros(3))


@settings(max_examples=80, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=14),
    extra=st.integers(0, 10),
    max_tokens=st.integers(1, 60),
    world=st.integers(1, 4),
)
def test_balanced_micro_batches_hold_everything_once(
    pairs: list[tuple[int, int]], extra: int, max_tokens: int, world: int
) -> None:
    completions = [[1000 * i + t for t in range(c)] for i, (_, c) in enumerate(pairs)]
    prompts = [[7] * p for p, _ in pairs]
    packed = pack_completions(prompts, completions, pad_id=PAD, row_tokens=max(p + c for p, c in pairs) + extra)
    parts = packed.balanced(max_tokens, world)
    assert {i: v.tolist() for p in parts for i, v in p.split_targets(p.targets()).items()} == dict(
        enumerate(completions)
    )
    assert len(parts) % world == 0
    assert all(p.token_ids.numel() <= max_tokens or p.token_ids.shape[0] == 1 for p in parts)
    work = [p for p in parts if p.num_targets]
    assert len(work) <= len(list(packed.micro_batches(max_tokens))) + world - 1


def test_balance_by_hand() -> None:
    packed = pack(
        [[1] * n for n in (6, 3, 3, 2, 2, 2)], [[0, 1] + [0] * (n - 2) for n in (6, 3, 3, 2, 2, 2)], pad_id=PAD
    )
    assert packed.token_ids.shape[0] == 3  # first-fit-decreasing fills rows of 6: 6 | 3 3 | 2 2 2
    assert [p.token_ids.shape[0] for p in packed.balanced(12)] == [2, 1]
    assert [p.token_ids.shape[0] for p in packed.balanced(12, 3)] == [1, 1, 1]
    idle = packed.balanced(12, 4)[-1]
    assert idle.num_targets == 0 and idle.token_ids.shape[0] == 1


def test_equal_rows_are_shared_out_equally() -> None:
    packed = pack([[1] * 5] * 9, [[0, 1, 1, 1, 1]] * 9, pad_id=PAD)
    assert [p.token_ids.shape[0] for p in packed.micro_batches(40)] == [8, 1]
    assert [p.token_ids.shape[0] for p in packed.balanced(40)] == [5, 4]
    assert [p.token_ids.shape[0] for p in packed.balanced(10**6, 4)] == [3, 3, 3, 1]
