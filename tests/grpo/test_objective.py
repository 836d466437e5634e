"""The loss of a micro-batch: the same number and gradient however the tokens are split, and numbers by hand."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from grpo.aggregation import AGGREGATIONS
from grpo.config import CorrectionConfig, GRPOConfig, KLConfig
from grpo.objective import Tokens, disagreement, objective

LENGTHS = (4, 1, 3, 2)
GROUPS = (0, 0, 1, 1)


def make_tokens(config: GRPOConfig, seed: int = 0) -> Tokens:
    generator = torch.Generator().manual_seed(seed)

    def draw(scale: float) -> torch.Tensor:
        return torch.randn(sum(LENGTHS), generator=generator, dtype=torch.float64) * scale

    segments = torch.repeat_interleave(torch.arange(4), torch.tensor(LENGTHS))
    old = draw(0.5) - 1.5
    weights = AGGREGATIONS[config.loss_normalisation](LENGTHS, 8, GROUPS)
    return Tokens(
        logprobs=(old + draw(0.4)).requires_grad_(),
        old=old,
        engine=old + draw(0.4),
        reference=old + draw(0.3) if config.kl.estimator != "none" else None,
        entropy=(draw(0.2) + 1).requires_grad_(),
        advantages=torch.tensor((1.2, -0.7, -1.5, 0.4), dtype=torch.float64)[segments],
        weights=torch.tensor(weights, dtype=torch.float64)[segments],
        segments=segments,
    )


def some(tokens: Tokens, sequences: tuple[int, ...]) -> Tokens:
    chosen = torch.isin(tokens.segments, torch.tensor(sequences))
    values = {f.name: getattr(tokens, f.name) for f in fields(tokens)}
    return replace(tokens, **{name: None if v is None else v[chosen] for name, v in values.items()})


SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {"algorithm": name} for name in ("grpo", "dr_grpo", "dapo", "bnpo", "gspo", "cispo", "deepseek_v3_2")},
    **{kind: {"correction": {"kind": kind}} for kind in ("tis", "icepop", "sequence_mask", "geometric")},
    **{f"kl {name}": {"kl": {"estimator": name, "coef": 0.3}} for name in ("k1", "k2", "k3", "unbiased")},
    "prompt mean, gspo, masks": {
        "loss": "gspo",
        "loss_normalisation": "prompt_mean",
        "correction": {"kind": "icepop", "off_policy_threshold": 0.1},
    },
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("split", [((0, 1), (2, 3)), ((3,), (0, 2), (1,)), ((2, 0, 1, 3), ())])
def test_no_split_into_micro_batches_changes_value_or_gradient(settings: dict[str, Any], split: Any):
    """A rank without rows holds a micro-batch without tokens; order is that of the rows, here another one."""
    config = GRPOConfig(**settings)
    whole, cut = make_tokens(config), make_tokens(config)
    total, sums = objective(whole, config, bonus=0.05, step_tokens=10)
    total.backward()
    parts = [objective(some(cut, sequences), config, bonus=0.05, step_tokens=10) for sequences in split]
    sum(part for part, _ in parts).backward()
    assert sum(part.item() for part, _ in parts) == pytest.approx(total.item(), rel=1e-12)
    torch.testing.assert_close(cut.logprobs.grad, whole.logprobs.grad, atol=1e-14, rtol=1e-12)
    torch.testing.assert_close(cut.entropy.grad, whole.entropy.grad, atol=1e-14, rtol=1e-12)
    assert whole.logprobs.grad.any()
    for name, value in sums.items():
        assert sum(float(s[name]) for _, s in parts) == pytest.approx(float(value), rel=1e-12), name


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_without_an_advantage_only_the_distance_to_the_reference_pulls(settings: dict[str, Any]):
    config = GRPOConfig(**{**settings, "kl": KLConfig(estimator="none")})
    tokens = make_tokens(config)
    objective(replace(tokens, advantages=torch.zeros_like(tokens.advantages)), config)[0].backward()
    assert not tokens.logprobs.grad.any()


def test_the_parts_of_the_objective_by_hand():
    """Two completions of 1 and 2 tokens, on-policy; reference at half the probability; engine off by a factor of 3."""
    zero = torch.zeros(3, dtype=torch.float64)
    tokens = Tokens(
        logprobs=zero.clone().requires_grad_(),
        old=zero,
        engine=zero - math.log(3),
        reference=zero - math.log(2),
        entropy=(zero + 0.7).requires_grad_(),
        advantages=torch.tensor((1.0, -2.0, -2.0), dtype=torch.float64),
        weights=torch.tensor((1 / 2, 1 / 4, 1 / 4), dtype=torch.float64),
        segments=torch.tensor([0, 1, 1]),
    )
    config = GRPOConfig(kl={"coef": 0.1}, correction={"kind": "tis"})
    total, sums = objective(tokens, config, bonus=0.01, step_tokens=3)
    k3 = 0.5 + math.log(2) - 1
    # ratio 1, so -A times the weight; the engine gave a third, so a factor of 3 that is cut to 2
    assert float(sums["policy"]) == pytest.approx(2 * (-1 / 2 + 2 * 2 / 4))
    assert float(sums["penalty"]) == pytest.approx(0.1 * k3)
    assert float(sums["bonus"]) == pytest.approx(-0.01 * 0.7)
    assert total.item() == pytest.approx(2 * 0.5 + 0.1 * k3 - 0.007)
    assert (float(sums["truncated"]), float(sums["masked"]), sums["off_policy"]) == (3, 0, 0)
    total.backward()
    assert tokens.entropy.grad.tolist() == pytest.approx([-0.01 / 3] * 3)
    # policy: -w A factor; KL: w coef (1 - pi_ref / pi)
    assert tokens.logprobs.grad[0].item() == pytest.approx(-1 + 0.1 * 0.5 * 0.5)


def test_a_masked_completion_still_feels_the_reference():
    config = GRPOConfig(kl={"coef": 0.1}, correction={"off_policy_threshold": 0.1})
    tokens = make_tokens(config)
    tokens = replace(tokens, engine=tokens.logprobs.detach() + 1)  # everything has drifted by one nat
    _, sums = objective(tokens, config)
    assert sums["off_policy"] == 2  # the two with negative advantages
    without = config.model_copy(update={"correction": CorrectionConfig()})
    assert float(objective(tokens, without)[1]["penalty"]) == float(sums["penalty"]) > 0
    bad = tokens.advantages < 0
    (gradient,) = torch.autograd.grad(
        objective(tokens, config.model_copy(update={"kl": KLConfig(coef=0)}))[0], tokens.logprobs
    )
    assert not gradient[bad].any()
    assert gradient[~bad].any()


def test_the_histogram_counts_tokens_above_each_threshold():
    config = GRPOConfig()
    tokens = make_tokens(config)
    differences = (0.0, 0.0005, 0.005, 0.05, 0.5, 5.0, 0.0, 0.0, 0.0, -2.0)
    tokens = replace(tokens, engine=tokens.old - torch.tensor(differences, dtype=torch.float64))
    sums, worst = disagreement(tokens)
    shares = {name.removeprefix("mismatch/above_"): float(v) for name, v in sums.items() if "above" in name}
    assert shares == {"0.001": 5, "0.01": 4, "0.1": 3, "1": 2}
    assert worst == pytest.approx(5)
