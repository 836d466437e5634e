"""The famous silent failures of weight sync, made again in the real engine: each stops at its own sync, by name.

Every case is the same story: a sync that is right passes, the one that is broken raises and names what differs, and
the next right one passes again. Failures in the field: an adapter's merged update never delivered (verl#7495,
TRL#5312), experts in another layout after the first sync (SkyRL#1680), base weights after the engine slept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

import rollouts.loading
from assay.errors import WeightMismatch
from assay.logprobs import completion_logprobs
from assay.packing import pack_completions
from assay.policy import load_policy, load_tokenizer
from grpo.config import MismatchConfig
from grpo.kl import k3
from rollouts.config import EngineConfig, ProofConfig
from rollouts.engine import Sampling
from rollouts.weights import checkpoint_state, compare_probe, make_probe, probe_sequences, publish

pytestmark = pytest.mark.vllm
State = dict[str, torch.Tensor]
VERSION = count()


@pytest.fixture(scope="module")
def engine(tiny_policy: Path) -> Iterator[Any]:
    from rollouts.vllm import VLLMEngine

    eos = load_tokenizer(tiny_policy).eos_token_id
    made = VLLMEngine(
        str(tiny_policy), EngineConfig(max_num_seqs=16), ProofConfig(), max_model_len=128, eos_token_id=eos
    )
    yield made
    made.close()


@pytest.fixture
def state(tiny_policy: Path) -> State:
    """What a trainer publishes after one step: the policy of the folder, moved a little."""
    return moved({k: v.clone() for k, v in checkpoint_state(load_policy(tiny_policy)).items()}, 0.02)


def moved(state: State, by: float) -> State:
    draw = torch.Generator().manual_seed(3)
    return {k: v + by * torch.randn(v.shape, generator=draw) for k, v in state.items()}


def sync(engine: Any, state: State) -> int:
    version = next(VERSION)
    assert engine.load_weights(publish(state, version)).version == engine.version == version
    return version


def stopped(engine: Any, state: State) -> str:
    """What the sync that is broken says; the version the engine answers for does not advance."""
    before, version = engine.version, next(VERSION)
    with pytest.raises(WeightMismatch, match=f"version {version}") as caught:
        engine.load_weights(publish(state, version))
    assert engine.version in (before, -1)  # -1: it slept
    return str(caught.value)


def named(message: str) -> list[str]:
    return re.findall(r"([\w.]+) \(relative error", message)


# -- on the way -------------------------------------------------------------------------------------------------


def one(ending: str, harm: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[State], State]:
    def harmed(state: State) -> State:
        name = next(k for k in state if k.endswith(ending))
        return {**state, name: harm(state[name]).contiguous()}

    return harmed


def experts(part: Callable[[int], int], swap: bool = False) -> Callable[[State], State]:
    """Expert e of layer 1 gets the weights of expert part(e); with `swap` its gate and up projection change places."""
    other = {"gate_proj": "up_proj", "up_proj": "gate_proj", "down_proj": "down_proj"}

    def harmed(state: State) -> State:
        out = dict(state)
        for name in state:
            if found := re.fullmatch(r"(model\.layers\.1\.mlp\.experts\.)(\d)\.(\w+)\.weight", name):
                start, e, leaf = found.groups()
                out[name] = state[f"{start}{part(int(e))}.{other[leaf] if swap else leaf}.weight"]
        return out

    return harmed


ON_THE_WAY = {
    "gate and up halves swapped": (
        experts(lambda e: e, swap=True),
        {f"model.layers.1.mlp.experts.{e}" for e in range(4)},
    ),
    "experts permuted": (experts(lambda e: (e + 1) % 4), {f"model.layers.1.mlp.experts.{e}" for e in range(4)}),
    "two experts exchanged": (
        experts(lambda e: {0: 2, 2: 0}.get(e, e)),
        {"model.layers.1.mlp.experts.0", "model.layers.1.mlp.experts.2"},
    ),
    "one expert transposed": (one("experts.3.gate_proj.weight", torch.t), {"model.layers.1.mlp.experts.3"}),
    "one tensor a step old": (
        one("layers.0.mlp.down_proj.weight", lambda w: w * (1 + 1e-4)),
        {"model.layers.0.mlp.down_proj"},
    ),
    "one tensor in bfloat16": (
        one("layers.1.self_attn.o_proj.weight", lambda w: w.bfloat16().float()),
        {"model.layers.1.self_attn.o_proj"},
    ),
    "router rows permuted": (one("layers.1.mlp.gate.weight", lambda w: w.roll(1, 0)), {"model.layers.1.mlp.gate"}),
    "embedding off by one row": (one("embed_tokens.weight", lambda w: w.roll(1, 0)), {"model.embed_tokens"}),
    "one element of a norm": (
        one("layers.1.input_layernorm.weight", lambda w: w.index_fill(0, torch.tensor([5]), 1.0)),
        {"model.layers.1.input_layernorm"},
    ),
}


@pytest.mark.parametrize("mutation", ON_THE_WAY)
def test_harm_on_the_way_is_named_at_the_same_sync(
    engine: Any, state: State, monkeypatch: pytest.MonkeyPatch, mutation: str
):
    harm, expected = ON_THE_WAY[mutation]
    sync(engine, state)
    with monkeypatch.context() as broken:
        broken.setattr(rollouts.loading, "deliver", lambda sent: iter(harm(sent).items()))
        message = stopped(engine, moved(state, 0.01))
    assert set(named(message)) == expected, message
    sync(engine, moved(state, 0.01))


# -- never delivered --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["self_attn", "mlp.experts"])
def test_an_adapter_that_never_reaches_the_engine_stops_the_first_step_that_trained_it(
    engine: Any, state: State, monkeypatch: pytest.MonkeyPatch, target: str
):
    """W + alpha/r B A is published, W is delivered, and the version advances all the same."""
    draw = torch.Generator().manual_seed(5)
    adapted = [k for k, v in state.items() if target in k and v.ndim == 2]
    factors = {
        k: (torch.zeros(len(state[k]), 2), torch.randn(2, state[k].shape[1], generator=draw) * 0.1) for k in adapted
    }

    def merged() -> State:
        return {k: v + 2.0 * factors[k][0] @ factors[k][1] if k in factors else v for k, v in state.items()}

    monkeypatch.setattr(rollouts.loading, "deliver", lambda sent: iter(state.items()))
    sync(engine, merged())  # B = 0: the merged policy is the base, and the proof has nothing to say
    for b, _ in factors.values():
        b.add_(1e-3)  # one optimizer step
    names = named(stopped(engine, merged()))
    assert names and all(target in name for name in names), names


# -- held at first ----------------------------------------------------------------------------------------------


def to_the_weights_of_the_start(engine: Any) -> None:
    """What an engine does that slept, threw its weights away and woke up: it reads its folder again."""
    engine._llm.apply_model(rollouts.loading.forget_moe_kernels)
    engine._llm.collective_rpc("reload_weights")


def asleep_and_awake_with_the_weights_of_the_start(engine: Any) -> None:
    engine.sleep()
    engine.wake_up()
    to_the_weights_of_the_start(engine)


def experts_in_place(engine: Any) -> None:
    """The engine's own packed tensor, whatever its layout, with the experts in another order."""

    def roll(model: Any) -> None:
        for module in model.modules():
            if hasattr(module, "w13_weight"):
                module.w13_weight.data.copy_(module.w13_weight.data.roll(1, 0))

    engine._llm.apply_model(roll)


