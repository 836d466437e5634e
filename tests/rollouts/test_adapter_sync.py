"""Factors alone on the way: where they go, what is sent when, which engine lacks what. No engine with a model here."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from assay.adapter import LoraConfig, adapted, adapters_of, base_of, frozen_items, merged_items, scale_of
from assay.commands.schema import RunConfig
from assay.config import validate
from assay.errors import ConfigError, InfraFailure, WeightMismatch
from assay.policy import load_policy
from assay.tokenizer import train_tokenizer
from grpo.config import GRPOConfig
from grpo.trainer import PolicyTrainer
from rollouts import merging
from rollouts.config import EngineConfig, ProofConfig
from rollouts.fake import FakeEngine
from rollouts.merging import Base, merge, own_factors, places
from rollouts.pool import RolloutPool
from rollouts.weights import Place, Probe, Publication, WeightBundle, checkpoint_items, named, unpack
from tests.moe_policies import make_policy

LORA = LoraConfig(rank=3, alpha=8)
ALONE = EngineConfig(lora_sync="adapter")
PROBE = Probe(sequences=[[3, 4, 5]], expected=[[-1.0, -1.0]])


@pytest.fixture(scope="module", params=["deepseek_v2", "qwen3_moe"])
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(request.param, tmp_path_factory.mktemp("policy"))


def train(model: Any, seed: int = 1, by: float = 0.05) -> None:
    """Move every factor, as an optimizer step does."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for adapter in adapters_of(model).values():
            for part in (adapter.lora_A["default"].weight, adapter.lora_B["default"].weight):
                part.add_(by * torch.randn(part.shape, generator=draw).to(part.dtype))


def make_trainer(policy: Path, dtype: Any = "float32") -> PolicyTrainer:
    config = GRPOConfig(kl={"estimator": "none"})  # type: ignore[arg-type]
    made = PolicyTrainer(policy, config, dtype=dtype, temperature=1.0, pad_id=2, lora=LORA)
    train(made.unwrapped)
    return made


