"""The optimizer step: gradients that no split can change, numbers by hand, and failures that come before the step."""

from __future__ import annotations

import json
import resource
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from assay.adapter import LoraConfig
from assay.checkpoint import latest_valid, writing_step
from assay.errors import CheckpointError, ConfigError, TrainingDiverged
from assay.metrics import undocumented
from assay.policy import InitConfig, PolicyConfig, create_policy, load_policy, load_tokenizer
from assay.sharded import Copies, whole
from grpo.algorithms import ALGORITHMS
from grpo.batch import TrainBatch
from grpo.config import CorrectionConfig, EntropyConfig, GRPOConfig, KLConfig, OptimizerConfig
from grpo.trainer import PolicyTrainer


def make_trainer(policy: Path, lora: Any = None, experts: Any = None, **settings: Any) -> PolicyTrainer:
    config = GRPOConfig(
        **{"learning_rate": 1e-2, "optimizer": OptimizerConfig(grad_clip=1e9), "kl": KLConfig(coef=0.1), **settings}
    )
    return PolicyTrainer(policy, config, dtype="float32", temperature=1.0, pad_id=2, lora=lora, experts=experts)


def make_batch(trainer: PolicyTrainer, advantages: tuple[float, ...] = (1.0, -0.5, 0.8, -1.3)) -> TrainBatch:
    prompts = ((0, 20, 30, 40), (0, 20, 30, 40), (0, 50), (0, 50))
    completions = ((60, 61, 62, 63, 64, 1), (70, 1), (80, 81, 82, 1), (90, 91, 92, 93, 94, 95, 96, 1))
    lengths = [len(c) for c in completions]
    return TrainBatch(
        prompts=prompts,
        completions=completions,
        engine_logprobs=tuple((-5.0,) * n for n in lengths),
        advantages=advantages,
        weights=tuple(1 / (4 * n) for n in lengths),
        oldest_version=0,
        counts={},
    )


def gradient(trainer: PolicyTrainer, batch: TrainBatch) -> dict[str, torch.Tensor]:
    """The gradient of a step, caught before the optimizer uses it."""
    caught: dict[str, torch.Tensor] = {}
    step = trainer.optimizer.step

    def catch(*args: Any, **kwargs: Any) -> None:
        caught.update({n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None})

    trainer.optimizer.step = catch  # type: ignore[method-assign]
    try:
        trainer.step(batch)
    finally:
        trainer.optimizer.step = step  # type: ignore[method-assign]
    return caught


@pytest.mark.parametrize("micro_batch_tokens", [8, 14, 30])
def test_no_split_into_micro_batches_changes_the_gradient(tiny_policy: Path, micro_batch_tokens: int):
    whole = make_trainer(tiny_policy, micro_batch_tokens=10_000)
    parts = make_trainer(tiny_policy, micro_batch_tokens=micro_batch_tokens)
    for trainer in (whole, parts):  # away from the reference, so that the KL has a gradient too
        perturb(trainer)
    a, b = gradient(whole, make_batch(whole)), gradient(parts, make_batch(parts))
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-6, rtol=1e-4)


def test_the_order_of_the_group_does_not_change_the_gradient(tiny_policy: Path):
    trainer = make_trainer(tiny_policy)
    batch = make_batch(trainer)
    order = (2, 0, 3, 1)
    turned = replace(
        batch,
        **{
            name: tuple(getattr(batch, name)[i] for i in order)
            for name in ("prompts", "completions", "engine_logprobs", "advantages", "weights")
        },
    )
    a = gradient(trainer, batch)
    b = gradient(make_trainer(tiny_policy), turned)
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-6, rtol=1e-4)


def test_zero_advantage_at_the_reference_is_no_gradient_at_all(tiny_policy: Path):
    trainer = make_trainer(tiny_policy)
    assert all(not g.any() for g in gradient(trainer, make_batch(trainer, (0.0,) * 4)).values())


def perturb(trainer: PolicyTrainer) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)


