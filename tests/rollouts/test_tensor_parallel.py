"""One engine in two processes, each with a slice of every weight: weights in buckets, the proof of both slices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import rollouts.loading
from assay.errors import ConfigError, WeightMismatch
from assay.policy import load_policy, load_tokenizer
from rollouts.config import EngineConfig, ProofConfig
from rollouts.engine import Sampling
from rollouts.weights import (
    Publication,
    checkpoint_items,
    checkpoint_state,
    compare_probe,
    make_probe,
    probe_sequences,
    publish,
)

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
KIB = 1024


def start(policy: Path, **options: Any) -> Any:
    from rollouts.vllm import VLLMEngine

    eos = load_tokenizer(policy).eos_token_id
    config = EngineConfig(max_num_seqs=16, threads=1, tensor_parallel=2, **options)
    return VLLMEngine(str(policy), config, ProofConfig(), max_model_len=128, eos_token_id=eos)


@pytest.fixture(scope="module")
def engine(tiny_policy: Path) -> Iterator[Any]:
    made = start(tiny_policy)
    yield made
    made.close()


@pytest.fixture
def model(tiny_policy: Path) -> Any:
    return load_policy(tiny_policy).eval()


def published(model: Any, version: int) -> Publication:
    """The policy, moved by what the version says, in buckets of 16 KiB."""
    draw = torch.Generator().manual_seed(version)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.01)
    return Publication(lambda: checkpoint_items(model, model.state_dict().items()), version, 16 * KIB)


def sync(engine: Any, publication: Publication) -> Any:
    *before, report = (engine.load_weights(bucket) for bucket in publication)
    assert len(before) > 5 and before == [None] * len(before)
    return report


def test_both_slices_are_proved_and_compute_what_the_trainer_computes(engine: Any, model: Any):
    probe = probe_sequences(model.config.vocab_size, avoid=range(7))
    for version in range(2):
        report = sync(engine, published(model, version))
        assert report.version == engine.version == version
        assert report.max_relative_error < 1e-5
        assert report.modules_checked % 2 == 0 and report.modules_checked > 2 * 25  # of both processes
        asked = make_probe(model, probe, pad_id=2)
        assert compare_probe(engine.score(asked.sequences), asked.expected, ProofConfig(), version) < 1e-4
    (group,) = engine.generate([[0, 20, 30]], Sampling(temperature=1.0, max_tokens=6, samples=3, seed=1))
    assert [c.policy_version for c in group] == [(1, 1)] * 3


def harmed(worker: Any, rank: int, part: str, by: float) -> None:
    """From now on the delivery to one process changes the tensors of one module."""
    if worker.rank == rank:
        rollouts.loading.deliver = lambda sent: (
            (name, tensor * (1 + by) if part in name else tensor) for name, tensor in sent.items()
        )


def mended(worker: Any) -> None:
    rollouts.loading.deliver = lambda sent: iter(sent.items())


@pytest.mark.parametrize(
    "part",
    [
        "layers.0.mlp.down_proj",  # cut along its input
        "layers.1.self_attn.o_proj",
        "layers.0.mlp.up_proj",  # cut along its output, and fused with another
        "layers.1.mlp.experts.2",
        "layers.1.mlp.gate",  # whole in both
        "layers.1.input_layernorm",
        "embed_tokens",
    ],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_harm_to_the_slice_of_one_process_is_named_with_the_process(engine: Any, model: Any, part: str, rank: int):
    version = 10 + rank
    sync(engine, published(model, version))
    engine._llm.collective_rpc(harmed, args=(rank, part, 1e-3))
    where = {"layers.0.mlp.up_proj": "layers.0.mlp.gate_up_proj"}.get(part, part)
    with pytest.raises(WeightMismatch, match=rf"version {version + 10}: worker {rank} of 2: .* model\.{where} \("):
        sync(engine, published(model, version + 10))
    assert engine.version == version
    engine._llm.collective_rpc(mended)
    assert sync(engine, published(model, version + 20)).version == version + 20


def swap_the_slices(worker: Any) -> None:
    """Each process gets what is the other's: whole in themselves, and of the right shapes."""

    def swapped(sent: Any) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in sent.items():
            halves = tensor.chunk(2, dim=1) if "o_proj" in name else (tensor,)
            yield name, torch.cat(halves[::-1], dim=1) if len(halves) == 2 else tensor

    rollouts.loading.deliver = swapped


def test_slices_that_changed_places_are_named(engine: Any, model: Any):
    engine._llm.collective_rpc(swap_the_slices)
    with pytest.raises(WeightMismatch, match=r"worker 0 of 2: .*self_attn\.o_proj \("):
        sync(engine, published(model, 40))
    engine._llm.collective_rpc(mended)


def test_a_damaged_bucket_is_refused_by_each_process(engine: Any, model: Any):
    bundle = publish(checkpoint_state(model), 50)
    name = next(name for name in bundle.tensors if "o_proj" in name)
    bundle.tensors[name][0, 0] += 1e-6
    with pytest.raises(WeightMismatch, match=rf"worker 0 of 2: version 50 did not arrive .*{name} differ"):
        engine.load_weights(bundle)


def test_experts_of_other_processes_cannot_be_listened_to(tiny_policy: Path):
    with pytest.raises(ConfigError, match="needs tensor_parallel=1"):
        start(tiny_policy, return_experts=True)
