"""The trainer's section. The defaults are the published ones where there are any (docs in configs/)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from assay.config import Section, merge
from grpo.algorithms import ALGORITHMS


class OptimizerConfig(Section):
    """AdamW. The betas and the decay are DeepSeek-V2's; DeepSeekMath publishes the learning rate alone."""

    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.0, ge=0)
    grad_clip: float = Field(default=1.0, gt=0)
    warmup_steps: int = Field(default=0, ge=0)


class KLConfig(Section):
    """KL to the reference policy, in the loss. DeepSeekMath section 4.2: k3, 0.04. Rows of `grpo.kl`."""

    estimator: Literal["none", "k1", "k2", "k3", "unbiased"] = Field(
        default="k3", description="none: no reference policy is held at all"
    )
    coef: float = Field(default=0.04, ge=0)
    reset_every: int = Field(
        default=0, ge=0, description="steps after which the reference becomes the policy; 0: never"
    )

    @model_validator(mode="after")
    def _no_reference_no_setting_of_it(self) -> KLConfig:
        if self.estimator != "none":
            return self
        if self.coef != KLConfig.model_fields["coef"].default:
            raise ValueError(
                f"coef={self.coef} multiplies no KL under estimator: none; name an estimator, or leave it out"
            )
        if self.reset_every:
            raise ValueError("reset_every resets a reference, and estimator: none holds none; leave one of them out")
        return self


class MismatchConfig(Section):
    """When engine and trainer disagree about the tokens the engine sampled, the run stops (mean k3 per token)."""

    stop_above: float = Field(default=0.05, gt=0)


class MoEConfig(Section):
    """Routers of a mixture of experts. What DeepSeek-Coder-V2's alignment did with them is not published: all off.

    `replay`: r3 routes the trainer as the engine did (arXiv 2510.11370), r2 as the trainer did before its first update
    on the rollouts. On-policy, r3 brings nothing; off-policy, clipping and replay are both wanted (arXiv 2512.01374).
    """

    replay: Literal["off", "r2", "r3"] = "off"
    aux_coef: float = Field(default=0.0, ge=0, description="of DeepSeek-V2's sequence-level balance loss; 0.001 there")


class CorrectionConfig(Section):
    """What the engine's log-probabilities do to the loss. Rows and bands of `grpo.correction`."""

    kind: Literal["none", "tis", "icepop", "sequence_mask", "geometric"] = "none"
    band: tuple[float, float] | None = Field(default=None, description="of the ratio; unset: the row's own")
    off_policy_threshold: float | None = Field(
        default=None,
        gt=0,
        description="DeepSeek-V3.2: leave out completions with A < 0 that drifted so far, nats/token",
    )

    @model_validator(mode="after")
    def _a_band_has_an_inside(self) -> CorrectionConfig:
        if self.band is not None and not 0 <= self.band[0] < self.band[1]:
            raise ValueError(f"band={list(self.band)}: a band of ratios is 0 <= low < high")
        if self.band is not None and self.kind == "none":
            raise ValueError("a band without a correction does nothing; choose a kind, or leave the band out")
        return self


class EntropyConfig(Section):
    """A bonus for entropy. With a target the coefficient seeks it, from `coef` on: Skywork-OR1 (target 0.2)."""

    coef: float = Field(default=0.0, ge=0)
    target: float | None = Field(default=None, gt=0, description="nats/token; above it there is no bonus")
    step: float = Field(default=1e-4, gt=0)
    max_coef: float = Field(default=0.005, gt=0)

    @model_validator(mode="after")
    def _a_target_is_what_is_sought(self) -> EntropyConfig:
        seeking = [k for k in ("step", "max_coef") if getattr(self, k) != EntropyConfig.model_fields[k].default]
        if self.target is None and seeking:
            raise ValueError(f"{' and '.join(seeking)} move the coefficient towards a target; set target too")
        if self.target is not None and self.coef > self.max_coef:
            raise ValueError(
                f"coef={self.coef} would be cut to max_coef={self.max_coef} after one step; raise max_coef"
            )
        return self


