"""Adapters merged by the real engine: the same log-probs as merged weights, and the silent failures of the way there.

Every case is the same story as in test_mutations.py: a sync that is right passes, the one that is broken raises and
names what differs, and the next right one passes again.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import rollouts.loading
import rollouts.merging
from assay.adapter import LoraConfig, adapters_of, base_of, frozen_items
from assay.errors import InfraFailure, WeightMismatch
from assay.policy import load_tokenizer
from assay.types import Message, Task
from grpo.config import GRPOConfig
from grpo.trainer import PolicyTrainer
from rollouts.config import EngineConfig, ProofConfig
from rollouts.engine import Sampling
from rollouts.merging import merge
from rollouts.pool import RolloutPool
from rollouts.weights import Publication, WeightBundle, checkpoint_state, compare_probe, probe_sequences
from tests.moe_policies import make_policy

pytestmark = pytest.mark.vllm
ALONE, MERGED = EngineConfig(lora_sync="adapter", max_num_seqs=16, sync_bucket_mib=1), EngineConfig(sync_bucket_mib=1)
ADAPTED = r"self_attn|mlp\.gate|mlp\.experts"
SEQUENCES = probe_sequences(288, avoid=range(7))


@pytest.fixture(scope="module", params=["deepseek_v2", "qwen3_moe"])
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(request.param, tmp_path_factory.mktemp("policy"))


def start(policy: Path) -> Any:
    from rollouts.vllm import VLLMEngine

    eos = load_tokenizer(policy).eos_token_id
    return VLLMEngine(str(policy), ALONE, ProofConfig(), max_model_len=128, eos_token_id=eos)


@pytest.fixture(scope="module")
def engine(policy: Path) -> Iterator[Any]:
    made = start(policy)
    yield made
    made.close()
    gc.collect()  # an engine that is freed late takes the process groups of the next one with it


def make_trainer(policy: Path) -> PolicyTrainer:
    config = GRPOConfig(kl={"estimator": "none"})  # type: ignore[arg-type]
    lora = LoraConfig(rank=4, alpha=8)
    return PolicyTrainer(policy, config, dtype="float32", temperature=1.0, pad_id=2, lora=lora)


@pytest.fixture(scope="module")
def trainer(policy: Path) -> PolicyTrainer:
    return make_trainer(policy)


def step(trainer: PolicyTrainer, by: float = 0.02) -> None:
    """What an optimizer step does: every factor moves, and the version with them."""
    trainer.version += 1
    draw = torch.Generator().manual_seed(trainer.version)
    with torch.no_grad():
        for adapter in adapters_of(trainer.unwrapped).values():
            for part in (adapter.lora_A["default"].weight, adapter.lora_B["default"].weight):
                part.add_(by * torch.randn(part.shape, generator=draw))


def give(engine: Any, published: Publication) -> Any:
    """As the pool does it for one engine."""
    if published.base is not None and engine.keeps() != published.base.name:
        for bucket in published.base:
            engine.load_weights(bucket)
    *_, report = (engine.load_weights(bucket) for bucket in published)
    return report


def sync(engine: Any, trainer: PolicyTrainer, how: EngineConfig = ALONE) -> list[list[float]]:
    """Log-probabilities of the probe after a sync that passes all three proofs."""
    report = give(engine, trainer.publication(how, keep=False))
    assert report.version == engine.version == trainer.version and report.max_relative_error < 1e-5
    scores: list[list[float]] = engine.score(SEQUENCES)
    assert compare_probe(scores, trainer.probe(SEQUENCES).expected, ProofConfig(), trainer.version) < 1e-4
    return scores


def stopped(engine: Any, published: Publication | list[WeightBundle]) -> str:
    """What the sync that is broken says; the version the engine answers for stays, and it answers nothing."""
    before = engine.version
    with pytest.raises(WeightMismatch, match=r"version \d+") as caught:
        for bucket in published:
            engine.load_weights(bucket)
    assert engine.version in (before, -1)  # -1: it slept
    with pytest.raises(WeightMismatch, match="left in the midst of"):
        engine.score(SEQUENCES)
    return str(caught.value)


def named(message: str) -> list[str]:
    return re.findall(r"([\w.]+) \(relative error", message)


# -- right ------------------------------------------------------------------------------------------------------


def test_log_probs_are_those_of_merged_weights_to_the_bit_however_many_syncs_came_before(
    engine: Any, trainer: PolicyTrainer
):
    for _ in range(3):
        step(trainer)
        alone = sync(engine, trainer)
        assert sync(engine, trainer, MERGED) == alone
        assert sync(engine, trainer) == alone


def test_after_sleep_the_factors_alone_bring_all_back(engine: Any, trainer: PolicyTrainer):
    step(trainer)
    before, name = sync(engine, trainer), engine.keeps()
    engine.sleep()
    engine.wake_up()
    with pytest.raises(WeightMismatch, match="slept, and what it held is gone"):
        engine.score(SEQUENCES)
    assert engine.keeps() == name
    assert sync(engine, trainer) == before


# -- broken on the way ------------------------------------------------------------------------------------------


def test_a_damaged_factor_is_named(engine: Any, trainer: PolicyTrainer):
    sync(engine, trainer)
    step(trainer)
    buckets = [*trainer.publication(ALONE, keep=False)]
    name = next(name for name in buckets[0].tensors if name.endswith("lora_B"))
    array = buckets[0].tensors[name].copy()
    array[0, 0] += 1e-6
    harmed = replace(buckets[0], tensors={**buckets[0].tensors, name: array})
    assert f"did not arrive as it was published: {name} differ" in stopped(engine, [harmed, *buckets[1:]])
    sync(engine, trainer)


@pytest.mark.parametrize("renumbered", [False, True])
def test_factors_of_the_version_before_are_refused(engine: Any, trainer: PolicyTrainer, renumbered: bool):
    """One bucket of them among those of this version; renumbered, it says that it is of this version."""

    def in_small_buckets() -> list[WeightBundle]:
        published = trainer.publication(ALONE, keep=True)
        published._bucket_bytes = 16 << 10
        return [*published]

    sync(engine, trainer)
    old = in_small_buckets()
    step(trainer)
    new = in_small_buckets()
    assert len(new) == len(old) > 3
    stale = replace(old[1], version=trainer.version) if renumbered else old[1]
    said = stopped(engine, [new[0], stale, *new[2:]])
    version = trainer.version
    if renumbered:
        assert re.search(r"lora_A, .*lora_B.* of what was published never came", said), said
    else:
        assert f"bucket 1 came in place of bucket 1 of version {version}" in said
    sync(engine, trainer)


def test_factors_of_a_trainer_with_another_base_are_refused(engine: Any, trainer: PolicyTrainer, policy: Path):
    sync(engine, trainer)
    other = make_trainer(policy)
    with torch.no_grad():
        base_of(other.unwrapped).model.norm.weight[3] += 1e-6
    other.version = trainer.version + 1
    said = stopped(engine, other.publication(ALONE, keep=False))
    assert re.search(r"are for the trainer's frozen weights [0-9a-f]{8}, and the engine keeps [0-9a-f]{8}", said)
    sync(engine, trainer)


# -- broken where it is merged ----------------------------------------------------------------------------------


def never_added(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float, rounded: bool) -> Any:
    return weight.float()


def without_the_scale(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float, rounded: bool) -> Any:
    return merge(weight, a, b, 1.0, rounded)


def an_expert_off(place: Any, factors: Any) -> Any:
    return TRUE_FACTORS(replace(place, expert=(place.expert + 1) % place.experts), factors)


TRUE_FACTORS = rollouts.merging.own_factors


@pytest.mark.parametrize("wrong", [never_added, without_the_scale])
def test_a_wrong_merge_is_named(
    engine: Any, trainer: PolicyTrainer, monkeypatch: pytest.MonkeyPatch, wrong: Callable[..., Any]
):
    sync(engine, trainer)
    step(trainer)
    with monkeypatch.context() as broken:
        broken.setattr(rollouts.merging, "merge", wrong)
        said = stopped(engine, trainer.publication(ALONE, keep=False))
    found = re.search(r"([\w.]+) is not the frozen weight with the factors of version", said)
    assert found and re.search(ADAPTED, found[1]), said
    sync(engine, trainer)


def test_factors_of_another_expert_show_in_the_probe(
    engine: Any, trainer: PolicyTrainer, monkeypatch: pytest.MonkeyPatch
):
    """Merged right, and in the wrong place: every module holds what was merged, and only computing tells."""
    sync(engine, trainer)
    step(trainer)
    with monkeypatch.context() as broken:
        broken.setattr(rollouts.merging, "own_factors", an_expert_off)
        give(engine, trainer.publication(ALONE, keep=False))
    expected = trainer.probe(SEQUENCES).expected
    with pytest.raises(WeightMismatch, match="every tensor is held, yet the engine computes other log-probabilities"):
        compare_probe(engine.score(SEQUENCES), expected, ProofConfig(), trainer.version)
    sync(engine, trainer)


def test_merged_weights_in_place_of_the_frozen_ones_are_named(engine: Any, trainer: PolicyTrainer):
    """The classic drift: W' where W was, so that the next version goes on top of the one before."""
    sync(engine, trainer)
    step(trainer)

    def in_place(worker: Any) -> None:
        base = worker.model_runner.assay_load._base
        for bundle in base._bundles:
            for name in bundle.tensors:
                if name.endswith("layers.1.self_attn.o_proj.weight"):
                    bundle.tensors[name][:] += 1e-4

    engine._llm.collective_rpc(in_place)
    said = stopped(engine, trainer.publication(ALONE, keep=False))
    assert "layers.1.self_attn.o_proj.weight: the frozen weights that the engine keeps are not what came" in said
    base = trainer.publication(ALONE, keep=False).base
    assert base is not None
    for bucket in base:  # as its heir would get it
        engine.load_weights(bucket)
    sync(engine, trainer)


