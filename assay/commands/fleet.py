"""Engines, reward workers and weight sync of a run, started when first needed and ended together.

A recipe keeps one fleet through all its stages: starting vLLM takes as long as several training steps, and weights
are swapped in place anyway.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from assay.commands.context import say
from assay.commands.schema import RunConfig
from assay.errors import ConfigError
from assay.policy import load_policy, load_tokenizer
from rollouts.weights import Probe, WeightBundle, checkpoint_state, make_probe, probe_sequences, publish

if TYPE_CHECKING:
    from rewards.pool import RewardPool
    from rollouts.pool import RolloutPool


class Fleet:
    """`rollouts` and `rewards` of one run, on one Ray cluster."""

    def __init__(self, config: RunConfig, policy: Path | str) -> None:
        from grpo.cluster import Cluster

        self.config = config
        self.tokenizer = load_tokenizer(policy)
        if self.tokenizer.pad_token_id is None:
            raise ConfigError(f"{policy}: its tokenizer has no pad token; add one distinct from the end token")
        sampling = config.rollouts.sampling
        say("fleet: starting Ray, the rollout engine and the reward workers")
        self._cluster = Cluster(config.cluster)
        self._cluster.__enter__()
        try:
            self.rollouts: RolloutPool = self._cluster.rollouts(
                policy,
                config.rollouts,
                self.tokenizer,
                max_model_len=sampling.max_prompt_tokens
                + max(sampling.max_completion_tokens, config.eval.max_completion_tokens or 0),
            )
            self.rewards: RewardPool = self._cluster.rewards(config.rewards)
        except BaseException:
            self.close()
            raise
        special = self.tokenizer.all_special_ids
        self.probe_sequences = probe_sequences(len(self.tokenizer), special)
        self._versions = 0

    def use_reward_model(self, folder: Path | str) -> None:
        """Score with this reward model beside the tests from now on."""
        self.rewards.reward_model = self._cluster.reward_model(folder)

    def hold(self, policy: Path | str) -> None:
        """Put the weights of a checkpoint folder into every engine, with proof."""
        model = load_policy(policy, self.config.policy.dtype).eval()
        self._versions += 1
        bundle = publish(checkpoint_state(model), -self._versions)  # negative: not a version of a training run
        self.sync(bundle, make_probe(model, self.probe_sequences, self.tokenizer.pad_token_id))

    def sync(self, bundle: WeightBundle, probe: Probe) -> Mapping[str, float]:
        _, difference = self.rollouts.sync(bundle, probe)
        return {"weights/probe_max_abs": difference}

    def close(self) -> None:
        """End the threads, the actors and a cluster of our own."""
        for pool in (getattr(self, "rollouts", None), getattr(self, "rewards", None)):
            if pool is not None:
                pool.close()
        self._cluster.__exit__()


@contextmanager
def fleet(config: RunConfig, policy: Path | str) -> Iterator[Fleet]:
    """A fleet for the length of a block. An engine is built on `policy`'s architecture and tokenizer."""
    made = Fleet(config, policy)
    try:
        yield made
    finally:
        made.close()


class Interrupts:
    """SIGINT and SIGTERM ask the run to stop after the step at hand; a second one stops it at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        say(f"{signal.Signals(number).name}: stopping after this step and writing a checkpoint; again to stop at once")
