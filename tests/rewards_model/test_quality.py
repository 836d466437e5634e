"""Numbers of merit on cases small enough to count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.model.quality import accuracy, auc, calibration_bins, calibration_error, pair_accuracy, report


def test_by_hand() -> None:
    scores, passed = [0.9, 0.8, 0.3, 0.6], [True, False, False, True]
    assert accuracy(scores, passed) == 0.75
    assert auc(scores, passed) == 0.75  # of four pairs only 0.6 over 0.8 is wrong
    assert calibration_error([0.25, 0.25, 0.25, 0.25], [True, False, False, False]) == 0
    assert calibration_error([0.95, 0.05], [False, True]) == pytest.approx(0.95)


def test_ties_count_half() -> None:
    assert auc([0.5, 0.5], [True, False]) == 0.5
    assert pair_accuracy([0.5, 0.5, 0.7], [True, False, True], ["a", "a", "a"]) == 0.75


def test_pairs_are_within_tasks() -> None:
    scores, passed = [0.2, 0.1, 0.9, 0.8], [True, False, True, False]
    assert pair_accuracy(scores, passed, ["a", "a", "b", "b"]) == 1.0
    assert auc(scores, passed) == 0.75


def test_what_cannot_be_told_is_none() -> None:
    assert auc([0.1, 0.2], [True, True]) is None
    assert pair_accuracy([0.1, 0.2], [True, False], ["a", "b"]) is None
    assert report([], [], [])["accuracy"] is None


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=30))
def test_auc_is_the_share_of_pairs_in_order(samples: list[tuple[float, bool]]) -> None:
    scores, passed = [s for s, _ in samples], [p for _, p in samples]
    pairs = [(a > b) + 0.5 * (a == b) for a, p in samples if p for b, q in samples if not q]
    assert auc(scores, passed) == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)


def test_calibration_bins_are_the_reliability_diagram():
    # bins of a tenth: 0.05 and 0.09 fall into the first, 0.92 and 1.0 into the last
    rows = calibration_bins([0.05, 0.09, 0.92, 1.0], [False, True, True, True])
    assert [row["n"] for row in rows] == [2, 2]
    assert [row["predicted"] for row in rows] == pytest.approx([0.07, 0.96])
    assert [row["observed"] for row in rows] == pytest.approx([0.5, 1.0])
    # (2 * |0.07 - 0.5| + 2 * |0.96 - 1|) / 4 = 0.235
    assert calibration_error([0.05, 0.09, 0.92, 1.0], [False, True, True, True]) == pytest.approx(0.235)
