"""The recipe with rollouts ahead of training: real vLLM in Ray actors, killed in the midst of GRPO, taken up again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from assay import metrics
from assay.checkpoint import is_complete
from rollouts.recorder import read_samples
from tests.chaos.test_kill_anything import RAYS_OWN
from tests.test_recipe import CONFIG, ROOT, command

pytestmark = [pytest.mark.vllm, pytest.mark.ray, pytest.mark.sandbox, pytest.mark.slow]
STEPS, PROMPTS, GROUP = 6, 3, 4  # 18 prompts, which is every training task once
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
VOLATILE = ("time", "memory/", "tokens/generated_per_s", "weights/", "pass@1/heldout")
KINDS = {
    "ahead": ({"max_lag": 1}, {}),
    "flow": (
        {"max_lag": 2, "flow": True, "correction": {"kind": "tis"}},
        {"routing": "queue", "update_in_flight": True},
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a recipe whose driver was killed when the third step was done, the checkpoint being of the second,
    and which the same command ended."""
    grpo, engine = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    tree: dict[str, Any] = {**CONFIG, "run_dir": str(folder / "run")}
    tree["rollouts"] = {**CONFIG["rollouts"], "engine": {**CONFIG["rollouts"]["engine"], **engine}}
    tree["grpo"] = {
        **CONFIG["grpo"], "steps": STEPS, "prompts_per_step": PROMPTS, "mismatch": {"stop_above": 1.0}, **grpo
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    killed(folder / "config.yaml")
    assert not (folder / "run" / "grpo" / "policy").exists()
    again = finished("recipe", str(folder / "config.yaml"))
    assert "sft: done already" in again.stderr and "2 of 6 steps done" in again.stderr
    assert is_complete(folder / "run" / "grpo" / "policy")
    return folder / "run"


def killed(config: Path) -> None:
    driver = subprocess.Popen(
        command("recipe", str(config)), cwd=config.parent, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    assert driver.stderr is not None
    said, family = [], list[psutil.Process]()
    for line in driver.stderr:
        said.append(line)
        if line.startswith("step 3/"):
            family = [p for p in psutil.Process(driver.pid).children(recursive=True) if p.name() not in RAYS_OWN]
            driver.send_signal(signal.SIGKILL)
    assert driver.wait(timeout=60) == -signal.SIGKILL, "".join(said[-30:])
    _, left = psutil.wait_procs(family, timeout=60)
    assert family and not left, f"still running: {left}"


def finished(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*arguments), env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def test_every_prompt_is_learned_from_once_though_the_driver_was_killed(run: Path):
    samples = read_samples(run / "grpo" / "samples")
    assert sorted(Counter(row["task_id"] for row in samples).values()) == [GROUP] * STEPS * PROMPTS
    assert Counter(row["step"] for row in samples) == {step: PROMPTS * GROUP for step in range(1, STEPS + 1)}


def test_ages_proofs_and_verdicts_are_in_the_metrics(run: Path):
    rows, limit = metrics.read(run / "grpo"), yaml.safe_load((run / "config.yaml").read_text())["grpo"]["max_lag"]
    assert [row["step"] for row in rows] == [*range(1, STEPS + 1)]
    assert [row["policy/version"] for row in rows] == [*range(1, STEPS + 1)]
    assert 0 < max(row["lag/max"] for row in rows) <= limit
    for row in rows:
        assert metrics.undocumented(row) == []
        assert row["weights/probe_max_abs"] < 1e-4
        assert row["verdict/INFRA"] == row["groups/masked_infra"] == 0
        assert sum(value for name, value in row.items() if name.startswith("lag/share_")) == pytest.approx(1.0)
        assert (row["mismatch/k3"] < 1e-8) == (row["lag/max"] == 0)
    assert rows[0]["lag/max"] == rows[2]["lag/max"] == 0, "the first steps of each process"


def test_the_run_is_replayed_to_the_bit(run: Path):
    again = run.parent / "again"
    done = finished("grpo", str(run.parent / "config.yaml"), f"run_dir={again}", "--replay", str(run))
    assert done.stdout.splitlines()[-1].startswith(f"replay: {STEPS} steps, largest difference 0.0e+00")
    then, now = (
        [{k: v for k, v in row.items() if not k.startswith(VOLATILE)} for row in metrics.read(folder / "grpo")]
        for folder in (run, again)
    )
    assert now == then
    assert (again / "grpo/policy/model.safetensors").read_bytes() == (
        run / "grpo/policy/model.safetensors"
    ).read_bytes()
