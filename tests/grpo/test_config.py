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
    config = GRPOConfig(algorithm="dapo", clip=(0.1, 0.1), kl={"coef": 0.001})
    assert (config.clip, config.loss_normalisation) == ((0.1, 0.1), "token")
    assert (config.kl.coef, config.kl.estimator) == (0.001, "none")


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
    ],
)
def test_settings_that_mean_nothing_are_refused(tree: dict[str, object], complaint: str):
    with pytest.raises(ConfigError, match=complaint) as caught:
        validate(GRPOConfig, tree, "x.yaml")
    assert "\n" not in str(caught.value)