def test_the_metrics_are_the_formulas_by_a_plain_forward_pass(tiny_policy: Path):
    trainer = make_trainer(tiny_policy)
    perturb(trainer)
    batch = make_batch(trainer)
    reference = load_policy(tiny_policy).eval()
    policy, kl, mismatch = 0.0, 0.0, 0.0
    for prompt, completion, advantage, weight in zip(
        batch.prompts, batch.completions, batch.advantages, batch.weights, strict=True
    ):
        ids = torch.tensor([[*prompt, *completion]])
        targets = torch.tensor(completion)[:, None]
        at = slice(len(prompt) - 1, -1)
        with torch.no_grad():
            new = trainer.unwrapped(ids).logits[0, at].log_softmax(-1).gather(1, targets)[:, 0].double()
            old = reference(ids).logits[0, at].log_softmax(-1).gather(1, targets)[:, 0].double()
        policy -= advantage * weight * len(completion)  # the ratio is 1: -A for every token
        d = old - new
        kl += weight * (d.exp() - d - 1).sum().item()
        mismatch += ((new + 5).exp() - (new + 5) - 1).sum().item()
    metrics = trainer.step(batch)
    assert metrics["loss/policy"] == pytest.approx(policy, rel=1e-5)
    assert metrics["loss/kl"] == pytest.approx(0.1 * kl, rel=1e-3)
    assert metrics["mismatch/k3"] == pytest.approx(mismatch / batch.num_tokens, rel=1e-3)
    assert metrics["tokens/trained"] == 20


def test_a_step_raises_the_log_prob_of_what_was_better(tiny_policy: Path):
    trainer = make_trainer(tiny_policy, learning_rate=1e-3)
    batch = make_batch(trainer, (1.0, -1.0, 1.0, -1.0))
    sequences = [[*p, *c] for p, c in zip(batch.prompts, batch.completions, strict=True)]
    before = [sum(row) for row in trainer.probe(sequences).expected]
    for _ in range(5):
        trainer.step(batch)
    after = [sum(row) for row in trainer.probe(sequences).expected]
    assert after[0] > before[0]
    assert after[2] > before[2]
    assert trainer.version == 5


def test_several_updates_use_the_log_probs_of_before(tiny_policy: Path):
    trainer = make_trainer(tiny_policy, updates_per_rollout=3, learning_rate=3e-2)
    metrics = trainer.step(make_batch(trainer))
    assert metrics["clip/share"] > 0
    assert trainer.version == 1


def test_an_infinite_loss_stops_before_the_optimizer(tiny_policy: Path):
    trainer = make_trainer(tiny_policy)
    before = {n: p.clone() for n, p in trainer.model.named_parameters()}
    with pytest.raises(TrainingDiverged, match="the optimizer did not step"):
        trainer.step(make_batch(trainer, (float("inf"), 0.0, 0.0, 0.0)))
    assert all(torch.equal(before[n], p) for n, p in trainer.model.named_parameters())
    assert all(p.grad is None or not p.grad.any() for p in trainer.model.parameters())


def test_saved_and_restored_goes_on_as_if_nothing_had_happened(tiny_policy: Path, tmp_path: Path):
    straight = make_trainer(tiny_policy)
    for _ in range(4):
        straight.step(make_batch(straight))
    first = make_trainer(tiny_policy)
    for _ in range(2):
        first.step(make_batch(first))
    first.save(tmp_path)
    second = make_trainer(tiny_policy)
    second.restore(tmp_path)
    for _ in range(2):
        second.step(make_batch(second))
    assert second.version == straight.version == 4
    for (name, a), (_, b) in zip(straight.model.named_parameters(), second.model.named_parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4)])
