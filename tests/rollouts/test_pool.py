"""Prompts through the pool: what fits, what does not, and ids that are the prompt's own."""

from __future__ import annotations

import pytest

from assay.errors import ConfigError, DataError
from assay.tokenizer import train_tokenizer
from assay.types import Message, Task
from rollouts.config import ProofConfig
from rollouts.engine import Sampling
from rollouts.fake import FakeEngine
from rollouts.pool import RolloutPool


def task(name: str, words: int) -> Task:
    messages = (Message(role="user", content="x" * words),)
    return Task(id=name, messages=messages, verifier="function", answer={"tests": [1]})


def make_pool(template: str | None = None) -> RolloutPool:
    tokenizer = train_tokenizer(["x"], vocab_size=300)
    if template is not None:
        tokenizer.chat_template = template
    engine = FakeEngine(lambda prompt, draw: [len(prompt), 1])
    return RolloutPool([engine, engine], tokenizer, ProofConfig())


def test_prompts_longer_than_the_limit_are_left_out_and_counted():
    pool = make_pool()
    tasks = [task("short", 1), task("long", 40), task("edge", 2)]
    edge = len(pool.prompt_ids(tasks[2]))
    kept, left_out = pool.within(tasks, edge)
    assert ([t.id for t in kept], left_out) == (["short", "edge"], 1)
    assert pool.within(tasks, 10_000) == (tasks, 0)
    with pytest.raises(DataError, match="no prompt fits into max_prompt_tokens=3; the shortest is longer"):
        pool.within(tasks, 3)


def test_groups_hold_the_prompt_the_engine_was_given():
    pool = make_pool()
    tasks = [task(str(i), i + 1) for i in range(5)]
    groups = pool.generate(tasks, Sampling(temperature=1.0, max_tokens=4, samples=2, seed=0))
    assert [g.task.id for g in groups] == list("01234")
    for group in groups:
        assert group.prompt_ids == pool.prompt_ids(group.task)
        assert [c.token_ids[0] for c in group.completions] == [len(group.prompt_ids)] * 2


def test_a_template_that_cannot_be_answered_stops_before_anything_is_generated():
    with pytest.raises(ConfigError, match="ends with a space"):
        make_pool("{{ messages[0]['content'] }} Assistant: ").prompt_ids(task("a", 1))
