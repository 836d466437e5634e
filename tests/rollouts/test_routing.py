"""Who draws what: seeds belong to prompts, not to engines; a queue keeps engines at work and loses nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import pytest
import torch

from assay.errors import InfraFailure
from assay.tokenizer import train_tokenizer
from assay.types import Completion, FinishReason, Message, RolloutGroup, Task
from rollouts.config import ProofConfig
from rollouts.engine import Engine, Sampling
from rollouts.fake import FakeEngine
from rollouts.pool import RolloutPool
from rollouts.routing import LANES, Expected, Room, queue, shares
from rollouts.weights import Probe, publish

TASKS = [
    Task(id=str(i), messages=(Message(role="user", content="x" * i),), verifier="function", answer={})
    for i in range(1, 8)
]
DRAW = Sampling(temperature=1.0, max_tokens=8, samples=3, seed=4)


class Noting(FakeEngine):
    """Draws at random, and notes the numbers of each call."""

    def __init__(self) -> None:
        super().__init__(lambda prompt, draw: [draw.randrange(3, 99) for _ in range(4)])
        self.calls: list[tuple[int, ...]] = []

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        self.calls.append(sampling.numbers)
        return super().generate(prompts, sampling)


def make_pool(engines: Sequence[Engine], room: int = 0, heirs: Sequence[Engine] = ()) -> RolloutPool:
    left = list(heirs)
    restart = (lambda n: left.pop(0)) if heirs else None
    return RolloutPool(engines, train_tokenizer(["x"], vocab_size=300), ProofConfig(), restart, room)


def ids(groups: Sequence[RolloutGroup]) -> list[list[tuple[int, ...]]]:
    return [[c.token_ids for c in group.completions] for group in groups]


@pytest.mark.parametrize("engines", [2, 3, 8])
@pytest.mark.parametrize("room", [0, 6])
def test_completions_depend_on_neither_the_number_of_engines_nor_the_routing(engines: int, room: int):
    one = make_pool([Noting()]).generate(TASKS, DRAW)
    many = make_pool([Noting() for _ in range(engines)], room).generate(TASKS, DRAW)
    assert [g.task.id for g in many] == [t.id for t in TASKS]
    assert ids(many) == ids(one)
    assert len({c for group in ids(one) for c in group}) == 3 * len(TASKS)  # and no two are drawn alike


def test_fixed_shares_are_one_call_per_engine_and_the_same_every_time():
    engines = [Noting(), Noting()]
    make_pool(engines).generate(TASKS, DRAW)
    assert [e.calls for e in engines] == [[(0, 2, 4, 6)], [(1, 3, 5)]]
    assert [take() for take in shares(2, 3)] == [[0], [1], []]


def test_a_queue_gives_every_prompt_once_in_small_calls():
    engines = [Noting(), Noting(), Noting()]
    make_pool(engines, room=3).generate(TASKS, DRAW)
    assert sorted(call for e in engines for call in e.calls) == [(i,) for i in range(7)]


def test_the_longest_expected_come_first_then_the_longest_prompts():
    expected = Expected()
    assert expected.longest_first(["a", "b", "c"], [5, 9, 5]) == [1, 0, 2]
    for task, length in (("a", 10), ("b", 40), ("b", 60)):
        expected.note(group_of(task, length))
    assert [expected.length(t) for t in "abc"] == [10.0, 50.0, 110 / 3]  # c was never drawn: the mean of all
    assert expected.longest_first(["a", "b", "c"], [5, 9, 5]) == [1, 2, 0]


def group_of(task: str, length: int) -> RolloutGroup:
    one = Completion(
        token_ids=(7,) * length,
        logprobs=(0.0,) * length,
        text="",
        finish_reason=FinishReason.STOP,
        policy_version=(0, 0),
    )
    return RolloutGroup(task=Task(id=task, messages=TASKS[0].messages, verifier="function", answer={}),
                        prompt_ids=(0,), completions=(one, one))  # fmt: skip


@pytest.mark.parametrize(("sequences", "samples"), [(128, 64), (128, 8), (128, 1), (16, 64), (1, 1)])
def test_calls_fill_an_engine_and_one_more(sequences: int, samples: int):
    room = Room.of(sequences, samples)
    assert 1 <= room.lanes <= LANES
    wanted = room.lanes * room.prompts * samples
    assert room.lanes == LANES or sequences < wanted <= sequences + 2 * samples or room.prompts > 1
    take = queue(range(room.prompts + 1), room.prompts)
    assert [len(take()), len(take()), take()] == [room.prompts, 1, []]


class Slow(Noting):
    """Holds a call until told."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.go = threading.Event(), threading.Event()

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        self.began.set()
        assert self.go.wait(10)
        return super().generate(prompts, sampling)