# -- merged, and not delivered ----------------------------------------------------------------------------------


def test_an_adapter_that_is_merged_and_never_delivered_stops_the_first_step_that_trained_it(
    engine: Any, policy: Path, monkeypatch: pytest.MonkeyPatch
):
    """verl#7495, TRL#5312: the version advances, and the engine's modules are given the base."""
    fresh = make_trainer(policy)  # B = 0
    frozen = {name: tensor.clone() for name, tensor in frozen_of(fresh).items()}
    with monkeypatch.context() as broken:
        broken.setattr(rollouts.loading, "deliver", lambda sent: ((name, frozen[name].clone()) for name in sent))
        sync(engine, fresh)  # the merged policy is the base, and the proof has nothing to say
        step(fresh, by=1e-3)
        names = named(stopped(engine, fresh.publication(ALONE, keep=False)))
    assert names and all(re.search(ADAPTED, name) for name in names), names
    sync(engine, fresh)


def frozen_of(trainer: PolicyTrainer) -> dict[str, torch.Tensor]:
    return checkpoint_state(base_of(trainer.unwrapped), dict(frozen_items(trainer.unwrapped)))


def test_base_weights_in_place_of_merged_ones_after_sleep_are_named(
    engine: Any, trainer: PolicyTrainer, monkeypatch: pytest.MonkeyPatch
):
    sync(engine, trainer)
    engine.sleep()
    engine.wake_up()
    prove = engine._prove

    def of_the_start(version: int) -> Any:
        """The engine reads its folder again: for it these are the base's weights."""
        engine._llm.apply_model(rollouts.loading.forget_moe_kernels)
        engine._llm.collective_rpc("reload_weights")
        return prove(version)

    with monkeypatch.context() as broken:
        broken.setattr(engine, "_prove", of_the_start)
        names = named(stopped(engine, trainer.publication(ALONE, keep=False)))
    assert names and all(re.search(ADAPTED, name) for name in names), names
    sync(engine, trainer)


