"""Training on a tiny mixture of experts: it learns, it is deterministic, splits do not matter, it resumes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from assay.checkpoint import is_complete, latest_valid, read_marker, valid_checkpoints
from assay.errors import CheckpointError, TrainingDiverged
from assay.policy import InitConfig, PolicyConfig, create_policy, load_policy, load_tokenizer
from assay.stopping import Limit, Stopping
from assay.tokenizer import train_tokenizer
from assay.types import Message
from sft.config import SFTConfig
from sft.data import Dialogue, encode_examples
from sft.train import SFTTrainer, train_sft

TINY = InitConfig(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, moe_intermediate_size=16, n_routed_experts=4
)
CONFIG = SFTConfig(
    total_tokens=None, epochs=2, batch_tokens=150, warmup_steps=2, learning_rate=3e-3, heldout_fraction=0.1, keep_last=1
)
DIALOGUES = [
    Dialogue(
        messages=(Message(role="user", content=f"add {i}"), Message(role="assistant", content=f"x + {i}" * (1 + i % 3)))
    )
    for i in range(24)
]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = train_tokenizer([m.content for d in DIALOGUES for m in d.messages] + ["User: Assistant:"], 280)
    return create_policy(PolicyConfig(init=TINY), tokenizer, 0, tmp_path_factory.mktemp("policy") / "p")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_policy(folder).state_dict()


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_the_loss_falls_and_the_result_is_a_complete_folder(policy: Path, tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    config = CONFIG.model_copy(update={"epochs": 12, "evaluate_every": 5})
    result = train_sft(config, policy, DIALOGUES, tmp_path, rows.append)
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    assert [r["step"] for r in rows] == list(range(1, len(rows) + 1)) and rows[0]["steps"] == len(rows)
    assert {"learning_rate", "tokens", "tokens_per_s", "grad_norm", "balance_loss"} <= rows[0].keys()
    assert rows[-1]["heldout_loss"] < rows[4]["heldout_loss"]
    assert is_complete(result) and load_tokenizer(result).chat_template
    assert read_marker(result)["heldout_loss"] == rows[-1]["heldout_loss"]
    assert train_sft(config, policy, DIALOGUES, tmp_path, rows.append) == result  # done already: nothing happens


def test_same_seed_same_weights(policy: Path, tmp_path: Path) -> None:
    first = weights(train_sft(CONFIG, policy, DIALOGUES, tmp_path / "a"))
    assert_same(first, weights(train_sft(CONFIG, policy, DIALOGUES, tmp_path / "b")))
    other = weights(train_sft(CONFIG.model_copy(update={"seed": 1}), policy, DIALOGUES, tmp_path / "c"))
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_the_split_into_micro_batches_does_not_change_the_gradient(policy: Path, alpha: float) -> None:
    def gradient(micro_batch_tokens: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        config = CONFIG.model_copy(update={"micro_batch_tokens": micro_batch_tokens, "balance_alpha": alpha})
        trainer = SFTTrainer(config, policy, "float32", load_tokenizer(policy))
        examples, _ = encode_examples(trainer.tokenizer, DIALOGUES, 100)
        losses = trainer.backward(examples)
        return losses, {n: p.grad for n, p in trainer.policy.named_parameters()}

    whole_losses, whole = gradient(100_000)
    for micro_batch_tokens in (1, 60, 200):
        losses, split = gradient(micro_batch_tokens)
        for name, value in whole_losses.items():
            torch.testing.assert_close(losses[name], value)
        for name, value in whole.items():
            torch.testing.assert_close(split[name], value, atol=2e-6, rtol=1e-4, msg=name)


class Killed(Exception):
    pass


@pytest.mark.parametrize("kill_at", [3, 5])
def test_killed_and_resumed_equals_uninterrupted(policy: Path, tmp_path: Path, kill_at: int) -> None:
    config = CONFIG.model_copy(update={"checkpoint_every": 2})
    whole = train_sft(config, policy, DIALOGUES, tmp_path / "whole")

    def die(row: dict[str, float]) -> None:
        if row["step"] == kill_at:
            raise Killed

    with pytest.raises(Killed):
        train_sft(config, policy, DIALOGUES, tmp_path / "cut", die)
    rows: list[dict[str, float]] = []
    resumed = train_sft(config, policy, DIALOGUES, tmp_path / "cut", rows.append)
    assert rows[0]["step"] == kill_at  # the checkpoint of the step before, even, is where it went on
    assert_same(weights(whole), weights(resumed))
    assert len(list((tmp_path / "cut" / "checkpoints").iterdir())) == 1  # keep_last


class After(Stopping):
    """Says stop after so many steps."""

    def __init__(self, steps: int, hours: float | None = None) -> None:
        super().__init__(Limit(hours, time.monotonic()))
        self._left = steps

    def __call__(self) -> bool:
        self._left -= 1
        return super().__call__() or self._left < 0


def test_stopped_between_two_steps_it_leaves_a_checkpoint_and_goes_on_to_the_same_weights(
    policy: Path, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"checkpoint_every": 0})  # so that none is there but for the stop
    whole, checkpoints = train_sft(config, policy, DIALOGUES, tmp_path / "whole"), tmp_path / "cut" / "checkpoints"
    assert train_sft(config, policy, DIALOGUES, tmp_path / "cut", stop=After(3)) is None
    assert read_marker(latest_valid(checkpoints))["step"] == 3
    assert train_sft(config, policy, DIALOGUES, tmp_path / "cut", stop=After(0)) is None  # nothing new to be saved
    assert not (tmp_path / "cut" / "policy").exists()
    assert train_sft(config, policy, DIALOGUES, tmp_path / "cut", stop=After(1, hours=5.0)) is None
    assert read_marker(latest_valid(checkpoints))["step"] == 4
    rows: list[dict[str, float]] = []
    assert_same(weights(whole), weights(train_sft(config, policy, DIALOGUES, tmp_path / "cut", rows.append)))
    assert rows[0]["step"] == 5


def test_under_a_limit_of_time_the_first_step_is_saved_to_know_how_long_that_takes(policy: Path, tmp_path: Path):
    config, saved = CONFIG.model_copy(update={"checkpoint_every": 0}), list[list[str]]()

    def look(row: dict[str, float]) -> None:
        saved.append([path.name for path in valid_checkpoints(tmp_path / "checkpoints")])

    assert train_sft(config, policy, DIALOGUES, tmp_path, look, stop=After(4, hours=5.0)) is None
    assert saved == [[], *[["step-00000001"]] * 3]


def test_a_checkpoint_of_other_settings_is_not_continued(policy: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"checkpoint_every": 2})
    train_sft(config, policy, DIALOGUES, tmp_path)
    with pytest.raises(CheckpointError, match="made with other data or settings"):
        train_sft(config.model_copy(update={"learning_rate": 1e-4}), policy, DIALOGUES, tmp_path)
    with pytest.raises(CheckpointError, match="made with other data or settings"):
        train_sft(config, policy, DIALOGUES[:-1], tmp_path)
    other = create_policy(PolicyConfig(init=TINY), load_tokenizer(policy), 1, tmp_path / "other")
    with pytest.raises(CheckpointError, match="or from another policy"):
        train_sft(config, other, DIALOGUES, tmp_path)
    train_sft(config.model_copy(update={"evaluate_every": 1}), policy, DIALOGUES, tmp_path)  # only when to look
    assert latest_valid(tmp_path / "checkpoints") is not None


def test_divergence_stops_the_run_with_its_step(policy: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match=r"step \d+: .*lower sft.learning_rate"):
        train_sft(CONFIG.model_copy(update={"learning_rate": 1e30}), policy, DIALOGUES, tmp_path)
