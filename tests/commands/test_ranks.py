"""Several ranks of one command: jobs that all do, and every way to end, said once and without a wait."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assay.commands import ranks
from assay.commands.rendezvous import check_launcher, without_launcher
from assay.errors import ConfigError
from tests.launching import ROOT, ends, free_port, start

GONE = r"rank 1 \(\S+, pid \d+\) is gone: killed, out of memory, or its machine went down"


def run(what: str, command: str = "grpo") -> tuple[list[int], list[str], float]:
    """Statuses, stderr of each rank, and seconds."""
    began = time.monotonic()
    found = ends(start(["tests.commands.ranks", what, command], 2), 100)
    return [code for code, _ in found], [text for _, text in found], time.monotonic() - began


def test_one_process_needs_no_ranks():
    assert ranks.everywhere(lambda note="": f"done {note}", note="here") == "done here"
    assert ranks.held(lambda: [1]) == [1]


def test_every_rank_does_the_job_and_rank_0_has_the_answer(capfd: pytest.CaptureFixture[str]):
    codes, said, _ = run("works")
    assert codes == [0, 0] and said == ["", ""]
    assert capfd.readouterr().out == "3 here\n7 10 (31.0, 'mine')\n"


@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_launchers_themselves_make_ranks_of_processes(launcher: str, capfd: pytest.CaptureFixture[str]):
    """On a CPU Accelerate would take each for a process by itself, and all would train the whole run."""
    commands = {
        "torchrun": ["torch.distributed.run", "--nproc-per-node=2", "--standalone"],
        "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1",
                       "--mixed_precision=no", "--dynamo_backend=no", f"--main_process_port={free_port()}"],
    }  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE_")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *commands[launcher], "-m", "tests.commands.ranks", "works", "grpo"],
        cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert capfd.readouterr().out == "3 here\n7 10 (31.0, 'mine')\n"


@pytest.mark.parametrize(
    ("what", "codes", "first", "second"),
    [
        ("fails", [2, 2], r"said: rank 1 \(.*\): fails: InfraFailure: no room$", ""),
        ("breaks", [2, 1], r"said: rank 1 \(.*\): breaks: ValueError: not this$", "ValueError: not this$"),
        ("diverges", [2, 2], "said: the loss is nan$", ""),
        ("dies", [2, -9], f"said: {GONE}$", ""),
        ("later", [2, -9], f"said: {GONE}$", ""),
        pytest.param(
            "lags",
            [2, 2],
            r"said: lags: .*imed out.*; meanwhile rank 1 \(.*\) in lags at tests/commands/ranks.py:\d+$",
            "",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_ends_one_rank_ends_all_with_the_reason(what: str, codes: list[int], first: str, second: str):
    found, said, seconds = run(what)
    assert found == codes, said
    last = [line for line in said[0].strip().split("\n") if not line.startswith("still waiting: ")]
    assert re.fullmatch(first, "\n".join(last)), said[0]
    assert re.search(second, said[1].strip()), said[1]
    assert ("Traceback" in said[1]) == (what == "breaks")
    assert seconds < 100  # far less; a collective may take fifteen, and sleeps would take a hundred and twenty


@pytest.mark.slow  # half a minute each, asleep
@pytest.mark.parametrize(
    ("what", "where"), [("stops", "does not answer"), ("lags", r"in lags at tests/commands/ranks.py:\d+")]
)
def test_who_waits_for_whom_is_said_while_it_lasts_and_at_the_end(what: str, where: str):
    began = time.monotonic()
    processes = start(["tests.commands.ranks", what, "grpo"], 2)
    try:
        said = processes[0].communicate(timeout=100)[1].strip().splitlines()
    finally:
        for process in processes:
            process.kill()
    assert processes[0].returncode == 2
    assert re.fullmatch(rf"still waiting: {what}, \d+ s; rank 1 \(\S+, pid \d+\) {where}", said[0]), said
    assert re.fullmatch(rf"said: {what}: .*imed out.*; meanwhile rank 1 \(\S+, pid \d+\) {where}", said[-1]), said
    assert time.monotonic() - began < 100


def test_commands_that_do_not_train_take_one_process():
    found = ends(start(["assay.cli", "plan", "nowhere.yaml"], 2), 60)
    assert [code for code, _ in found] == [2, 2]
    assert "`assay plan` takes one process: start it without torchrun" in found[0][1] and found[1][1] == ""


@pytest.mark.parametrize(
    ("told", "complaint"),
    [
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "set it to no; policy.dtype"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "set fsdp_version: 2"),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"},
            "fsdp_cpu_ram_efficient_loading",
        ),
    ],
)
def test_a_launcher_that_was_told_something_else_is_refused(told: dict[str, str], complaint: str):
    with pytest.raises(ConfigError, match=complaint):
        check_launcher(told)
    check_launcher({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "ACCELERATE_MIXED_PRECISION": "no"})


def test_actors_are_not_told_the_rank(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("RANKING", "kept")
    with without_launcher():
        assert "LOCAL_RANK" not in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ
        assert os.environ["RANKING"] == "kept"
    assert os.environ["LOCAL_RANK"] == "3"


def test_the_module_is_light():
    code = "import sys, assay.commands.ranks; sys.exit(len({'torch', 'ray', 'accelerate'} & sys.modules.keys()))"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
