"""`assay grpo` with a flow of groups and updates in flight: real vLLM in a Ray actor, real trainer, real proofs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from assay import metrics
from assay.commands import stages
from assay.commands.context import Run
from assay.commands.fleet import fleet
from assay.commands.schema import RunConfig
from rollouts.recorder import read_samples

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.sandbox]
STEPS, PROMPTS, GROUP, LAG = 6, 3, 2, 2
REWARD = "def score(prompts, completions, **columns):\n    return [float(len(c) % 2) for c in completions]\n"


def settings(folder: Path, policy: Path, *, in_flight: bool) -> RunConfig:
    (folder / "odd.py").write_text(REWARD)
    rows = [
        {"id": f"t/{i}", "messages": [{"role": "user", "content": f"f {i}"}], "verifier": "custom",
         "answer": {"function": "odd.py:score"}}
        for i in range(STEPS * PROMPTS)
    ]  # fmt: skip
    (folder / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RunConfig.model_validate({
        "run_dir": str(folder / "run"),
        "policy": {"path": str(policy)},
        "tasks": {"train": {"path": str(folder / "tasks.jsonl")}, "check": "none"},
        "rollouts": {
            "engine": {"max_num_seqs": 6, "routing": "queue", "update_in_flight": in_flight, "threads": 1},
            "sampling": {"max_prompt_tokens": 32, "max_completion_tokens": 160},
        },
        "rewards": {"reward": "compiler", "workers": 1},
        "grpo": {"steps": STEPS, "prompts_per_step": PROMPTS, "group_size": GROUP, "learning_rate": 1e-2,
                 "checkpoint_every": 3, "eval_every": 0, "max_lag": LAG, "flow": True,
                 "mismatch": {"stop_above": 1e3}, "correction": {"kind": "tis"}},
    })  # fmt: skip


@pytest.mark.parametrize("in_flight", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_flow_trains_on_every_prompt_once_under_weights_that_are_proved(
    tmp_path: Path, tiny_policy: Path, in_flight: bool
):
    config = settings(tmp_path, tiny_policy, in_flight=in_flight)
    with fleet(config, tiny_policy) as machines:
        run = Run.open(config)
        stages.grpo(run, machines, stages.base_policy(run), "base")
    rows = metrics.read(tmp_path / "run" / "grpo")
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert max(row["weights/probe_max_abs"] for row in rows) < 1e-4  # at every sync, in flight or not
    assert max(row["lag/max"] for row in rows) <= LAG
    assert all(metrics.undocumented(row) == [] for row in rows)
    samples = [*read_samples(tmp_path / "run" / "grpo" / "samples")]
    assert Counter(row["task_id"] for row in samples) == {f"t/{i}": GROUP for i in range(STEPS * PROMPTS)}
    mixed = sum(row["policy_version_min"] < row["policy_version_max"] for row in samples)
    assert mixed > 0 if in_flight else mixed == 0
    fresh = [row["mismatch/max_abs_logratio"] for row in rows if row["lag/max"] == 0]
    assert all(value < 1e-3 for value in fresh)
