"""A rollout actor whose answers depend on the weights it holds, and on nothing else but prompt and seed.

It knows the task's right answer and two wrong ones, so that rewards differ; an engine with other weights than the
quiet run's would choose others, and the run would end with other weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from assay.types import Completion
from grpo.actors import EngineActor
from rollouts.config import RolloutConfig
from rollouts.engine import Sampling
from rollouts.fake import FakeEngine
from rollouts.weights import SyncReport, WeightBundle

ANSWERS = "answers.json"  #: in the policy's folder: prompt ids -> the answers to choose from, as token ids


class HoldingEngine(FakeEngine):
    def __init__(self, answers: dict[str, list[list[int]]]) -> None:
        super().__init__(lambda prompt, draw: draw.choice(answers[key(prompt)]))
        self.held = 0

    def load_weights(self, bundle: WeightBundle) -> SyncReport | None:
        report = super().load_weights(bundle)
        if bundle.published is not None:
            whole = "".join(f"{name} {bundle.published[name]}\n" for name in sorted(bundle.published))
            self.held = int(hashlib.sha256(whole.encode()).hexdigest()[:12], 16)
        return report

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        return super().generate(prompts, replace(sampling, seed=sampling.seed ^ self.held))


class HoldingEngineActor(EngineActor):
    def __init__(self, model: str, config: RolloutConfig, max_model_len: int, eos_token_id: int) -> None:
        self.holding = HoldingEngine(json.loads(Path(model, ANSWERS).read_text()))

    def call(self, method: str, *args: Any) -> Any:
        return getattr(self.holding, method)(*args)


def key(prompt_ids: Sequence[int]) -> str:
    return " ".join(map(str, prompt_ids))
