"""`assay sft` and its end before the end: SIGTERM, and the same command again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from assay.checkpoint import latest_valid, read_marker

ROOT = Path(__file__).resolve().parent.parent
CONFIG: dict[str, Any] = {
    "policy": {"vocab_size": 300, "init": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                                           "n_routed_experts": 4, "moe_intermediate_size": 16}},
    "tasks": {"generator": str(ROOT / "tests" / "tiny_tasks.py")},
    "sft": {"total_tokens": None, "epochs": 20, "batch_tokens": 600, "warmup_steps": 5, "max_length": 128,
            "checkpoint_every": 0},
}  # fmt: skip


def steps(run: Path) -> list[int]:
    path = run / "sft" / "metrics.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


def start(path: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "assay.cli", "sft", str(path)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def test_sft_stops_for_sigterm_with_a_checkpoint_says_how_to_go_on_and_does(tmp_path: Path):
    run, path = tmp_path / "run", tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "run_dir": str(run)}))
    process = start(path)
    deadline = time.monotonic() + 120
    while not steps(run) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said[-3000:]
    assert said.splitlines()[-1] == f"assay sft: stopped; go on with: assay sft {path}"
    assert "SIGTERM: stopping after this step and writing a checkpoint" in said and "Traceback" not in said
    newest = latest_valid(run / "sft" / "checkpoints")
    done = steps(run)
    assert newest is not None and read_marker(newest)["step"] == len(done) > 0
    path.write_text(yaml.safe_dump({**CONFIG, "run_dir": str(run), "max_hours": 1e-6}))  # may differ
    process = start(path)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and "assay sft: max_hours=1e-06 leaves 0 s" in said.splitlines()[-1], said[-3000:]
    assert steps(run) == done
    path.write_text(yaml.safe_dump({**CONFIG, "run_dir": str(run)}))
    process = start(path)
    out, said = process.communicate(timeout=240)
    assert process.returncode == 0 and out.strip() == str(run / "sft" / "policy"), said[-3000:]
    assert steps(run) == list(range(1, steps(run)[-1] + 1)) and len(steps(run)) > len(done)
