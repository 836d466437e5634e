"""Supervised stages on several processes, real ones over gloo: two train, save and resume as one does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from assay.checkpoint import load_state
from tests.launching import launch
from tests.sft import ranks

VOLATILE = ("tokens_per_s", "samples_per_s")


def assert_close(found: ranks.Rows, expected: ranks.Rows) -> None:
    assert [row.keys() for row in found] == [row.keys() for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        for name, value in wanted.items():
            if name not in VOLATILE:
                assert row[name] == pytest.approx(value, rel=1e-5, abs=1e-6), (row["step"], name)


def assert_same_weights(found: Path, expected: Path) -> None:
    wanted, tensors = load_file(expected / "model.safetensors"), load_file(found / "model.safetensors")
    assert tensors.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(tensors[name], value, atol=1e-6, rtol=1e-5, msg=lambda m, at=name: f"{at}: {m}")


@pytest.mark.parametrize("kind, world", [("ddp", 2), ("fsdp2", 2), pytest.param("fsdp2", 3, marks=pytest.mark.slow)])
def test_several_ranks_fine_tune_as_one_does(tiny_policy: Path, tmp_path: Path, kind: str, world: int):
    alone = ranks.sft(str(tiny_policy), tmp_path / "alone")
    launch(["tests.sft.ranks", "sft", str(tiny_policy), str(tmp_path / "together"), kind], world)
    assert [row["step"] for row in alone][:4] == [1, 2, 3, 3]  # the second attempt began at the checkpoint of step 2
    assert_close(torch.load(tmp_path / "rows.pt"), alone)
    step = Path("checkpoints") / "step-00000002"
    for folder in (step, Path("policy")):
        assert_same_weights(tmp_path / "together" / folder, tmp_path / "alone" / folder)
    found, expected = (load_state(tmp_path / name / step / "trainer.pt") for name in ("together", "alone"))
    for i, state in expected["optimizer"]["state"].items():
        for name, value in state.items():
            torch.testing.assert_close(found["optimizer"]["state"][i][name], value, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_ranks_train_the_reward_model_as_one_does(tiny_policy: Path, tmp_path: Path, kind: str):
    alone = ranks.reward_model(str(tiny_policy), tmp_path / "alone")
    launch(["tests.sft.ranks", "reward_model", str(tiny_policy), str(tmp_path / "together"), kind], 2)
    assert len(alone) == 2
    assert_close(torch.load(tmp_path / "rows.pt"), alone)
    assert_same_weights(tmp_path / "together", tmp_path / "alone")
    found, expected = (
        json.loads((tmp_path / name / "reward_model.json").read_text()) for name in ("together", "alone")
    )
    assert found["heldout_samples"] == expected["heldout_samples"] > 0
    assert found["heldout_calibration_error"] == pytest.approx(expected["heldout_calibration_error"], abs=1e-6)
