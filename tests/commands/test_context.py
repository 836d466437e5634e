"""What is done already, and what was made anew since: told without a clock, which may step back."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from assay.commands.context import Run
from assay.commands.schema import RunConfig
from assay.commands.stages import evaluation
from assay.config import validate
from assay.errors import ConfigError
from assay.types import RolloutGroup, ScoredGroup, Task
from rollouts.engine import Sampling
from tests.groups import make_completion, make_result, make_task


def make_run(folder: Path) -> Run:
    tree = {"run_dir": str(folder / "run"), "policy": {"path": "someone/some-model"},
            "tasks": {"train": {"path": "t.jsonl"}}}  # fmt: skip
    return Run.open(validate(RunConfig, tree, "test"))


def stage(run: Run, name: str, *parents: str, finished: float | None = None) -> bool:
    """Run a stage where it has to be, at a time by the clock; whether it had to."""
    folder = run.folder / name
    with run.stage(name, folder, kind="policy", parents=parents, finished=finished) as todo:
        if todo:
            folder.mkdir(exist_ok=True)
            (folder / "complete.json").write_text("{}")
        return todo


def test_a_stage_made_after_its_parent_stays_done_whatever_the_clock_said(tmp_path: Path):
    now, run = time.time(), make_run(tmp_path)
    assert stage(run, "sft", finished=now) and stage(run, "grpo", "sft", finished=now - 90)
    assert not stage(run, "grpo", "sft")


def test_a_stage_whose_parent_was_made_anew_is_refused_whatever_the_clock_said(tmp_path: Path):
    now, run = time.time(), make_run(tmp_path)
    assert stage(run, "sft", finished=now) and stage(run, "grpo", "sft", finished=now)
    shutil.rmtree(run.folder / "sft")
    assert stage(run, "sft", finished=now - 90)
    with pytest.raises(ConfigError, match="'grpo' is older than the 'sft' it should come from"):
        stage(run, "grpo", "sft")
    assert [*run.lineage.artifacts] == ["sft", "grpo"], "the file still reads as a chain"


@pytest.mark.parametrize("later", ["sft", "grpo"])
def test_a_run_recorded_by_stamps_alone_is_told_by_them(tmp_path: Path, later: str):
    now, run = time.time(), make_run(tmp_path)
    stage(run, "sft", finished=now + (later == "sft") * 60)
    stage(run, "grpo", "sft", finished=now)
    rows = json.loads(run.lineage.path.read_text())["artifacts"]
    run.lineage.path.write_text(json.dumps({"artifacts": [{k: v for k, v in r.items() if k != "order"} for r in rows]}))
    run = make_run(tmp_path)
    if later == "sft":
        with pytest.raises(ConfigError, match="'grpo' is older than the 'sft'"):
            stage(run, "grpo", "sft")
        shutil.rmtree(run.folder / "grpo")
        assert stage(run, "grpo", "sft", finished=now - 90)
    assert not stage(run, "grpo", "sft")


class Fleet:
    """Whatever it holds answers right."""

    def __init__(self) -> None:
        self.held: list[Path | str] = []
        self.rollouts = self.rewards = self

    def hold(self, policy: Path | str) -> None:
        self.held.append(policy)

    def within(self, tasks: Sequence[Task], longest: int) -> tuple[Sequence[Task], int]:
        return tasks, 0

    def generate(self, tasks: Sequence[Task], sampling: Sampling) -> list[RolloutGroup]:
        one = tuple(make_completion([1]) for _ in range(sampling.samples))
        return [RolloutGroup(task=task, prompt_ids=(1,), completions=one) for task in tasks]

    def judge(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
        return [ScoredGroup(group=g, results=tuple(make_result(1.0) for _ in g.completions)) for g in groups]


def test_an_evaluation_is_kept_for_the_policy_it_is_of_and_no_other(tmp_path: Path):
    run, fleet = make_run(tmp_path), Fleet()
    run.__dict__["heldout_tasks"] = [make_task("a")]
    policy = run.folder / "grpo"
    assert stage(run, "grpo", finished=time.time() + 90)  # a clock that steps back now
    (policy / "model.safetensors").write_bytes(b"weights")

    def measure(name: str, of: Path | str) -> Any:
        return evaluation(run, fleet, name, of)  # type: ignore[arg-type]

    first = measure("grpo", policy)
    assert measure("grpo", policy) == first and fleet.held == [policy]
    (policy / "model.safetensors").write_bytes(b"trained")
    os.utime(run.folder / "eval" / "grpo.json", (time.time() + 900,) * 2)
    assert measure("grpo", policy).greedy == first.greedy and fleet.held == [policy] * 2
    assert measure("base", "someone/some-model") == measure("base", "someone/some-model")
    assert fleet.held == [policy, policy, "someone/some-model"]
