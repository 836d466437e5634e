"""A reward model on a task that can be learned: whether the completion holds the token the prompt names."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from assay.checkpoint import is_complete, latest_valid, read_marker
from assay.errors import CheckpointError, DataError, InfraFailure
from assay.packing import pack_completions
from assay.policy import InitConfig, PolicyConfig, create_policy
from assay.stopping import Stopping
from assay.tokenizer import train_tokenizer
from grpo.actors import RewardModelActor
from rewards.model.config import RewardModelConfig
from rewards.model.data import Sample
from rewards.model.network import RewardModel
from rewards.model.score import RewardModelScorer
from rewards.model.train import RewardModelTrainer, plan_batches, train_reward_model

TINY = InitConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    moe_intermediate_size=16,
    n_routed_experts=4,
    initializer_range=0.1,
)
CONFIG = RewardModelConfig(learning_rate=3e-3, batch_size=32, epochs=4, heldout_fraction=0.2)
PASS, FAIL = 40, 50


def judged(count: int, tasks: int) -> list[Sample]:
    draw = random.Random(0)

    def one(i: int) -> Sample:
        passed = draw.random() < 0.4
        answer = (*draw.choices(range(10, 30), k=draw.randint(1, 8)), PASS if passed else FAIL, 1)
        return Sample(
            prompt_ids=(0, 7, 8),
            completion_ids=answer,
            passed=None if i % 25 == 24 else passed,
            task_id=f"t{i % tasks}",
            source="even" if i % tasks % 2 == 0 else "odd",
        )

    return [one(i) for i in range(count)]


SAMPLES = judged(400, 40)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = train_tokenizer(["hello there"] * 5, vocab_size=300)
    return create_policy(PolicyConfig(init=TINY), tokenizer, 0, tmp_path_factory.mktemp("policy") / "p")


@pytest.fixture(scope="module", params=["pointwise", "pairwise"])
def trained(request: pytest.FixtureRequest, policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rm") / "reward_model"
    rows: list[dict[str, float]] = []
    config = CONFIG.model_copy(update={"loss": request.param})
    train_reward_model(config, policy, SAMPLES, out, rows.append)
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"] and rows[-1]["step"] == rows[0]["steps"]
    return out


def test_it_learns_and_reports_on_tasks_it_has_not_seen(trained: Path) -> None:
    facts = json.loads((trained / "reward_model.json").read_text())
    assert is_complete(trained)
    assert facts["heldout_auc"] > 0.95 and facts["heldout_pair_accuracy"] > 0.95
    if facts["loss"] == "pointwise":
        assert facts["heldout_accuracy"] > 0.9 and facts["heldout_calibration_error"] < 0.15
    assert facts["left_out_infra"] == 16 and facts["heldout_tasks"] == 8
    assert facts["heldout_samples"] + facts["train_samples"] == 400 - 16
    assert set(facts["by_source"]) == {"even", "odd"} and 0.2 < facts["base_rate"] < 0.6


def test_scores_are_probabilities_in_the_order_asked(trained: Path) -> None:
    scorer = RewardModelScorer(trained, micro_batch_tokens=16)
    completions = [(12, PASS, 1), (12, 13, 14, 15, 16, FAIL, 1), (PASS, 1), (20, FAIL, 1)]
    scores = scorer.score((0, 7, 8), completions)
    assert all(0 <= s <= 1 for s in scores)
    assert min(scores[0], scores[2]) > max(scores[1], scores[3])
    one_by_one = [scorer.score((0, 7, 8), [c])[0] for c in completions]
    assert scores == pytest.approx(one_by_one, abs=1e-5)
    assert scorer.score((0, 7, 8), []) == []


def test_in_an_actor_it_computes_where_it_was_given_a_device_and_nowhere_else(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a device of the trainer's, or of an engine
    assert RewardModelActor(str(trained), "cpu").call("score", (0, 7), [(12, 1)])
    if not torch.cuda.device_count():
        with pytest.raises((AssertionError, RuntimeError), match="CUDA|NVIDIA"):
            RewardModelActor(str(trained), "cuda")


def test_a_score_that_is_no_number_is_an_infrastructure_failure(trained: Path) -> None:
    scorer = RewardModelScorer(trained)
    with torch.no_grad():
        scorer._network.classifier.score.weight.fill_(float("nan"))
    with pytest.raises(InfraFailure, match="not a finite number"):
        scorer.score((0, 7), [(12, 1)])
    with pytest.raises(InfraFailure, match="reward model: IndexError"):
        scorer.score((0, 7), [(999_999, 1)])


def test_the_score_is_read_at_the_last_token(policy: Path) -> None:
    network = RewardModel.from_policy(policy)
    torch.nn.init.normal_(network.classifier.score.weight)
    answers = [(12, 13, 1), (14, 1), (15, 16, 17, 18, 1)]
    packed = pack_completions([(0, 7)] * 3, answers, pad_id=2, row_tokens=20)
    for i, answer in enumerate(answers):
        hidden = network.classifier.model(input_ids=torch.tensor([[0, 7, *answer]])).last_hidden_state
        expected = network.classifier.score(hidden[0, -1])
        torch.testing.assert_close(network(packed)[i : i + 1], expected, atol=1e-5, rtol=0)


def test_an_untrained_model_says_one_half(policy: Path) -> None:
    trainer = RewardModelTrainer(CONFIG, policy)
    assert trainer.score(SAMPLES[:3]) == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("loss", ["pointwise", "pairwise"])
def test_the_split_into_micro_batches_does_not_change_the_gradient(policy: Path, loss: str) -> None:
    def gradient(micro_batch_tokens: int) -> tuple[float, dict[str, torch.Tensor]]:
        config = CONFIG.model_copy(update={"loss": loss, "micro_batch_tokens": micro_batch_tokens, "batch_size": 60})
        trainer = RewardModelTrainer(config, policy)
        torch.nn.init.ones_(trainer.network.classifier.score.weight)
        units = plan_batches([s for s in SAMPLES if s.passed is not None], config)[0]
        value = float(trainer.backward(units))
        return value, {n: p.grad for n, p in trainer.network.named_parameters()}

    value, whole = gradient(100_000)
    again, split = gradient(150)
    assert again == pytest.approx(value, rel=1e-5)
    for name, expected in whole.items():
        torch.testing.assert_close(split[name], expected, atol=1e-5, rtol=1e-3, msg=name)


def test_same_seed_same_weights(policy: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"epochs": 1})
    for name in ("a", "b"):
        train_reward_model(config, policy, SAMPLES[:100], tmp_path / name)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


class Killed(Exception):
    pass


def test_killed_or_stopped_and_taken_up_it_equals_an_uninterrupted_training(policy: Path, tmp_path: Path) -> None:
    config, kept = CONFIG.model_copy(update={"epochs": 2, "checkpoint_every": 2}), tmp_path / "checkpoints"
    whole = train_reward_model(config, policy, SAMPLES[:150], tmp_path / "whole")
    rows: list[dict[str, float]] = []

    def die(row: dict[str, float]) -> None:
        rows.append(row)
        if row["step"] == 3:
            raise Killed

    with pytest.raises(Killed):
        train_reward_model(config, policy, SAMPLES[:150], tmp_path / "cut", die, checkpoints=kept)
    asked = Stopping()
    stop_at_5 = {"log": lambda row: rows.append(row) or setattr(asked, "asked", row["step"] == 5), "stop": asked}
    assert train_reward_model(config, policy, SAMPLES[:150], tmp_path / "cut", checkpoints=kept, **stop_at_5) is None
    assert read_marker(latest_valid(kept))["step"] == 5 and not (tmp_path / "cut").exists()
    train_reward_model(config, policy, SAMPLES[:150], tmp_path / "cut", rows.append, checkpoints=kept)
    assert [row["step"] for row in rows][:8] == [1, 2, 3, 3, 4, 5, 6, 7]
    for name in ("model.safetensors", "reward_model.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (whole / name).read_bytes()
    with pytest.raises(CheckpointError, match="made with other data or settings, or from another policy; remove"):
        train_reward_model(config, policy, SAMPLES[:140], tmp_path / "other", checkpoints=kept)


def test_a_policy_is_no_reward_model(policy: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"expected a \*ForSequenceClassification checkpoint, found DeepseekV2For"
    ):
        RewardModelScorer(policy)
    with pytest.raises(CheckpointError, match="no such folder"):
        RewardModelScorer(tmp_path / "nowhere")


def test_samples_that_cannot_teach_are_refused(policy: Path, tmp_path: Path) -> None:
    unjudged = [Sample(prompt_ids=(0,), completion_ids=(1,), passed=None, task_id=str(i)) for i in range(4)]
    with pytest.raises(DataError, match=r"none of 4 samples can be learned from: .*infra': 4"):
        train_reward_model(CONFIG, policy, unjudged, tmp_path / "x")
    apart = [Sample(prompt_ids=(0,), completion_ids=(1,), passed=i % 2 == 0, task_id=str(i)) for i in range(20)]
    with pytest.raises(DataError, match="no task has both"):
        train_reward_model(CONFIG.model_copy(update={"loss": "pairwise"}), policy, apart, tmp_path / "x")
