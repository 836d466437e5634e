"""The real engine stepped: groups as they are whole, several callers at once, and new weights between two tokens."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from assay.errors import ConfigError, WeightMismatch
from assay.policy import load_policy, load_tokenizer
from assay.types import Completion
from rollouts.config import EngineConfig, ProofConfig
from rollouts.engine import Sampling
from rollouts.weights import Publication, checkpoint_state, compare_probe, make_probe, probe_sequences, publish

pytestmark = pytest.mark.vllm

PROMPTS = [[0, 20, 30, 40], [0, 50, 60]]
LONG = Sampling(temperature=1.0, max_tokens=90, samples=3, seed=5)


@pytest.fixture(scope="module")
def engine(tiny_policy: Path) -> Iterator[Any]:
    from rollouts.vllm import VLLMEngine

    eos = load_tokenizer(tiny_policy).eos_token_id
    config = EngineConfig(max_num_seqs=8, routing="queue", update_in_flight=True, threads=1)
    made = VLLMEngine(str(tiny_policy), config, ProofConfig(), max_model_len=128, eos_token_id=eos)
    yield made
    made.close()


def policy(folder: Path, seed: int) -> Any:
    model, generator = load_policy(folder).eval(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return model


def recomputed(model: Any, prompts: list[list[int]], completions: list[Completion]) -> list[torch.Tensor]:
    from assay.logprobs import completion_logprobs
    from assay.packing import pack_completions

    packed = pack_completions(prompts, [c.token_ids for c in completions], pad_id=2)
    with torch.no_grad():
        values = packed.split_targets(completion_logprobs(model, packed, 1.0)[0])
    return [values[i] for i in range(len(completions))]


class Interrupted:
    """Holds the engine's steps at the n-th until other work waits for it: an update at a known moment."""

    def __init__(self, engine: Any, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, steps = threading.Event(), iter(range(10**6))
        core, waiting = engine._llm.llm_engine, engine._stepper._thread._work_queue
        plain = core.step

        def step() -> Any:
            outputs = plain()
            if next(steps) == at:
                self.reached.set()
                deadline = time.monotonic() + 10
                while waiting.empty() and time.monotonic() < deadline:
                    time.sleep(0.001)
            return outputs

        monkeypatch.setattr(core, "step", step)


def drawn_over_an_update(engine: Any, model: Any, version: int, at: int, patch: pytest.MonkeyPatch) -> Any:
    """Completions of LONG with weights that change to `model` at a step; the report; the probe's answers."""
    interrupted, drawn = Interrupted(engine, at, patch), dict[int, list[Completion]]()

    def draw() -> None:
        with suppress(WeightMismatch):
            drawn.update(engine.stream(PROMPTS, LONG))

    drawing = threading.Thread(target=draw)
    drawing.start()
    assert interrupted.reached.wait(30)
    buckets = [*Publication(lambda: checkpoint_state(model).items(), version, 4096)]
    assert len(buckets) > 3
    *_, report = [engine.load_weights(bucket) for bucket in buckets]
    probe = make_probe(model, probe_sequences(model.config.vocab_size, avoid=range(7)), pad_id=2)
    answers = engine.score(probe.sequences)
    busy = drawing.is_alive()
    drawing.join(60)
    return (
        [c for i in range(2) for c in drawn[i]],
        report,
        compare_probe(answers, probe.expected, ProofConfig(), version),
        busy,
    )


def test_an_update_in_flight_is_proved_and_every_token_says_its_version(
    engine: Any, tiny_policy: Path, monkeypatch: pytest.MonkeyPatch
):
    old, new = policy(tiny_policy, 1), policy(tiny_policy, 2)
    engine.load_weights(publish(checkpoint_state(old), 10))
    quiet = [c for group in engine.generate(PROMPTS, LONG) for c in group]
    assert {(c.policy_version, c.spans) for c in quiet} == {((10, 10), ())}
    made, report, difference, busy = drawn_over_an_update(engine, new, 11, 20, monkeypatch)
    assert busy, "the probe waited for what is in flight"
    assert report.version == 11 and report.max_relative_error < 1e-5 and difference < 1e-4
    changed = [(before, c) for before, c in zip(quiet, made, strict=True) if c.spans]
    assert len(changed) >= 4  # the others ended before
    rows = [row for i, row in enumerate([p for p in PROMPTS for _ in range(3)]) if made[i].spans]
    under_old, under_new = (recomputed(m, rows, [c for _, c in changed]) for m in (old, new))
    for k, (before, c) in enumerate(changed):
        (first, kept), (second, rest) = c.spans
        assert (first, second) == (10, 11) and c.policy_version == (10, 11) and kept + rest == len(c.token_ids)
        assert kept in (20, 21) and rest > 0
        assert c.token_ids[:kept] == before.token_ids[:kept]
        assert c.logprobs[:kept] == before.logprobs[:kept]  # to the bit: the same batches until then
        found = torch.tensor(c.logprobs)
        torch.testing.assert_close(found[:kept], under_old[k][:kept], atol=1e-4, rtol=0)
        assert (found[kept:] - under_old[k][kept:]).abs().max() > 1e-3
    mixed = max((torch.tensor(c.logprobs[20:]) - under_new[k][20:]).abs().max() for k, (_, c) in enumerate(changed))
    assert mixed > 1e-3, "keys and values of the old weights are kept, so the new ones alone cannot say the same"
    assert any(c.token_ids != before.token_ids for before, c in changed)


def test_after_the_update_completions_are_those_of_a_quiet_engine_with_the_new_weights(engine: Any, tiny_policy: Path):
    model = policy(tiny_policy, 3)
    engine.load_weights(publish(checkpoint_state(model), 12))
    completions = [c for group in engine.generate(PROMPTS, LONG) for c in group]
    assert {c.policy_version for c in completions} == {(12, 12)}
    for c, expected in zip(
        completions, recomputed(model, [p for p in PROMPTS for _ in range(3)], completions), strict=True
    ):
        torch.testing.assert_close(torch.tensor(c.logprobs), expected, atol=1e-4, rtol=0)


def test_a_broken_update_in_flight_stops_at_the_same_sync_and_nothing_more_comes_of_it(
    engine: Any, tiny_policy: Path, monkeypatch: pytest.MonkeyPatch
):
    import rollouts.loading

    old, new = policy(tiny_policy, 4), policy(tiny_policy, 5)
    engine.load_weights(publish(checkpoint_state(old), 13))

    def stale(state: Any) -> Any:
        wrong = "layers.1.self_attn.o_proj.weight"
        return iter({k: v * 1.001 if k.endswith(wrong) else v for k, v in state.items()}.items())

    with monkeypatch.context() as patch:
        patch.setattr(rollouts.loading, "deliver", stale)
        with pytest.raises(WeightMismatch, match=r"version 14.*layers\.1\.self_attn\.o_proj"):
            drawn_over_an_update(engine, new, 14, 5, patch)
    with pytest.raises(WeightMismatch, match="version 14: it may not answer"):
        engine.generate(PROMPTS, LONG)
    engine.load_weights(publish(checkpoint_state(new), 15))
    assert engine.generate(PROMPTS, LONG)[0][0].policy_version == (15, 15)


def test_calls_at_the_same_time_do_not_mix_and_short_ones_do_not_wait(engine: Any, tiny_policy: Path):
    engine.load_weights(publish(checkpoint_state(policy(tiny_policy, 6)), 16))
    alone = {n: engine.generate([PROMPTS[n % 2]], call(n)) for n in range(4)}
    together: dict[int, list[list[Completion]]] = {}
    threads = [
        threading.Thread(target=lambda n=n: together.update({n: engine.generate([PROMPTS[n % 2]], call(n))}))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {n: [c.token_ids for c in g[0]] for n, g in together.items()} == {
        n: [c.token_ids for c in g[0]] for n, g in alone.items()
    }
    ended: list[int] = []
    slow = threading.Thread(target=lambda: (engine.generate(PROMPTS, LONG), ended.append(0)))
    slow.start()
    engine.generate(PROMPTS[:1], Sampling(temperature=1.0, max_tokens=2, seed=1))
    ended.append(1)
    slow.join(60)
    assert ended == [1, 0]


def call(number: int) -> Sampling:
    return Sampling(temperature=1.0, max_tokens=12, samples=2, seed=9, numbers=(number,))


def test_groups_come_as_they_are_whole_and_a_prompts_number_decides_its_draw(engine: Any):
    sampling = Sampling(temperature=1.0, max_tokens=12, samples=2, seed=9)
    whole = [[c.token_ids for c in g] for g in engine.generate(PROMPTS, sampling)]
    second = engine.generate(PROMPTS[1:], Sampling(temperature=1.0, max_tokens=12, samples=2, seed=9, numbers=(1,)))
    assert [c.token_ids for c in second[0]] == whole[1]


def test_what_the_router_watch_cannot_do_is_refused(tiny_policy: Path):
    from rollouts.vllm import VLLMEngine

    with pytest.raises(ConfigError, match="needs routing=fixed"):
        VLLMEngine(str(tiny_policy), EngineConfig(routing="queue", return_experts=True), ProofConfig(),
                   max_model_len=128, eos_token_id=1)  # fmt: skip
    with pytest.raises(ValueError, match="set routing: queue too"):
        EngineConfig(update_in_flight=True)
