"""No key of the `grpo` section is accepted without effect: each changes something of a run, or is refused.

The run is the real loop and the real trainer on a tiny mixture of experts; completions and rewards are made up, and so
different that there is something to clip, mask, drop and replace. What is compared is all a run shows: its metrics,
the order and the threads of its draws, its checkpoints, its forward passes and the sentence it ends with.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from assay.config import merge
from assay.errors import TrainingDiverged
from assay.types import RolloutGroup, RoutedExperts, ScoredGroup, Task
from grpo import loop
from grpo.config import GRPOConfig
from grpo.record import RunRecord
from grpo.trainer import PolicyTrainer
from rollouts.config import SamplingConfig
from rollouts.engine import Sampling
from rollouts.fake import FakeEngine
from rollouts.tasks import TaskStream
from tests.groups import make_result, make_task

LIMIT, LAYERS, EXPERTS, CHOSEN = 8, 1, 4, 2  # tokens of a completion; of the tiny policy
TASKS = [make_task(str(i)) for i in range(5)]
BASE: dict[str, Any] = {
    "steps": 3, "prompts_per_step": 2, "group_size": 4, "learning_rate": 1e-2, "checkpoint_every": 2, "eval_every": 0,
    "mismatch": {"stop_above": 1e9},
}  # fmt: skip
SEVERAL = {"updates_per_rollout": 2, "learning_rate": 3e-2}

#: key -> (settings of both runs above BASE, what the second one has beside)
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "algorithm": ({}, {"algorithm": "dr_grpo"}),
    "steps": ({}, {"steps": 2}),
    "prompts_per_step": ({}, {"prompts_per_step": 1}),
    "group_size": ({}, {"group_size": 3}),
    "learning_rate": ({}, {"learning_rate": 1e-3}),
    "advantage": ({}, {"advantage": "process"}),
    "loss": (SEVERAL, {"loss": "gspo"}),
    "loss_normalisation": ({}, {"loss_normalisation": "token"}),
    "clip": (SEVERAL, {"clip": [0.01, 0.01]}),
    "updates_per_rollout": ({}, {"updates_per_rollout": 2}),
    "mini_batches": ({}, {"mini_batches": 2}),
    "kl.estimator": ({}, {"kl": {"estimator": "none"}}),
    "kl.coef": ({}, {"kl": {"coef": 0.1}}),
    "kl.reset_every": ({}, {"kl": {"reset_every": 1}}),
    "correction.kind": ({}, {"correction": {"kind": "tis"}}),
    "correction.band": ({"correction": {"kind": "icepop"}}, {"correction": {"band": [0.9, 1.1]}}),
    "correction.off_policy_threshold": ({}, {"correction": {"off_policy_threshold": 0.1}}),
    "entropy.coef": ({}, {"entropy": {"coef": 0.1}}),
    "entropy.target": ({"entropy": {"coef": 0.003}}, {"entropy": {"target": 0.1}}),
    "entropy.step": ({"entropy": {"target": 9.0}}, {"entropy": {"step": 1e-3}}),
    "entropy.max_coef": ({"entropy": {"target": 9.0, "step": 0.1}}, {"entropy": {"max_coef": 0.05}}),
    "mismatch.stop_above": ({}, {"mismatch": {"stop_above": 1e-9}}),
    "moe.replay": (SEVERAL, {"moe": {"replay": "r2"}}),
    "moe.aux_coef": ({}, {"moe": {"aux_coef": 0.1}}),
    "optimizer.betas": ({}, {"optimizer": {"betas": [0.5, 0.95]}}),
    "optimizer.weight_decay": ({}, {"optimizer": {"weight_decay": 0.1}}),
    "optimizer.grad_clip": ({}, {"optimizer": {"grad_clip": 1e-9}}),
    "optimizer.warmup_steps": ({}, {"optimizer": {"warmup_steps": 2}}),
    "drop_zero_variance_groups": ({}, {"drop_zero_variance_groups": True}),
    "max_generation_batches": ({"drop_zero_variance_groups": True}, {"max_generation_batches": 3}),
    "mask_truncated": ({}, {"mask_truncated": True}),
    "overlong_buffer_tokens": ({}, {"overlong_buffer_tokens": 4}),
    "max_lag": ({}, {"max_lag": 1}),
    "micro_batch_tokens": ({}, {"micro_batch_tokens": 8}),
    "gradient_checkpointing": ({}, {"gradient_checkpointing": True}),
    "eval_every": ({}, {"eval_every": 1}),
    "checkpoint_every": ({"keep_last": 3}, {"checkpoint_every": 1}),
    "keep_last": ({"checkpoint_every": 1}, {"keep_last": 1}),
}
#: keys that only what stands around the loop reads: tested below and in tests/grpo/test_stage.py; and `flow`, for which
#: rollouts have to be served: tests/grpo/test_flow.py
AROUND = {"eval_limit", "checkpoint_async", "flow"}


def leaves(schema: type[BaseModel], above: str = "") -> Iterator[str]:
    for name, field in schema.model_fields.items():
        below: Any = field.annotation
        if isinstance(below, type) and issubclass(below, BaseModel):
            yield from leaves(below, f"{above}{name}.")
        else:
            yield above + name


def test_every_key_has_a_case_and_every_case_a_key():
    assert set(leaves(GRPOConfig)) == CASES.keys() | AROUND


def answer(prompt: Sequence[int], draw: random.Random) -> list[int]:
    """Of 1 to 12 tokens: some are cut at the limit."""
    return [draw.randrange(3, 200) for _ in range(draw.randrange(1, 13))]


def route(tokens: Sequence[int]) -> RoutedExperts:
    ids = [(token + k) % EXPERTS for token in tokens[:-1] for k in range(LAYERS * CHOSEN)]
    return RoutedExperts(shape=(len(tokens) - 1, LAYERS, CHOSEN), ids=bytes(ids))


class Rollouts:
    def __init__(self) -> None:
        self.engine = FakeEngine(answer, logprob=-5.0, route=route)
        self.draws: list[Any] = []

    def generate(self, tasks: Sequence[Task], sampling: Sampling) -> list[RolloutGroup]:
        self.draws.append((threading.current_thread().name[:4], [t.id for t in tasks], sampling.samples))
        made = self.engine.generate([[0, 5]] * len(tasks), sampling)
        return [RolloutGroup(task=t, prompt_ids=(0, 5), completions=tuple(c)) for t, c in zip(tasks, made, strict=True)]

    def stream(self, tasks: Sequence[Task], sampling: Sampling) -> Iterator[tuple[int, RolloutGroup]]:
        return enumerate(self.generate(tasks, sampling))


class Rewards:
    """By the first token, but nothing to choose between in task 0; and the same again as rewards of steps."""

    def score(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
        return [ScoredGroup(group=g, results=tuple(self._judge(g, c.token_ids) for c in g.completions)) for g in groups]

    def _judge(self, group: RolloutGroup, tokens: Sequence[int]) -> Any:
        reward = 1.0 if group.task.id == "0" else float(tokens[0] % 2)
        result = make_result(reward)
        return replace(result, steps=((len(tokens) - 1, float(tokens[0] % 3)),)) if tokens else result

    judge = each = score


@pytest.fixture(scope="module")
def shown(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Settings as JSON -> all a run with them shows."""
    return cache(lambda settings: run(tiny_policy, tmp_path_factory.mktemp("run"), json.loads(settings)))


