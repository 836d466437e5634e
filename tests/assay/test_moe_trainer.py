"""Routers in the optimizer step: the balance loss, the load, and replay of the engine's or the trainer's own choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from assay.adapter import LoraConfig
from assay.errors import ConfigError
from assay.logprobs import completion_logprobs
from assay.metrics import undocumented
from assay.moe import gates_of
from assay.moe_balance import batch_balance, load_metrics
from assay.moe_replay import from_tensor, record_routing
from assay.packing import pack_completions
from assay.policy import load_tokenizer
from assay.types import RoutedExperts, ScoredGroup
from grpo.batch import TrainBatch, build_batch, estimate_advantages
from grpo.config import GRPOConfig, KLConfig, MoEConfig, OptimizerConfig
from grpo.trainer import PolicyTrainer
from rollouts.config import ProofConfig
from rollouts.engine import Sampling
from rollouts.fake import FakeEngine
from rollouts.pool import RolloutPool
from rollouts.recorder import SampleRecorder
from rollouts.replay import Replay
from tests.groups import make_scored, make_task
from tests.moe_policies import make_policy, other_choice

PROMPTS = ((0, 20, 30, 40), (0, 20, 30, 40), (0, 50), (0, 50))
ANSWERS = ((60, 61, 62, 63, 64, 1), (70, 1), (80, 81, 82, 1), (90, 91, 92, 93, 94, 95, 96, 1))


@pytest.fixture(scope="module", params=["deepseek_v2", "qwen3_moe"])
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(request.param, tmp_path_factory.mktemp("policy"))


def make_trainer(
    policy: Path,
    moe: MoEConfig = MoEConfig(),  # noqa: B008
    lora: LoraConfig | None = None,
    **settings: Any,
) -> PolicyTrainer:
    plain = {"learning_rate": 1e-2, "optimizer": OptimizerConfig(grad_clip=1e9), "kl": KLConfig(coef=0.1)}
    config = GRPOConfig(**{**plain, "moe": moe, **settings})
    return PolicyTrainer(policy, config, dtype="float32", temperature=1.0, pad_id=2, lora=lora)


def rollout(trainer: PolicyTrainer, strength: float = 0.05) -> TrainBatch:
    """Four completions with log-probabilities and experts of an engine that chooses a little differently."""
    model = trainer.unwrapped
    logprobs, experts = [], []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        alone = pack_completions([prompt], [answer], pad_id=2)
        with torch.no_grad(), other_choice(model, strength), record_routing(model) as route:
            logprobs.append(tuple(completion_logprobs(model, alone)[0].tolist()))
        experts.append(from_tensor(route.chosen()[:-1]))  # an engine never routes the last token
    return TrainBatch(
        prompts=PROMPTS,
        completions=ANSWERS,
        engine_logprobs=tuple(logprobs),
        advantages=(1.0, -0.5, 0.8, -1.3),
        weights=tuple(1 / (4 * len(a)) for a in ANSWERS),
        oldest_version=0,
        counts={},
        experts=tuple(experts),
    )


def without_experts(batch: TrainBatch) -> TrainBatch:
    return replace(batch, experts=())


def gradient(trainer: PolicyTrainer, batch: TrainBatch) -> dict[str, Tensor]:
    """The gradient of a step, caught before the optimizer uses it."""
    caught: dict[str, Tensor] = {}

    def catch(*args: Any, **kwargs: Any) -> None:
        caught.update({n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None})

    trainer.optimizer.step = catch  # type: ignore[method-assign]
    trainer.step(batch)
    return caught


def assert_close(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-6, rtol=1e-4)


def test_replay_of_the_engines_choice_takes_the_mismatch_away(policy: Path) -> None:
    free = make_trainer(policy)
    batch = rollout(free)
    without = free.step(batch)
    with_replay = make_trainer(policy, MoEConfig(replay="r3")).step(batch)
    assert without["mismatch/k3"] > 1e-4 and without["mismatch/max_abs_logratio"] > 1e-2
    assert with_replay["mismatch/k3"] < 1e-9 and with_replay["mismatch/max_abs_logratio"] < 1e-5
    assert 0 < with_replay["moe/agreement"] < 1
    assert undocumented(with_replay) == []
    halves = replace(batch, mini_batches=(0, 0, 1, 1))
    assert make_trainer(policy, MoEConfig(replay="r3")).step(halves)["mismatch/max_abs_logratio"] < 1e-5


def test_an_adapted_policy_replays_too_and_its_reference_does_not(policy: Path) -> None:
    """At the start an adapter changes nothing, so replay alone sets the policy apart from the reference inside it."""
    lora = LoraConfig(rank=4, alpha=8)
    batch = rollout(make_trainer(policy))
    metrics = make_trainer(policy, MoEConfig(replay="r3"), lora=lora).step(batch)
    assert metrics["mismatch/max_abs_logratio"] < 1e-5
    assert metrics["kl/reference"] > 1e-4
    assert make_trainer(policy, lora=lora).step(batch)["kl/reference"] < 1e-9
    found = gradient(make_trainer(policy, MoEConfig(replay="r3"), lora=lora), batch)
    assert any("mlp.gate" in name and "lora_B" in name and g.any() for name, g in found.items())


def test_agreement_counts_token_layer_pairs(policy: Path) -> None:
    trainer = make_trainer(policy)
    batch = rollout(trainer, strength=0.0)
    assert trainer.step(batch)["moe/agreement"] == 1.0
    other = make_trainer(policy)
    first = batch.experts[0]
    assert first is not None
    swapped = bytes(7 - e for e in first.ids[:1]) + first.ids[1:]  # one id of one pair becomes another expert
    pairs = sum(e.shape[0] * e.shape[1] for e in batch.experts if e is not None)
    changed = replace(batch, experts=(RoutedExperts(shape=first.shape, ids=swapped), *batch.experts[1:]))
    assert other.step(changed)["moe/agreement"] == pytest.approx(1 - 1 / pairs, abs=1e-12)
    assert "moe/agreement" not in make_trainer(policy).step(without_experts(batch))


def test_r3_without_the_engines_choice_is_one_line(policy: Path) -> None:
    trainer = make_trainer(policy, MoEConfig(replay="r3"))
    batch = rollout(trainer)
    with pytest.raises(ConfigError, match=r"set rollouts\.engine\.return_experts=true"):
        trainer.step(without_experts(batch))


@pytest.mark.parametrize("replay", ["r2", "r3"])
def test_every_update_uses_the_experts_of_the_rollout(policy: Path, replay: Any) -> None:
    """Three large updates move the routers; the experts used stay, and without replay they do not."""

    def used(moe: MoEConfig) -> list[Tensor]:
        trainer = make_trainer(policy, moe, updates_per_rollout=3, learning_rate=3e-2)
        seen: list[Tensor] = []
        count = trainer.routers.count
        trainer.routers.count = lambda ids, *rest: (seen.append(ids.sort(-1).values), count(ids, *rest))[1]  # type: ignore[method-assign]
        metrics = trainer.step(rollout(trainer))
        assert metrics["clip/share"] > 0
        assert len(seen) == 3  # one micro-batch, three updates; the pass for pi_old is not counted
        return seen

    replayed, free = used(MoEConfig(replay=replay)), used(MoEConfig())
    if replay == "r2":
        assert torch.equal(replayed[0], replayed[1]) and torch.equal(replayed[0], replayed[2])
        assert torch.equal(replayed[0], free[0])
    else:  # the last position of a sequence is the trainer's own: no engine has routed it
        assert (replayed[0] != replayed[2]).any(-1).sum() <= 2 * len(ANSWERS)
        assert not torch.equal(replayed[0], free[0])
    assert (free[0] != free[2]).any(-1).sum() > 2 * len(ANSWERS)


def test_r2_changes_nothing_of_the_first_update(policy: Path) -> None:
    """Which is why it is refused where there is one only."""
    trainer = make_trainer(policy, updates_per_rollout=2)
    batch = without_experts(rollout(trainer))
    a = gradient(trainer, batch)
    b = gradient(make_trainer(policy, MoEConfig(replay="r2"), updates_per_rollout=2), batch)
    assert all(torch.equal(a[name], b[name]) for name in a)
    with pytest.raises(ValueError, match="there is one only"):
        make_trainer(policy, MoEConfig(replay="r2"))


@pytest.mark.parametrize("moe", [MoEConfig(replay="r3"), MoEConfig(replay="r3", aux_coef=0.5)], ids=["replay", "both"])
@pytest.mark.parametrize("settings", [{"micro_batch_tokens": 8}, {"gradient_checkpointing": True}], ids=str)
def test_no_split_and_no_recomputation_changes_the_gradient(
    policy: Path, moe: MoEConfig, settings: dict[str, Any]
) -> None:
    whole, other = make_trainer(policy, moe), make_trainer(policy, moe, **settings)
    batch = rollout(whole)
    assert_close(gradient(whole, batch), gradient(other, batch))


def test_the_balance_loss_is_its_formula_sequence_by_sequence(policy: Path) -> None:
    trainer = make_trainer(policy, MoEConfig(aux_coef=0.5))
    batch = without_experts(rollout(trainer))
    expected, counts = 0.0, torch.zeros(2, 8)
    logits: list[Tensor] = []
    catch: Callable[..., None] = lambda gate, args, output: logits.append(output[0])  # noqa: E731
    handles = [gate.register_forward_hook(catch) for _, gate in gates_of(trainer.unwrapped)]
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        logits.clear()
        with torch.no_grad():
            trainer.unwrapped(torch.tensor([[*prompt, *answer]]))
        for layer, z in enumerate(logits):
            ids = z.topk(2).indices
            expected += batch_balance(z.double().softmax(-1), ids).item() / 4
            counts[layer] += torch.bincount(ids.flatten(), minlength=8)
    for handle in handles:
        handle.remove()
    metrics = trainer.step(batch)
    assert metrics["loss/aux"] == pytest.approx(0.5 * expected, rel=1e-6)
    assert metrics["loss/total"] == pytest.approx(metrics["loss/policy"] + metrics["loss/kl"] + metrics["loss/aux"])
    assert {name: metrics[name] for name in ("moe/max_violation", "moe/dead_experts")} == load_metrics(counts)
    assert undocumented(metrics) == []


def test_steps_with_the_balance_loss_even_the_load(policy: Path) -> None:
    trainer = make_trainer(policy, MoEConfig(aux_coef=1.0), kl=KLConfig(coef=0.0))
    batch = without_experts(rollout(trainer))
    values = [trainer.step(batch)["loss/aux"] for _ in range(8)]
    assert values[-1] < values[0] - 0.05


def test_experts_of_an_engine_arrive_through_the_pool(policy: Path) -> None:
    tokenizer = load_tokenizer(policy)
    engine = FakeEngine(
        lambda prompt, draw: [20, 21, 1], route=lambda ids: from_tensor(torch.zeros(len(ids) - 1, 2, 2))
    )
    pool = RolloutPool([engine], tokenizer, ProofConfig())
    group = pool.generate([make_task()], Sampling(temperature=1.0, max_tokens=3, samples=2))[0]
    pool.close()
    shapes = [c.experts.shape for c in group.completions if c.experts is not None]
    assert shapes == [(len(group.prompt_ids) + 2, 2, 2)] * 2


def test_a_recorded_rollout_replays_to_the_same_step_experts_included(policy: Path, tmp_path: Path) -> None:
    """What `assay grpo --replay` does under grpo.moe.replay=r3, without its command line."""
    tokenizer, gates = load_tokenizer(policy), [gate for _, gate in gates_of(make_trainer(policy).unwrapped)]
    draw = torch.Generator().manual_seed(0)

    def route(ids: Sequence[int]) -> RoutedExperts:
        """Two of the experts at random, as no gate would choose them."""
        shape = (len(ids) - 1, len(gates), gates[0].weight.shape[0])
        return from_tensor(torch.rand(shape, generator=draw).argsort(dim=-1)[..., :2])

    engine = FakeEngine(lambda prompt, draw: [draw.randrange(20, 60) for _ in range(draw.randrange(2, 9))], -5.0, route)
    pool, sampling = RolloutPool([engine], tokenizer, ProofConfig()), Sampling(temperature=1.0, max_tokens=8, samples=4)
    groups = pool.generate([make_task()], sampling)
    pool.close()
    judged = make_scored([1.0, 0.0, 0.0, 1.0], [1] * 4).results
    scored = [ScoredGroup(group=group, results=judged) for group in groups]
    SampleRecorder(tmp_path).write(1, scored, [[0.0] * 4], ["t"])
    again = [ScoredGroup(group=g, results=judged) for g in Replay(tokenizer, tmp_path).step(1, {"t": make_task()})]
    config = GRPOConfig(moe=MoEConfig(replay="r3"))
    then, now = (build_batch(s, estimate_advantages(s, config, 8), config, 8) for s in (scored, again))
    assert now == then and None not in now.experts
    told = make_trainer(policy, MoEConfig(replay="r3")).step(now)
    assert told == make_trainer(policy, MoEConfig(replay="r3")).step(then)
    assert told["moe/agreement"] < 0.6 and told["kl/reference"] > 1e-4, "the experts given are not the gates' own"


def test_off_adds_nothing_to_the_loss_and_watches_all_the_same(policy: Path) -> None:
    trainer = make_trainer(policy)
    metrics = trainer.step(without_experts(rollout(trainer)))
    assert "loss/aux" not in metrics
    assert metrics["loss/total"] == metrics["loss/policy"] + metrics["loss/kl"]
    assert metrics["moe/max_violation"] > 0
    assert not any(gate._forward_hooks for _, gate in gates_of(trainer.unwrapped))
