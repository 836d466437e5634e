"""Several processes, real ones over gloo: two or three ranks train, publish, save and resume as one does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.grpo import ranks

ROOT = Path(__file__).resolve().parents[2]


def launch(policy: Path, out: Path, kind: str, world: int) -> dict[str, dict[str, torch.Tensor]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(world):
        settings = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        settings |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
        settings |= {"OMP_NUM_THREADS": 1, "PYTHONPATH": ROOT}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.grpo.ranks", str(policy), str(out), kind],
                cwd=ROOT,
                env={**os.environ, **{k: str(v) for k, v in settings.items()}},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        ends = [(p.communicate(timeout=300)[1], p.returncode) for p in processes]
    finally:
        for process in processes:
            process.kill()
    assert [code for _, code in ends] == [0] * world, "\n".join(text[-3000:] for text, _ in ends)
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(out / "results.safetensors").items():
        part, key = name.split("/", 1)
        parts.setdefault(part, {})[key] = tensor
    return parts


@pytest.mark.parametrize(
    "kind, world",
    [("ddp", 2), ("fsdp2", 2), ("ddp lora", 2), pytest.param("fsdp2", 3, marks=pytest.mark.slow)],
)
def test_several_ranks_train_as_one_does(tiny_policy: Path, tmp_path: Path, kind: str, world: int):
    alone = ranks.train(tiny_policy, tmp_path / "alone", ranks.LORA if "lora" in kind else None)
    together = launch(tiny_policy, tmp_path, kind, world)
    assert together.keys() == alone.keys()
    for part, expected in alone.items():
        assert together[part].keys() == expected.keys(), part
        for name, value in expected.items():
            torch.testing.assert_close(
                together[part][name], value, atol=1e-6, rtol=1e-5, msg=lambda m, at=f"{part}/{name}": f"{at}: {m}"
            )
