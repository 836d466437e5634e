"""A version in buckets: bounded, in order, whole, bound to its digests; engines that die between two of them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from assay.adapter import LoraConfig, adapted, base_of, merged_items, merged_state
from assay.errors import InfraFailure, WeightMismatch
from assay.policy import load_policy
from assay.tokenizer import train_tokenizer
from grpo.config import GRPOConfig
from grpo.trainer import PolicyTrainer
from rollouts.config import EngineConfig, ProofConfig
from rollouts.fake import FakeEngine
from rollouts.pool import RolloutPool
from rollouts.weights import (
    Arrival,
    Probe,
    Publication,
    WeightBundle,
    checkpoint_items,
    checkpoint_state,
    publish,
    unpack,
)

KIB = 1024
State = dict[str, torch.Tensor]


def state(count: int = 10, kib: int = 4) -> State:
    return {f"{i}.weight": torch.full((kib, 256), float(i)) for i in range(count)}


def published(tensors: State, bucket_kib: int = 8, version: int = 3) -> Publication:
    return Publication(lambda: tensors.items(), version, bucket_kib * KIB)


def test_buckets_are_as_large_as_they_may_be_and_say_it_all():
    tensors = state() | {"large": torch.ones(64, 256)}
    buckets = list(published(tensors))
    assert [b.size_bytes // KIB for b in buckets] == [8, 8, 8, 8, 8, 64]
    assert [b.part for b in buckets] == list(range(6))
    assert [b.published is None for b in buckets] == [True] * 5 + [False]
    assert buckets[-1].published == publish(tensors, 3).digests
    back = {name: tensor for bucket in buckets for name, tensor in unpack(bucket).items()}
    assert back.keys() == tensors.keys() and all(torch.equal(back[name], tensors[name]) for name in back)


def test_tensors_in_main_memory_are_looked_at_where_they_are():
    own = torch.ones(4)
    (only,) = published({"own": own})
    assert only.tensors["own"].ctypes.data == own.data_ptr() and not only.tensors["own"].flags.writeable


def test_what_was_trained_meanwhile_is_not_published_again():
    tensors = state()
    publication = published(tensors)
    assert len(list(publication)) == len(list(publication)) == 5
    tensors["6.weight"][0, 0] += 1e-3
    with pytest.raises(WeightMismatch, match=r"version 3 cannot be published again: 6\.weight were trained"):
        list(publication)


def dropped(buckets: list[WeightBundle]) -> list[WeightBundle]:
    return buckets[:2] + buckets[3:]


def twice(buckets: list[WeightBundle]) -> list[WeightBundle]:
    return buckets[:2] + buckets[1:]


def exchanged(buckets: list[WeightBundle]) -> list[WeightBundle]:
    return [buckets[0], buckets[2], buckets[1], *buckets[3:]]


def of_the_version_before(buckets: list[WeightBundle]) -> list[WeightBundle]:
    return [*buckets[:2], replace(buckets[2], version=2), *buckets[3:]]


def one_renumbered(buckets: list[WeightBundle]) -> list[WeightBundle]:
    """A lost bucket that nobody counted: those after it have taken its numbers."""
    return [replace(b, part=i) for i, b in enumerate(dropped(buckets))]


def stale(buckets: list[WeightBundle]) -> list[WeightBundle]:
    """A bucket of the version before under this one's number, and whole in itself."""
    before = {name: tensor - 1 for name, tensor in unpack(buckets[2]).items()}
    (old,) = published(before, 64)
    return [*buckets[:2], replace(old, part=2, published=None), *buckets[3:]]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (dropped, "bucket 3 came in place of bucket 2 of version 3"),
        (twice, "bucket 1 came in place of bucket 2 of version 3"),
        (exchanged, "bucket 2 came in place of bucket 1 of version 3"),
        (of_the_version_before, "bucket 2 came in place of bucket 2 of version 3"),
        (one_renumbered, r"4\.weight, 5\.weight of what was published never came"),
        (stale, r"4\.weight, 5\.weight of what was published never came"),
        (lambda buckets: buckets[1:], "bucket 1 came in place of bucket 0"),
    ],
)
def test_buckets_that_are_lost_doubled_mixed_up_or_stale_are_refused(harm: Any, said: str):
    arrival = Arrival()
    with pytest.raises(WeightMismatch, match=said):
        for bucket in harm(list(published(state()))):
            arrival.take(bucket)
    for bucket in published(state(), version=4):  # and the next version starts anew
        arrival.take(bucket)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, targets=("attention", "router", "experts"))])
