"""Steps out of a flow of groups: a step takes whichever are ready first, and a slow prompt's group goes to a later one.

Engines ask for prompts as they have room, and every group is judged as it comes. With N prompts per step and lag L, a
group whose drawing began at version v may be learned from up to step v + L, and is:

    back-pressure   a prompt is begun only where it and all that are begun have a place in the steps up to v + L; so at
                    most (L + 1) N are begun and not learned from
    taking          the first that is ready, if those due earlier still have places in time: for every step d, as many
                    as are due by d. Else the step waits for one of them

So a step is biased towards prompts that are quickly answered and judged, by L steps at most. Every prompt is learned
from once: a checkpoint holds the places of those begun and not learned from, and a resumed run begins with them.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext

from assay.errors import TrainingDiverged
from assay.metrics import Timer
from assay.types import RolloutGroup, ScoredGroup, Task
from grpo.ahead import Ahead
from grpo.config import GRPOConfig
from grpo.drawing import Drawing, Drawn, Recorded, Rewards, Rollouts
from grpo.filling import teaches
from rollouts.engine import Sampling
from rollouts.tasks import TaskStream


class Flow:
    """Drawing and judging from its first `take` on until it is closed. Stands where `grpo.ahead.Ahead` does."""

    def __init__(
        self,
        config: GRPOConfig,
        sampling: Sampling,
        tasks: TaskStream,
        rollouts: Rollouts,
        rewards: Rewards,
        *,
        start: int,
    ) -> None:
        self._config, self._sampling, self._tasks = config, sampling, tasks
        self._rollouts, self._rewards = rollouts, rewards
        self._changed = threading.Condition()
        self._step = self._synced = start  #: the step to be filled next; steps of training that all engines know of
        self._places = config.prompts_per_step  #: of that step, still free
        self._due: dict[int, int] = {}  #: place in the order of the tasks -> last step for it, of all begun
        self._ready: dict[int, ScoredGroup] = {}  #: the judged ones of them, in the order they came
        self._failure: BaseException | None = None
        self._closed, self._serving, self._since = False, False, time.perf_counter()
        judges = min(256, (config.max_lag + 1) * config.prompts_per_step)
        self._judges = ThreadPoolExecutor(judges, thread_name_prefix="judge")

    def take(self, step: int) -> Drawn:
        """The groups of `step`, in the order of the tasks. Raises what drawing or judging raised."""
        if not self._serving:
            self._serving = True
            for lane in self._rollouts.serve(self._ask, self._give, self._sampling):
                lane.add_done_callback(self._ended)
        config, taken = self._config, dict[int, ScoredGroup]()
        most = config.prompts_per_step * config.max_generation_batches
        with self._changed:
            while (self._places and len(taken) < most) or any(due <= step for due in self._due.values()):
                place = self._next()
                del self._due[place]
                taken[place] = self._ready.pop(place)
                if config.max_generation_batches == 1 or self._fills(taken[place]):
                    self._places = max(0, self._places - 1)
                self._changed.notify_all()  # there may be room for another prompt
            self._step, self._places = step + 1, config.prompts_per_step
            self._changed.notify_all()
            began, self._since = self._since, time.perf_counter()
            return Drawn(
                scored=[taken[place] for place in sorted(taken)],
                batches=-(-len(taken) // config.prompts_per_step),
                cursor=self._tasks.cursor,
                left=(*sorted(self._due), *self._tasks.left),
                seconds={"rollout": self._since - began},
            )

    def engines(self) -> AbstractContextManager[None]:
        """A sync finds its own moment (`RolloutPool.sync`), and an evaluation draws beside the flow."""
        return nullcontext()

    def trained(self, steps: int) -> None:
        """All engines hold the weights of so many steps."""
        with self._changed:
            self._synced = steps
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._judges.shutdown(wait=False, cancel_futures=True)

    # -- which group next, and which prompt ------------------------------------------------------------------------

    def _next(self) -> int:
        """The place of the group to take next; waits until there is one. With the lock held."""

        def found() -> int | None:
            return next((place for place in self._ready if self._may_take(place)), None)

        self._changed.wait_for(lambda: self._failure or self._closed or found() is not None)
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise CancelledError  # there will be none
        place = found()
        assert place is not None
        return place

    def _fills(self, group: ScoredGroup) -> bool:
        try:
            return teaches(group, self._config)
        except TrainingDiverged:  # a reward that is no number: the step will say so, with the batch
            return True

    def _may_take(self, place: int) -> bool:
        """Whether the groups due earlier than this one still find places in time without the one it takes."""
        return all(
            sum(due <= d for due in self._due.values()) <= self._free(d) - 1
            for d in sorted({d for d in self._due.values() if d < self._due[place]})
        )

    def _free(self, last: int) -> int:
        """Places in the steps up to and with `last`."""
        return self._places + (last - self._step) * self._config.prompts_per_step

    def _may_begin(self) -> bool:
        last = min(self._synced + self._config.max_lag, self._config.steps - 1)
        return len(self._due) < self._free(last)

    # -- called by the engines' threads ----------------------------------------------------------------------------

    def _ask(self) -> tuple[int, Task] | None:
        """The next prompt and its place, as soon as one may be begun; None where there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._failure or self._may_begin())
            if self._closed or self._failure:
                return None
            (place,) = self._tasks.places(1)
            self._due[place] = self._synced + self._config.max_lag
            return place, self._tasks.at(place)

    def _give(self, place: int, group: RolloutGroup) -> None:
        with self._changed:
            if not self._closed:
                self._judges.submit(self._judge, place, group).add_done_callback(self._ended)

    def _judge(self, place: int, group: RolloutGroup) -> None:
        scored = self._rewards.one(group)
        with self._changed:
            self._ready[place] = scored
            self._changed.notify_all()

    def _ended(self, future: Future[None]) -> None:
        failure = CancelledError() if future.cancelled() else future.exception()
        with self._changed:
            if failure is not None and not self._closed:
                self._failure = self._failure or failure
                self._changed.notify_all()


Source = Ahead[Drawn] | Flow
"""Where the loop gets its steps from."""


def source(drawing: Drawing, start: int, recorded: Recorded | None = None) -> Source:
    """A flow where the run wants one: there a prompt's draw depends on its place in the order of the tasks alone. With
    `recorded` the steps are those of a run that was made, in whatever order it came to them."""
    config = drawing.config
    if recorded is not None:
        return Ahead(
            lambda step, done: drawing.again(recorded, step), max_lag=config.max_lag, start=start, end=config.steps
        )
    if config.flow:
        return Flow(config, drawing.of(0, 0), drawing.tasks, drawing.rollouts, drawing.rewards, start=start)
    return Ahead(drawing.draw, max_lag=config.max_lag, start=start, end=config.steps)


def take(ahead: Source, step: int, timer: Timer, config: GRPOConfig) -> Drawn:
    """The groups of `step`, and what they took on `timer`: the waiting too, where they are drawn ahead."""
    began = time.perf_counter()
    drawn = ahead.take(step)
    if config.max_lag:
        timer.add("wait", time.perf_counter() - began)
    for phase, seconds in drawn.seconds.items():
        timer.add(phase, seconds)
    return drawn