HELD_AT_FIRST = {
    "base weights after sleep": (
        asleep_and_awake_with_the_weights_of_the_start,
        r"lm_head|self_attn|mlp|embed_tokens|norm",
    ),
    "expert layout after the load": (experts_in_place, r"mlp\.experts\.\d"),
}


@pytest.mark.parametrize("mutation", HELD_AT_FIRST)
def test_harm_after_the_load_is_named_at_the_same_sync(
    engine: Any, state: State, monkeypatch: pytest.MonkeyPatch, mutation: str
):
    harm, pattern = HELD_AT_FIRST[mutation]
    sync(engine, state)
    prove = engine._prove
    with monkeypatch.context() as broken:
        broken.setattr(engine, "_prove", lambda version: (harm(engine), prove(version))[1])
        message = stopped(engine, moved(state, 0.01))
    names = named(message)
    assert names and all(re.search(pattern, name) for name in names), message
    sync(engine, moved(state, 0.01))


def test_an_engine_that_slept_gives_back_its_cache_and_answers_nothing_before_a_proved_sync(
    engine: Any, state: State, monkeypatch: pytest.MonkeyPatch
):
    """TRL#5312: whatever weights it wakes with, base weights or the right ones, no token comes of them."""
    draw = Sampling(temperature=1.0, max_tokens=8, samples=2, seed=3)
    sync(engine, state)
    before = [c.token_ids for c in engine.generate([[0, 20, 30]], draw)[0]]
    caches = engine._llm.collective_rpc(lambda worker: worker.model_runner.kv_caches)[0]
    sizes = [cache.untyped_storage().nbytes() for cache in caches]
    engine.sleep()
    engine.sleep()  # twice is once
    assert min(sizes) > 0 and [cache.untyped_storage().nbytes() for cache in caches] == [0] * len(sizes)
    assert engine.version == -1
    for awake in (False, True):
        if awake:
            engine.wake_up()
            to_the_weights_of_the_start(engine)
        for ask in (lambda: engine.generate([[0, 20, 30]], draw), lambda: engine.score([[0, 20, 30]])):
            with pytest.raises(WeightMismatch, match="slept, and what it held is gone"):
                ask()
    assert [cache.untyped_storage().nbytes() for cache in caches] == sizes
    with monkeypatch.context() as broken, pytest.raises(WeightMismatch, match="relative error"):
        broken.setattr(rollouts.loading, "deliver", lambda sent: iter(()))  # a sync that brings nothing
        engine.load_weights(publish(moved(state, 0.01), next(VERSION)))
    with pytest.raises(WeightMismatch, match="left in the midst of"):
        engine.generate([[0, 20, 30]], draw)
    sync(engine, state)
    assert [c.token_ids for c in engine.generate([[0, 20, 30]], draw)[0]] == before