def merged_by_an_engine(published: Publication) -> dict[str, torch.Tensor]:
    """What an engine makes of a publication, tensor by tensor."""
    assert published.base is not None
    base, factors = Base(), {}
    for bucket in published.base:
        base.take(bucket)
    for bucket in published:
        base.check(bucket)
        factors |= dict(unpack(bucket))
    return {name: tensor.clone() for name, tensor in base.merged(factors, bucket)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_engine_merges_the_bits_that_the_trainer_would_have_sent(policy: Path, dtype: str):
    trainer = make_trainer(policy, dtype)
    found = merged_by_an_engine(trainer.publication(ALONE, keep=False))
    model = trainer.unwrapped
    expected = dict(checkpoint_items(base_of(model), merged_items(model)))
    assert list(found) == list(expected) and len(found) > 50
    assert [name for name in found if not torch.equal(found[name].float(), expected[name].float())] == []
    touched = [name for name, tensor in checkpoint_items(base_of(model), frozen_items(model))
               if not torch.equal(tensor.float(), found[name].float())]  # fmt: skip
    assert set(touched) == set(places(model))
    assert all(re.search(r"self_attn\.\w*proj|mlp\.gate\.weight|mlp\.experts\.\d", name) for name in touched)


def test_rows_of_experts_are_named_by_transformers_and_cover_each_parameter_once(policy: Path):
    model = adapted(load_policy(policy), LORA)
    where = places(model)
    gate, up = (where[f"model.layers.1.mlp.experts.5.{part}_proj.weight"] for part in ("gate", "up"))
    assert gate == Place(parameter="model.layers.1.mlp.experts.gate_up_proj", experts=8, expert=5, start=0, stop=32)
    assert up == replace(gate, start=32, stop=64)
    for name, adapter in adapters_of(model).items():
        rows = adapter.lora_B["default"].weight.shape[0]
        mine = [place for place in where.values() if place.parameter == name]
        assert sorted(row for p in mine for row in range(p.expert * rows + p.start, p.expert * rows + p.stop)) == [
            *range(mine[0].experts * rows)
        ]


def test_the_first_sync_brings_the_frozen_weights_and_the_second_the_bytes_of_the_factors(policy: Path):
    trainer, engines = make_trainer(policy), pool([FakeEngine(lambda p, d: [7]) for _ in range(2)])
    factors = sum(p.numel() * 4 for p in trainer.unwrapped.parameters() if p.requires_grad)
    frozen = sum(tensor.numel() * 4 for _, tensor in frozen_items(trainer.unwrapped))
    engines.sync(trainer.publication(ALONE, keep=False), PROBE)
    assert engines.sent_bytes == frozen + factors
    for _ in range(2):
        train(trainer.unwrapped, seed=trainer.version)
        trainer.version += 1
        published = trainer.publication(ALONE, keep=False)
        engines.sync(published, PROBE)
        assert engines.sent_bytes == sum(bucket.size_bytes for bucket in published) == factors


def test_a_copy_of_the_factors_outlives_the_next_step_and_the_frozen_weights_need_none(tiny_policy: Path):
    trainer = make_trainer(tiny_policy)
    own, copy = (trainer.publication(ALONE, keep=keep) for keep in (False, True))
    before = {name: tensor.clone() for name, tensor in merged_by_an_engine(copy).items()}
    list(own)
    train(trainer.unwrapped, seed=9)
    again = merged_by_an_engine(copy)
    assert all(torch.equal(again[name], before[name]) for name in before)
    with pytest.raises(WeightMismatch, match=r"lora_A.* were trained meanwhile"):
        list(own)
    assert copy.base is own.base is not None
    with torch.no_grad():
        base_of(trainer.unwrapped).model.norm.weight.add_(1e-3)
    with pytest.raises(WeightMismatch, match=r"model\.norm\.weight were trained meanwhile"):
        list(copy.base)


def test_merged_tensors_are_held_one_at_a_time(policy: Path):
    published = make_trainer(policy).publication(ALONE, keep=False)
    base, refs, most = kept(published), list[weakref.ref[torch.Tensor]](), 0
    for _, tensor in base.merged(*factors_of(published)):
        refs.append(weakref.ref(tensor))
        most = max(most, sum(ref() is not None for ref in refs))
    assert most <= 2 and len(refs) > 50


def test_an_heir_that_asks_in_the_midst_of_a_forward_pass_gets_the_same(policy: Path):
    """PEFT hooks the fused experts up for the length of their pass, and their parameters have other names in it."""
    trainer = make_trainer(policy)
    published = trainer.publication(ALONE, keep=True)
    before, found = merged_by_an_engine(published), list[dict[str, torch.Tensor]]()
    experts = base_of(trainer.unwrapped).model.layers[1].mlp.experts.get_base_layer()

    def asked(*call: Any) -> None:
        assert any("parametrizations" in name for name, _ in frozen_items(trainer.unwrapped))
        found.append(merged_by_an_engine(published))

    with torch.no_grad():
        hook = experts.register_forward_pre_hook(asked)
        trainer.unwrapped(input_ids=torch.tensor([[3, 4, 5]]))
        hook.remove()
    (again,) = found
    assert list(again) == list(before) and all(torch.equal(again[name], before[name]) for name in before)


# -- which engine lacks what ------------------------------------------------------------------------------------


class Mortal(FakeEngine):
    """Notes what comes, `base` or `factors`, and dies at the bucket it is told to."""

    def __init__(self, dies_at: int = -1) -> None:
        super().__init__(lambda prompt, draw: [7])
        self.dies_at, self.came = dies_at, list[str]()

    def load_weights(self, bundle: WeightBundle) -> Any:
        if len(self.came) == self.dies_at:
            raise InfraFailure("an engine died")
        self.came.append("factors" if bundle.adapter is not None else "base")
        return super().load_weights(bundle)


def pool(engines: Sequence[FakeEngine], heirs: Sequence[FakeEngine] = ()) -> RolloutPool:
    left = list(heirs)
    return RolloutPool(engines, train_tokenizer(["x"], vocab_size=300), ProofConfig(), lambda n: left.pop(0))


def published(version: int = 0, frozen: float = 1.0) -> Publication:
    """One adapted weight and one that is not, in buckets of one tensor."""
    state = {"w": torch.full((4, 3), frozen), "norm": torch.ones(4)}
    where = {"w": Place(parameter="w", experts=1, expert=0, start=0, stop=4)}
    base = Publication(lambda: state.items(), 0, 1, places=where)
    factors = {"w.lora_A": torch.full((2, 3), 1.0 + version), "w.lora_B": torch.ones(4, 2)}
    return Publication(lambda: factors.items(), version, 1, base=base, scale=2.0)


FIRST, LATER = ["base", "base", "factors", "factors"], ["factors", "factors"]


@pytest.mark.parametrize("dies_at", [0, 1, 2, 3])
def test_an_engine_that_dies_in_its_first_sync_leaves_its_heir_all_of_it(dies_at: int):
    other, dead, heir = Mortal(), Mortal(dies_at), Mortal()
    engines = pool([other, dead], [heir])
    engines.sync(published(1), PROBE)
    assert other.came == heir.came == FIRST and len(dead.came) == dies_at
    engines.sync(published(2), PROBE)
    assert other.came == heir.came == FIRST + LATER
    assert other.version == heir.version == 2


def test_an_engine_that_dies_later_is_replaced_with_the_frozen_weights_and_the_others_get_none():
    other, dead, heir = Mortal(), Mortal(len(FIRST + LATER)), Mortal()
    engines = pool([other, dead], [heir])
    for version in range(3):
        engines.sync(published(version), PROBE)
    assert other.came == FIRST + LATER + LATER and heir.came == FIRST
    assert heir.version == 2 and len(engines.recoveries) == 1


def test_weights_that_came_merged_in_between_change_nothing_and_another_base_is_sent_anew():
    engine = Mortal()
    engines = pool([engine])
    engines.sync(published(1), PROBE)
    engines.sync(Publication(lambda: iter([("w", torch.ones(4, 3))]), -1, 1), PROBE)
    engines.sync(published(2), PROBE)
    assert engine.came == [*FIRST, "base", *LATER]  # the one in between
    engines.sync(published(3, frozen=1.5), PROBE)
    assert engine.came[-4:] == FIRST


def test_frozen_weights_are_read_once_for_engines_that_keep_none_and_not_again():
    reads = list[int]()

    def counted(version: int, base: Publication | None = None) -> Publication:
        made = published(version)
        assert made.base is not None
        items = made.base._items
        made.base._items = lambda: (reads.append(version), items())[1]
        if base is not None:
            made.base = base
        return made

    first = counted(1)
    engines = pool([Mortal(), Mortal(), Mortal()])
    engines.sync(first, PROBE)
    assert reads == [1]
    engines.sync(counted(2, first.base), PROBE)
    assert reads == [1]
    engines.sync(counted(3), PROBE)  # of another trainer: engines keep some, so it is asked which these are
    assert reads == [1, 3] and all(e.came == FIRST + LATER + LATER for e in engines._engines)  # type: ignore[attr-defined]
    dead, heir = Mortal(dies_at=1), Mortal()
    pool([dead], [heir]).sync(counted(4), PROBE)
    assert heir.came == FIRST and reads == [1, 3, 4, 4]  # for each of the two


# -- what an engine refuses -------------------------------------------------------------------------------------


def kept(publication: Publication) -> Base:
    base = Base()
    assert publication.base is not None
    for bucket in publication.base:
        base.take(bucket)
    return base


def factors_of(publication: Publication) -> tuple[dict[str, torch.Tensor], WeightBundle]:
    """All of them, and the bucket that ended them."""
    buckets = [*publication]
    return {name: tensor for bucket in buckets for name, tensor in unpack(bucket).items()}, buckets[-1]


def test_what_is_merged_does_not_depend_on_the_versions_before():
    base = kept(published(1))
    for version in range(5):
        dict(base.merged(*factors_of(published(version))))
    again = dict(base.merged(*factors_of(published(1))))
    assert torch.equal(again["w"], torch.full((4, 3), 1.0 + 2.0 * 2 * 2.0)) and torch.equal(
        again["norm"], torch.ones(4)
    )


def merged_in_place(base: Base) -> None:
    """W' where W was: the next version would go on top of it."""
    base._bundles[0].tensors["w"][:] += 1e-3


def damaged_elsewhere(base: Base) -> None:
    base._bundles[1].tensors["norm"][2] = 1.0 + 1e-6


@pytest.mark.parametrize(("harm", "name"), [(merged_in_place, "w"), (damaged_elsewhere, "norm")])
def test_frozen_weights_that_moved_in_the_engine_are_named(harm: Callable[[Base], None], name: str):
    base = kept(published())
    harm(base)
    with pytest.raises(WeightMismatch, match=rf"^{name}: the frozen weights that the engine keeps are not what came"):
        dict(base.merged(*factors_of(published(1))))


def without_the_scale(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float, rounded: bool) -> Any:
    return merge(weight, a, b, 1.0, rounded)


def never_added(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float, rounded: bool) -> Any:
    return weight.float()


def added_twice(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float, rounded: bool) -> Any:
    return merge(merge(weight, a, b, scale, rounded), a, b, scale, rounded)


@pytest.mark.parametrize("wrong", [without_the_scale, never_added, added_twice])
def test_a_wrong_merge_is_named_before_it_is_loaded(
    policy: Path, monkeypatch: pytest.MonkeyPatch, wrong: Callable[..., Any]
):
    trainer = make_trainer(policy)
    monkeypatch.setattr(merging, "merge", wrong)
    said = r"^model\.layers\.0\.self_attn\.\w+\.weight is not the frozen weight with the factors of version 0 added"
    with pytest.raises(WeightMismatch, match=said):
        merged_by_an_engine(trainer.publication(ALONE, keep=False))


def test_the_way_of_the_factors_is_part_of_the_name_of_the_weights():
    digests, where = {"w": "ab"}, {"w": Place(parameter="w", experts=2, expert=0, start=0, stop=4)}
    assert named(digests, where) == named(digests, dict(where))
    assert len({named(digests, where), named({"w": "ac"}, where), named(digests, {}),
                named(digests, {"w": replace(where["w"], expert=1)})}) == 4  # fmt: skip


def test_factors_for_other_frozen_weights_or_none_are_refused():
    with pytest.raises(WeightMismatch, match="factors of version 2 are for the trainer's frozen weights .* keeps none"):
        Base().check(next(iter(published(2))))
    with pytest.raises(WeightMismatch, match=r"frozen weights [0-9a-f]{8}, and the engine keeps [0-9a-f]{8}"):
        kept(published()).check(next(iter(published(2, frozen=1.5))))
    with pytest.raises(WeightMismatch, match=r"version 3 has not one pair of factors for each parameter: w\.lora_B"):
        dict(kept(published()).merged({"w.lora_A": torch.ones(2, 3)}, factors_of(published(3))[1]))


def test_factors_of_the_version_before_are_named_where_they_are_merged():
    (_, last), (stale, _) = factors_of(published(4)), factors_of(published(3))
    with pytest.raises(WeightMismatch, match=r"w\.lora_A that is to be merged is not the factor of version 4"):
        dict(kept(published()).merged(stale, last))


def test_factors_of_an_expert_are_cut_as_peft_lays_them_out(policy: Path):
    model = adapted(load_policy(policy), LORA)
    train(model)
    name = "model.layers.2.mlp.experts.down_proj"
    adapter = adapters_of(model)[name]
    factors = {f"{name}.lora_{k}": getattr(adapter, f"lora_{k}")["default"].weight.detach() for k in "AB"}
    delta = adapter.get_delta_weight("default")
    for e in range(8):
        a, b = own_factors(places(model)[f"model.layers.2.mlp.experts.{e}.down_proj.weight"], factors)
        torch.testing.assert_close(scale_of(model) * b @ a, delta[e], atol=1e-7, rtol=1e-6)


# -- what is refused before anything starts ---------------------------------------------------------------------


def configured(**engine: Any) -> Iterator[RunConfig]:
    tree = {"run_dir": "r", "policy": {"init": {}, "lora": {}}, "tasks": {"train": {"path": "t.jsonl"}}}
    tree |= {"grpo": {"max_lag": 1, "flow": True}, "rollouts": {"engine": {"routing": "queue", **engine}}}
    yield validate(RunConfig, tree, "test")
    yield validate(RunConfig, {**tree, "policy": {"init": {}}}, "test")


def test_combinations_that_cannot_be_are_refused_with_a_sentence():
    configs = configured(lora_sync="adapter")
    assert next(configs).rollouts.engine.lora_sync == "adapter"
    with pytest.raises(ConfigError, match=r"sends the factors of policy\.lora, and there is none"):
        next(configs)
    with pytest.raises(ConfigError, match="needs tensor_parallel=1"):
        next(configured(lora_sync="adapter", tensor_parallel=2))
    with pytest.raises(ConfigError, match="has not been tried with update_in_flight"):
        next(configured(lora_sync="adapter", update_in_flight=True))
    assert EngineConfig().lora_sync == "merged"