def test_a_snapshot_written_after_further_steps_is_what_was_saved_then(
    tiny_policy: Path, tmp_path: Path, lora: LoraConfig | None
):
    trainer = make_trainer(tiny_policy, lora=lora, kl=KLConfig(coef=0.1, reset_every=0 if lora else 2))
    for _ in range(3):
        trainer.step(make_batch(trainer))
    write, live = trainer.snapshot(), trainer.snapshot(copied=False)
    trainer.save(tmp_path / "then")
    for _ in range(2):
        trainer.step(make_batch(trainer))
    write(tmp_path / "later")
    assert contents(tmp_path / "later") == contents(tmp_path / "then")
    live(tmp_path / "live")
    assert contents(tmp_path / "live") != contents(tmp_path / "then"), "else nothing would have been copied"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_copy_takes_what_is_trained_and_leaves_tied_weights_tied():
    moving, frozen = torch.ones(3), torch.ones(3)
    given = {"a": moving, "tied": moving, "cut": moving[:2], "frozen": frozen, "list": [moving, 5]}
    made = whole(given, plain=Copies([moving]))
    moving += 1
    assert made["a"].tolist() == [1, 1, 1] and made["cut"].tolist() == [1, 1] and made["list"] == [made["a"], 5]
    assert made["tied"] is made["a"] and made["frozen"] is frozen


def test_a_checkpoint_of_another_architecture_is_one_line(tiny_policy: Path, tmp_path: Path):
    other = create_policy(
        PolicyConfig(init=InitConfig(hidden_size=64, num_hidden_layers=2), vocab_size=300),
        load_tokenizer(tiny_policy),
        0,
        tmp_path / "other",
    )
    trainer = make_trainer(other)
    trainer.save(tmp_path)
    with pytest.raises(CheckpointError, match="another architecture"):
        make_trainer(tiny_policy).restore(tmp_path)


