"""Engines that die: replaced, given the weights with the proof, asked again with the same seed. No Ray, no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from assay.errors import InfraFailure, WeightMismatch
from assay.tokenizer import train_tokenizer
from assay.types import Message, Task
from rollouts.config import ProofConfig
from rollouts.engine import Sampling
from rollouts.fake import FakeEngine
from rollouts.pool import RESTARTS, RolloutPool
from rollouts.weights import Probe, SyncReport, WeightBundle, publish

PROBE = Probe(sequences=[[3, 4, 5]], expected=[[-1.0, -1.0]])
TASKS = [
    Task(id=str(i), messages=(Message(role="user", content="x" * i),), verifier="function", answer={}) for i in range(5)
]
DRAW = Sampling(temperature=1.0, max_tokens=8, samples=3, seed=4)


class Mortal(FakeEngine):
    """Dies on the calls it is told to, counted over its life, and stays dead."""

    def __init__(self, *deadly: str) -> None:
        super().__init__(lambda prompt, draw: [draw.randrange(3, 99) for _ in range(4)])
        self.deadly, self.dead = list(deadly), False

    def _live(self, method: str, work: Callable[..., Any], *args: Any) -> Any:
        if self.dead or method in self.deadly:
            self.dead = True
            raise InfraFailure(f"an engine died during {method}")
        return work(*args)

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> Any:
        return self._live("generate", super().generate, prompts, sampling)

    def load_weights(self, bundle: WeightBundle) -> SyncReport:
        report: SyncReport = self._live("load_weights", super().load_weights, bundle)
        return report

    def score(self, sequences: Sequence[Sequence[int]]) -> Any:
        return self._live("score", super().score, sequences)

    def close(self) -> None:
        self.dead = True


def bundle(version: int, value: float = 1.0) -> WeightBundle:
    return publish({"a.weight": torch.full((2, 3), value)}, version)


def make_pool(engines: Sequence[FakeEngine], heirs: Sequence[FakeEngine] | None = None) -> RolloutPool:
    left = list(heirs or ())
    restart = None if heirs is None else (lambda n: left.pop(0))
    return RolloutPool(engines, train_tokenizer(["x"], vocab_size=300), ProofConfig(), restart)


def ids(pool: RolloutPool) -> list[list[tuple[int, ...]]]:
    return [[c.token_ids for c in group.completions] for group in pool.generate(TASKS, DRAW)]


@pytest.fixture
def quiet() -> list[list[tuple[int, ...]]]:
    pool = make_pool([Mortal(), Mortal()])
    pool.sync(bundle(7), PROBE)
    return ids(pool)


@pytest.mark.parametrize("deadly", ["generate", "load_weights", "score"])
def test_a_dead_engine_is_replaced_and_nobody_can_tell(quiet: list[list[tuple[int, ...]]], deadly: str):
    heir = Mortal()
    pool = make_pool([Mortal(), Mortal(deadly)], [heir])
    reports, difference = pool.sync(bundle(7), PROBE)
    assert [r.version for r in reports] == [7, 7] and difference == 0
    assert ids(pool) == quiet
    assert heir.version == 7
    assert [(r.engine, r.version) for r in pool.recoveries] == [(1, 7 if deadly == "generate" else None)]


def test_an_heir_that_dies_too_costs_another_try(quiet: list[list[tuple[int, ...]]]):
    pool = make_pool([Mortal("generate"), Mortal()], [Mortal("load_weights"), Mortal("score"), Mortal()])
    pool.sync(bundle(7), PROBE)
    assert ids(pool) == quiet
    assert len(pool.recoveries) == 1


def test_an_engine_that_keeps_dying_stops_the_run():
    heirs = [Mortal("generate") for _ in range(RESTARTS)]
    pool = make_pool([Mortal("generate")], heirs)
    pool.sync(bundle(7), PROBE)
    with pytest.raises(InfraFailure, match="died during generate"):
        ids(pool)
    assert all(heir.dead for heir in heirs)


def test_without_a_way_to_restart_the_first_death_stops_the_run():
    pool = make_pool([Mortal("generate")])
    pool.sync(bundle(7), PROBE)
    with pytest.raises(InfraFailure, match="died during generate"):
        ids(pool)


class Forgetful(Mortal):
    """Takes weights and goes on with its own: base weights after a restart."""

    def load_weights(self, bundle: WeightBundle) -> SyncReport:
        report = super().load_weights(bundle)
        self._logprob = -2.0
        return report


class Behind(Mortal):
    """Answers for the version before."""

    def load_weights(self, bundle: WeightBundle) -> SyncReport:
        return super().load_weights(publish({"a.weight": torch.ones(2, 3)}, bundle.version - 1))


@pytest.mark.parametrize(
    ("heir", "said"), [(Forgetful, "computes other log-probabilities"), (Behind, "version 6, sent 7")]
)
def test_an_heir_without_the_weights_never_answers(heir: type[Mortal], said: str):
    made = heir()
    pool = make_pool([Mortal("generate")], [made])
    pool.sync(bundle(7), PROBE)
    with pytest.raises(WeightMismatch, match=said):
        ids(pool)
    assert made.dead


def test_a_closed_pool_starts_no_engine_in_place_of_one_that_dies():
    heirs = [Mortal()]
    pool = make_pool([Mortal("generate")], heirs)
    pool.close()
    with pytest.raises(InfraFailure, match="died during generate"):
        pool._on(0, lambda engine: engine.generate([[0]], DRAW))
    assert isinstance(pool._engines[0], Mortal) and pool._engines[0] is not heirs[0]


class Diary(FakeEngine):
    """Writes down what it is asked for; with a name, dies on that."""

    def __init__(self, deadly: str = "") -> None:
        super().__init__(lambda prompt, draw: [draw.randrange(3, 99)])
        self.calls, self.deadly = list[str](), deadly

    def __getattribute__(self, name: str) -> Any:
        if name in ("generate", "load_weights", "score", "sleep", "wake_up"):
            self.calls.append(name)
            if name == self.deadly:
                raise InfraFailure(f"an engine died during {name}")
        return super().__getattribute__(name)


def test_engines_that_sleep_are_woken_by_the_next_sync_and_answer_after_its_proof():
    engines = [Diary(), Diary()]
    pool = make_pool(engines)
    pool.sync(bundle(7), PROBE)
    first = ids(pool)
    pool.sleep()
    pool.sleep()  # they sleep already
    with pytest.raises(WeightMismatch, match="slept, and what it held is gone"):
        ids(pool)
    pool.sync(bundle(8), PROBE)
    assert ids(pool) == first  # drawn by prompt and seed alone, here
    pool.sync(bundle(9), PROBE)  # awake: nobody is woken
    for engine in engines:
        assert engine.calls == [
            *("load_weights", "score", "generate", "sleep", "generate"),
            *("wake_up", "load_weights", "score", "generate", "load_weights", "score"),
        ]


@pytest.mark.parametrize("deadly", ["sleep", "wake_up"])
def test_an_engine_that_dies_falling_asleep_or_waking_up_leaves_an_heir_with_the_weights(deadly: str):
    heir = Diary()
    pool = make_pool([Diary(deadly), Diary()], [heir])
    pool.sync(bundle(7), PROBE)
    first = ids(pool)
    pool.sleep()
    pool.sync(bundle(8), PROBE)
    assert ids(pool) == first and len(pool.recoveries) == 1
    proof = ["load_weights", "score"]
    fallen_asleep = [*proof, "sleep", "wake_up"] if deadly == "sleep" else []
    assert heir.calls == [*fallen_asleep, *proof, "generate"]


class Short(Mortal):
    """Ends its first answer early: a prompt less, or a completion less of one."""

    def __init__(self, prompts: int, completions: int) -> None:
        super().__init__()
        self.lacking = prompts, completions

    def stream(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> Any:
        (lost, fewer), self.lacking = self.lacking, (0, 0)
        answers = [*super().stream(prompts, sampling)]
        (first, said), *rest = answers
        yield from [(first, said[: len(said) - fewer]), *rest][: len(answers) - lost]


@pytest.mark.parametrize("lacking", [(1, 0), (0, 1)])
def test_an_answer_that_ends_early_is_a_death_and_loses_neither_prompt_nor_completion(
    quiet: list[list[tuple[int, ...]]], lacking: tuple[int, int], capsys: pytest.CaptureFixture[str]
):
    pool = make_pool([Mortal(), Short(*lacking)], [Mortal()])
    pool.sync(bundle(7), PROBE)
    assert ids(pool) == quiet and len(pool.recoveries) == 1
    said = "without 1 of 2 prompts" if lacking[0] else "gave 2 of 3 completions of a prompt"
    assert said in capsys.readouterr().err
    alone = make_pool([Short(*lacking)])
    alone.sync(bundle(7), PROBE)
    with pytest.raises(InfraFailure, match=r"rollouts/0 (ended its answer|gave 2 of 3)"):
        ids(alone)


@pytest.mark.parametrize("lacking", [(1, 0), (0, 1)])
def test_in_a_flow_too(lacking: tuple[int, int]):
    pool = make_pool([Short(*lacking)], [Mortal()])
    pool.sync(bundle(7), PROBE)
    group = pool._one(0, TASKS[0], DRAW)
    assert len(group.completions) == 3 and len(pool.recoveries) == 1
