"""What the rollout side needs to be told: the engine, the sampling and where the tasks are."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import Field, field_validator, model_validator

from assay.config import Section


class EngineConfig(Section):
    """The vLLM engines. The defaults are those of a small model on a CPU."""

    kind: Literal["vllm", "fake"] = "vllm"
    engines: int = Field(default=1, ge=1, description="rollout actors; tasks are dealt out among them")
    tensor_parallel: int | None = Field(
        default=None,
        ge=1,
        description="processes of one engine, each with a slice of every weight; unset: one for each device of "
        "cluster.engine_gpus",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_num_seqs: int = Field(default=128, ge=1, description="sequences decoded at once by one engine")
    kv_cache_gib: int = Field(default=1, ge=1, description="CPU only: KV cache, where the sequences need so much")
    gpu_memory_utilization: float = Field(default=0.85, gt=0, le=1, description="CUDA only")
    enforce_eager: bool = True
    return_experts: bool = Field(
        default=False, description="completions carry the experts the routers chose, for grpo.moe.replay: r3"
    )
    fp32_router_and_head: bool = Field(
        default=False, description="of an engine in 16 bits: logits of routers and head in float32, as the trainer's"
    )
    sleeps: bool | None = Field(
        default=None,
        description="give memory back while the trainer steps; unset: where cluster.placement is colocated and no "
        "rollouts are drawn ahead (grpo.max_lag: 0)",
    )
    routing: Literal["fixed", "queue"] = Field(
        default="fixed",
        description="fixed: every engine draws its share; queue: an engine with room takes the next prompt, longest "
        "expected first, and a draw repeats to rounding alone",
    )
    update_in_flight: bool = Field(
        default=False,
        description="new weights are taken over between two tokens: completions under way go on with them, on keys and "
        "values of the old ones, and say which token came from which version",
    )
    sync_bucket_mib: int = Field(
        default=64, ge=1, description="weights travel in buckets of so much, or of one tensor that is larger"
    )
    lora_sync: Literal["merged", "adapter"] = Field(
        default="merged",
        description="with policy.lora: every sync sends merged weights, or the factors alone, which an engine merges "
        "into frozen weights that it got once and keeps in main memory",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU only: OpenMP threads of each process of an engine; unset: they share the cores of the machine "
        "among them",
    )

    @property
    def threads_each(self) -> int:
        """OpenMP threads of one process. More than there are cores for would not do: processes wait for each other
        spinning, and whoever spins holds the core that the other needs."""
        return self.threads or max(1, (os.cpu_count() or 1) // (self.tensor_parallel or 1))

    @model_validator(mode="after")
    def _wide_parts_of_a_narrow_engine(self) -> EngineConfig:
        if self.fp32_router_and_head and self.dtype == "float32":
            raise ValueError("fp32_router_and_head: an engine of dtype float32 computes all so; leave one of them out")
        if self.fp32_router_and_head and (self.tensor_parallel or 1) > 1:
            raise ValueError("fp32_router_and_head: needs tensor_parallel=1; other processes build their own routers")
        return self

    @model_validator(mode="after")
    def _updates_in_flight_need_a_queue(self) -> EngineConfig:
        if self.update_in_flight and self.routing != "queue":
            raise ValueError("update_in_flight: a share is drawn under one version; set routing: queue too")
        return self

    @model_validator(mode="after")
    def _who_merges_adapters(self) -> EngineConfig:
        if self.lora_sync == "adapter" and (self.tensor_parallel or 1) > 1:
            raise ValueError(
                "lora_sync: adapter needs tensor_parallel=1; each process of an engine would keep all frozen weights"
            )
        if self.lora_sync == "adapter" and self.update_in_flight:
            raise ValueError(
                "lora_sync: adapter has not been tried with update_in_flight, whose tokens would wait while an engine "
                "merges; set one of them alone"
            )
        return self


class SamplingConfig(Section):
    """How completions are drawn in training. Evaluation has its own section."""

    temperature: float = Field(default=1.0, gt=0)
    max_prompt_tokens: int = Field(default=512, ge=1, description="longer prompts are left out, and counted")
    max_completion_tokens: int = Field(default=1024, ge=1)


class ProofConfig(Section):
    """How sharply the engine has to agree with the trainer after each sync (DESIGN, law 4).

    `tensor_rtol` bounds the relative difference of every module of the engine on random inputs; unset, it is
    1e-5 in fp32 (a module that holds the right weights differs by about 1e-6) and 3e-2 in bfloat16. Weights that
    can be read as they are (embeddings, norms) must be equal to the bit in any case. `logprob_atol` bounds the
    probe's log-probabilities: its median always, and all but `flips_allowed` of its tokens, because a router may
    break a near-tie the other way and then differ visibly on that one token.
    """

    tensor_rtol: float | None = Field(default=None, gt=0)
    logprob_atol: float = Field(default=1e-3, gt=0)
    flips_allowed: float = Field(default=0.1, ge=0, lt=0.5)


class RolloutConfig(Section):
    engine: EngineConfig = EngineConfig()
    sampling: SamplingConfig = SamplingConfig()
    proof: ProofConfig = ProofConfig()


class TaskFile(Section):
    """One file of tasks. `format` names a row of `rollouts.tasks.FORMATS`."""

    path: str
    format: Literal[
        "assay",
        "mbpp",
        "human_eval",
        "multipl_e",
        "humanevalpack",
        "humanevalfix",
        "quixbugs",
        "evalplus",
        "kattis",
        "exercism",
        "bigcodebench",
        "aider",
        "apps",
        "code_contests",
        "livecodebench",
        "leetcode",
        "gsm8k",
        "math",
        "cruxeval",
    ] = "assay"
    limit: int | None = Field(default=None, ge=1, description="only the first so many")
    prompt: str = Field(default="{prompt}", description="what the policy is asked; {prompt}: the task's last message")

    @field_validator("prompt")
    @classmethod
    def _has_the_task(cls, wording: str) -> str:
        if "{prompt}" not in wording:
            raise ValueError(f"{wording!r} lacks {{prompt}}, the place of the task")
        return wording


class TasksConfig(Section):
    """The prompts. `generator` makes the files first: `generate(out_dir, seed=..., **options)` in a Python file."""

    generator: str | None = None
    options: dict[str, int | float | str | bool] = Field(default_factory=dict)
    train: TaskFile | None = None
    heldout: TaskFile | None = None
    check: Literal["all", "sample", "none"] = Field(
        default="sample", description="run reference solutions before training: every one, 64 of them, or none"
    )

    @model_validator(mode="after")
    def _has_a_source(self) -> TasksConfig:
        if self.generator is None and self.train is None:
            raise ValueError("name a `train` file, or a `generator` that writes one")
        return self
