"""An engine without a model: scripted answers, so that the whole loop runs in seconds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from assay.errors import WeightMismatch
from assay.types import Completion, FinishReason, RoutedExperts
from rollouts.engine import SLEPT, Sampling
from rollouts.weights import Arrival, SyncReport, WeightBundle, check_base, named

Answer = Callable[[Sequence[int], random.Random], Sequence[int]]
Route = Callable[[Sequence[int]], RoutedExperts]


class FakeEngine:
    """Answers `answer(prompt_ids, random)` with log-probability `logprob` per token; holds whatever it is given.

    With `route`, completions say which experts an engine would have used on prompt + completion.
    """

    def __init__(self, answer: Answer, logprob: float = -1.0, route: Route | None = None) -> None:
        self._answer, self._logprob, self._route = answer, logprob, route
        self.version = -1
        self._arrival, self._kept = Arrival(), ""
        self._slept = self._asleep = False

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        self._ready()
        seeds = [f"{sampling.seed}/{sampling.number(p)}" for p in range(len(prompts))]
        return [
            [
                self._completion(prompt, random.Random(f"{seed}/{g}"), sampling.max_tokens)
                for g in range(sampling.samples)
            ]
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]

    def stream(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> Iterator[tuple[int, list[Completion]]]:
        yield from enumerate(self.generate(prompts, sampling))

    def _completion(self, prompt: Sequence[int], draw: random.Random, max_tokens: int) -> Completion:
        wanted = tuple(self._answer(prompt, draw))
        tokens = wanted[:max_tokens]
        return Completion(
            token_ids=tokens,
            logprobs=(self._logprob,) * len(tokens),
            text="",
            finish_reason=FinishReason.STOP if tokens == wanted else FinishReason.LENGTH,
            policy_version=(self.version, self.version),
            experts=self._route([*prompt, *tokens]) if self._route else None,
        )

    def load_weights(self, bundle: WeightBundle) -> SyncReport | None:
        if self._asleep:
            raise WeightMismatch("weights for an engine that sleeps")
        if bundle.adapter is not None:
            check_base(bundle, self._kept)
        self._arrival.take(bundle)
        if bundle.places is not None:
            self._kept = named(bundle.published, bundle.places) if bundle.published is not None else ""
        if bundle.published is None or bundle.places is not None:
            return None
        self.version, self._slept = bundle.version, False
        modules = len(bundle.published)
        return SyncReport(
            version=bundle.version, modules_checked=modules, max_relative_error=0.0, load_s=0.0, proof_s=0.0
        )

    def keeps(self) -> str:
        return self._kept

    def sleep(self) -> None:
        self._slept, self._asleep = True, True

    def wake_up(self) -> None:
        self._asleep = False

    def _ready(self) -> None:
        if self._slept:
            raise WeightMismatch(SLEPT)

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        self._ready()
        return [[self._logprob] * (len(s) - 1) for s in sequences]

    def close(self) -> None:
        """Nothing to free."""
