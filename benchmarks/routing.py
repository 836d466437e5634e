"""What a queue of prompts wins over fixed shares when lengths have a long tail.

    .venv/bin/python benchmarks/routing.py [--draws 4]

The real pool over engines that sleep as a batch of vLLM would take: an engine decodes up to 64 sequences at once, each
token of the batch taking 0.3 ms however many there are; further groups wait for a free place. Groups of 8, 32 prompts
per engine and draw. A task's length is drawn once from a log-normal (median 200 tokens, sigma 1, cut at 2048), a
completion's varies around it by a fifth. `expected` is a queue that has seen the tasks before: it begins with the
longest. On paper no routing beats the mean load of all places, nor the longest completion: the larger of the two.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from assay.tokenizer import train_tokenizer
from assay.types import Completion, FinishReason, Message, Task
from rollouts.config import ProofConfig
from rollouts.engine import Sampling
from rollouts.fake import FakeEngine
from rollouts.pool import RolloutPool

ROOM, GROUP, PROMPTS, TOKEN_S = 64, 8, 32, 3e-4


class Decoding(FakeEngine):
    """Takes the time of the longest completion per call, with places for so many sequences."""

    def __init__(self, lengths: dict[int, int], places: int = ROOM // GROUP, token_s: float = TOKEN_S) -> None:
        super().__init__(lambda prompt, draw: ())
        self.lengths, self.places, self.token_s = lengths, places, token_s
        self.free = threading.Semaphore(places)

    def stream(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> Iterator[tuple[int, list[Completion]]]:
        """A share is one call: its groups wait for places among themselves, as they do in vLLM's scheduler."""
        groups = [self.group(p, sampling.number(i), sampling) for i, p in enumerate(prompts)]
        if len(prompts) == 1:
            with self.free:
                time.sleep(self.seconds(groups[0]))
                yield 0, groups[0]
            return
        load, ends = [0.0] * self.places, list[tuple[float, int]]()  # place by place; group by group
        for i, group in enumerate(groups):
            place = min(range(len(load)), key=load.__getitem__)
            load[place] += self.seconds(group)
            ends.append((load[place], i))
        began = time.perf_counter()
        for end, i in sorted(ends):
            time.sleep(max(0.0, began + end - time.perf_counter()))
            yield i, groups[i]

    def seconds(self, group: Sequence[Completion]) -> float:
        return self.token_s * max(len(c.token_ids) for c in group)

    def group(self, prompt: Sequence[int], number: int, sampling: Sampling) -> list[Completion]:
        held = (self.version, self.version)
        draw = random.Random(f"{sampling.seed}/{number}")
        mean = self.lengths[len(prompt)]
        sizes = [min(2048, max(1, round(mean * draw.gauss(1.0, 0.2)))) for _ in range(sampling.samples)]
        return [
            Completion(
                token_ids=(7,) * n, logprobs=(0.0,) * n, text="", finish_reason=FinishReason.STOP, policy_version=held
            )
            for n in sizes
        ]


def measure(engines: int, draws: int) -> None:
    tokenizer = train_tokenizer(["x"], vocab_size=300)
    draw = random.Random(engines)
    tasks = [
        Task(id=str(i), messages=(Message(role="user", content="x" * i),), verifier="custom", answer={})
        for i in range(1, 1 + PROMPTS * engines * 2)
    ]
    sized = RolloutPool([], tokenizer, ProofConfig())
    lengths = {len(sized.prompt_ids(t)): min(2048, round(200 * draw.lognormvariate(0, 1))) for t in tasks}
    for name, room, warm in (("fixed", 0, False), ("queue", ROOM, False), ("expected", ROOM, True)):
        pool = RolloutPool([Decoding(lengths) for _ in range(engines)], tokenizer, ProofConfig(), room=room)
        if warm:
            pool.generate(tasks, Sampling(temperature=1.0, max_tokens=2048, samples=GROUP, seed=99))
        seconds = paper = 0.0
        for seed in range(draws):
            chosen = random.Random(seed).sample(tasks, PROMPTS * engines)
            began = time.perf_counter()
            groups = pool.generate(chosen, Sampling(temperature=1.0, max_tokens=2048, samples=GROUP, seed=seed))
            seconds += time.perf_counter() - began
            longest = [max(len(c.token_ids) for c in g.completions) for g in groups]
            paper += TOKEN_S * max(sum(longest) / (engines * ROOM // GROUP), *longest)
        print(f"{engines:>8}{name:>10}{seconds / draws:>9.3f}{paper / draws:>10.3f}", flush=True)
        pool.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=6)
    draws = parser.parse_args().draws
    print(f"{'engines':>8}{'routing':>10}{'s/draw':>9}{'on paper':>10}")
    for engines in (2, 8):
        measure(engines, draws)
    return 0


if __name__ == "__main__":
    sys.exit(main())
