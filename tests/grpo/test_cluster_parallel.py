"""An engine of two processes in an actor of a real cluster: weights, answers, sleep, and the death of any of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from assay.policy import load_policy, load_tokenizer
from assay.types import Message, Task
from grpo.cluster import Cluster
from grpo.config import ClusterConfig
from rollouts.config import EngineConfig, RolloutConfig
from rollouts.engine import Sampling
from rollouts.weights import Publication, checkpoint_items, make_probe, probe_sequences

pytestmark = [pytest.mark.vllm, pytest.mark.ray, pytest.mark.slow]
KIB = 1024
NOTICED_S = 10.0  #: vLLM alone takes 9 s to tell of a process that died in a forward pass; measured here: below 1
#: of so many some end early, and the first to end leaves most under way
DRAW = Sampling(temperature=1.0, max_tokens=240, samples=1, seed=3)
TASKS = [
    Task(id=str(i), messages=(Message(role="user", content="f" * i),), verifier="function", answer={})
    for i in range(1, 13)
]


@dataclass
class Rig:
    """One engine, its policy, and what the processes were."""

    pool: Any
    cluster: Cluster
    model: Any
    version: int = -1
    noticed: list[tuple[float, str]] = field(default_factory=list)  #: when a death was told, and how
    seen: set[int] = field(default_factory=set)  #: pids of all processes there were

    def processes(self) -> tuple[int, list[int]]:
        """The actor's pid, and those of its engine's processes."""
        where = self.cluster.whereabouts(self.pool._engines[0]._actor)[1]
        actor = int(where.rpartition("pid ")[2])
        children = [int(pid) for pid in Path(f"/proc/{actor}/task/{actor}/children").read_text().split()]
        workers = [pid for pid in children if "Worker_TP" in Path(f"/proc/{pid}/cmdline").read_text()]
        self.seen |= {actor, *workers}
        return actor, workers

    def sync(self, version: int, midway: Callable[[], None] = lambda: None) -> Any:
        """Move the policy by what the version says, unless the engine's is asked again, and hand it out."""
        if version != self.version:
            draw = torch.Generator().manual_seed(version)
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.01)
        self.version, todo = version, [midway]

        def items() -> Iterator[tuple[str, Any]]:
            for i, item in enumerate(checkpoint_items(self.model, self.model.state_dict().items())):
                if i == 20 and todo:
                    todo.pop()()
                yield item

        probe = make_probe(self.model, probe_sequences(self.model.config.vocab_size, avoid=range(7)), pad_id=2)
        (report,), difference = self.pool.sync(Publication(items, version, 16 * KIB), probe)
        assert report.version == version and difference < 1e-4
        return report

    def drawn(self) -> list[Any]:
        return [
            (c.token_ids, c.logprobs, c.policy_version) for g in self.pool.generate(TASKS, DRAW) for c in g.completions
        ]


@pytest.fixture(scope="module")
def rig(tiny_policy: Path) -> Iterator[Rig]:
    config = RolloutConfig(engine=EngineConfig(max_num_seqs=16, tensor_parallel=2))
    with Cluster(ClusterConfig()) as cluster:
        pool = cluster.rollouts(tiny_policy, config, load_tokenizer(tiny_policy), max_model_len=320)
        made = Rig(pool, cluster, load_policy(tiny_policy).eval())
        before = pool._mourn

        def mourn(failure: Any, again: bool) -> None:
            made.noticed.append((time.monotonic(), str(failure)))
            before(failure, again)

        pool._mourn = mourn
        yield made
        made.processes()
        pool.close()
    gone(made.seen)


def gone(pids: set[int]) -> None:
    """Wait until none of these processes runs."""
    until = time.monotonic() + 20
    while left := [pid for pid in pids if runs(pid)]:
        assert time.monotonic() < until, f"still there: {left}"
        time.sleep(0.05)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_both_processes_prove_their_slices_answer_and_sleep(rig: Rig):
    (kind,) = rig.cluster._kinds
    assert dict(kind.bundle) == {"CPU": 2.0}
    for version in range(2):
        report = rig.sync(version)
        assert report.modules_checked == 60 and report.max_relative_error < 1e-5
        first = rig.drawn()
        assert {held for _, _, held in first} == {(version, version)} and first == rig.drawn()
    rig.pool.sleep()
    assert rig.sync(2).modules_checked == 60
    assert {held for _, _, held in rig.drawn()} == {(2, 2)}


def test_nothing_of_the_engine_has_a_name_in_shared_memory(rig: Rig):
    actor, workers = rig.processes()
    assert len(workers) == 2
    for pid in workers:
        lines = [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if " /dev/shm/" in line]
        assert len(lines) > 4 and all(line.endswith(" (deleted)") for line in lines)
    assert not [*Path("/dev/shm").glob(f"__KMP_REGISTERED_LIB_{workers[0]}_*")]
    assert actor not in workers


@pytest.mark.parametrize("phase", ["generate", "sync"])
@pytest.mark.parametrize("victim", ["a process", "the actor"])
def test_a_death_is_noticed_named_and_leaves_no_trace_in_the_results(rig: Rig, phase: str, victim: str):
    version = rig.version + 1
    rig.sync(version)
    quiet, rig.noticed[:] = rig.drawn(), []
    actor, workers = rig.processes()
    recovered, killed = len(rig.pool.recoveries), 0.0

    def kill() -> None:
        nonlocal killed
        killed = time.monotonic()
        os.kill(workers[1] if victim == "a process" else actor, signal.SIGKILL)

    if phase == "generate":
        arriving = rig.pool.stream(TASKS, DRAW)
        groups = dict([next(arriving)])
        kill()
        groups |= dict(arriving)
        again = [(c.token_ids, c.logprobs, c.policy_version) for i in range(len(TASKS)) for c in groups[i].completions]
    else:
        rig.sync(version, midway=kill)
        again = rig.drawn()
    assert again == quiet
    assert len(rig.pool.recoveries) == recovered + 1
    ((when, how),) = rig.noticed
    assert when - killed < NOTICED_S
    if victim == "a process":
        assert f"process 1 of 2 (pid {workers[1]}) was killed by signal 9" in how
    else:
        assert "rollouts/0 died during" in how
    gone({actor, *workers})
    assert len(rig.processes()[1]) == 2
    print(f"{victim}, {phase}: noticed after {when - killed:.2f} s, back after {rig.pool.recoveries[-1].seconds:.1f} s")