def test_a_write_that_fails_for_real_leaves_the_checkpoint_before_it_valid(tiny_policy: Path, tmp_path: Path):
    """The kernel refuses to let files grow, as on a full disk; safetensors and torch.save each fail in their way."""
    trainer = make_trainer(tiny_policy)
    trainer.step(make_batch(trainer))
    with writing_step(tmp_path, 1) as folder:
        trainer.save(folder)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for limit in (20_000, 10_000_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (min(limit, weights_bytes(tmp_path) + 1000), hard))
            with (
                pytest.raises(CheckpointError, match="cannot be written") as caught,
                writing_step(tmp_path, 2) as folder,
            ):
                trainer.save(folder)
            assert "\n" not in str(caught.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert latest_valid(tmp_path) == tmp_path / "step-00000001"
    make_trainer(tiny_policy).restore(tmp_path / "step-00000001")
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def weights_bytes(root: Path) -> int:
    """Size of the model file: the optimizer's, twice as large, is the one that no longer fits."""
    return (root / "step-00000001" / "model" / "model.safetensors").stat().st_size


VARIANTS: dict[str, dict[str, Any]] = {
    "gspo": {"loss": "gspo", "clip": (3e-4, 4e-4)},
    "cispo, sequence mask": {
        "loss": "cispo",
        "clip": (0.0, 0.2),
        "correction": CorrectionConfig(kind="sequence_mask", band=(0.0, 1e9)),
    },
    "icepop, unbiased KL": {
        "correction": CorrectionConfig(kind="icepop", band=(0.0, 2.0), off_policy_threshold=0.1),
        "kl": KLConfig(estimator="unbiased", coef=0.1),
    },
    "entropy bonus": {"entropy": EntropyConfig(coef=0.1)},
}


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_no_split_changes_the_gradient_of_any_loss(tiny_policy: Path, settings: dict[str, Any]):
    """Each completion alone in a forward pass, or all together; and in rows or in ranks: three of them here."""
    whole, parts = (make_trainer(tiny_policy, micro_batch_tokens=n, **settings) for n in (10_000, 8))
    for trainer in (whole, parts):
        perturb(trainer)
    a, b = gradient(whole, make_batch(whole)), gradient(parts, make_batch(parts))
    ranks = [as_rank(make_trainer(tiny_policy, **settings), rank, 3) for rank in range(3)]
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(a[name], sum(r[name] for r in ranks if name in r), atol=1e-6, rtol=1e-4)
    assert any(g.abs().max() > 1e-3 for g in a.values())


def as_rank(trainer: PolicyTrainer, rank: int, world: int) -> dict[str, torch.Tensor]:
    """The gradient of one rank's share of the rows, before it is exchanged."""
    perturb(trainer)
    whole = trainer._micro_batches
    trainer._micro_batches = lambda part: [m.share(rank, world) for m in whole(part)]  # type: ignore[method-assign]
    return gradient(trainer, make_batch(trainer))


def test_the_entropy_bonus_has_the_gradient_of_the_entropy(tiny_policy: Path):
    trainer = make_trainer(tiny_policy, kl=KLConfig(estimator="none"), entropy=EntropyConfig(coef=0.3))
    perturb(trainer)
    batch = make_batch(trainer, (0.0,) * 4)
    found = gradient(trainer, batch)
    total = 0.0
    for prompt, completion in zip(batch.prompts, batch.completions, strict=True):
        logits = trainer.unwrapped(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
        total = total + (logits.softmax(-1) * logits.log_softmax(-1)).sum()
    trainer.model.zero_grad()
    (0.3 * total / batch.num_tokens).backward()
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-6, rtol=1e-4)


def test_the_entropy_seeks_its_target_and_goes_on_after_a_restart(tiny_policy: Path, tmp_path: Path):
    seek = EntropyConfig(target=50.0, step=0.01, max_coef=0.02)
    trainer = make_trainer(tiny_policy, entropy=seek)
    seen = [trainer.step(make_batch(trainer))["entropy/coefficient"] for _ in range(4)]
    assert seen == pytest.approx([0.0, 0.01, 0.02, 0.02])
    trainer.save(tmp_path)
    again = make_trainer(tiny_policy, entropy=seek)
    again.restore(tmp_path)
    a, b = again.step(make_batch(again)), trainer.step(make_batch(trainer))
    assert a == b
    assert a["loss/entropy"] == pytest.approx(-0.02 * a["entropy"], rel=1e-5)
    assert a["loss/total"] == pytest.approx(a["loss/policy"] + a["loss/kl"] + a["loss/entropy"])


def test_without_a_reference_none_is_held_and_nothing_pulls(tiny_policy: Path):
    without = make_trainer(tiny_policy, kl=KLConfig(estimator="none"))
    unused = make_trainer(tiny_policy, kl=KLConfig(coef=0))
    assert without.reference is None
    for trainer in (without, unused):
        perturb(trainer)
    a, b = gradient(without, make_batch(without)), gradient(unused, make_batch(unused))
    assert all(torch.equal(a[name], b[name]) for name in b)
    assert "kl/reference" not in without.step(make_batch(without))


def test_the_reference_is_reset_and_a_restart_keeps_it(tiny_policy: Path, tmp_path: Path):
    settings = {"kl": KLConfig(reset_every=2), "learning_rate": 1e-2}
    trainer = make_trainer(tiny_policy, **settings)
    distances = []
    for step in range(5):
        if step == 3:
            trainer.save(tmp_path)
        distances.append(trainer.step(make_batch(trainer))["kl/reference"])
    assert [d > 1e-6 for d in distances] == [False, True, False, True, False]
    again = make_trainer(tiny_policy, **settings)
    again.restore(tmp_path)
    assert [again.step(make_batch(again))["kl/reference"] for _ in range(2)] == distances[3:]


def test_mini_batches_are_one_optimizer_step_each_and_keep_the_log_probs_of_before(tiny_policy: Path):
    trainer = make_trainer(tiny_policy, learning_rate=3e-2, mini_batches=2)
    batch = replace(make_batch(trainer), mini_batches=(0, 0, 1, 1), weights=tuple(1 / (2 * n) for n in (6, 2, 4, 8)))
    metrics = trainer.step(batch)
    assert next(iter(trainer.optimizer.state.values()))["step"] == 2
    assert trainer.version == 1
    assert metrics["clip/share"] > 0  # the second half met a policy that had moved
    assert metrics["tokens/trained"] == 20
    alone = make_trainer(tiny_policy, learning_rate=3e-2)
    assert alone.step(batch.parts()[0])["clip/share"] == 0


def test_corrections_and_the_histogram_are_measured_every_step(tiny_policy: Path):
    trainer = make_trainer(tiny_policy, correction=CorrectionConfig(kind="icepop", band=(0.5, 5.0)))
    batch = make_batch(trainer)
    own = trainer.probe([[*p, *c] for p, c in zip(batch.prompts, batch.completions, strict=True)]).expected
    exact = [row[len(p) - 1 :] for p, row in zip(batch.prompts, own, strict=True)]
    shift = {0: 3.0, 5: 0.02, 7: -0.3}  # nats, of three of the twenty tokens
    flat = iter(range(20))
    engine = tuple(tuple(value - shift.get(next(flat), 0.0) for value in row) for row in exact)
    metrics = trainer.step(replace(batch, engine_logprobs=engine))
    assert metrics["mismatch/above_0.001"] == pytest.approx(3 / 20)
    assert metrics["mismatch/above_0.01"] == pytest.approx(3 / 20)
    assert metrics["mismatch/above_0.1"] == pytest.approx(2 / 20)
    assert metrics["mismatch/above_1"] == pytest.approx(1 / 20)
    assert metrics["correction/masked"] == pytest.approx(1 / 20)  # e^3 is above 5
    assert metrics["correction/truncated"] == 0
    assert metrics["mismatch/max_abs_logratio"] == pytest.approx(3, abs=1e-4)


def test_process_supervision_of_equal_steps_is_the_advantage_itself(tiny_policy: Path):
    trainer = make_trainer(tiny_policy)
    batch = make_batch(trainer)
    spread = tuple((a,) * len(c) for a, c in zip(batch.advantages, batch.completions, strict=True))
    a, b = gradient(trainer, batch), gradient(trainer, replace(batch, advantages=spread))
    assert all(torch.equal(a[name], b[name]) for name in a)
    late = tuple((0.0,) * (len(c) - 1) + (1.0,) for c in batch.completions)
    c = gradient(trainer, replace(batch, advantages=late))
    assert any(not torch.allclose(a[name], c[name]) for name in a)


@pytest.mark.parametrize("pad_id", [1, 2])
def test_the_end_token_is_trained_also_where_it_is_the_pad_token(tiny_policy: Path, pad_id: int):
    """Id 1 ends every completion; packing goes by positions, never by ids."""
    config = GRPOConfig(learning_rate=1e-2, optimizer=OptimizerConfig(grad_clip=1e9))
    trainer = PolicyTrainer(tiny_policy, config, dtype="float32", temperature=1.0, pad_id=pad_id)
    reference = PolicyTrainer(tiny_policy, config, dtype="float32", temperature=1.0, pad_id=77)
    batch = make_batch(trainer)
    assert trainer._micro_batches(batch)[0].targets().tolist().count(1) == 4
    a, b = gradient(trainer, batch), gradient(reference, batch)
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-6, rtol=1e-4)
    cut = replace(
        batch,
        completions=tuple(c[:-1] for c in batch.completions),
        engine_logprobs=tuple(e[:-1] for e in batch.engine_logprobs),
    )
    assert any(not torch.allclose(a[name], g, atol=1e-3) for name, g in gradient(reference, cut).items())


