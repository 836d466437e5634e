"""What runs inside an actor: thin classes around an engine, a scorer, the reward model. No Ray: all work in-process.

`grpo/cluster.py` makes actors of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from assay.shadow import check_shadowing
from grpo import versions
from grpo.daemons import outlive_sigterm
from rewards.config import RewardsConfig
from rollouts.config import RolloutConfig


class Holder:
    """An actor's common part: the object it holds, called by name, and what it runs."""

    held: Any

    def __init__(self) -> None:
        check_shadowing()
        outlive_sigterm()

    def call(self, method: str, *args: Any) -> Any:
        return getattr(self.held, method)(*args)

    def parts(self, method: str, *args: Any) -> Iterator[Any]:
        """An answer in parts; Ray hands on each part as it comes."""
        for part in self.call(method, *args):  # noqa: UP028 - Ray sends values into it: not for an iterator's ears
            yield part

    def versions(self) -> dict[str, str]:
        return versions.installed()


class EngineActor(Holder):
    """Holds one engine."""

    def __init__(self, model: str, config: RolloutConfig, max_model_len: int, eos_token_id: int) -> None:
        super().__init__()
        self.held = ENGINES[config.engine.kind](model, config, max_model_len, eos_token_id)


class RewardActor(Holder):
    """Holds one scorer and with it one sandbox."""

    def __init__(self, config: RewardsConfig) -> None:
        super().__init__()
        from rewards.scorer import Scorer

        self.held = Scorer(config)


class RewardModelActor(Holder):
    """Holds the learned reward model, on the `device` it was given: others may belong to the trainer or an engine, and
    Ray hides none of them."""

    def __init__(self, folder: str, device: str) -> None:
        super().__init__()
        from rewards.model.score import RewardModelScorer

        self.held = RewardModelScorer(folder, device=device)


def _vllm(model: str, config: RolloutConfig, max_model_len: int, eos_token_id: int) -> Any:
    from rollouts.vllm import VLLMEngine

    return VLLMEngine(model, config.engine, config.proof, max_model_len=max_model_len, eos_token_id=eos_token_id)


def _fake(model: str, config: RolloutConfig, max_model_len: int, eos_token_id: int) -> Any:
    """Answers with a beginning of the prompt, so that its text has words of the task in it."""
    from rollouts.fake import FakeEngine

    return FakeEngine(lambda prompt, draw: [*prompt[: draw.randint(1, len(prompt))], eos_token_id])


ENGINES: dict[str, Callable[[str, RolloutConfig, int, int], Any]] = {"vllm": _vllm, "fake": _fake}
