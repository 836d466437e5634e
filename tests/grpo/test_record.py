"""What a run left behind is taken back only where a later process can go on from what is left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from assay.checkpoint import step_folder
from assay.errors import CheckpointError
from assay.metrics import Timer, read
from grpo.record import RunRecord
from rollouts.recorder import recorded_steps
from tests.groups import make_scored


@contextmanager
def record(folder: Path, say: Callable[[str], None] = lambda line: None) -> Iterator[RunRecord]:
    with RunRecord(folder, 500, keep_last=2, snapshot=lambda: lambda path: None, background=True, say=say) as made:
        yield made


def make(folder: Path, steps: int, *, saved: int | None = None) -> None:
    with record(folder) as run:
        for step in range(1, steps + 1):
            run.samples(step, [make_scored([1.0, 0.0], [1, 1])], [[0.5, -0.5]])
            run.metrics(step, {"reward/mean": 0.5}, Timer())
            if step == saved:
                run.checkpoint(step)


def left(folder: Path) -> tuple[int, int]:
    return len(read(folder)), len(recorded_steps(folder / "samples"))


@pytest.mark.parametrize(("steps", "saved"), [(3, 3), (9, None)])
def test_a_run_without_its_checkpoints_is_not_wiped(tmp_path: Path, steps: int, saved: int | None):
    """They lie on a disk that is not mounted; saved early, as a stopped run is, or by a version that left no word."""
    make(tmp_path, steps, saved=saved)
    shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
    with record(tmp_path) as run, pytest.raises(CheckpointError) as refused:
        run.resume(lambda folder: None, every=4)
    assert f"{tmp_path} holds {steps} steps, and {tmp_path / 'checkpoints'} no whole checkpoint" in str(refused.value)
    assert f"put them back (a disk that is not mounted?), or remove {tmp_path} and begin anew" in str(refused.value)
    assert left(tmp_path) == (steps, steps)


def test_a_run_that_died_before_its_first_checkpoint_was_whole_starts_again(tmp_path: Path):
    make(tmp_path, 8)
    with record(tmp_path) as run:
        assert run.resume(lambda folder: None, every=4) == (None, 0, 0)
    assert left(tmp_path) == (0, 0)


def test_nothing_is_taken_back_before_the_trainer_took_the_checkpoint(tmp_path: Path):
    make(tmp_path, 6, saved=4)
    taken: list[Path] = []

    def broken(folder: Path) -> None:
        raise CheckpointError(f"{folder}: cannot be read")

    with record(tmp_path) as run:
        with pytest.raises(CheckpointError, match="cannot be read"):
            run.resume(broken, every=4)
        assert left(tmp_path) == (6, 6)
        assert run.resume(taken.append, every=4)[1] == 4
    assert taken == [step_folder(tmp_path / "checkpoints", 4)] and left(tmp_path) == (4, 4)


def test_a_checkpoint_is_never_safer_than_the_rows_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plain, safe = os.fsync, list[str]()

    def fsync(number: int) -> None:
        safe.append(Path(f"/proc/self/fd/{number}").readlink().name)
        plain(number)

    monkeypatch.setattr(os, "fsync", fsync)
    make(tmp_path, 3, saved=3)
    assert safe.index("metrics.jsonl") < safe.index("complete.json")


def test_rows_that_a_power_cut_took_are_missed(tmp_path: Path):
    make(tmp_path, 4, saved=4)
    rows, said = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True), list[str]()
    for kept, missed in ((4, []), (1, ["3 of the 4 steps before the checkpoint are not there"])):
        (tmp_path / "metrics.jsonl").write_text("".join(rows[:kept]))
        with record(tmp_path, said.append) as run:
            assert run.resume(lambda folder: None, every=4)[1] == 4
        assert [line.rpartition("metrics.jsonl: ")[2] for line in said] == missed
