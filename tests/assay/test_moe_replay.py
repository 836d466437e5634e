"""Routing replay on plain transformers modules: what was chosen elsewhere is used, everything else stays as it was."""

from __future__ import annotations

import copy
import pickle
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from assay.errors import ConfigError
from assay.logprobs import completion_logprobs
from assay.moe import gates_of
from assay.moe_replay import OWN, from_tensor, lay_out, record_routing, replay_routing, to_tensor
from assay.packing import PackedBatch, pack_completions
from assay.policy import load_policy
from assay.types import Completion, FinishReason, RoutedExperts
from tests.moe_policies import make_policy, other_choice

KINDS = ["deepseek_v2", "deepseek_v2 in groups", "qwen3_moe"]
PROMPTS = [[0, 20, 30, 40], [0, 50], [0, 60, 70], [0, 80, 90, 91, 92]]
ANSWERS = [[100, 101, 102, 103, 104, 1], [110, 1], [120, 121, 122, 1], [*range(130, 150), 1]]


@pytest.fixture(scope="module", params=KINDS)
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(request.param, tmp_path_factory.mktemp("policy"))


@pytest.fixture
def model(policy: Path) -> Any:
    return load_policy(policy).train()


def packed(row_tokens: int | None = None) -> PackedBatch:
    return pack_completions(PROMPTS, ANSWERS, pad_id=2, row_tokens=row_tokens)


def elsewhere(model: Any, batch: PackedBatch) -> tuple[Tensor, Tensor]:
    """Log-probabilities [N] and experts [B, L, M, K] of a rollout whose gates chose a little differently."""
    with torch.no_grad(), other_choice(model), record_routing(model) as route:
        logprobs = completion_logprobs(model, batch)[0]
    return logprobs, route.chosen().view(*batch.token_ids.shape, 2, 2)


def gradient(model: Any, batch: PackedBatch, experts: Tensor | None = None) -> dict[str, Tensor]:
    model.zero_grad()
    with nullcontext() if experts is None else replay_routing(model, experts):
        completion_logprobs(model, batch)[0].sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def mismatch(model: Any, batch: PackedBatch, engine: Tensor, experts: Tensor | None) -> tuple[float, float]:
    """Mean k3 and largest |log-ratio| of the trainer against `engine`."""
    with torch.no_grad(), nullcontext() if experts is None else replay_routing(model, experts):
        d = completion_logprobs(model, batch)[0] - engine
    return (d.expm1() - d).mean().item(), d.abs().max().item()


def test_replay_brings_the_rollouts_log_probs_back(model: Any) -> None:
    batch = packed()
    rolled, experts = elsewhere(model, batch)
    free, worst = mismatch(model, batch, rolled, None)
    assert free > 1e-4 and worst > 1e-2  # the choice alone moves some tokens visibly
    replayed, worst = mismatch(model, batch, rolled, experts)
    assert replayed < 1e-10 and worst < 1e-5
    assert mismatch(model, batch, rolled, None)[0] == free  # and only inside the `with`


def test_ones_own_experts_change_nothing(model: Any) -> None:
    batch = packed()
    with torch.no_grad(), record_routing(model) as route:
        plain = completion_logprobs(model, batch)[0]
    experts = route.chosen().view(*batch.token_ids.shape, 2, 2)
    with torch.no_grad(), replay_routing(model, experts):
        torch.testing.assert_close(completion_logprobs(model, batch)[0], plain, atol=1e-7, rtol=0)
    a, b = gradient(model, batch), gradient(model, batch, experts)
    assert a.keys() == b.keys() and any("mlp.gate" in name for name in a)
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-7, rtol=1e-6)


def test_what_is_not_given_is_chosen_freely(model: Any) -> None:
    """Half of the positions replayed, half OWN: as if the gate's own choice had been written there."""
    batch = packed()
    _, experts = elsewhere(model, batch)
    half = experts.clone()
    half[:, ::2] = OWN
    with torch.no_grad(), replay_routing(model, half) as route:
        first = completion_logprobs(model, batch)[0]
    used = route.chosen().view_as(experts)
    assert torch.equal(used[:, 1::2], experts[:, 1::2])
    with torch.no_grad(), replay_routing(model, used):
        assert torch.equal(completion_logprobs(model, batch)[0], first)
    nothing = torch.full_like(experts, OWN)
    with torch.no_grad(), replay_routing(model, nothing):
        replayed = completion_logprobs(model, batch)[0]
    torch.testing.assert_close(replayed, completion_logprobs(model, batch)[0].detach(), atol=1e-7, rtol=0)


def test_the_gates_gradient_under_replay_is_the_derivative(model: Any) -> None:
    """Central differences at the gate's weight, with experts held where the gate would not choose them."""
    model.double().set_experts_implementation("eager")  # the grouped products know no fp64
    batch = packed()
    _, experts = elsewhere(model, batch)
    name, gate = gates_of(model)[0]
    analytic = gradient(model, batch, experts)[f"{name}.weight"]
    for place in [(0, 0), (3, 17), (7, 31)]:
        sums = []
        for step in (1e-2, -1e-2):
            with torch.no_grad():
                gate.weight[place] += step
                with replay_routing(model, experts):
                    sums.append(completion_logprobs(model, batch)[0].sum().item())
                gate.weight[place] -= step
        # gates work in fp32 by definition, so differences are no sharper than this
        assert analytic[place].item() == pytest.approx((sums[0] - sums[1]) / 2e-2, rel=1e-3, abs=1e-4)


