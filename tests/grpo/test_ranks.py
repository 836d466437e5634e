"""Several processes, real ones over gloo: two or three ranks train, publish, save and resume as one does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.grpo import ranks
from tests.launching import launch


def together(policy: Path, out: Path, kind: str, world: int) -> dict[str, dict[str, torch.Tensor]]:
    launch(["tests.grpo.ranks", str(policy), str(out), kind], world)
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(out / "results.safetensors").items():
        part, key = name.split("/", 1)
        parts.setdefault(part, {})[key] = tensor
    return parts


@pytest.mark.parametrize(
    "kind, world",
    [("ddp", 2), ("fsdp2", 2), ("ddp lora", 2), ("fsdp2 lora", 2), pytest.param("fsdp2", 3, marks=pytest.mark.slow)],
)
def test_several_ranks_train_as_one_does(tiny_policy: Path, tmp_path: Path, kind: str, world: int):
    alone = ranks.train(tiny_policy, tmp_path / "alone", ranks.LORA if "lora" in kind else None)
    found = together(tiny_policy, tmp_path, kind, world)
    assert found.keys() == alone.keys()
    for part, expected in alone.items():
        assert found[part].keys() == expected.keys(), part
        for name, value in expected.items():
            torch.testing.assert_close(
                found[part][name], value, atol=1e-6, rtol=1e-5, msg=lambda m, at=f"{part}/{name}": f"{at}: {m}"
            )
