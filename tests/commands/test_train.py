"""What a GRPO run that ends early says to go on with is a command that goes on."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray

from assay.cli import build_parser
from assay.commands import train
from assay.commands.context import Run
from assay.commands.schema import RunConfig
from assay.config import validate
from assay.errors import InfraFailure
from grpo.cluster import Cluster
from grpo.config import ClusterConfig
from tests import tiny_tasks

ENDS = [InfraFailure("an engine died while it started"), KeyboardInterrupt()]


def ended(run: Run, error: BaseException, monkeypatch: pytest.MonkeyPatch, *, resume: bool = False) -> list[str]:
    """The words of the command it names."""

    @contextmanager
    def fleet(*_: object) -> Iterator[Any]:
        raise error
        yield

    monkeypatch.setattr(train, "fleet", fleet)
    with pytest.raises(type(error)) as said:
        train._grpo(run, resume=resume)
    return shlex.split(str(said.value).rpartition("; go on with: ")[2])


@pytest.mark.parametrize("error", ENDS, ids=lambda error: type(error).__name__)
def test_what_it_says_to_go_on_with_is_taken(
    error: BaseException, tiny_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Before the first step there is nothing to resume. The folder's name has a space in it."""
    tiny_tasks.generate(tmp_path / "tasks", seed=0)
    tree = {"run_dir": str(tmp_path / "a run"), "policy": {"path": str(tiny_policy)}, "grpo": {"steps": 2},
            "tasks": {"train": {"path": str(tmp_path / "tasks" / "train.jsonl")}, "check": "none"}}  # fmt: skip
    run = Run.open(validate(RunConfig, tree, "test"))
    first = ended(run, error, monkeypatch)
    assert first == ["assay", "grpo", str(tmp_path / "a run" / "config.yaml")]
    for words in (first, ["assay", "grpo", "--resume", str(tmp_path / "a run")]):
        with pytest.raises(type(error), match="go on with: assay grpo "):
            train.main(build_parser().parse_args(words[1:]))
        (run.folder / "grpo").mkdir(exist_ok=True)
        (run.folder / "grpo" / "metrics.jsonl").touch()
    assert ended(run, error, monkeypatch, resume=True) == ["assay", "grpo", "--resume", str(tmp_path / "a run")]


def test_sigterm_while_ray_starts_is_told_as_at_any_other_time(monkeypatch: pytest.MonkeyPatch):
    before = signal.getsignal(signal.SIGTERM)

    def init(**_: object) -> None:  # as Ray's own does, which takes half a minute on a busy machine
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)  # another thread may be the one that is told

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(KeyboardInterrupt, match="stopped while Ray started"):
        Cluster(ClusterConfig()).__enter__()
    assert signal.getsignal(signal.SIGTERM) is before
