"""The steps of `flow.py` by the clock of a model, which has no machine in it: what asynchrony wins at 64 engines.

    .venv/bin/python benchmarks/flow_model.py [--engines 2 64] [--steps 12] [--seeds 4]

An event for each group that is drawn or judged and for each step that is trained or synced, with the numbers of
`flow.py`: an engine draws 8 groups at once, a group takes as long as its longest completion, 16 prompts and 4 reward
workers per engine. What starts when is what `rollouts.pool` and `grpo.loop` do: a batch after the one before unless
groups flow, no group for a step further ahead than `max_lag`, a sync when nothing is under way unless it may come into
the midst of a draw; only that a queue begins with the tasks that are expected to be longest is left out. The floor is
what the engines need where each place is always taken, or the trainer and the sync.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from statistics import fmean

from flow import ENGINES, GROUP, JUDGE_S, PROMPTS, ROOM, SYNC_S, TOKEN_S, TRAIN_S, WAYS, WORKERS

PLACES = ROOM // GROUP


@dataclass(eq=False)
class Group:
    number: int
    seconds: float  #: of its longest completion
    tokens: int
    version: int = 0  #: of the weights it was begun with
    engine: int = 0
    ends: float = 0.0


@dataclass
class Run:
    """One run of the loop. Events are (time, order, what, group)."""

    engines: int
    steps: int
    draw: random.Random
    max_lag: int = 0
    flow: bool = False
    in_flight: bool = False
    room: int = 0  #: 0: fixed shares of a batch
    now: float = 0.0
    version: int = 0
    busy: bool = False  #: the trainer, from a batch to the end of the sync behind it
    gate: bool = True
    wants_sync: bool = False
    events: list[tuple[float, int, str, Group | None]] = field(default_factory=list)
    running: dict[int, Group] = field(default_factory=dict)
    judging: deque[Group] = field(default_factory=deque)
    scored: list[Group] = field(default_factory=list)  #: drawn, and not judged yet
    judges: int = 0
    ready: list[Group] = field(default_factory=list)
    drawn: dict[int, int] = field(default_factory=dict)  #: batch -> groups
    lags: list[tuple[int, int]] = field(default_factory=list)  #: (versions, tokens)
    drawing_s: float = 0.0
    order: Iterator[int] = field(default_factory=count)  #: of events at one time

    def __post_init__(self) -> None:
        self.prompts = PROMPTS // ENGINES * self.engines
        self.free, self.waiting, self.count = [PLACES] * self.engines, list[Group](), 0
        self.judges = WORKERS // ENGINES * self.engines

    def seconds(self) -> float:
        """Per step."""
        self._turn()
        while self.version < self.steps:
            self.now, _, what, group = heappop(self.events)
            if group is None:
                getattr(self, what)()
            elif what != "end" or (self.running.get(group.number) is group and group.ends == self.now):
                getattr(self, what)(group)
            self._turn()
        return self.now / self.steps

    def end(self, group: Group) -> None:
        del self.running[group.number]
        self.free[group.engine] += 1
        batch = group.number // self.prompts
        self.drawn[batch] = self.drawn.get(batch, 0) + 1
        self.judging.append(group)
        self.scored.append(group)

    def judged(self, group: Group) -> None:
        self.judges += 1
        self.scored.remove(group)
        self.ready.append(group)

    def trained(self) -> None:
        self.wants_sync = True
        if self.in_flight:  # what is under way stands still for as long as a sync takes
            for group in self.running.values():
                self._until(group, group.ends + SYNC_S)

    def synced(self) -> None:
        self.version, self.busy, self.gate = self.version + 1, False, True

    def _turn(self) -> None:
        """Begin whatever may begin now."""
        if self.wants_sync:
            self.gate = False
            if self.in_flight or not self.running:
                self.wants_sync = False
                self._at(self.now + SYNC_S, "synced")
        while self.judging and self.judges:
            self.judges -= 1
            self._at(self.now + JUDGE_S, "judged", self.judging.popleft())
        batch = self._batch() if not self.busy else []
        if len(batch) == self.prompts:
            self.busy, taken = True, {group.number for group in batch}
            self.ready = [group for group in self.ready if group.number not in taken]
            self.lags += [(self.version - group.version, group.tokens) for group in batch]
            self._at(self.now + TRAIN_S, "trained")
        if self.gate:
            self._begin()

    def _batch(self) -> list[Group]:
        """What the next step could learn from; empty while a group that may not grow older is not ready."""
        if not self.flow:
            return [group for group in self.ready if group.number // self.prompts == self.version]
        if any(group.version + self.max_lag <= self.version for group in (*self.running.values(), *self.scored)):
            return []
        return sorted(self.ready, key=lambda group: group.version)[: self.prompts]

    def _begin(self) -> None:
        while self.count < self.prompts * (self.version + 1 + self.max_lag) and len(self.waiting) < self.prompts:
            before = self.count // self.prompts - 1
            if not self.flow and before >= 0 and self.drawn.get(before, 0) < self.prompts:
                break
            self.waiting.append(self._group())
        for group in list(self.waiting):
            share = group.number % self.prompts * self.engines // self.prompts
            engine = max(range(self.engines), key=self.free.__getitem__) if self.room else share
            if self.free[engine]:
                self.waiting.remove(group)
                self.free[engine] -= 1
                group.engine, group.version, self.running[group.number] = engine, self.version, group
                self.drawing_s += group.seconds
                self._until(group, self.now + group.seconds)
            elif self.room:
                break

    def _group(self) -> Group:
        mean = min(2048, round(200 * self.draw.lognormvariate(0, 1)))
        sizes = [min(2048, max(1, round(mean * self.draw.gauss(1.0, 0.2)))) for _ in range(GROUP)]
        self.count += 1
        return Group(self.count - 1, TOKEN_S * max(sizes), sum(sizes))

    def _until(self, group: Group, end: float) -> None:
        group.ends = end
        self._at(end, "end", group)

    def _at(self, time: float, what: str, group: Group | None = None) -> None:
        heappush(self.events, (time, next(self.order), what, group))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=int, nargs="+", default=[ENGINES, 64])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    print(f"{'engines':>8}  {'':<26}{'s/step':>8}{'x':>7}{'mean lag':>10}{'floor':>8}")
    for engines in options.engines:
        base = 0.0
        for name, way in WAYS.items():
            runs = [Run(engines, options.steps, random.Random(seed), **way) for seed in range(options.seeds)]
            seconds = fmean(run.seconds() for run in runs)
            base = base or seconds
            shares = [pair for run in runs for pair in run.lags]
            lag = sum(versions * tokens for versions, tokens in shares) / sum(tokens for _, tokens in shares)
            per_step = fmean(run.drawing_s / run.count * run.prompts for run in runs)
            floor = max(per_step / (engines * PLACES), TRAIN_S + SYNC_S)
            print(f"{engines:>8}  {name:<26}{seconds:>8.3f}{base / seconds:>7.2f}{lag:>10.2f}{floor:>8.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