# -- an engine that dies ----------------------------------------------------------------------------------------


class Dying:
    """An engine that does not draw, and leaves its model as one that nothing was ever given."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def stream(self, *args: Any) -> Any:
        raise InfraFailure("an engine died")

    def close(self) -> None:
        self._engine._llm.collective_rpc(lambda worker: delattr(worker.model_runner, "assay_load"))
        self._engine._kept, self._engine.version = "", -1


def test_an_heir_is_given_the_frozen_weights_and_answers_as_the_dead_one_did(
    engine: Any, trainer: PolicyTrainer, policy: Path
):
    """In the midst of the trainer's next step: the factors were copied, and the frozen weights do not move."""
    pool = RolloutPool([Dying(engine)], load_tokenizer(policy), ProofConfig(), lambda n: engine)
    step(trainer)
    published = trainer.publication(ALONE, keep=True)
    pool.sync(published, trainer.probe(SEQUENCES))
    before = engine.score(SEQUENCES)
    step(trainer)
    task = Task(id="a", messages=(Message(role="user", content="x"),), verifier="function", answer={})
    (group,) = pool.generate([task], Sampling(temperature=1.0, max_tokens=6, samples=2, seed=1))
    assert {c.policy_version for c in group.completions} == {(published.version, published.version)}
    assert engine.score(SEQUENCES) == before and len(pool.recoveries) == 1
    pool.close()
