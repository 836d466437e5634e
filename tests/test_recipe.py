"""The whole recipe in small: real vLLM in Ray actors, real programs in the sandbox, a real reward model. One run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from assay.checkpoint import is_complete, read_marker, valid_checkpoints
from assay.lineage import Lineage
from assay.metrics import undocumented
from assay.policy import load_policy, load_tokenizer
from rollouts.recorder import read_samples

pytestmark = [pytest.mark.vllm, pytest.mark.ray, pytest.mark.sandbox]
ROOT = Path(__file__).resolve().parent.parent

CONFIG: dict[str, Any] = {
    "seed": 0,
    "policy": {
        "vocab_size": 300,
        "init": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "n_routed_experts": 4,
                 "moe_intermediate_size": 32, "intermediate_size": 64},
    },
    "tasks": {"generator": str(ROOT / "tests" / "tiny_tasks.py")},
    "sft": {"total_tokens": 40_000, "batch_tokens": 600, "learning_rate": 5e-3, "warmup_steps": 5, "max_length": 128},
    "preferences": {"prompts": 18, "samples_per_prompt": 4},
    "reward_model": {"learning_rate": 1e-3, "batch_size": 32, "epochs": 2, "max_length": 128},
    "rollouts": {
        "engine": {"max_num_seqs": 32},
        "sampling": {"max_prompt_tokens": 64, "max_completion_tokens": 48},
    },
    "rewards": {"reward": "mix", "workers": 2},
    "grpo": {"steps": 4, "prompts_per_step": 4, "group_size": 4, "learning_rate": 1e-4, "eval_every": 2,
             "eval_limit": 4, "checkpoint_every": 2},
}  # fmt: skip


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "assay.cli", *arguments]


def ended_by(number: signal.Signals, at: str, path: Path, *, everyone: bool) -> list[str]:
    """Start the recipe, send it a signal when a line of its output begins with `at`; what it said, once it has ended.

    `everyone`: to its whole process group, as a terminal does; else to the process alone, as a scheduler does.
    """
    process = subprocess.Popen(
        command("recipe", str(path)), cwd=path.parent, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith(at):
            family = psutil.Process(process.pid).children(recursive=True)
            assert any("ray::" in " ".join(member.cmdline()) for member in family), "no actor is among its descendants"
            (os.killpg if everyone else os.kill)(process.pid, number)
            break
    else:
        pytest.fail(f"never said {at!r}: {''.join(said[-30:])}")
    said += process.stderr.readlines()
    assert process.wait(timeout=120) == 130, "".join(said[-30:])
    assert said[-1].startswith("assay recipe: interrupted; go on with: assay recipe"), said[-1]
    assert not [line for line in said if "Traceback" in line]
    _, left = psutil.wait_procs(family, timeout=30)
    assert not left, f"still running: {left}"
    return said


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, stopped by Ctrl-C in the middle of GRPO and by SIGTERM in the evaluation, each time taken up again."""
    folder = tmp_path_factory.mktemp("recipe")
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "run_dir": str(folder / "run")}))
    said = ended_by(signal.SIGINT, "step 1/", path, everyone=True)
    assert any("stopping after this step" in line for line in said)
    assert (folder / "run" / "report.html").is_file()
    assert not (folder / "run" / "grpo" / "policy").exists()
    said = ended_by(signal.SIGTERM, "grpo: done in", path, everyone=False)
    assert any("grpo: resumed from" in line for line in said)
    assert is_complete(folder / "run" / "grpo" / "policy")
    assert not (folder / "run" / "eval" / "grpo.json").exists()
    again = subprocess.run(
        command("recipe", str(path)), cwd=folder, capture_output=True, text=True, check=False, timeout=400,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert again.returncode == 0, again.stderr[-4000:]
    for stage in ("sft", "grpo"):
        assert f"{stage}: done already" in again.stderr
    assert "held-out pass@1" in again.stdout
    return folder / "run"


def test_every_stage_is_there_and_linked_to_what_it_was_made_from(run: Path):
    for stage in ("policy", "sft/policy", "preferences", "reward_model", "grpo/policy"):
        assert is_complete(run / stage), stage
    lineage = Lineage(run)
    assert lineage.ancestors("grpo") == ["sft", "base"]
    assert set(lineage.ancestors("reward_model")) == {"sft", "preferences", "base"}
    assert lineage.verify() == []
    grpo = lineage.artifacts["grpo"]
    assert grpo["config"]["group_size"] == 4
    assert grpo["data"][0]["rows"] == 18
    assert grpo["versions"]


def test_metrics_have_no_gap_and_no_double_after_the_interruption(run: Path):
    rows = [json.loads(line) for line in (run / "grpo" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        assert undocumented(row) == []
        assert row["mismatch/k3"] < 1e-8
        assert row["weights/probe_max_abs"] < 1e-4
        assert row["verdict/INFRA"] == 0
        assert {"reward/compiler", "reward/rm", "reward/mean"} <= row.keys()
        assert {f"time/{phase}_s" for phase in ("rollout", "reward", "logprobs", "update", "sync")} <= row.keys()
    assert [row["policy/version"] for row in rows] == [1, 2, 3, 4]
    assert list((run / "grpo" / "tensorboard").iterdir())


def test_samples_keep_every_signal_and_the_isolation_they_were_judged_in(run: Path):
    samples = read_samples(run / "grpo" / "samples")
    assert len(samples) == 4 * 4 * 4
    for sample in samples:
        assert sample["isolation"].startswith("local:user,mnt,pid,net")
        assert sample["policy_version_min"] == sample["policy_version_max"] == sample["step"] - 1
        assert sample["reward"] == pytest.approx(0.5 * sample["reward_compiler"] + 0.5 * sample["reward_rm"])
        assert len(sample["tests"]) in (0, 3)
    groups: dict[tuple[int, str], list[float]] = {}
    for sample in samples:
        groups.setdefault((sample["step"], sample["task_id"]), []).append(sample["advantage"])
    assert all(sum(values) == pytest.approx(0, abs=1e-6) for values in groups.values())


def test_nothing_held_out_ever_reached_training(run: Path):
    heldout = {json.loads(line)["id"] for line in (run / "data" / "heldout.jsonl").read_text().splitlines()}
    seen = {sample["task_id"] for sample in read_samples(run / "grpo" / "samples")}
    seen |= {json.loads(line)["task_id"] for line in (run / "preferences" / "rows.jsonl").read_text().splitlines()}
    assert not heldout & seen


def test_the_policy_is_a_plain_hugging_face_folder(run: Path):
    model, tokenizer = load_policy(run / "grpo" / "policy"), load_tokenizer(run / "grpo" / "policy")
    assert type(model).__name__ == "DeepseekV2ForCausalLM"
    assert model.config.vocab_size == len(tokenizer)
    before = load_policy(run / "sft" / "policy")
    moved = [not bool((a == b).all()) for a, b in zip(model.parameters(), before.parameters(), strict=True)]
    assert any(moved)


def test_checkpoints_report_and_evaluations(run: Path):
    newest = valid_checkpoints(run / "grpo" / "checkpoints")[-1]
    assert read_marker(newest)["cursor"] == 16
    for name in ("base", "sft", "grpo"):
        result = json.loads((run / "eval" / f"{name}.json").read_text())
        assert result["greedy"]["scored"] == result["sampled"]["scored"] == 6
        assert result["greedy"]["standard_error"] is not None
    facts = json.loads((run / "reward_model" / "reward_model.json").read_text())
    assert 0 <= facts["heldout_accuracy"] <= 1
    page = (run / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
