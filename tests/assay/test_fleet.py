"""When engines sleep: never while they are to draw."""

from __future__ import annotations

import pytest

from assay.commands.fleet import sleeps
from assay.commands.schema import RunConfig
from assay.config import validate
from assay.errors import ConfigError


def config(max_lag: int = 0, placement: str = "colocated", wanted: bool | None = None, grpo: bool = True) -> RunConfig:
    tree = {"run_dir": "r", "policy": {"init": {}}, "tasks": {"train": {"path": "t.jsonl"}}}
    tree |= {"cluster": {"placement": placement}, "rollouts": {"engine": {"sleeps": wanted}}}
    return validate(RunConfig, tree | ({"grpo": {"max_lag": max_lag}} if grpo else {}), "test")


def test_engines_sleep_beside_a_trainer_that_they_wait_for():
    assert sleeps(config())
    assert not sleeps(config(placement="separate"))
    assert sleeps(config(placement="separate", wanted=True))
    assert not sleeps(config(wanted=False))
    assert not sleeps(config(max_lag=1))
    assert not sleeps(config(grpo=False, wanted=True))  # nobody trains
    with pytest.raises(ConfigError, match="engines draw while the trainer steps"):
        sleeps(config(max_lag=1, wanted=True))
