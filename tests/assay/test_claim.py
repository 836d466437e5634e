"""Two processes never work in the same run folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from assay.claim import Claim
from assay.commands.context import Run
from assay.commands.schema import RunConfig
from assay.config import validate
from assay.errors import ConfigError

HOLD = "import sys, time; from pathlib import Path; from assay.claim import Claim\n"
HOLD += "claim = Claim(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"


def hold(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_folder_in_use_is_refused_with_who_has_it_until_that_process_dies(tmp_path: Path):
    holder = hold(tmp_path)
    try:
        with pytest.raises(ConfigError, match=rf"is in use by pid {holder.pid} on \S+: wait for its end, stop it, or"):
            Claim(tmp_path)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    Claim(tmp_path).release()


def test_a_child_does_not_keep_what_its_parent_held(tmp_path: Path):
    code = HOLD.replace("time.sleep(60)", "import os\nif os.fork() == 0: time.sleep(30)")
    done = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True,
                            start_new_session=True)  # fmt: skip
    try:
        done.wait(timeout=20)
        Claim(tmp_path).release()
    finally:
        os.killpg(done.pid, signal.SIGKILL)
        done.stdout.close()


def test_a_run_is_neither_opened_nor_resumed_beside_another_process_but_may_be_evaluated(tmp_path: Path):
    config = validate(
        RunConfig,
        {"run_dir": str(tmp_path / "run"), "policy": {"path": "a/b"}, "tasks": {"train": {"path": "x"}}},
        "a test",
    )
    Run.open(config)
    holder = hold(tmp_path / "run")
    try:
        for again in (lambda: Run.open(config), lambda: Run.reopen(tmp_path / "run")):
            with pytest.raises(ConfigError, match="is in use by pid"):
                again()
        assert Run.open(config, alone=False).claim is None
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert Run.reopen(tmp_path / "run").claim is not None


def test_an_evaluation_leaves_the_settings_of_the_run_beside_it(tmp_path: Path):
    tree = {"run_dir": str(tmp_path / "run"), "policy": {"path": "a/b"}, "tasks": {"train": {"path": "x"}}}
    run = Run.open(validate(RunConfig, {**tree, "seed": 1}, "a test"))
    Run.open(validate(RunConfig, {**tree, "seed": 2}, "a test"), alone=False)
    assert Run.reopen(run.folder).config.seed == 1


def test_a_second_claim_of_the_same_process_does_not_end_the_first(tmp_path: Path):
    first, second = Claim(tmp_path), Claim(tmp_path)
    second.release()
    del second
    other = [sys.executable, "-c", HOLD.replace("time.sleep(60)", "pass"), str(tmp_path)]
    assert "is in use by pid" in subprocess.run(other, capture_output=True, text=True, check=False).stderr
    first.release()
    assert subprocess.run(other, capture_output=True, text=True, check=True).stdout == "held\n"
