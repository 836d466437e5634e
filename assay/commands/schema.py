"""The root of a configuration file. Each section's schema lives with its owner; one file serves every command.

Imports neither torch nor ray nor vllm, so `assay --help` and a mistyped key answer at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from assay.config import Section
from assay.errors import ConfigError
from assay.policy import PolicyConfig
from evals.config import EvalConfig
from grpo.config import ClusterConfig, GRPOConfig
from rewards.config import RewardsConfig
from rewards.model.config import PreferencesConfig, RewardModelConfig
from rollouts.config import RolloutConfig, TasksConfig
from sft.config import SFTConfig


class RunConfig(Section):
    """A run: its folder and seed, and the sections of the stages it has."""

    run_dir: str = Field(description="everything the run leaves behind")
    seed: int = Field(default=0, ge=0)
    max_hours: float | None = Field(
        default=None, gt=0, description="of one process: stop before, with a checkpoint; taken up again it counts anew"
    )
    policy: PolicyConfig
    tasks: TasksConfig
    sft: SFTConfig | None = None
    preferences: PreferencesConfig | None = None
    reward_model: RewardModelConfig | None = None
    reward_model_path: str | None = Field(default=None, description="a reward model that exists already")
    rollouts: RolloutConfig = RolloutConfig()
    rewards: RewardsConfig = RewardsConfig()
    grpo: GRPOConfig | None = None
    eval: EvalConfig = EvalConfig()
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _a_flow_has_a_queue(self) -> RunConfig:
        if self.grpo is not None and self.grpo.flow and self.rollouts.engine.routing != "queue":
            raise ValueError("grpo.flow hands out prompt by prompt; set rollouts.engine.routing: queue")
        if self.rollouts.engine.update_in_flight and not (self.grpo is not None and self.grpo.flow):
            raise ValueError(
                "rollouts.engine.update_in_flight: nothing is in flight at a sync without grpo.flow; set it"
            )
        return self

    @model_validator(mode="after")
    def _factors_come_from_an_adapter(self) -> RunConfig:
        if self.rollouts.engine.lora_sync == "adapter" and self.policy.lora is None:
            raise ValueError(
                "rollouts.engine.lora_sync: adapter sends the factors of policy.lora, and there is none; set it too, "
                "or leave lora_sync out"
            )
        return self

    def anchored(self) -> RunConfig:
        """The same settings with relative paths made absolute, so that a run can be taken up from any folder.

        They count from the working directory, as on any command line. `policy.path` is left alone where there is no
        such folder: it may be a name on the hub.
        """
        tasks = self.tasks.model_copy(
            update={
                "generator": _absolute(self.tasks.generator),
                **{
                    split: file.model_copy(update={"path": _absolute(file.path)})
                    for split in ("train", "heldout")
                    if (file := getattr(self.tasks, split)) is not None
                },
            }
        )
        named = self.policy.path
        local = _absolute(named) if named is not None and Path(named).expanduser().exists() else named
        changed: dict[str, Any] = {
            "tasks": tasks,
            "policy": self.policy.model_copy(update={"path": local}),
            "reward_model_path": _absolute(self.reward_model_path),
        }
        if self.sft is not None:
            changed["sft"] = self.sft.model_copy(update={"data": _absolute(self.sft.data)})
        return self.model_copy(update=changed)

    def need(self, section: str, command: str) -> Any:
        """A section a command cannot do without. Raises ConfigError."""
        value = getattr(self, section)
        if value is None:
            raise ConfigError(f"`assay {command}` needs a `{section}:` section, and the configuration has none")
        return value


def _absolute(path: str | None) -> str | None:
    if path is None:
        return None
    expanded = Path(os.path.expandvars(path)).expanduser()
    return path if "$" in str(expanded) else str(expanded.resolve())