class GRPOConfig(Section):
    """GRPO without a critic: DeepSeekMath, arXiv 2402.03300, Eq. 3 and section 4.2."""

    algorithm: Literal["grpo", "dr_grpo", "dapo", "bnpo", "gspo", "cispo", "deepseek_v3_2"] = Field(
        default="grpo", description="a row of grpo.algorithms: settings below the ones given here"
    )
    steps: int = Field(default=600, ge=1)
    prompts_per_step: int = Field(default=16, ge=1)
    group_size: int = Field(default=64)
    learning_rate: float = Field(default=1e-6, gt=0)
    advantage: Literal["mean_std", "mean", "leave_one_out", "batch_std", "process"] = "mean_std"
    loss: Literal["clipped", "gspo", "cispo"] = "clipped"
    loss_normalisation: Literal["per_sequence_mean", "token", "constant", "prompt_mean"] = "per_sequence_mean"
    clip: tuple[float, float] = Field(
        default=(0.2, 0.2), description="1-low .. 1+high; inert with one update per rollout"
    )
    updates_per_rollout: int = Field(default=1, ge=1, description="times every completion is learned from")
    mini_batches: int = Field(default=1, ge=1, description="optimizer steps over the prompts of one rollout")
    kl: KLConfig = KLConfig()
    correction: CorrectionConfig = CorrectionConfig()
    entropy: EntropyConfig = EntropyConfig()
    mismatch: MismatchConfig = MismatchConfig()
    moe: MoEConfig = MoEConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    drop_zero_variance_groups: bool = False
    max_generation_batches: int = Field(
        default=1, ge=1, description="how often a step may ask for groups in place of dropped ones; 1: never"
    )
    mask_truncated: bool = Field(default=False, description="completions cut at the token limit stay out of the loss")
    overlong_buffer_tokens: int = Field(
        default=0, ge=0, description="the last tokens before the limit, over which up to 1 is taken off the reward"
    )
    max_lag: int = Field(default=0, ge=0, description="steps that rollouts may be drawn and judged ahead of training")
    flow: bool = Field(
        default=False,
        description="ahead of training: a step takes the groups that are ready first, not a draw of its own",
    )
    micro_batch_tokens: int = Field(default=8192, ge=1, description="positions in one forward pass of the trainer")
    gradient_checkpointing: bool = False
    eval_every: int = Field(default=50, ge=0, description="held-out pass@1 during the run; 0: never")
    eval_limit: int = Field(default=128, ge=1, description="held-out tasks in an evaluation during the run")
    checkpoint_every: int = Field(default=50, ge=1)
    keep_last: int = Field(default=2, ge=1)
    checkpoint_async: bool = Field(
        default=True, description="write checkpoints beside the next steps, from a copy in main memory"
    )

    @model_validator(mode="before")
    @classmethod
    def _the_algorithm_lies_below(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return merge(ALGORITHMS.get(str(given.get("algorithm", "grpo")), {}), given)

    @model_validator(mode="after")
    def _no_setting_without_effect(self) -> GRPOConfig:
        if self.max_generation_batches > 1 and not self.drop_zero_variance_groups:
            raise ValueError("max_generation_batches replaces dropped groups; set drop_zero_variance_groups: true too")
        if self.flow and not self.max_lag:
            raise ValueError("flow lets slow groups go to a later step; set max_lag to the steps they may be late")
        if self.mini_batches > self.prompts_per_step:
            raise ValueError(f"mini_batches={self.mini_batches} cannot share {self.prompts_per_step} prompts per step")
        if self.advantage == "process" and self.overlong_buffer_tokens:
            raise ValueError("overlong_buffer_tokens shapes one reward per answer; advantage: process takes its steps'")
        if self.moe.replay == "r2" and self.updates_per_rollout * self.mini_batches == 1:
            raise ValueError(
                "moe.replay: r2 keeps the experts of the first update for later ones, and there is one only"
            )
        if self.loss == "cispo" and self.clip[0]:
            raise ValueError(f"clip={list(self.clip)}: cispo has no lower bound; write clip: [0, {self.clip[1]:g}]")
        return self

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
    engine_cpus: float | None = Field(
        default=None, ge=0, description="of one engine; unset: 1 for each of its processes"
    )
    engine_gpus: float = Field(
        default=0.0, ge=0, description="of one engine; from 2 on it is tensor parallel, with a process for each"
    )
    engine_resources: dict[str, float] = Field(
        default_factory=dict, description="Ray resources of one engine beside them"
    )
    reward_cpus: float = Field(default=1.0, ge=0)
    reward_resources: dict[str, float] = Field(
        default_factory=dict, description="of one reward worker: marks its nodes"
    )
    reward_model_gpus: float = Field(
        default=0.0, ge=0, le=1, description="of the learned reward model; 0: it computes on processors"
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
