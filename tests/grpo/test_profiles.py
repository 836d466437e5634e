"""The published recipe and the modern one, side by side: they say where each number is from and where they differ."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from assay import config as configs
from assay.commands.schema import RunConfig

ROOT = Path(__file__).parents[2] / "configs"
MODELS = {"deepseek_coder_v2_lite_instruct": "Lite-Instruct", "deepseek_coder_v2_instruct": "Instruct"}
STATUS = re.compile(r"#.*\b[PBDMF]\b")


def read(model: str, profile: str) -> RunConfig:
    return configs.load(RunConfig, ROOT / model / f"grpo_{profile}.yaml")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("profile", ["faithful", "modern"])
def test_every_key_says_where_it_is_from(model: str, profile: str):
    lines = (ROOT / model / f"grpo_{profile}.yaml").read_text().splitlines()
    keys = [line for line in lines if re.match(r"\s*\w+: \S", line) and not line.startswith("extends")]
    assert [line for line in keys if not STATUS.search(line)] == []
    assert len(keys) > 8


@pytest.mark.parametrize("model", MODELS)
def test_the_faithful_profile_has_the_numbers_of_the_papers(model: str):
    config = read(model, "faithful")
    grpo = config.need("grpo", "grpo")
    assert config.policy.path == f"deepseek-ai/DeepSeek-Coder-V2-{MODELS[model]}"
    assert (grpo.group_size, grpo.prompts_per_step * grpo.group_size) == (64, 1024)
    assert (grpo.learning_rate, grpo.kl.estimator, grpo.kl.coef, grpo.updates_per_rollout) == (1e-6, "k3", 0.04, 1)
    assert (grpo.advantage, grpo.loss, grpo.loss_normalisation) == ("mean_std", "clipped", "per_sequence_mean")
    assert (grpo.steps, grpo.checkpoint_every) == (600, 50)
    assert config.rollouts.sampling.max_completion_tokens == 1024
    assert config.rewards.reward == "rm"


def different(a: Any, b: Any, at: str = "") -> set[str]:
    if not isinstance(a, dict) or not isinstance(b, dict):
        return set() if a == b else {at}
    return {
        key for name in a.keys() | b.keys() for key in different(a.get(name), b.get(name), f"{at}.{name}".strip("."))
    }


@pytest.mark.parametrize("model", MODELS)
def test_the_modern_profile_differs_where_it_says(model: str):
    faithful, modern = (read(model, p).model_dump() for p in ("faithful", "modern"))
    assert different(faithful, modern) == {
        "run_dir",
        "grpo.advantage",
        "grpo.loss_normalisation",
        "grpo.clip",
        "grpo.kl.estimator",
        "grpo.correction.kind",
        "grpo.correction.band",
        "grpo.correction.off_policy_threshold",
        "grpo.drop_zero_variance_groups",
        "grpo.max_generation_batches",
    }


def test_the_two_models_differ_in_their_names_and_their_engine():
    for profile in ("faithful", "modern"):
        lite, full = (read(model, profile).model_dump() for model in MODELS)
        assert different(lite, full) == {"run_dir", "policy.path", "cluster.engine_gpus"}
