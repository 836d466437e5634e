"""The trainer's section. The defaults are the published ones where there are any (docs in configs/)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from assay.config import Section


class OptimizerConfig(Section):
    """AdamW. The betas and the decay are DeepSeek-V2's; DeepSeekMath publishes the learning rate alone."""

    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.0, ge=0)
    grad_clip: float = Field(default=1.0, gt=0)
    warmup_steps: int = Field(default=0, ge=0)


class KLConfig(Section):
    """KL to the reference policy, in the loss. DeepSeekMath section 4.2: k3, 0.04."""

    estimator: Literal["k1", "k2", "k3"] = "k3"
    coef: float = Field(default=0.04, ge=0)


class MismatchConfig(Section):
    """When engine and trainer disagree about the tokens the engine sampled, the run stops (mean k3 per token)."""

    stop_above: float = Field(default=0.05, gt=0)


class GRPOConfig(Section):
    """GRPO without a critic: DeepSeekMath, arXiv 2402.03300, Eq. 3 and section 4.2."""

    steps: int = Field(default=600, ge=1)
    prompts_per_step: int = Field(default=16, ge=1)
    group_size: int = Field(default=64)
    learning_rate: float = Field(default=1e-6, gt=0)
    advantage: Literal["mean_std", "mean"] = "mean_std"
    loss_normalisation: Literal["per_sequence_mean", "token", "constant"] = "per_sequence_mean"
    clip: tuple[float, float] = Field(
        default=(0.2, 0.2), description="1-low .. 1+high; inert with one update per rollout"
    )
    updates_per_rollout: int = Field(default=1, ge=1)
    kl: KLConfig = KLConfig()
    mismatch: MismatchConfig = MismatchConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    drop_zero_variance_groups: bool = False
    micro_batch_tokens: int = Field(default=8192, ge=1, description="positions in one forward pass of the trainer")
    gradient_checkpointing: bool = False
    eval_every: int = Field(default=50, ge=0, description="held-out pass@1 during the run; 0: never")
    eval_limit: int = Field(default=128, ge=1, description="held-out tasks in an evaluation during the run")
    checkpoint_every: int = Field(default=50, ge=1)
    keep_last: int = Field(default=2, ge=1)

    @field_validator("group_size")
    @classmethod
    def _a_group_has_a_mean(cls, value: int) -> int:
        if value < 2:
            raise ValueError(
                "a group of one has nothing to be compared with, so every advantage would be 0; use at least 2 "
                "(DeepSeekMath uses 64)"
            )
        return value


class ClusterConfig(Section):
    """Ray. `address` joins a running cluster; without one, a cluster of its own is started on this machine.

    `grpo/placement.py` says what goes where, and `assay plan CONFIG` prints it.
    """

    address: str | None = None
    placement: Literal["colocated", "separate"] = Field(
        default="colocated", description="engines on the trainer's devices, or on others"
    )
    trainer_gpus: int = Field(default=0, ge=0, description="separate: devices of the driver's node set aside for it")
    engine_cpus: float = Field(default=1.0, ge=0)
    engine_gpus: float = Field(default=0.0, ge=0, description="of one engine; from 2 on it is tensor parallel")
    engine_resources: dict[str, float] = Field(
        default_factory=dict, description="Ray resources of one engine beside them"
    )
    reward_cpus: float = Field(default=1.0, ge=0)
    reward_resources: dict[str, float] = Field(
        default_factory=dict, description="of one reward worker: marks its nodes"
    )
    object_store_gib: float = Field(default=0.25, gt=0, description="of a cluster started here")
    stall_report_s: float = Field(
        default=60.0, gt=0, description="say who waits for what after so long without an answer"
    )
    call_timeout_s: float = Field(
        default=7200.0, gt=0, description="a call without an answer for so long has failed; its actor is started anew"
    )

    @model_validator(mode="after")
    def _devices_are_whole(self) -> ClusterConfig:
        if self.engine_gpus > 1 and self.engine_gpus != int(self.engine_gpus):
            raise ValueError(f"engine_gpus={self.engine_gpus}: above 1 an engine takes whole devices")
        if self.trainer_gpus and self.placement == "colocated":
            raise ValueError("trainer_gpus sets devices aside, which placement: separate does; leave one of them out")
        return self