def run(policy: Path, folder: Path, settings: Mapping[str, Any]) -> list[Any]:
    config, rollouts, passes = GRPOConfig.model_validate(settings), Rollouts(), [0]
    trainer = PolicyTrainer(policy, config, dtype="float32", temperature=1.0, pad_id=2)
    layer = trainer.unwrapped.get_decoder().layers[0]
    layer.register_forward_pre_hook(lambda *_: passes.__setitem__(0, passes[0] + 1))  # recomputations too
    record = RunRecord(
        folder, config.steps, keep_last=config.keep_last, snapshot=partial(trainer.snapshot, False), say=lambda _: None
    )
    evaluations: list[int] = []

    def sync() -> dict[str, float]:
        rollouts.engine.version = trainer.version
        return {}

    parts = loop.Parts(
        tasks=TaskStream(TASKS, 0, 0),
        rollouts=rollouts,
        rewards=Rewards(),
        trainer=trainer,
        sync=sync,
        evaluate=lambda step: evaluations.append(step) or {},
    )
    end = ""
    try:
        loop.run(config, SamplingConfig(max_completion_tokens=LIMIT), parts, record, seed=1)
    except TrainingDiverged as error:
        end = str(error).partition("; the batch is in")[0]
    record.close()
    lines = (folder / "metrics.jsonl").read_text().splitlines() if (folder / "metrics.jsonl").exists() else []
    clocks = ("time", "memory/", "tokens/generated")
    rows = [{k: v for k, v in json.loads(line).items() if not k.startswith(clocks)} for line in lines]
    checkpoints = sorted(p.parent.name for p in folder.rglob("trainer.pt"))
    return [rows, rollouts.draws, passes, evaluations, checkpoints, end]


@pytest.mark.parametrize("key", CASES)
def test_a_key_changes_something_of_a_run(key: str, shown: Any):
    both, changed = CASES[key]
    before = merge(BASE, both)
    a, b = (shown(json.dumps(tree, sort_keys=True)) for tree in (before, merge(before, changed)))
    assert a != b
    assert given(changed) == [key]


def given(tree: Mapping[str, Any], above: str = "") -> list[str]:
    return [
        found
        for name, value in tree.items()
        for found in (given(value, f"{above}{name}.") if isinstance(value, Mapping) else [above + name])
    ]


def test_the_same_settings_show_the_same(tiny_policy: Path, tmp_path: Path, shown: Any):
    """Else a difference would say nothing."""
    assert run(tiny_policy, tmp_path, BASE) == shown(json.dumps(BASE, sort_keys=True))


def test_the_limit_of_an_evaluation_is_the_number_of_its_tasks(tmp_path: Path):
    from assay.commands.schema import RunConfig
    from assay.commands.stages import _during

    asked = []
    for limit in (2, 4):
        tree = {"run_dir": str(tmp_path), "policy": {"path": "org/name"}, "tasks": {"train": {"path": "x.jsonl"}}}
        config = RunConfig.model_validate({**tree, "grpo": {**BASE, "eval_limit": limit}})
        rollouts = Rollouts()
        fleet = SimpleNamespace(rollouts=rollouts, rewards=Rewards())
        rollouts.within = lambda tasks, longest: (list(tasks), 0)  # type: ignore[attr-defined]
        _during(SimpleNamespace(config=config, heldout_tasks=TASKS), fleet)(1)
        asked.append(len(rollouts.draws[0][1]))
    assert asked == [2, 4]
