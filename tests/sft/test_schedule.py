"""The plan of a run and its learning rate, by hand."""

from __future__ import annotations

import pytest

from assay.config import validate
from assay.errors import ConfigError
from sft.config import SFTConfig
from sft.schedule import check_warmup, learning_rate, plan_steps, split_heldout


def test_an_epoch_visits_every_example_once_in_batches_of_tokens() -> None:
    lengths = [30, 40, 50, 60, 20]
    plan = plan_steps(lengths, SFTConfig(epochs=1, total_tokens=None, batch_tokens=100))
    assert sorted(i for step in plan for i in step) == [0, 1, 2, 3, 4]
    assert all(sum(lengths[i] for i in step) <= 100 for step in plan)


def test_an_example_larger_than_a_batch_is_a_batch() -> None:
    assert plan_steps([500], SFTConfig(epochs=2, total_tokens=None, batch_tokens=100)) == [[0], [0]]


def test_the_token_budget_ends_a_run_and_the_first_limit_counts() -> None:
    def tokens(**limits: float | None) -> int:
        return sum(10 * len(s) for s in plan_steps([10] * 100, SFTConfig(batch_tokens=50, **limits)))

    assert tokens(total_tokens=2500) == 2500  # two and a half epochs
    assert tokens(total_tokens=2500, epochs=0.5) == 500
    assert tokens(total_tokens=200, epochs=3) == 200


def test_epochs_are_different_permutations_and_the_seed_decides() -> None:
    def order(seed: int) -> list[int]:
        plan = plan_steps([1] * 20, SFTConfig(epochs=2, total_tokens=None, batch_tokens=1, seed=seed))
        return [i for step in plan for i in step]

    assert order(0) == order(0) != order(1)
    assert order(0)[:20] != order(0)[20:]


def test_learning_rate_by_hand() -> None:
    config = SFTConfig(learning_rate=1.0, warmup_steps=2, final_learning_rate_ratio=0.2)
    rates = [learning_rate(step, 6, config) for step in range(6)]
    # warm-up 1/2, 1; then 0.2 + 0.8 (1 + cos(pi t))/2 at t = 0, 1/4, 1/2, 3/4
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.88284271, 0.6, 0.31715729])
    assert learning_rate(6, 6, config) == pytest.approx(0.2)


def test_a_warm_up_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="warmup_steps=100 but the run has only 40 steps"):
        check_warmup(40, SFTConfig())


def test_heldout_and_training_examples_are_disjoint() -> None:
    train, held = split_heldout(100, SFTConfig(heldout_fraction=0.05))
    assert len(held) == 5 and sorted(train + held) == list(range(100))
    assert split_heldout(1, SFTConfig()) == ([0], [])
    assert split_heldout(3, SFTConfig(heldout_fraction=0)) == ([0, 1, 2], [])


def test_a_run_without_an_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="never end"):
        validate(SFTConfig, {"total_tokens": None}, "test")
