"""Engines, reward workers and weight sync of a run, started when first needed and ended together.

A recipe keeps one fleet through all its stages: starting vLLM takes as long as several training steps, and weights
are swapped in place anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.commands.context import say
from assay.commands.rendezvous import without_launcher
from assay.commands.schema import RunConfig
from assay.errors import ConfigError
from assay.policy import load_policy, load_tokenizer
from assay.types import Task
from rollouts.weights import Probe, Publication, checkpoint_items, make_probe, probe_sequences
from rollouts.wide import as_held

if TYPE_CHECKING:
    from grpo.drawing import Recorded
    from grpo.trainer import PolicyTrainer
    from rewards.pool import RewardPool
    from rollouts.pool import RolloutPool


class Fleet:
    """`rollouts` and `rewards` of one run, on one Ray cluster."""

    parts = "the rollout engine and the reward workers"

    def __init__(self, config: RunConfig, policy: Path | str) -> None:
        from grpo.cluster import Cluster

        self.config = config
        self.tokenizer = load_tokenizer(policy)
        if self.tokenizer.pad_token_id is None:
            raise ConfigError(f"{policy}: its tokenizer has no pad token; add one distinct from the end token")
        say(f"fleet: starting Ray, {self.parts}")
        self._cluster = Cluster(config.cluster)
        with without_launcher():
            self._cluster.__enter__()
        try:
            self.rollouts = self._rollouts(policy)
            self.rewards: RewardPool = self._cluster.rewards(config.rewards)
        except BaseException:
            self.close()
            raise
        special = self.tokenizer.all_special_ids
        self.probe_sequences = probe_sequences(len(self.tokenizer), special)
        self._versions = 0

    def _rollouts(self, policy: Path | str) -> RolloutPool:
        rollouts, sampling = self.config.rollouts, self.config.rollouts.sampling
        engine = rollouts.engine.model_copy(update={"sleeps": sleeps(self.config)})
        longest = max(sampling.max_completion_tokens, self.config.eval.max_completion_tokens or 0)
        return self._cluster.rollouts(
            policy,
            rollouts.model_copy(update={"engine": engine}),
            self.tokenizer,
            max_model_len=sampling.max_prompt_tokens + longest,
        )

    def use_reward_model(self, folder: Path | str) -> None:
        """Score with this reward model beside the tests from now on."""
        self.rewards.reward_model = self._cluster.reward_model(folder)

    def hold(self, policy: Path | str) -> None:
        """Put the weights of a checkpoint folder into every engine, with proof."""
        self.rollouts.release()  # or what a trainer published keeps the trainer
        model = load_policy(policy).eval()
        self._versions += 1
        engine = self.config.rollouts.engine

        def items() -> Iterator[tuple[str, Any]]:
            return as_held(checkpoint_items(model, model.state_dict().items()), engine)

        # negative: not a version of a training run
        published = Publication(items, -self._versions, engine.sync_bucket_mib << 20)
        self.sync(published, make_probe(model, self.probe_sequences, self.tokenizer.pad_token_id))

    def sync(self, published: Publication, probe: Probe) -> Mapping[str, float]:
        _, difference = self.rollouts.sync(published, probe)
        return {"weights/probe_max_abs": difference}

    def update(self, trainer: PolicyTrainer) -> Mapping[str, float]:
        """Put the trainer's weights into every engine, with proof."""
        self.rollouts.release()
        ahead = self.config.grpo is not None and self.config.grpo.max_lag > 0  # engines may ask in the midst of a step
        published = trainer.publication(self.config.rollouts.engine, keep=ahead)
        proved = self.sync(published, trainer.probe(self.probe_sequences))
        if published.base is None:
            return proved
        return {**proved, "weights/sent_bytes": float(self.rollouts.sent_bytes)}

    def recorded(self, tasks: Sequence[Task]) -> Recorded | None:
        """The steps of a run that was made, where completions are not drawn."""
        return None

    def rest(self) -> None:
        """Let the engines give back memory for the trainer's step, where they share its devices and have nothing to do
        meanwhile; the next sync wakes them."""
        if sleeps(self.config):
            self.rollouts.sleep()

    def close(self) -> None:
        """End the threads, the actors and a cluster of our own."""
        for pool in (getattr(self, "rollouts", None), getattr(self, "rewards", None)):
            if pool is not None:
                pool.close()
        self._cluster.__exit__()


class ReplayFleet(Fleet):
    """Reward workers alone; the completions are those that a run recorded."""

    parts = "the reward workers; completions come from a recorded run"

    def __init__(self, config: RunConfig, policy: Path | str, samples: Path) -> None:
        self._samples = samples
        super().__init__(config, policy)

    def _rollouts(self, policy: Path | str) -> RolloutPool:
        from rollouts.replay import Replay

        self._replay = Replay(self.tokenizer, self._samples)
        return self._replay

    def recorded(self, tasks: Sequence[Task]) -> Recorded | None:
        return partial(self._replay.step, tasks={task.id: task for task in tasks})

    def update(self, trainer: PolicyTrainer) -> Mapping[str, float]:
        return {}  # no engine, and no claim that one holds the weights

    def rest(self) -> None:
        """No engine."""


def sleeps(config: RunConfig) -> bool:
    """Whether the engines sleep while the trainer steps. Raises ConfigError where they are to draw meanwhile."""
    wanted = config.rollouts.engine.sleeps
    if config.grpo is None:
        return False
    if wanted and config.grpo.max_lag:
        raise ConfigError("rollouts.engine.sleeps: with grpo.max_lag above 0 engines draw while the trainer steps")
    return config.cluster.placement == "colocated" and not config.grpo.max_lag if wanted is None else wanted


@contextmanager
def fleet(config: RunConfig, policy: Path | str, samples: Path | None = None) -> Iterator[Fleet]:
    """A fleet for the length of a block. An engine is built on `policy`'s architecture and tokenizer; with `samples`
    there is none, and they are replayed."""
    made = Fleet(config, policy) if samples is None else ReplayFleet(config, policy, samples)
    try:
        yield made
    finally:
        made.close()
