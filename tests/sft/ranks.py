"""What every rank of `test_ranks.py` runs: python -m tests.sft.ranks WHAT POLICY OUT KIND, with RANK and so on set.

`sft` and `reward_model` are called in the test's own process as well: the run on one rank that all others equal.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from rewards.model.train import RewardModelTrainer, train_reward_model
from sft.train import SFTTrainer, train_sft
from tests.launching import shard_on_a_cpu
from tests.rewards_model.test_train import CONFIG as RM_CONFIG
from tests.rewards_model.test_train import SAMPLES
from tests.sft.test_train import CONFIG, DIALOGUES, Killed

SFT = CONFIG.model_copy(
    update={"batch_tokens": 250, "micro_batch_tokens": 40, "balance_alpha": 0.01, "learning_rate": 1e-4,
            "epochs": 1, "warmup_steps": 1, "checkpoint_every": 2}
)  # fmt: skip
REWARD_MODEL = RM_CONFIG.model_copy(
    update={"batch_size": 32, "epochs": 1, "micro_batch_tokens": 100, "learning_rate": 1e-4}
)
Rows = list[dict[str, float]]


def sft(policy: str, out: Path) -> Rows:
    """Two steps and a checkpoint; the next attempt takes it up and ends the run."""
    rows: Rows = []

    def die(row: dict[str, float]) -> None:
        rows.append(row)
        if row["step"] == 3:
            raise Killed

    with contextlib.suppress(Killed):
        train_sft(SFT, policy, DIALOGUES, out, die)
    train_sft(SFT, policy, DIALOGUES, out, rows.append)
    return rows


def reward_model(policy: str, out: Path, loss: str = "pointwise") -> Rows:
    rows: Rows = []
    config = REWARD_MODEL.model_copy(update={"loss": loss})
    train_reward_model(config, policy, SAMPLES[:75], out, rows.append)
    return rows


def main(what: str, policy: str, out: str, kind: str) -> None:
    torch.set_num_threads(1)
    if kind == "fsdp2":
        shard_on_a_cpu()
    made = {"sft": SFTTrainer, "reward_model": RewardModelTrainer}[what]
    prepared = made.__init__

    def watched(self: object, *args: object) -> None:
        prepared(self, *args)  # type: ignore[arg-type]
        parameters = list(self.model.parameters())  # type: ignore[attr-defined]
        assert all(isinstance(p, DTensor) for p in parameters) == (kind == "fsdp2")
        if kind == "fsdp2":
            held = sum(p.to_local().numel() for p in parameters) / sum(p.numel() for p in parameters)
            assert held < 0.6, f"this rank holds {held:.0%} of the parameters"

    made.__init__ = watched  # type: ignore[method-assign,assignment]
    rows = {"sft": sft, "reward_model": reward_model}[what](policy, Path(out))
    if torch.distributed.get_rank() == 0:
        torch.save(rows, Path(out).parent / "rows.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