def test_module_by_module_the_checkpoint_is_the_same(tiny_policy: Path, lora: LoraConfig | None):
    model: Any = load_policy(tiny_policy)
    model = model if lora is None else adapted(model, lora)
    whole = checkpoint_state(base_of(model), merged_state(model))
    parts = dict(checkpoint_items(base_of(model), merged_items(model)))
    assert parts.keys() == whole.keys() and len(whole) > 20
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_a_trainer_publishes_the_same_in_buckets_and_a_copy_outlives_its_next_step(
    tiny_policy: Path, lora: LoraConfig | None
):
    config = GRPOConfig(kl={"estimator": "none"})  # type: ignore[arg-type]
    trainer = PolicyTrainer(tiny_policy, config, dtype="float32", temperature=1.0, pad_id=2, lora=lora)
    whole = trainer.publish().digests
    own, copy = (trainer.publication(EngineConfig(sync_bucket_mib=1), keep=keep) for keep in (False, True))
    for publication in (own, copy):
        assert [*publication][-1].published == whole and publication.version == 0
    with torch.no_grad():
        for parameter in trainer.unwrapped.parameters():
            parameter.add_(0.01)
    assert [*copy][-1].published == whole
    with pytest.raises(WeightMismatch, match="trained meanwhile"):
        list(own)


class Mortal(FakeEngine):
    """Dies at a bucket, and stays dead. Keeps what it held when its last bucket came."""

    def __init__(self, dies_at: int = -1) -> None:
        super().__init__(lambda prompt, draw: [7])
        self.dies_at, self.parts = dies_at, list[int]()

    def load_weights(self, bundle: WeightBundle) -> Any:
        self.parts.append(bundle.part)
        if bundle.part == self.dies_at or self.parts.count(-1):
            self.parts.append(-1)
            raise InfraFailure(f"an engine died at bucket {bundle.part}")
        return super().load_weights(bundle)


PROBE = Probe(sequences=[[3, 4, 5]], expected=[[-1.0, -1.0]])


def pool(engines: Sequence[FakeEngine], heirs: Sequence[FakeEngine]) -> RolloutPool:
    left = list(heirs)
    return RolloutPool(engines, train_tokenizer(["x"], vocab_size=300), ProofConfig(), lambda n: left.pop(0))


class Counting(FakeEngine):
    """How many tensors of the buckets before are still held by anybody when one comes."""

    def __init__(self) -> None:
        super().__init__(lambda prompt, draw: [7])
        self.refs, self.alive = list[weakref.ref[Any]](), list[int]()

    def load_weights(self, bundle: WeightBundle) -> Any:
        gc.collect()
        self.alive.append(sum(ref() is not None for ref in self.refs))
        self.refs += [weakref.ref(array) for array in bundle.tensors.values()]
        return super().load_weights(bundle)


def test_no_bucket_is_held_when_the_next_one_comes():
    """What is made for the journey is gone after it: the policy is never held twice."""
    engine = Counting()
    turned = {name: tensor.t() for name, tensor in state().items()}  # contiguous only once it is copied
    pool([engine], []).sync(published(turned), PROBE)
    assert engine.alive == [0] * 5 and len(engine.refs) == 10


@pytest.mark.parametrize("dies_at", [0, 2, 4])
def test_an_engine_that_dies_between_buckets_leaves_its_heir_the_whole_version(dies_at: int):
    other, dead, heir = Mortal(), Mortal(dies_at), Mortal()
    passes = 0

    def items() -> Iterator[tuple[str, torch.Tensor]]:
        nonlocal passes
        passes += 1
        return iter(state().items())

    engines = pool([other, dead], [heir])
    reports, difference = engines.sync(Publication(items, 5, 8 * KIB), PROBE)
    assert [report.version for report in reports] == [5, 5] and difference == 0
    assert other.parts == heir.parts == [0, 1, 2, 3, 4]  # the one that lived was asked once
    assert dead.parts == [*range(dies_at + 1), -1]
    assert passes == 2 and other.version == heir.version == 5
    assert len(engines.recoveries) == 1


def test_an_heir_that_dies_too_leaves_it_to_another():
    engines = pool([Mortal(1)], [Mortal(3), Mortal(0), Mortal()])
    reports, _ = engines.sync(published(state(), version=6), PROBE)
    assert [report.version for report in reports] == [6]
    assert len(engines.recoveries) == 3
