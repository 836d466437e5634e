"""The real engine: what its routers chose comes with the completions, and is what the trainer replays."""

from __future__ import annotations

import gc
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from assay.errors import ConfigError
from assay.logprobs import completion_logprobs
from assay.moe_replay import lay_out, record_routing, replay_routing, to_tensor
from assay.packing import PackedBatch, pack_completions
from assay.policy import load_policy
from assay.types import Completion
from rollouts.config import EngineConfig, ProofConfig
from rollouts.engine import Sampling
from rollouts.weights import checkpoint_state, compare_probe, make_probe, probe_sequences, publish
from tests.moe_policies import make_policy

pytestmark = pytest.mark.vllm

PROMPTS = [[0, 20, 30, 40], [0, 50, 60], [0, *range(70, 90)], [0, 91], [0, 120, 121, 122, 123]]


@pytest.fixture(scope="module", params=["deepseek_v2", "qwen3_moe"])
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(request.param, tmp_path_factory.mktemp("policy"))


def start(policy: Path, **settings: Any) -> Any:
    from rollouts.vllm import VLLMEngine

    config = EngineConfig(max_num_seqs=8, **settings)  # fewer than the samples wanted: some wait and join later
    return VLLMEngine(str(policy), config, ProofConfig(), max_model_len=128, eos_token_id=1)


@pytest.fixture(scope="module")
def engine(policy: Path) -> Iterator[Any]:
    made = start(policy, return_experts=True)
    yield made
    made.close()
    gc.collect()  # an engine that is freed late takes the process groups of the next one with it


@pytest.fixture
def model(policy: Path) -> Any:
    return load_policy(policy).eval()


def perturb(model: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.01)


def sample(engine: Any) -> tuple[list[list[int]], list[Completion]]:
    """Prompts and completions, 4 for each prompt, of different lengths."""
    groups = engine.generate(PROMPTS, Sampling(temperature=1.0, max_tokens=40, samples=4, seed=3))
    return [p for p in PROMPTS for _ in range(4)], [c for group in groups for c in group]


def packed_of(prompts: list[list[int]], completions: list[Completion]) -> PackedBatch:
    return pack_completions(prompts, [c.token_ids for c in completions], pad_id=2)


def test_the_engine_and_the_trainer_choose_the_same_experts(engine: Any, model: Any) -> None:
    perturb(model, 1)
    engine.load_weights(publish(checkpoint_state(model), 1))
    prompts, completions = sample(engine)
    same = total = 0
    for prompt, completion in zip(prompts, completions, strict=True):
        assert completion.experts is not None
        assert completion.experts.shape == (len(prompt) + len(completion.token_ids) - 1, 2, 2)
        assert pickle.loads(pickle.dumps(completion)) == completion
        with torch.no_grad(), record_routing(model) as route:
            model(input_ids=torch.tensor([[*prompt, *completion.token_ids[:-1]]]))
        theirs, ours = to_tensor(completion.experts).sort(-1).values, route.chosen().sort(-1).values
        agree = (theirs == ours).all(-1)
        same, total = same + int(agree.sum()), total + agree.numel()
    print(f"{same} of {total} (token, layer) pairs agree")
    assert total > 1000 and same >= 0.99 * total


def test_a_bias_on_the_engines_choice_is_replayed_away(engine: Any, model: Any) -> None:
    """The engine's routers choose by score plus a bias (as under noaux_tc), and weigh by score: only the choice moves.

    No weight differs, so the proof of the weights still holds; log-probabilities of sampled tokens do differ.
    """
    perturb(model, 2)
    engine.load_weights(publish(checkpoint_state(model), 2))
    engine._llm.apply_model(lambda m: bias_choice(m, 0.05))
    try:
        prompts, completions = sample(engine)
    finally:
        engine._llm.apply_model(lambda m: bias_choice(m, None))
    packed = packed_of(prompts, completions)
    rolled = packed.gather_targets([c.logprobs for c in completions])
    with torch.no_grad():
        free = completion_logprobs(model, packed)[0] - rolled
        with replay_routing(model, lay_out(packed, [c.experts for c in completions])):
            replayed = completion_logprobs(model, packed)[0] - rolled
    print(f"largest |log-ratio| {free.abs().max():.2e} without replay, {replayed.abs().max():.2e} with it")
    assert free.abs().max() > 1e-2 and (free.expm1() - free).mean() > 1e-5
    assert replayed.abs().max() < 1e-5


def bias_choice(model: Any, strength: float | None) -> None:
    """Give each router of a vLLM model a constant per expert that moves its choice alone, or take it away."""
    from rollouts.vllm import _routers

    for router in _routers(model):
        if strength is None:
            router.__dict__.pop("_compute_routing", None)
        else:
            router._compute_routing = biased_routing(router, strength)


def biased_routing(router: Any, strength: float) -> Any:
    bias = torch.randn(router.global_num_experts, generator=torch.Generator().manual_seed(5)) * strength

    def compute(hidden: Any, logits: torch.Tensor, dtype: Any, *, input_ids: Any = None) -> Any:
        scores = logits.float().softmax(-1)
        ids = (scores + bias).topk(router.top_k).indices
        weights = scores.gather(1, ids)
        if router.renormalize:
            weights = weights / weights.sum(-1, keepdim=True)
        return weights, ids.to(torch.int32)

    return compute


def test_listening_changes_no_draw_and_ends_with_the_call(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from rollouts.vllm import _routers

    heard = sample(engine)[1]
    assert engine._llm.apply_model(lambda m: all(r.capture_fn is None for r in _routers(m)))[0]
    monkeypatch.setattr(engine, "_watch", None)
    monkeypatch.setattr(engine, "_routed_layers", [])  # as without return_experts
    not_heard = sample(engine)[1]
    for a, b in zip(heard, not_heard, strict=True):
        assert a.token_ids == b.token_ids
        assert max(abs(x - y) for x, y in zip(a.logprobs, b.logprobs, strict=True)) < 1e-5
    assert all(c.experts is None for c in not_heard)


def test_weights_are_proved_and_log_probs_agree_across_syncs(engine: Any, model: Any) -> None:
    for version in (3, 4):
        perturb(model, version)
        report = engine.load_weights(publish(checkpoint_state(model), version))
        assert report.max_relative_error < 1e-5
        probe = make_probe(model, probe_sequences(model.config.vocab_size, avoid=range(7)), pad_id=2)
        assert compare_probe(engine.score(probe.sequences), probe.expected, ProofConfig(), version) < 1e-4


def test_a_compiled_pass_cannot_be_listened_to(policy: Path) -> None:
    with pytest.raises(ConfigError, match="needs enforce_eager=true"):
        start(policy, return_experts=True, enforce_eager=False)