def test_a_loss_that_is_no_number_in_a_later_micro_batch_stops_before_the_optimizer(tiny_policy: Path):
    trainer = make_trainer(tiny_policy, micro_batch_tokens=8)
    before = {n: p.clone() for n, p in trainer.model.named_parameters()}
    with pytest.raises(TrainingDiverged, match="the loss is nan.*the optimizer did not step"):
        trainer.step(make_batch(trainer, (1.0, -1.0, 0.5, float("nan"))))
    assert all(torch.equal(before[n], p) for n, p in trainer.model.named_parameters())
    assert all(p.grad is None or not p.grad.any() for p in trainer.model.parameters())


@pytest.mark.parametrize("bad", [1, 2, 3])
def test_a_later_update_that_cannot_be_made_says_how_many_were(tiny_policy: Path, bad: int):
    """Two mini-batches, twice: whichever of the four fails, the count is the optimizer's own."""
    trainer = make_trainer(tiny_policy, mini_batches=2, updates_per_rollout=2)
    batch = replace(make_batch(trainer), mini_batches=(0, 0, 1, 1))
    step, calls = trainer.optimizer.step, []

    def spoil(*args: Any, **kwargs: Any) -> None:
        step(*args, **kwargs)
        calls.append(1)
        if len(calls) == bad:  # weights that blow up in this update show in the loss of the next
            with torch.no_grad():
                next(trainer.model.parameters()).fill_(float("nan"))

    trainer.optimizer.step = spoil  # type: ignore[method-assign]
    with pytest.raises(TrainingDiverged, match=f"the optimizer had made {bad} of this batch's 4 updates") as seen:
        trainer.step(batch)
    assert "did not step" not in str(seen.value) and "\n" not in str(seen.value)
    assert max(s["step"] for s in trainer.optimizer.state.values()) == len(calls) == bad


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_under_every_algorithm_the_better_answers_become_likelier(tiny_policy: Path, algorithm: str):
    trainer = make_trainer(tiny_policy, learning_rate=1e-3, algorithm=algorithm, kl=ALGORITHMS[algorithm].get("kl", {}))
    batch = make_batch(trainer, (1.0, -1.0, 1.0, -1.0))
    batch = replace(batch, mini_batches=(0, 0, 1, 1) if trainer.config.mini_batches > 1 else ())
    sequences = [[*p, *c] for p, c in zip(batch.prompts, batch.completions, strict=True)]
    before = [sum(row) for row in trainer.probe(sequences).expected]
    for _ in range(3):
        metrics = trainer.step(batch)
    after = [sum(row) for row in trainer.probe(sequences).expected]
    assert after[0] - before[0] > after[1] - before[1]
    assert after[2] - before[2] > after[3] - before[3]
    assert after[0] > before[0]
    assert undocumented(metrics) == []


