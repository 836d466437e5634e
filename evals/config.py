"""How policies are compared on held-out tasks."""

from __future__ import annotations

from pydantic import Field

from assay.config import Section


class EvalConfig(Section):
    """Greedy, and sampled at T = 1 (the distribution the policy is trained in), on the same tasks."""

    samples: int = Field(default=1, ge=1, description="sampled completions per task")
    temperature: float = Field(default=1.0, gt=0)
    limit: int | None = Field(default=None, ge=1, description="only the first so many held-out tasks")
    max_completion_tokens: int | None = Field(default=None, ge=1, description="as in training if unset")
