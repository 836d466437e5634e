"""The GRPO stage as the command line runs it, on a fleet in this process: ended early, and taken up again."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from assay.adapter import LoraConfig
from assay.checkpoint import read_marker, valid_checkpoints
from assay.commands import stages
from assay.commands.context import Run
from assay.commands.schema import RunConfig
from assay.config import validate
from assay.errors import CheckpointError
from assay.metrics import read, undocumented
from assay.policy import load_tokenizer
from assay.types import RolloutGroup, ScoredGroup, Task
from grpo.trainer import PolicyTrainer
from rollouts.config import EngineConfig, ProofConfig
from rollouts.fake import FakeEngine
from rollouts.pool import RolloutPool
from rollouts.recorder import read_samples
from rollouts.weights import probe_sequences
from tests.chaos.rig import traces
from tests.groups import make_result
from tests.tiny_tasks import generate


class InProcess:
    """A fleet of one engine that answers at random and rewards that like long answers."""

    def __init__(self, policy: Path) -> None:
        self.tokenizer = load_tokenizer(policy)
        self.engine = FakeEngine(lambda prompt, draw: [draw.randrange(20, 200) for _ in range(draw.randrange(2, 7))])
        self.rollouts = RolloutPool([self.engine], self.tokenizer, ProofConfig())
        self.rewards = self
        self.synced = 0

    def score(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
        return [
            ScoredGroup(group=g, results=tuple(make_result(float(len(c.token_ids) > 3)) for c in g.completions))
            for g in groups
        ]

    def rest(self) -> None:
        """Nothing to give back."""

    def recorded(self, tasks: Sequence[Task]) -> None:
        """It draws."""

    def update(self, trainer: PolicyTrainer) -> Mapping[str, float]:
        self.engine.version, self.synced = trainer.version, self.synced + 1
        return {}


def settings(folder: Path, policy: Path, **tree: Any) -> RunConfig:
    grpo = {"steps": 5, "prompts_per_step": 2, "group_size": 3, "learning_rate": 1e-3, "checkpoint_every": 2,
            "eval_every": 0, "mismatch": {"stop_above": 1e9}, **tree.pop("grpo", {})}  # fmt: skip
    data = folder.parent / "tasks"
    generate(data, seed=0)
    return validate(
        RunConfig,
        {"run_dir": str(folder), "policy": {"path": str(policy)}, "grpo": grpo, **tree,
         "tasks": {"train": {"path": str(data / "train.jsonl")}},
         "rollouts": {"sampling": {"max_prompt_tokens": 64, "max_completion_tokens": 8}}},
        "test",
    )  # fmt: skip


def train(config: RunConfig, policy: Path, resume: bool = False, fleet: InProcess | None = None) -> Path:
    run, fleet = Run.open(config), fleet or InProcess(policy)
    stages.grpo(run, fleet, stages.base_policy(run), "base", resume=resume)  # type: ignore[arg-type]
    return run.folder


def steps(folder: Path) -> list[int]:
    return [read_marker(path)["step"] for path in valid_checkpoints(folder / "grpo" / "checkpoints")]


@pytest.fixture(scope="module")
def quiet(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("quiet") / "run"
    return traces(train(settings(folder, tiny_policy), tiny_policy))


def test_a_run_without_time_leaves_a_checkpoint_and_goes_on_to_the_same_weights(
    quiet: dict[str, Any], tiny_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Three steps fit. The first is saved to know how long that takes, the third because it is the last."""
    left = iter([3600.0] * 3)
    with monkeypatch.context() as patch:
        patch.setattr("assay.stopping.Limit.left_s", lambda limit, now: next(left, 0.0))
        patch.setattr("assay.checkpoint.prune", lambda root, keep_last: None)
        with pytest.raises(KeyboardInterrupt, match=r"max_hours=5 leaves 0 s, and a step and a checkpoint want \d+"):
            train(settings(tmp_path / "run", tiny_policy, max_hours=5), tiny_policy)
    assert steps(tmp_path / "run") == [1, 2, 3]
    resumed = train(settings(tmp_path / "run", tiny_policy, max_hours=6), tiny_policy, resume=True)
    assert traces(resumed) == quiet