def test_every_number_of_a_step_is_documented(tiny_policy: Path):
    trainer = make_trainer(tiny_policy, entropy=EntropyConfig(coef=0.1), correction=CorrectionConfig(kind="tis"))
    assert undocumented(trainer.step(make_batch(trainer))) == []


def dropping(folder: Path) -> Path:
    """A Llama with dropout in its config.json, as some published ones have it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=64, **sizes, attention_dropout=0.3, initializer_range=0.2, pad_token_id=2)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_policy_with_dropout_is_trained_without_and_exported_with_it(tmp_path: Path):
    made = PolicyTrainer(dropping(tmp_path / "p"), GRPOConfig(), dtype="float32", temperature=1.0, pad_id=2)
    assert made.model.training and made.reference is not None
    once, again = (made.probe([[3, 4, 5, 6, 7, 8]]).expected for _ in range(2))
    made.model.eval()
    assert once == again == made.probe([[3, 4, 5, 6, 7, 8]]).expected
    (tmp_path / "out").mkdir()
    made.export(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["attention_dropout"] == 0.3


def test_a_policy_that_would_go_on_dropping_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One whose modules ask its configuration at every pass."""
    from transformers.models.llama.modeling_llama import LlamaMLP

    plain = LlamaMLP.forward
    monkeypatch.setattr(
        LlamaMLP, "forward", lambda self, x: plain(self, torch.dropout(x, self.config.attention_dropout, self.training))
    )
    with pytest.raises(ConfigError, match=r"differ, by attention_dropout of its config.json; .* set these to 0 there"):
        PolicyTrainer(dropping(tmp_path / "p"), GRPOConfig(), dtype="float32", temperature=1.0, pad_id=2)