def test_base_weights_after_a_sync_that_was_proved_are_caught_in_the_same_step(
    engine: Any, tiny_policy: Path, state: State
):
    """Nothing is left for the sync to see; the tokens of this very step tell, before an optimizer step is taken."""
    model = load_policy(tiny_policy).eval()
    with torch.no_grad():
        draw = torch.Generator().manual_seed(9)
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    version = sync(engine, {k: v.clone() for k, v in checkpoint_state(model).items()})
    allowed = MismatchConfig().stop_above
    assert mismatch(engine, model) < 1e-6 < allowed
    to_the_weights_of_the_start(engine)
    assert engine.version == version
    assert mismatch(engine, model) > allowed
    probe = make_probe(model, probe_sequences(model.config.vocab_size, avoid=range(7)), pad_id=2)
    with pytest.raises(WeightMismatch, match=f"version {version}"):
        compare_probe(engine.score(probe.sequences), probe.expected, ProofConfig(), version)


def mismatch(engine: Any, model: Any) -> float:
    """Mean k3 per sampled token between engine and trainer: what `grpo.mismatch.stop_above` bounds in every step."""
    prompts = [[0, 20, 30, 40], [0, 50, 60]]
    groups = engine.generate(prompts, Sampling(temperature=1.0, max_tokens=24, samples=4, seed=1))
    completions = [c for group in groups for c in group]
    packed = pack_completions([p for p in prompts for _ in range(4)], [c.token_ids for c in completions], pad_id=2)
    with torch.no_grad():
        trainer = completion_logprobs(model, packed, 1.0)[0]
        return float(k3(packed.gather_targets([c.logprobs for c in completions]), trainer).mean())
