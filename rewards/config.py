"""Configuration of rewards: which signal trains the policy, and the limits answers run under."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from assay.config import Section
from rewards.sandbox.base import MIB, Limits

Signal = Literal["compiler", "rm", "mix"]


class SandboxConfig(Section):
    """The box, and what one test may use in it. A task may set limits of its own in its answer record."""

    #: docker: a hardened container per worker; local: namespaces of this machine; weak: limits without isolation,
    #: and every result will say so
    tier: Literal["docker", "local", "weak"] = "local"
    image: str = "assay-sandbox"  #: docker: what `assay sandbox build` made
    runtime: str | None = None  #: docker: another container runtime, such as runsc (gVisor)
    container_memory_bytes: int = Field(default=4096 * MIB, ge=256 * MIB)  #: docker: of the whole container
    cpu_s: float = Field(default=4.0, gt=0)  #: processor time decides a time-out
    #: the backstop for answers that wait; where a task sets more cpu_s alone, it grows in the same ratio
    wall_s: float = Field(default=12.0, gt=0)
    memory_bytes: int = Field(default=1024 * MIB, ge=64 * MIB)
    output_bytes: int = Field(default=16 * MIB, ge=1024)
    processes: int = Field(default=64, ge=4)
    file_bytes: int = Field(default=64 * MIB, ge=1 * MIB)

    @model_validator(mode="after")
    def _wall_covers_processor_time(self) -> SandboxConfig:
        if self.wall_s < self.cpu_s:
            raise ValueError(
                f"wall_s={self.wall_s} is below cpu_s={self.cpu_s}, so a busy machine would decide verdicts; "
                f"use at least {2 * self.cpu_s}"
            )
        return self

    def limits(self) -> Limits:
        """The limits of one test."""
        return Limits(**self.model_dump(exclude={"tier", "image", "runtime", "container_memory_bytes"}))


class MixWeights(Section):
    """reward = compiler * (verdict of the tests) + rm * (score of the reward model)."""

    compiler: float = 0.5
    rm: float = 0.5
    normalise: bool = False  #: bring each signal to mean 0 and deviation 1 within its group first

    @model_validator(mode="after")
    def _something_counts(self) -> MixWeights:
        if self.compiler < 0 or self.rm < 0 or self.compiler + self.rm <= 0:
            raise ValueError(
                f"mix weights compiler={self.compiler}, rm={self.rm} must not be negative and not both be 0"
            )
        return self


class RewardsConfig(Section):
    """What an answer is worth."""

    reward: Signal = "compiler"  #: what trains the policy; every signal at hand is recorded whatever this says
    mix_weights: MixWeights = MixWeights()
    partial: bool = False  #: the share of tests passed instead of the recipe's 0 or 1
    #: calls of a function (`function`, `asserts`): a box for each test, or one for all tests of a task, which is faster
    #: and lets an answer leave files, processes and counts of them for its later tests
    isolate: Literal["test", "task"] = "test"
    whole_text: bool = False  #: an answer without a fenced block is taken as a program
    workers: int = Field(default=1, ge=1)  #: reward workers, each with a sandbox of its own
    sandbox: SandboxConfig = SandboxConfig()
