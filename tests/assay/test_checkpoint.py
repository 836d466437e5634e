"""Checkpoints are there entirely or not at all, whatever kills the writer."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch

from assay.checkpoint import (
    is_complete,
    latest_valid,
    load_state,
    prune,
    read_marker,
    restore_rng,
    rng_state,
    save_state,
    step_folder,
    sweep,
    valid_checkpoints,
    write_failure,
    writing,
    writing_step,
)
from assay.errors import CheckpointError


def write(root: Path, step: int, text: str = "x") -> None:
    with writing_step(root, step, keep_last=10) as folder:
        (folder / "data").write_text(text)


def test_a_clean_exit_leaves_a_complete_folder_with_its_facts(tmp_path: Path) -> None:
    with writing(tmp_path / "c", {"kind": "test"}) as folder:
        (folder / "data").write_text("x")
        assert not (tmp_path / "c").exists()
    assert is_complete(tmp_path / "c") and read_marker(tmp_path / "c") == {"kind": "test"}
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_an_error_inside_leaves_what_was_there(tmp_path: Path) -> None:
    write(tmp_path, 1, "old")
    with pytest.raises(KeyError), writing(step_folder(tmp_path, 1)) as folder:
        (folder / "data").write_text("new")
        raise KeyError
    assert (step_folder(tmp_path, 1) / "data").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_a_complete_folder_is_replaced_and_a_stranger_is_not(tmp_path: Path) -> None:
    write(tmp_path, 1, "old")
    write(tmp_path, 1, "new")
    assert (step_folder(tmp_path, 1) / "data").read_text() == "new"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    with pytest.raises(CheckpointError, match="not a checkpoint of assay"), writing(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_latest_valid_ignores_what_was_not_finished(tmp_path: Path) -> None:
    assert latest_valid(tmp_path / "nowhere") is None
    for step in (2, 10, 9):
        write(tmp_path, step)
    (step_folder(tmp_path, 11)).mkdir()
    (tmp_path / ".step-00000012.partial").mkdir()
    assert latest_valid(tmp_path) == step_folder(tmp_path, 10)
    prune(tmp_path, 2)
    assert valid_checkpoints(tmp_path) == [step_folder(tmp_path, 9), step_folder(tmp_path, 10)]


def test_a_folder_without_a_marker_was_never_finished(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="never finished"):
        read_marker(tmp_path)


WRITER = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from types import SimpleNamespace
from assay.checkpoint import writing_step
{setup}
for step in range(1, 100000):
    with writing_step(Path({out!r}), step, keep_last=3) as folder:
        for i in range(4):
            (folder / f"part{{i}}").write_bytes(bytes([step % 256]) * {size})
"""


def writer(out: Path, setup: str = "", size: int = 20_000) -> subprocess.Popen[str]:
    script = WRITER.format(root=str(Path.cwd()), out=str(out), setup=textwrap.dedent(setup), size=size)
    return subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)


def assert_whole(folder: Path, size: int) -> None:
    step = read_marker(folder)["step"]
    assert [(folder / f"part{i}").read_bytes() for i in range(4)] == [bytes([step % 256]) * size] * 4


def test_killed_at_any_moment_the_newest_marker_stands_on_whole_files(tmp_path: Path) -> None:
    draw = random.Random(0)
    for _ in range(4):
        process = writer(tmp_path)
        while latest_valid(tmp_path) is None and process.poll() is None:
            time.sleep(0.01)
        time.sleep(draw.uniform(0.05, 0.25))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        for folder in valid_checkpoints(tmp_path):
            assert_whole(folder, 20_000)
        assert latest_valid(tmp_path) is not None


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays_valid(tmp_path: Path) -> None:
    write_limit = """
        import resource, itertools
        real = writing_step
        def writing_step(root, step, keep_last):
            if step == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))
            return real(root, step, keep_last=keep_last)
    """
    process = writer(tmp_path, write_limit)
    _, errors = process.communicate(timeout=60)
    last = errors.strip().splitlines()[-1]
    assert "CheckpointError" in last and "cannot be written" in last and "earlier checkpoints are intact" in last
    assert latest_valid(tmp_path) == step_folder(tmp_path, 2)
    assert_whole(step_folder(tmp_path, 2), 20_000)


def test_states_are_read_back_without_unpickling_code(tmp_path: Path) -> None:
    save_state({"a": torch.arange(3), "b": {"c": [1, 2.5, "x", None]}}, tmp_path / "s.pt")
    state = load_state(tmp_path / "s.pt")
    assert state["a"].tolist() == [0, 1, 2] and state["b"] == {"c": [1, 2.5, "x", None]}
    torch.save({"evil": Path("/")}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match=r"evil.pt: cannot be read"):
        load_state(tmp_path / "evil.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "s.pt").read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"cut.pt: cannot be read"):
        load_state(tmp_path / "cut.pt")
    with pytest.raises(CheckpointError, match=r"none.pt: cannot be read"):
        load_state(tmp_path / "none.pt")


def test_generators_go_on_where_they_were(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(numpy.random.rand()), float(torch.rand(()))

    save_state(rng_state(), tmp_path / "rng.pt")
    first = draw()
    restore_rng(load_state(tmp_path / "rng.pt"))
    assert draw() == first


def test_a_full_disk_is_named_where_torch_only_says_that_writing_failed(tmp_path: Path, monkeypatch):
    error = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
    assert "unexpected pos" in str(write_failure(error, tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=4096))
    assert str(write_failure(error, tmp_path)) == "[Errno 28] No space left on device"


def test_what_earlier_writers_left_half_done_is_removed_by_the_next(tmp_path: Path):
    write(tmp_path, 50)
    for name in (".step-00000047.partial", ".step-00000050.old", "step-00000040", "notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").write_text("x")
    write(tmp_path, 60)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes", "step-00000040", "step-00000050", "step-00000060"]


def test_a_checkpoint_that_stepped_aside_for_one_that_never_came_steps_back(tmp_path: Path):
    write(tmp_path, 50, "whole")
    (tmp_path / "step-00000050").rename(tmp_path / ".step-00000050.old")
    sweep(tmp_path)
    assert (step_folder(tmp_path, 50) / "data").read_text() == "whole"
    sweep(tmp_path / "nowhere")
