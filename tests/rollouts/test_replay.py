"""What was recorded comes back as it was sampled, for the same tasks alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from assay.errors import DataError
from assay.tokenizer import train_tokenizer
from assay.types import Message, RewardResult, RolloutGroup, RoutedExperts, ScoredGroup, Task, Verdict
from rollouts.config import ProofConfig
from rollouts.engine import Sampling
from rollouts.fake import FakeEngine
from rollouts.pool import RolloutPool
from rollouts.recorder import SampleRecorder, has_experts
from rollouts.replay import Replay

DRAW = Sampling(temperature=1.0, max_tokens=6, samples=3)
TOKENIZER = train_tokenizer(["plus minus times"], vocab_size=300)
TASKS = [
    Task(id=str(i), messages=(Message(role="user", content="x" * i),), verifier="function", answer={}) for i in range(4)
]


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Path, list[RolloutGroup]]:
    engine = FakeEngine(lambda prompt, draw: [draw.randrange(6, 270) for _ in range(draw.randrange(1, 9))], -0.1)
    groups = RolloutPool([engine], TOKENIZER, ProofConfig()).generate(TASKS, DRAW)
    recorder = SampleRecorder(tmp_path / "samples")
    for step, some in ((1, groups[:2]), (2, groups[2:])):
        scored = [
            ScoredGroup(group=g, results=(RewardResult(verdict=Verdict.AC, reward=1.0),) * len(g.completions))
            for g in some
        ]
        recorder.write(step, scored, [[0.0] * 3] * 2, ["p"] * 2)
    return tmp_path / "samples", groups


def test_groups_come_back_as_they_were_sampled(recorded: tuple[Path, list[RolloutGroup]]):
    folder, groups = recorded
    replay = Replay(TOKENIZER, folder)
    assert replay.steps == [1, 2]
    again = replay.generate(TASKS[:3], DRAW) + replay.generate(TASKS[3:], DRAW)
    for then, now in zip(groups, again, strict=True):
        assert (now.task, now.prompt_ids) == (then.task, then.prompt_ids)
        for a, b in zip(then.completions, now.completions, strict=True):
            assert (b.token_ids, b.text, b.finish_reason) == (a.token_ids, a.text, a.finish_reason)
            assert b.policy_version == a.policy_version
            assert b.logprobs == pytest.approx(a.logprobs, abs=1e-7)


def test_the_experts_an_engine_chose_come_back_and_take_no_column_where_it_told_none(
    tmp_path: Path, recorded: tuple[Path, list[RolloutGroup]]
):
    def route(tokens: Sequence[int]) -> RoutedExperts | None:
        """Of three layers with two experts per token, in one byte or two; none for some."""
        count, wide = len(tokens) - 1, len(tokens) % 2
        ids = bytes(i % 7 for i in range(count * 3 * 2 * (1 + wide)))
        return RoutedExperts(shape=(count, 3, 2), ids=ids) if count % 4 else None

    engine = FakeEngine(lambda prompt, draw: [9] * draw.randrange(1, 6), route=route)
    groups = RolloutPool([engine], TOKENIZER, ProofConfig()).generate(TASKS, DRAW)
    scored = [ScoredGroup(group=g, results=(RewardResult(verdict=Verdict.AC, reward=1.0),) * 3) for g in groups]
    SampleRecorder(tmp_path / "routed").write(1, scored, [[0.0] * 3] * 4, ["p"] * 4)
    again = Replay(TOKENIZER, tmp_path / "routed").generate(TASKS, DRAW)
    then, now = ([c.experts for g in some for c in g.completions] for some in (groups, again))
    assert now == then and None in then and len({len(e.ids) for e in then if e is not None}) > 2
    assert has_experts(tmp_path / "routed", 1) and not has_experts(recorded[0], 1)


def test_other_tasks_and_more_tasks_are_refused(recorded: tuple[Path, list[RolloutGroup]]):
    folder, _ = recorded
    with pytest.raises(DataError, match=r"step 1 holds '0' where this configuration takes '2'; replay needs the seed"):
        Replay(TOKENIZER, folder).generate(TASKS[2:], DRAW)
    replay = Replay(TOKENIZER, folder)
    replay.generate(TASKS, DRAW)
    with pytest.raises(DataError, match="step 2 holds 'nothing more'"):
        replay.generate(TASKS[:1], DRAW)
    with pytest.raises(DataError, match="no recorded samples"):
        Replay(TOKENIZER, folder / "none")


def test_samples_of_an_earlier_version_lack_the_tokens(recorded: tuple[Path, list[RolloutGroup]]):
    folder, _ = recorded
    path = folder / "step-00001.parquet"
    pq.write_table(pq.read_table(path).drop(["logprobs"]), path)
    with pytest.raises(DataError, match="recorded without tokens and log-probabilities"):
        Replay(TOKENIZER, folder).generate(TASKS[:1], DRAW)