def test_weights_are_full_softmax_unless_the_architecture_renormalises(model: Any) -> None:
    """An expert nobody uses gets a gradient through the denominator of DeepSeek's softmax, and none under Qwen's."""
    batch = packed()
    experts = torch.zeros(*batch.token_ids.shape, 2, 2, dtype=torch.int16)
    experts[..., 1] = 1  # everything to experts 0 and 1
    found = gradient(model, batch, experts)[f"{gates_of(model)[0][0]}.weight"]
    unused = found[2:].abs().max() / found[:2].abs().max()
    assert unused < 1e-5 if model.config.model_type == "qwen3_moe" else unused > 1e-2


def test_gradient_checkpointing_recomputes_with_the_same_experts(model: Any) -> None:
    batch = packed()
    _, experts = elsewhere(model, batch)
    plain = gradient(model, batch, experts)
    free = gradient(model, batch)
    model.gradient_checkpointing_enable()
    again = gradient(model, batch, experts)
    for name in plain:
        torch.testing.assert_close(again[name], plain[name], atol=1e-7, rtol=1e-6)
    gate = f"{gates_of(model)[0][0]}.weight"
    assert not torch.allclose(plain[gate], free[gate], rtol=1e-2)


def test_a_backward_pass_outside_is_an_error_under_checkpointing(model: Any) -> None:
    batch = packed()
    _, experts = elsewhere(model, batch)
    model.gradient_checkpointing_enable()
    with pytest.raises(ValueError, match=r"call backward\(\) inside"), replay_routing(model, experts):
        completion_logprobs(model, batch)[0].sum()


def test_packed_rows_replay_as_single_rows_do(model: Any) -> None:
    """Experts travel with their sequence: three packings, one result; the last token's are not known to any engine."""
    single = pack_completions(PROMPTS, ANSWERS, pad_id=2, row_tokens=26)
    rolled, experts = elsewhere(model, single)
    by_sequence = [from_tensor(e[:-1]) for _, e in sorted(single.split_tokens(experts).items())]
    expected = single.split_targets(rolled)
    for batch in (packed(), packed(100), single):
        with torch.no_grad(), replay_routing(model, lay_out(batch, by_sequence)):
            got = batch.split_targets(completion_logprobs(model, batch)[0])
        for s, values in expected.items():
            torch.testing.assert_close(got[s], values, atol=1e-5, rtol=0)
    for s, values in expected.items():  # each sequence alone in its row
        alone = pack_completions(PROMPTS[s : s + 1], ANSWERS[s : s + 1], pad_id=2)
        with torch.no_grad(), replay_routing(model, lay_out(alone, by_sequence[s : s + 1])):
            torch.testing.assert_close(completion_logprobs(model, alone)[0], values, atol=1e-5, rtol=0)


def test_a_copy_of_the_model_is_not_touched(model: Any) -> None:
    reference = copy.deepcopy(model)
    batch = packed()
    _, experts = elsewhere(model, batch)
    with torch.no_grad():
        expected = completion_logprobs(reference, batch)[0]
        with replay_routing(model, experts):
            assert torch.equal(completion_logprobs(reference, batch)[0], expected)
    assert not any(gate._forward_hooks for _, gate in gates_of(model))


def test_experts_of_another_shape_are_an_error(model: Any) -> None:
    batch = packed()
    wrong = torch.zeros(*batch.token_ids.shape, 3, 2, dtype=torch.int16)
    with pytest.raises(ValueError, match="do not fit"), torch.no_grad(), replay_routing(model, wrong):
        completion_logprobs(model, batch)
    assert not any(gate._forward_hooks for _, gate in gates_of(model))


def test_a_model_without_routers_is_one_line() -> None:
    with (
        pytest.raises(ConfigError, match="known: deepseek_v2, qwen3_moe"),
        replay_routing(torch.nn.Linear(2, 2), OWN_ID),
    ):
        pass


OWN_ID = torch.full((1, 1, 1, 1), OWN)


def test_places_by_hand() -> None:
    """Sequences of 2 + 1 and 1 + 1 tokens in one row of five: two and one positions are known, the rest is OWN."""
    batch = pack_completions([[5, 6], [7]], [[8], [9]], pad_id=2, row_tokens=5)
    experts = [from_tensor(torch.tensor([[[1, 2]], [[3, 4]]])), from_tensor(torch.tensor([[[5, 6]]]))]
    placed = lay_out(batch, experts)
    assert placed[0, :, 0].tolist() == [[1, 2], [3, 4], [OWN, OWN], [5, 6], [OWN, OWN]]
    assert lay_out(batch, [None, experts[1]])[0, :, 0].tolist() == [[OWN, OWN]] * 3 + [[5, 6], [OWN, OWN]]


@pytest.mark.parametrize("highest", [7, 255, 256, 400])
def test_ids_survive_bytes_pickling_and_equality(highest: int) -> None:
    ids = torch.arange(24).view(4, 3, 2) * highest // 23
    experts = from_tensor(ids)
    assert len(experts.ids) == (24 if highest < 256 else 48)
    assert torch.equal(to_tensor(experts).long(), ids)
    completion = Completion(
        token_ids=(1,),
        logprobs=(-1.0,),
        text="",
        finish_reason=FinishReason.STOP,
        policy_version=(0, 0),
        experts=experts,
    )
    assert pickle.loads(pickle.dumps(completion)) == completion
    assert replace(completion, experts=from_tensor(ids.flip(0))) != completion
    with pytest.raises(ValueError, match="bytes for experts of shape"):
        RoutedExperts(shape=(4, 3, 2), ids=experts.ids[1:])