@pytest.mark.parametrize("background", [True, False])
def test_sigterm_ends_the_step_at_hand_and_the_run_goes_on_to_the_same_weights(
    quiet: dict[str, Any], tiny_policy: Path, tmp_path: Path, background: bool
):
    config = settings(tmp_path / "run", tiny_policy, grpo={"checkpoint_async": background})

    class Terminated(InProcess):
        def score(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
            if self.synced == 3:  # before any training, after the first step, after the second
                os.kill(os.getpid(), signal.SIGTERM)
            return super().score(groups)

    with pytest.raises(KeyboardInterrupt):
        train(config, tiny_policy, fleet=Terminated(tiny_policy))
    assert steps(tmp_path / "run") == [2, 3]
    assert traces(train(config, tiny_policy, resume=True)) == quiet


class OnVLLM(InProcess):
    """The real engine in the fake one's place, with the proof at every sync."""

    def __init__(self, policy: Path) -> None:
        from rollouts.vllm import VLLMEngine

        super().__init__(policy)
        proof, self.config = ProofConfig(), EngineConfig(max_num_seqs=8)
        config = self.config
        self.vllm = VLLMEngine(str(policy), config, proof, max_model_len=72, eos_token_id=self.tokenizer.eos_token_id)
        self.rollouts = RolloutPool([self.vllm], self.tokenizer, proof)
        self.probe = probe_sequences(len(self.tokenizer), self.tokenizer.all_special_ids)

    def score(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
        """By the first token: a policy that knows nothing never ends, so all its answers are equally long."""
        return [
            ScoredGroup(group=g, results=tuple(make_result(float(c.token_ids[0] % 2)) for c in g.completions))
            for g in groups
        ]

    def update(self, trainer: PolicyTrainer) -> Mapping[str, float]:
        published = trainer.publication(self.config, keep=True)
        reports, difference = self.rollouts.sync(published, trainer.probe(self.probe))
        assert [report.version for report in reports] == [trainer.version]
        return {"weights/probe_max_abs": difference}


@pytest.mark.vllm
def test_ahead_of_training_every_step_proves_its_weights_and_says_how_old_its_rollouts_are(
    tiny_policy: Path, tmp_path: Path
):
    """Rollouts drawn one step ahead by a real engine."""
    fleet = OnVLLM(tiny_policy)
    try:
        train(settings(tmp_path / "run", tiny_policy, grpo={"max_lag": 1}), tiny_policy, fleet=fleet)
    finally:
        fleet.vllm.close()
    rows, samples = read(tmp_path / "run" / "grpo"), read_samples(tmp_path / "run" / "grpo" / "samples")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    oldest = []
    for row in rows:
        assert undocumented(row) == []
        assert row["weights/probe_max_abs"] < 1e-4
        assert {"time/wait_s", "time/rollout_s", "time/sync_s"} <= row.keys()
        ages = [row["step"] - 1 - s["policy_version_min"] for s in samples if s["step"] == row["step"]]
        oldest.append(max(ages))
        assert row["lag/max"] == oldest[-1] <= 1 and min(ages) >= 0
    assert oldest[0] == 0 and sum(oldest) >= 2, "steps trained on what older weights had drawn"
    behind = [row["mismatch/k3"] for row, age in zip(rows, oldest, strict=True) if age]
    level = [row["mismatch/k3"] for row, age in zip(rows, oldest, strict=True) if not age]
    assert max(level) < 1e-8 < min(behind), "older weights' log-probabilities are not the trainer's"


def test_a_run_that_was_asked_to_stop_in_its_last_step_is_whole_and_nothing_follows(
    quiet: dict[str, Any], tiny_policy: Path, tmp_path: Path
):
    class Terminated(InProcess):
        def score(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
            if self.synced == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().score(groups)

    with pytest.raises(KeyboardInterrupt):
        train(settings(tmp_path / "run", tiny_policy), tiny_policy, fleet=Terminated(tiny_policy))
    assert traces(tmp_path / "run") == quiet
    assert "grpo" in Run.reopen(tmp_path / "run").lineage.artifacts


def test_what_stops_a_run_is_said_and_a_checkpoint_that_failed_beside_it_too(
    tiny_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def full(root: Path, *given: Any) -> Any:
        raise CheckpointError(f"{root}: cannot be written (No space left on device)")

    class Broken(InProcess):
        def score(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
            if self.synced == 3:
                raise ZeroDivisionError("the reward")
            return super().score(groups)

    monkeypatch.setattr("grpo.record.writing_step", full)
    with pytest.raises(ZeroDivisionError, match="the reward"):
        train(settings(tmp_path / "run", tiny_policy), tiny_policy, fleet=Broken(tiny_policy))
    assert "checkpoints: cannot be written (No space left on device)" in capsys.readouterr().err


def test_a_run_whose_tasks_or_start_changed_is_not_taken_up(tiny_policy: Path, tmp_path: Path):
    """Its checkpoint counts in the old file: the same places would be other prompts. And the policy it began from is
    what an adapter belongs to, and the reference."""

    class Broken(InProcess):
        def score(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
            if self.synced == 3:
                raise ZeroDivisionError
            return super().score(groups)

    own = shutil.copytree(tiny_policy, tmp_path / "own")
    config = settings(tmp_path / "run", own, grpo={"checkpoint_every": 1, "checkpoint_async": False})
    with pytest.raises(ZeroDivisionError):
        train(config, own, fleet=Broken(own))
    assert config.tasks.train is not None
    file = Path(config.tasks.train.path)
    kept = file.read_text()
    file.write_text("".join(kept.splitlines(keepends=True)[1:]))
    with pytest.raises(CheckpointError, match="the file of training tasks changed since"):
        train(config, own, resume=True)
    file.write_text(kept)
    weights = load_file(own / "model.safetensors")
    save_file({name: tensor + 1e-3 for name, tensor in weights.items()}, own / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="the policy this run began from changed since; put the old one back, or"):
        train(config, own, resume=True)
    shutil.copy(tiny_policy / "model.safetensors", own)
    assert steps(train(config, own, resume=True))[-1] == 5


@pytest.mark.vllm
def test_a_run_whose_engine_merges_the_adapters_is_the_run_of_merged_weights(tiny_policy: Path, tmp_path: Path):
    """Ahead of training, too: every sample, metric and weight, to the bit."""
    fleet, found = OnVLLM(tiny_policy), []
    try:
        for how in ("merged", "adapter"):
            plain = settings(tmp_path / how, tiny_policy, grpo={"max_lag": 1, "learning_rate": 1e-2})
            lora = plain.policy.model_copy(update={"lora": LoraConfig(rank=4)})
            fleet.config = EngineConfig(max_num_seqs=8, lora_sync=how)  # type: ignore[arg-type]
            found.append(traces(train(plain.model_copy(update={"policy": lora}), tiny_policy, fleet=fleet)))
    finally:
        fleet.vllm.close()
    assert found[0] == found[1]
    rows = found[1]["metrics"]
    assert len(rows) == 5 and rows[-1]["kl/reference"] > 0 and fleet.rollouts.sent_bytes < 100_000


def test_a_run_that_is_done_is_done_without_its_checkpoints(tiny_policy: Path, tmp_path: Path):
    config = settings(tmp_path / "run", tiny_policy, grpo={"checkpoint_every": 1})
    folder = train(config, tiny_policy)
    rows = (folder / "grpo" / "metrics.jsonl").read_bytes()
    shutil.rmtree(folder / "grpo" / "checkpoints")
    train(config, tiny_policy, resume=True)
    assert (folder / "grpo" / "metrics.jsonl").read_bytes() == rows and rows.count(b"\n") == 5
