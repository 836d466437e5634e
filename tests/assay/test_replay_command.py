"""`assay grpo --replay RUN` before anything trains: where it starts from, what it refuses, and that it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from assay.cli import main
from assay.commands.context import Run
from assay.commands.replay import replay
from assay.commands.schema import RunConfig
from assay.config import validate
from assay.errors import ConfigError
from assay.metrics import MetricsLog
from rollouts.recorder import SampleRecorder
from tests.groups import make_scored


def settings(folder: Path, **tree: Any) -> RunConfig:
    base = {"run_dir": str(folder), "policy": {"init": {}}, "tasks": {"train": {"path": "t.jsonl"}}, "grpo": {}}
    return validate(RunConfig, {**base, **tree}, "test")


def recorded(folder: Path, steps: int = 2, **tree: Any) -> Path:
    """A run that made so many steps on a policy of its own fine-tuning."""
    run = Run.open(settings(folder, **tree))
    for step in range(1, steps + 1):
        SampleRecorder(run.folder / "grpo" / "samples").write(step, [make_scored([1.0, 0.0], [2, 2])], [[1, -1]], ["p"])
    (run.folder / "sft" / "policy").mkdir(parents=True)
    return run.folder


def started(config: RunConfig, folder: Path) -> RunConfig:
    """The settings with which a replay would train."""
    seen: list[RunConfig] = []
    replay(config, folder, lambda run, samples: seen.append(run.config) or 0)
    return seen[0]


def test_a_replay_begins_where_the_recorded_run_began(tmp_path: Path):
    base = tmp_path / "base"
    base.mkdir()
    own = str(tmp_path / "run" / "sft" / "policy")
    given = {"policy": {"path": str(base)}, "sft": {"data": "demonstrations.jsonl"}}
    folder = recorded(tmp_path / "run", **given)
    assert started(settings(tmp_path / "a", **given), folder).policy.path == own
    assert started(settings(tmp_path / "b", **{**given, "policy": {"path": str(tmp_path)}}), folder).policy.path == str(
        tmp_path
    ), "another policy that was asked for by name"
    made = started(settings(tmp_path / "c"), recorded(tmp_path / "grown"))
    assert (made.policy.path, made.policy.init) == (str(tmp_path / "grown" / "sft" / "policy"), None)
    assert made.grpo is not None and (made.grpo.steps, made.grpo.eval_every) == (2, 0)


def test_a_replay_is_in_the_lineage_and_not_taken_up_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = recorded(tmp_path / "run")
    started(settings(tmp_path / "again"), folder)
    replayed = Run.reopen(tmp_path / "again")
    assert replayed.lineage.artifacts["replayed"]["path"] == str(folder / "grpo" / "samples")
    with MetricsLog(tmp_path / "again" / "grpo", tensorboard=False) as log:
        log.write(1, {"loss/total": 0.0})
    capsys.readouterr()
    assert main(["grpo", "--resume", str(tmp_path / "again")]) == 2
    said = capsys.readouterr().err
    assert "made by --replay from" in said and "start it anew, with another run_dir" in said
    assert len(said.strip().splitlines()) == 1


def test_a_replay_that_wants_experts_nobody_recorded_says_what_would_help(tmp_path: Path):
    folder = recorded(tmp_path / "run")
    wanting = settings(tmp_path / "again", grpo={"moe": {"replay": "r3"}})
    with pytest.raises(ConfigError, match="not asked for the experts it chose.*grpo.moe.replay=off or r2, or record"):
        replay(wanting, folder, lambda run, samples: 0)
    assert not (tmp_path / "again").exists()


def test_a_flow_is_replayed_and_steps_of_another_size_are_refused(tmp_path: Path):
    queue = {"engine": {"routing": "queue"}}
    flow = {"rollouts": queue, "grpo": {"flow": True, "max_lag": 2, "prompts_per_step": 1}}
    folder = recorded(tmp_path / "run", **flow)
    made = started(settings(tmp_path / "a", **flow), folder)
    assert made.grpo is not None and made.grpo.flow
    with pytest.raises(ConfigError, match="its steps are of 1 prompts, not of 16; set grpo.prompts_per_step=1"):
        replay(settings(tmp_path / "b"), folder, lambda run, samples: 0)
    assert not (tmp_path / "b").exists()
