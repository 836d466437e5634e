"""Names in the configuration are rows of the tables, and an algorithm lies below what is said explicitly."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from assay.config import dump, load, validate
from assay.errors import ConfigError
from grpo.advantages import ADVANTAGES, BATCH_ADVANTAGES
from grpo.aggregation import AGGREGATIONS
from grpo.algorithms import ALGORITHMS
from grpo.config import CorrectionConfig, GRPOConfig, KLConfig
from grpo.correction import CORRECTIONS
from grpo.kl import KL
from grpo.losses import LOSSES


def choices(section: type, field: str) -> set[str]:
    return set(get_args(section.model_fields[field].annotation))


def test_every_name_is_a_row_and_every_row_has_a_name():
    assert choices(GRPOConfig, "advantage") == ADVANTAGES.keys() | BATCH_ADVANTAGES.keys() | {"process"}
    assert choices(GRPOConfig, "loss") == LOSSES.keys()
    assert choices(GRPOConfig, "loss_normalisation") == AGGREGATIONS.keys()
    assert choices(GRPOConfig, "algorithm") == ALGORITHMS.keys()
    assert choices(KLConfig, "estimator") == KL.keys()
    assert choices(CorrectionConfig, "kind") == CORRECTIONS.keys()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_is_its_settings_and_survives_its_own_dump(name: str, tmp_path: Path):
    config = GRPOConfig(algorithm=name)
    assert config == GRPOConfig(algorithm=name, **ALGORITHMS[name])
    dump(config, tmp_path / "config.yaml")
    assert load(GRPOConfig, tmp_path / "config.yaml") == config


def test_what_is_said_explicitly_wins_over_the_algorithm():
    config = GRPOConfig(algorithm="dapo", clip=(0.1, 0.1), kl={"estimator": "k2"})
    assert (config.clip, config.loss_normalisation) == ((0.1, 0.1), "token")
    assert (config.kl.estimator, config.max_generation_batches) == ("k2", 10)
    below = GRPOConfig(algorithm="deepseek_v3_2", kl={"coef": 0.001})  # a key beside the one the algorithm sets
    assert (below.kl.coef, below.kl.estimator) == (0.001, "unbiased")


def test_the_default_is_deepseekmath():
    assert GRPOConfig() == GRPOConfig(
        algorithm="grpo", advantage="mean_std", loss="clipped", loss_normalisation="per_sequence_mean",
        kl=KLConfig(estimator="k3", coef=0.04), group_size=64, learning_rate=1e-6, updates_per_rollout=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("tree", "complaint"),
    [
        ({"algorithm": "dpao"}, "algorithm='dpao'"),
        ({"max_generation_batches": 3}, "set drop_zero_variance_groups"),
        ({"mini_batches": 17}, "mini_batches=17 cannot share 16 prompts"),
        ({"correction": {"kind": "tis", "band": [2.0, 0.5]}}, "0 <= low < high"),
        ({"correction": {"band": [0.0, 2.0]}}, "a band without a correction"),
        ({"kl": {"estimator": "none", "reset_every": 100}}, "estimator: none holds none"),
        ({"algorithm": "dapo", "kl": {"coef": 0.001}}, "multiplies no KL under estimator: none"),
        ({"entropy": {"coef": 0.01, "step": 1e-3}}, "step move.* set target too"),
        ({"entropy": {"max_coef": 0.1}}, "max_coef move.* set target too"),
        ({"entropy": {"coef": 0.1, "target": 0.2}}, "raise max_coef"),
        ({"advantage": "process", "overlong_buffer_tokens": 8}, "advantage: process takes its steps'"),
        ({"moe": {"replay": "r2"}}, "there is one only"),
        ({"loss": "cispo"}, r"write clip: \[0, 0.2\]"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tree: dict[str, object], complaint: str):
    with pytest.raises(ConfigError, match=complaint) as caught:
        validate(GRPOConfig, tree, "x.yaml")
    assert "\n" not in str(caught.value)


def test_every_row_is_in_the_docs():
    text = (Path(__file__).parents[2] / "docs/algorithms.md").read_text()
    names = [*ALGORITHMS, *ADVANTAGES, *BATCH_ADVANTAGES, "process", *LOSSES, *AGGREGATIONS, *KL, *CORRECTIONS]
    assert [name for name in names if f"`{name}`" not in text] == []
    bands = {k: r.band for k, r in CORRECTIONS.items()}
    assert (bands["tis"][1], bands["icepop"], bands["sequence_mask"][1]) == (2, (0.5, 5), 3)
    assert bands["geometric"] == (0.99, 1.01)
