"""What `assay export` leaves: a folder that transformers loads as it is, with the weights that were trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from assay.adapter import LoraConfig, merged_state
from assay.checkpoint import writing, writing_step
from assay.cli import main
from assay.commands.export import weights_of
from assay.errors import CheckpointError
from assay.policy import load_tokenizer, save_policy
from grpo.trainer import PolicyTrainer
from tests.grpo.test_trainer import make_batch, make_trainer


@pytest.fixture(scope="module")
def trainer(tiny_policy: Path) -> PolicyTrainer:
    made = make_trainer(tiny_policy, lora=LoraConfig(rank=4))
    made.step(make_batch(made))
    return made


def checkpoint(trainer: PolicyTrainer, policy: Path, root: Path, step: int) -> None:
    with writing_step(root, step) as folder:
        trainer.save(folder)
        load_tokenizer(policy).save_pretrained(folder / "model")


def test_a_checkpoint_of_an_adapted_policy_becomes_a_plain_folder_with_merged_weights(
    trainer: PolicyTrainer, tiny_policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    checkpoint(trainer, tiny_policy, tmp_path / "run" / "grpo" / "checkpoints", 3)
    (tmp_path / "run" / "config.yaml").write_text("{}")
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}\n"
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not names & {"trainer.pt", "adapter", "model"}
    model, trained = AutoModelForCausalLM.from_pretrained(tmp_path / "out"), merged_state(trainer.unwrapped)
    assert type(model).__name__ == "DeepseekV2ForCausalLM" and model.state_dict().keys() == trained.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, trained[name]), name
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == model.config.vocab_size
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "half"), "--dtype", "bfloat16"]) == 0
    half = AutoModelForCausalLM.from_pretrained(tmp_path / "half", dtype="auto")
    assert half.dtype == torch.bfloat16
    for name, tensor in half.state_dict().items():
        assert torch.equal(tensor, trained[name].bfloat16()), name


def test_what_a_run_ended_with_goes_before_its_checkpoints_and_grpo_before_sft(
    trainer: PolicyTrainer, tiny_policy: Path, tmp_path: Path
):
    (tmp_path / "config.yaml").write_text("{}")
    tokenizer, grpo, sft = load_tokenizer(tiny_policy), tmp_path / "grpo", tmp_path / "sft"

    def policy(folder: Path) -> Path:
        with writing(folder) as made:
            save_policy(trainer.unwrapped, tokenizer, made)
        return folder

    policy(tmp_path / "policy")  # what it began with
    with pytest.raises(CheckpointError, match="holds neither a policy nor a whole checkpoint"):
        weights_of(tmp_path)
    assert weights_of(tmp_path / "policy") == tmp_path / "policy"
    with writing_step(sft / "checkpoints", 7) as folder:
        save_policy(trainer.unwrapped, tokenizer, folder)
        (folder / "trainer.pt").write_text("")
    assert weights_of(tmp_path) == weights_of(sft) == sft / "checkpoints" / "step-00000007"
    assert main(["export", str(sft), str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out" / "trainer.pt").exists() and (tmp_path / "out" / "config.json").is_file()
    assert weights_of(tmp_path) == sft / "checkpoints" / "step-00000007"
    assert policy(sft / "policy") == weights_of(tmp_path)
    checkpoint(trainer, tiny_policy, grpo / "checkpoints", 2)
    checkpoint(trainer, tiny_policy, grpo / "checkpoints", 4)
    assert weights_of(tmp_path) == weights_of(grpo) == grpo / "checkpoints" / "step-00000004" / "model"
    assert weights_of(grpo / "checkpoints" / "step-00000002").parent.name == "step-00000002"
    assert policy(grpo / "policy") == weights_of(tmp_path) == weights_of(grpo)


def test_a_checkpoint_that_was_never_finished_and_a_folder_of_somebody_else_are_refused(
    trainer: PolicyTrainer, tiny_policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    checkpoint(trainer, tiny_policy, tmp_path, 5)
    (tmp_path / "step-00000005" / "complete.json").unlink()
    assert main(["export", str(tmp_path / "step-00000005"), str(tmp_path / "out")]) == 2
    assert "never finished" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    assert main(["export", str(tiny_policy), str(tmp_path / "mine")]) == 2
    assert "not a checkpoint of assay" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 2
    assert "no such folder" in capsys.readouterr().err
