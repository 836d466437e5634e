"""Commands on two processes: trained as one does; a rank that dies ends the other with a reason; taken up again."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from assay.checkpoint import is_complete, valid_checkpoints
from assay.lineage import Lineage
from tests.launching import ROOT, ends, launch, start
from tests.tiny_tasks import generate

pytestmark = [pytest.mark.ray, pytest.mark.sandbox]

STEPS = 4
CLOSE = {"rel": 1e-5, "abs": 1e-6}
SECONDS = 60  # far above the few it takes, for a busy machine; without a word to the other it would be half an hour


def configured(tmp_path: Path, policy: Path, name: str, **grpo: object) -> str:
    """A configuration with the engine that answers with pieces of the prompt, rewarded by length; its file's path."""
    (tmp_path / "length.py").write_text(
        "def score(prompts, completions, **columns):\n    return [len(c[0]['content']) % 7 / 7 for c in completions]\n"
    )
    answer = {"function": "length.py:score", "columns": {}}
    tasks = [
        {"id": str(i), "messages": [{"role": "user", "content": f"sum of {i} squares"}], "verifier": "custom",
         "answer": answer}
        for i in range(12)
    ]  # fmt: skip
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    tree = {
        "run_dir": str(tmp_path / name),
        "policy": {"path": str(policy)},
        "tasks": {"train": {"path": str(tmp_path / "tasks.jsonl")}, "check": "none"},
        "rollouts": {
            "engine": {"kind": "fake"},
            "sampling": {"max_prompt_tokens": 64, "max_completion_tokens": 16},
            "proof": {"logprob_atol": 1e6},  # the fake engine has no forward pass to compare
        },
        "rewards": {"workers": 1},
        "grpo": {"steps": STEPS, "prompts_per_step": 3, "group_size": 4, "learning_rate": 1e-4, "checkpoint_every": 2,
                 "micro_batch_tokens": 64, "eval_every": 0, "mismatch": {"stop_above": 1e9}, **grpo},
    }  # fmt: skip
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return str(path)


def metrics(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "grpo" / "metrics.jsonl").read_text().splitlines()]
    volatile = ("time", "memory/", "tokens/generated_per_s")
    return [{k: v for k, v in row.items() if not k.startswith(volatile)} for row in rows]


def assert_same_run(found: Path, expected: Path) -> None:
    rows, wanted = metrics(found), metrics(expected)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert rows == [pytest.approx(row, **CLOSE) for row in wanted]
    assert any(row["grad_norm"] > 0 for row in wanted)
    assert_same_weights(found / "grpo" / "policy", expected / "grpo" / "policy")


def assert_same_weights(found: Path, expected: Path) -> None:
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (found, expected))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-6, rtol=1e-5, msg=lambda m, at=name: f"{at}: {m}")


