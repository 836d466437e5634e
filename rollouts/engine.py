"""What the rest of assay knows about an inference engine, and nothing more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from assay.types import Completion
from rollouts.weights import SyncReport, WeightBundle

SLEPT = "the engine slept, and what it held is gone: it may answer once weights have come and are proved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How one call draws. `temperature` 0 is greedy. `seed` and the number of a prompt make its draw repeatable,
    whichever engine has it and whatever else is in flight."""

    temperature: float
    max_tokens: int
    samples: int = 1  # G
    seed: int = 0
    numbers: tuple[int, ...] = ()  #: of the prompts, where a call has a part of a draw; else 0, 1, 2, ...

    def number(self, index: int) -> int:
        """What the prompt at `index` of the call is called in the whole draw."""
        return self.numbers[index] if self.numbers else index


class Engine(Protocol):
    """Prompts in, completions out; holds one version of the policy at a time."""

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        """G completions for each prompt (token ids), in the order of the prompts. Raises InfraFailure."""
        ...

    def stream(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> Iterator[tuple[int, list[Completion]]]:
        """The same as (index of the prompt, its G completions), each as soon as it is whole."""
        ...

    def load_weights(self, bundle: WeightBundle) -> SyncReport | None:
        """Take the next bucket of a version; after the last, say whether all of it is held. Raises WeightMismatch."""
        ...

    def keeps(self) -> str:
        """The name of the frozen weights it keeps, which factors may be sent for; empty where it keeps none."""
        ...

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probability of every token but the first, [len - 1] each: the probe that proves the computation."""
        ...

    def sleep(self) -> None:
        """Give back what memory can be given back, weights and KV cache. What it held is gone: until weights come and
        are proved, `generate` and `score` raise WeightMismatch."""
        ...

    def wake_up(self) -> None:
        """Take memory again, so that weights can come."""
        ...

    def close(self) -> None:
        """Free the engine. May be called twice."""
        ...
