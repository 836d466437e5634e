"""What a gate has to compute, asked of loaded gates; every known way to compute something else is refused by name."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.deepseek_v2 import modeling_deepseek_v2 as deepseek
from transformers.models.qwen3_moe import modeling_qwen3_moe as qwen

from assay.errors import CheckpointError
from assay.moe import check_moe, gates_of, reference_choice, yarn_mscale
from assay.policy import load_policy
from tests.moe_policies import make_policy

YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 40.0,
    "mscale": 0.707,
    "mscale_all_dim": 0.707,
    "original_max_position_embeddings": 64,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}
GROUPS = {"topk_method": "group_limited_greedy", "n_group": 2, "topk_group": 1, "routed_scaling_factor": 16.0}


@pytest.fixture
def edited(tiny_policy: Path, tmp_path: Path) -> Callable[..., Path]:
    """The tiny policy with other words in its configuration, the weights as they are."""

    def edit(**changes: Any) -> Path:
        folder = tmp_path / "edited"
        shutil.copytree(tiny_policy, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        return folder

    return edit


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("words", [{}, {"routed_scaling_factor": 2.5}, GROUPS, {"rope_parameters": YARN}], ids=str)
def test_what_transformers_computes_passes(edited: Callable[..., Path], words: dict[str, Any], dtype: Any) -> None:
    model = load_policy(edited(**words), dtype)
    assert [name for name, _ in gates_of(model)] == ["model.layers.1.mlp.gate"]


def test_groups_limit_the_choice_by_hand() -> None:
    probabilities = (0.1, 0.4, 0.3, 0.2)
    assert reference_choice(probabilities, 2, 1, 1) == [1, 2]
    assert reference_choice(probabilities, 2, 2, 1) == [1, 0]
    assert reference_choice(probabilities, 3, 2, 2) == [1, 2, 3]


def test_the_published_factor_on_the_attention_scale(edited: Callable[..., Path]) -> None:
    config = load_policy(edited(rope_parameters=YARN)).config
    assert yarn_mscale(config) ** 2 == pytest.approx(1.5896, abs=1e-4)  # of 0.707 and 40, as published
    config.rope_parameters = {**YARN, "mscale_all_dim": 1.0}
    assert yarn_mscale(config) ** 2 == pytest.approx(1.8739, abs=1e-4)
    config.rope_parameters = {"rope_type": "default", "rope_theta": 10000.0}
    assert yarn_mscale(config) == 1.0


def test_a_scale_without_the_factor_is_refused(edited: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers up to 5.14.1: the function that applies mscale^2 is not there."""
    folder = edited(rope_parameters=YARN)
    monkeypatch.setattr(deepseek, "yarn_apply_mscale", lambda rope, scaling: scaling)
    with pytest.raises(CheckpointError, match=r"self_attn.*mscale\^2 = 1\.5896 .*before 5\.15\.0") as caught:
        load_policy(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_without_yarn_there_is_no_factor_to_lack(tiny_policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepseek, "yarn_apply_mscale", lambda rope, scaling: scaling)
    load_policy(tiny_policy)


def renormalised(logits: Tensor, weights: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return logits, weights / weights.sum(-1, keepdim=True), ids


def unscaled(logits: Tensor, weights: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return logits, weights / 16, ids


def sigmoid(logits: Tensor, weights: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return logits, 16 * logits.sigmoid().gather(1, ids), ids


def groups_ignored(logits: Tensor, weights: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    weights, ids = logits.softmax(-1).topk(2)
    return logits, 16 * weights, ids


def softmax_of_the_chosen(logits: Tensor, weights: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return logits, 16 * logits.gather(1, ids).softmax(-1), ids


def logits_in_16_bits(logits: Tensor, weights: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return logits.bfloat16().float(), weights, ids


@pytest.mark.parametrize(
    ("defect", "named"),
    [
        (renormalised, r"weights sum to 1\.0000 instead of"),
        (unscaled, "weights sum to"),
        (sigmoid, "weights sum to"),
        (softmax_of_the_chosen, r"weights sum to 16\.0000 instead of"),
        (groups_ignored, "inside the best 1 of 2 groups"),
        (logits_in_16_bits, "its logits are not"),
    ],
)
def test_a_gate_that_computes_otherwise_is_refused(
    edited: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, defect: Callable[..., Any], named: str
) -> None:
    folder = edited(**GROUPS)
    right = deepseek.DeepseekV2TopkRouter.forward
    monkeypatch.setattr(deepseek.DeepseekV2TopkRouter, "forward", lambda self, x: defect(*right(self, x)))
    with pytest.raises(CheckpointError, match=rf"layers\.1\.mlp\.gate.*{named}") as caught:
        load_policy(folder)
    assert "\n" not in str(caught.value)


def test_a_block_without_its_shared_experts_is_refused(tiny_policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        flat = x.view(-1, x.shape[-1])
        _, weights, ids = self.gate(flat)
        return self.experts(flat, ids, weights).view(x.shape)

    monkeypatch.setattr(deepseek.DeepseekV2Moe, "forward", forward)
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp: its output is not the weighted sum"):
        load_policy(tiny_policy)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"norm_topk_prob": True}, "norm_topk_prob=true.*never renormalises"),
        ({"scoring_func": "sigmoid"}, "scoring_func='sigmoid'"),
        ({"topk_method": "noaux_tc"}, "topk_method='noaux_tc'"),
    ],
)
def test_words_the_loaded_class_would_not_hear_are_refused(
    edited: Callable[..., Path], words: dict[str, Any], named: str
) -> None:
    with pytest.raises(CheckpointError, match=named):
        load_policy(edited(**words))


def test_ties_are_no_complaint(tiny_policy: Path) -> None:
    model = load_policy(tiny_policy)
    with torch.no_grad():
        for _, gate in gates_of(model):
            gate.weight.zero_()  # every expert equally probable: any choice is a top-k
    check_moe(model, "here")


def test_nothing_that_is_not_finite_passes(tiny_policy: Path) -> None:
    model = load_policy(tiny_policy)
    with torch.no_grad():
        for _, gate in gates_of(model):
            gate.weight[0, 0] = math.nan
    with pytest.raises(CheckpointError, match="logits"):
        check_moe(model, "here")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_qwens_gate_shares_out_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any) -> None:
    folder = make_policy("qwen3_moe", tmp_path / "policy")
    assert len(gates_of(load_policy(folder, dtype))) == 2
    right = qwen.Qwen3MoeTopKRouter.forward

    def not_renormalised(self: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, _, ids = right(self, x)
        return logits, logits.softmax(-1).gather(1, ids), ids

    monkeypatch.setattr(qwen.Qwen3MoeTopKRouter, "forward", not_renormalised)
    with pytest.raises(CheckpointError, match=r"instead of (1\.0|0\.99).*share_of_chosen"):
        load_policy(folder, dtype)