@pytest.fixture(scope="module")
def alone(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process that all others have to equal."""
    folder = tmp_path_factory.mktemp("alone")
    command = [sys.executable, "-m", "assay.cli", "grpo", configured(folder, tiny_policy, "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "run"


def test_two_processes_do_a_run_as_one_does(alone: Path, tiny_policy: Path, tmp_path: Path):
    found = ends(start(["assay.cli", "grpo", configured(tmp_path, tiny_policy, "run")], 2))
    assert [code for code, _ in found] == [0, 0], found
    assert f"step {STEPS}/" in found[0][1] and "Traceback" not in found[0][1]
    assert found[1][1] == "", "the other rank has nothing to say"
    assert_same_run(tmp_path / "run", alone)


def ended_at(step: int, victim: int, number: signal.Signals, config: str) -> tuple[list[int], list[str], int]:
    """Two ranks, of which one gets a signal after a step: statuses, what each said, the victim's process."""
    processes = start(["assay.cli", "grpo", config], 2)
    said = ""
    assert processes[0].stderr is not None
    for line in processes[0].stderr:
        said += line
        if line.startswith(f"step {step}/"):
            processes[victim].send_signal(number)
            break
    began = time.monotonic()
    found = ends(processes, SECONDS)
    assert time.monotonic() - began < SECONDS
    assert "Traceback" not in "".join(text for _, text in found)
    return [code for code, _ in found], [said + found[0][1], found[1][1]], processes[victim].pid


def test_a_rank_that_is_killed_ends_the_other_and_the_run_is_taken_up(alone: Path, tiny_policy: Path, tmp_path: Path):
    codes, said, victim = ended_at(3, 1, signal.SIGKILL, configured(tmp_path, tiny_policy, "run"))
    assert codes == [2, -9], said
    gone = f"assay grpo: rank 1 ({socket.gethostname()}, pid {victim}) is gone: killed, out of memory, or its machine"
    assert said[0].strip().splitlines()[-1] == f"{gone} went down; go on with: assay grpo --resume {tmp_path / 'run'}"
    again = ends(start(["assay.cli", "grpo", "--resume", str(tmp_path / "run")], 2))
    assert [code for code, _ in again] == [0, 0], again
    assert "grpo: resumed from" in again[0][1]
    assert_same_run(tmp_path / "run", alone)


@pytest.mark.slow
def test_without_rank_0_the_other_ends_too(tiny_policy: Path, tmp_path: Path):
    codes, said, victim = ended_at(1, 0, signal.SIGKILL, configured(tmp_path, tiny_policy, "run"))
    assert codes == [-9, 2], said
    gone = rf"rank 1 \(.*\): rank 0 \({socket.gethostname()}, pid {victim}\) is gone: killed, .* down; this rank ends"
    assert re.fullmatch(gone, said[1].strip())


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_signal_to_one_rank_stops_all_after_the_step(tiny_policy: Path, tmp_path: Path, victim: int):
    codes, said, _ = ended_at(1, victim, signal.SIGINT, configured(tmp_path, tiny_policy, "run"))
    assert codes == [130, 130], said
    assert "stopping after this step and writing a checkpoint" in said[0]
    assert said[0].strip().splitlines()[-1].endswith(f"stopped; go on with: assay grpo --resume {tmp_path / 'run'}")
    newest = valid_checkpoints(tmp_path / "run" / "grpo" / "checkpoints")[-1]
    rows = (tmp_path / "run" / "grpo" / "metrics.jsonl").read_text().splitlines()
    assert newest.name == f"step-{len(rows):08d}"


@pytest.mark.slow
def test_the_supervised_commands_on_two_ranks(tiny_policy: Path, tmp_path: Path):
    """`assay sft`, then `assay reward-model` from it, on two processes and on one."""
    generate(tmp_path / "tasks", seed=0)
    rows = [
        {"task_id": f"t{i % 8}", "source": "s", "prompt_ids": [0, 7], "completion_ids": [20 + i % 5, 40 + i % 2, 1],
         "passed": i % 2 == 0}
        for i in range(48)
    ]  # fmt: skip
    for world in (1, 2):
        run = tmp_path / f"on {world}"
        tree = {
            "run_dir": str(run),
            "policy": {"path": str(tiny_policy)},
            "tasks": {"train": {"path": str(tmp_path / "tasks" / "train.jsonl")}},
            "sft": {"data": str(tmp_path / "tasks" / "demonstrations.jsonl"), "total_tokens": 3000,
                    "batch_tokens": 1500, "micro_batch_tokens": 300, "learning_rate": 1e-4, "warmup_steps": 1},
            "reward_model": {"batch_size": 16, "learning_rate": 1e-4, "micro_batch_tokens": 40},
        }  # fmt: skip
        path = tmp_path / f"{world}.yaml"
        path.write_text(yaml.safe_dump(tree))
        launch(["assay.cli", "sft", str(path)], world)
        (run / "preferences").mkdir()
        (run / "preferences" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        Lineage(run).record("preferences", kind="data", path=run / "preferences", parents=["sft"])
        launch(["assay.cli", "reward-model", str(path)], world)
    for made in ("sft/policy", "reward_model"):
        assert_same_weights(tmp_path / "on 2" / made, tmp_path / "on 1" / made)
        assert is_complete(tmp_path / "on 2" / made)