def test_an_engine_that_is_held_up_does_not_hold_the_others():
    held, free = Slow(), Noting()
    arriving = make_pool([held, free], room=2).stream(TASKS, DRAW)  # room for less than a group: one call at a time
    first = [next(arriving)[0] for _ in range(len(TASKS) - 1)]
    held.go.set()
    assert sorted([*first, *(i for i, _ in arriving)]) == list(range(len(TASKS)))
    assert len(free.calls) == len(TASKS) - 1 and len(held.calls) == 1


class HalfWay(Noting):
    """Dies in the midst of a call, after having given some of it, and stays dead."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def stream(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> Iterator[tuple[int, list[Completion]]]:
        for item in super().stream(prompts, sampling):
            if self.left == 0:
                raise InfraFailure("an engine died during generate")
            self.left -= 1
            yield item


@pytest.mark.parametrize("room", [0, 12])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_an_engine_that_dies_half_way_gives_nothing_twice(room: int, after: int):
    pool = make_pool([HalfWay(after), Noting()], room, heirs=[Noting()])
    drawn = [*pool.stream(TASKS, DRAW)]
    assert sorted(i for i, _ in drawn) == list(range(len(TASKS)))
    assert ids([g for _, g in sorted(drawn, key=lambda pair: pair[0])]) == ids(
        make_pool([Noting()]).generate(TASKS, DRAW)
    )
    assert len(pool.recoveries) <= 1  # several calls saw it die; one of them put another in its place


class Together(Noting):
    """Says how many calls were inside at once."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.most, self.lock = 0, 0, threading.Lock()

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(0.02)
        with self.lock:
            self.inside -= 1
        return super().generate(prompts, sampling)


@pytest.mark.parametrize("in_flight", [False, True])
def test_a_sync_waits_for_the_calls_under_way_or_comes_in_their_midst(in_flight: bool):
    held, free = Slow(), Noting()
    pool = RolloutPool([held, free], train_tokenizer(["x"], vocab_size=300), ProofConfig(), None, 3, in_flight)
    asked = iter([(0, TASKS[0]), (1, TASKS[1]), (2, TASKS[2]), *[None] * 9])
    given: list[int] = []
    lock = threading.Lock()

    def ask() -> tuple[int, Task] | None:
        with lock:
            return next(asked)

    lanes = pool.serve(ask, lambda number, group: given.append(number), DRAW)
    probe = Probe(sequences=[[3, 4]], expected=[[-1.0]])
    assert held.began.wait(5)
    syncing = threading.Thread(target=pool.sync, args=(publish({"a": torch.ones(2)}, 7), probe))
    syncing.start()
    syncing.join(5 if in_flight else 0.1)
    assert (held.version, free.version) == ((7, 7) if in_flight else (-1, -1))
    held.go.set()
    syncing.join(5)
    assert held.version == free.version == 7
    for lane in lanes:
        lane.result(5)
    assert sorted(given) == [0, 1, 2]


def test_an_engine_with_room_has_several_calls_and_one_with_a_share_has_one():
    roomy, shared = Together(), Together()
    make_pool([roomy], room=6).generate(TASKS, DRAW)
    make_pool([shared]).generate(TASKS, DRAW)
    assert (roomy.most, shared.most) == (3, 1)  # two groups of three fill it, and one waits
