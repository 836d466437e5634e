"""A GRPO run in small for the chaos tests: real trainer, real Ray actors, real sandbox and reward model, no vLLM.

`python -m tests.chaos.rig CONFIG PHASE TURN SEED` runs `assay grpo CONFIG` in a process that kills itself there.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

import grpo.cluster
from assay import checkpoint
from assay.chat import encode_prompt
from assay.checkpoint import latest_valid, load_state, writing
from assay.commands import stages
from assay.commands.context import Run
from assay.commands.fleet import Fleet
from assay.commands.schema import RunConfig
from assay.config import load
from assay.policy import load_tokenizer
from rewards.model.network import RewardModel
from rollouts.config import TaskFile
from rollouts.recorder import read_samples
from rollouts.tasks import read_tasks
from tests.chaos.engine import ANSWERS, HoldingEngineActor, key
from tests.chaos.saboteur import WITHIN_S, Order, Saboteur
from tests.tiny_tasks import SIGNS, _answer, generate

ROOT = Path(__file__).resolve().parents[2]
STEPS, PROMPTS, GROUP, EVERY = 6, 3, 4, 2  # 18 prompts, which is every training task once
VOLATILE = ("time", "memory/", "tokens/generated_per_s")


def prepare(folder: Path, policy: Path) -> Path:
    """Tasks, answers, a reward model that knows nothing, and a configuration; the file's path."""
    generate(folder / "tasks", seed=0)
    tokenizer = load_tokenizer(policy)
    answers = {}
    for task in read_tasks(TaskFile(path=str(folder / "tasks" / "train.jsonl"))):
        k = int(task.id.split("/")[1])
        answers[key(encode_prompt(tokenizer, task.messages))] = [
            [*tokenizer.encode(_answer(sign, k)["content"], add_special_tokens=False), tokenizer.eos_token_id]
            for sign in SIGNS.values()
        ]
    (policy / ANSWERS).write_text(json.dumps(answers))
    with writing(folder / "reward_model") as made:
        RewardModel.from_policy(policy).save(tokenizer, made)
    settings = {
        "run_dir": str(folder / "quiet"),
        "seed": 0,
        "policy": {"path": str(policy)},
        "tasks": {"train": {"path": str(folder / "tasks" / "train.jsonl")}, "check": "none"},
        "rollouts": {
            "engine": {"engines": 2},
            "sampling": {"max_prompt_tokens": 64, "max_completion_tokens": 64},
            "proof": {"logprob_atol": 1e6},  # the scripted engine has no forward pass to compare
        },
        "rewards": {"reward": "mix", "workers": 2},
        "reward_model_path": str(folder / "reward_model"),
        "grpo": {"steps": STEPS, "prompts_per_step": PROMPTS, "group_size": GROUP, "learning_rate": 1e-3,
                 "checkpoint_every": EVERY, "eval_every": 0, "mismatch": {"stop_above": 1e9}},
    }  # fmt: skip
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def train(config: Path, folder: Path, machines: Fleet, *, resume: bool = False) -> Path:
    """`assay grpo` of the configuration into `folder`, on machines that run already."""
    run = Run.reopen(folder) if resume else Run.open(settings(_unheard(config, folder.name), folder))
    return Path(str(stages.grpo(run, machines, stages.base_policy(run), "base", resume=resume)))


def _unheard(config: Path, name: str) -> Path:
    """The configuration with tasks of other limits, which changes no verdict: reward workers remember what they
    judged, and would need no sandbox for a second run."""
    tree = yaml.safe_load(config.read_text())
    tasks, number = Path(tree["tasks"]["train"]["path"]), len(list(config.parent.glob("tasks/*.jsonl")))
    rows = [json.loads(line) for line in tasks.read_text().splitlines()]
    for row in rows:
        row["answer"]["limits"] = {"cpu_s": 2 + number / 1000}
    tree["tasks"]["train"]["path"] = str(tasks.with_name(f"{name}.jsonl"))
    Path(tree["tasks"]["train"]["path"]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = config.with_name(f"{name}.of.yaml")
    made.write_text(yaml.safe_dump(tree))
    return made


def settings(config: Path, folder: Path) -> RunConfig:
    return load(RunConfig, config, [f"run_dir={json.dumps(str(folder))}"])


def traces(folder: Path) -> dict[str, Any]:
    """All that must not depend on who died: weights, optimizer, task order, samples, metrics."""
    out = folder / "grpo"
    state = load_state(Path(str(latest_valid(out / "checkpoints"))) / "trainer.pt")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": hashlib.sha256((out / "policy" / "model.safetensors").read_bytes()).hexdigest(),
        "optimizer": _digest(state),
        "samples": [{k: v for k, v in row.items() if k != "seconds"} for row in read_samples(out / "samples")],
        "metrics": [{k: v for k, v in row.items() if not k.startswith(VOLATILE)} for row in rows],
    }


def _digest(state: Any) -> str:
    made = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            made.update(value.detach().contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for name in sorted(value, key=str):
                made.update(str(name).encode())
                add(value[name])
        elif isinstance(value, (list, tuple)):
            for item in value:
                add(item)
        else:
            made.update(repr(value).encode())

    add(state)
    return made.hexdigest()


def _late(write_marker: Callable[..., None]) -> Callable[..., None]:
    def write(*given: Any) -> None:
        time.sleep(WITHIN_S)
        write_marker(*given)

    return write


def main(config: str, phase: str, turn: str, seed: str) -> int:
    from assay.cli import main as assay

    torch.set_num_threads(1)
    if phase == "write":  # which would be over in a tiny run before the moment comes
        checkpoint._write_marker = _late(checkpoint._write_marker)  # type: ignore[assignment]
    grpo.cluster.EngineActor = HoldingEngineActor  # type: ignore[misc]
    with Saboteur([Order("driver", phase, int(turn))], int(seed)).at_work():
        return assay(["grpo", config])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
