"""Sizes from configurations and headers alone: exact for real models, exact for the published one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from assay.errors import CheckpointError
from assay.policy import InitConfig, PolicyConfig, create_policy, load_policy
from assay.sizes import check_alike, counted, deepseek_v2, of_config, of_folder, of_policy, shapes_of
from assay.tokenizer import train_tokenizer

LITE = {
    "model_type": "deepseek_v2",
    "num_hidden_layers": 27,
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "num_attention_heads": 16,
    "q_lora_rank": None,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "first_k_dense_replace": 1,
    "vocab_size": 102400,
}
LARGE = LITE | {
    "num_hidden_layers": 60,
    "hidden_size": 5120,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "num_attention_heads": 128,
    "q_lora_rank": 1536,
    "n_routed_experts": 160,
}


def test_deepseek_v2_lite_has_the_published_number_of_parameters():
    size = of_config(LITE)
    assert size.parameters == 15_706_484_224
    assert round(size.active / 1e9, 1) in (2.4, 2.5)  # the paper says 2.4B; 2.451 here
    assert size.cached_per_token * 2 == 31_104  # bytes in 16 bits: (512 + 64) * 27 * 2


def test_deepseek_v2_has_236_billion_of_which_21_are_active():
    size = of_config(LARGE)
    assert round(size.parameters / 1e9) == 236 and round(size.active / 1e9) == 21
    assert size.cached_per_token * 2 == 69_120


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"first_k_dense_replace": 2, "n_shared_experts": 2, "num_experts_per_tok": 3, "qk_rope_head_dim": 32},
        {"first_k_dense_replace": 0, "num_hidden_layers": 2, "num_attention_heads": 2, "v_head_dim": 16},
    ],
)
def test_formula_headers_and_the_loaded_model_agree(tmp_path: Path, sizes: dict[str, int]):
    tokenizer = train_tokenizer(["def f(n): return n + 1"] * 3, vocab_size=300)
    init = InitConfig(**{"hidden_size": 32, "n_routed_experts": 4, "moe_intermediate_size": 16, **sizes})
    folder = create_policy(PolicyConfig(init=init), tokenizer, 0, tmp_path / "p")
    real = sum(parameter.numel() for parameter in load_policy(folder).parameters())
    config = json.loads((folder / "config.json").read_text())
    assert of_policy(PolicyConfig(init=init, vocab_size=len(tokenizer))).parameters == real
    assert of_folder(folder).parameters == real
    assert counted(shapes_of(folder), config) == deepseek_v2(config)


def test_a_dense_model_is_counted_in_its_headers(tmp_path: Path):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "vocab_size": 100}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    for tied in (False, True):
        model = Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, tie_word_embeddings=tied))
        model.save_pretrained(tmp_path / str(tied))
        size = of_folder(tmp_path / str(tied))
        assert size.parameters == sum(p.numel() for p in model.parameters())
        assert size.active == size.parameters - (0 if tied else 100 * 32)
        assert size.cached_per_token == 3 * 2 * 2 * 8


def test_a_configuration_alone_is_enough_and_a_damaged_file_is_one_line(tiny_policy: Path, tmp_path: Path):
    (tmp_path / "bare").mkdir()
    shutil.copy(tiny_policy / "config.json", tmp_path / "bare")
    assert of_folder(tmp_path / "bare") == of_folder(tiny_policy)
    shutil.copytree(tiny_policy, tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"1234")
    with pytest.raises(CheckpointError, match="no safetensors header"):
        of_folder(tmp_path / "cut")
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        of_folder(tmp_path)


def test_a_saved_policy_of_other_sizes_is_told_by_the_tensor_that_differs(tiny_policy: Path, tmp_path: Path):
    check_alike(tiny_policy, tiny_policy)
    tokenizer = train_tokenizer(["def f(n): return n + 1"] * 3, vocab_size=300)
    init = InitConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, n_routed_experts=3)
    other = create_policy(PolicyConfig(init=init), tokenizer, 0, tmp_path / "other")
    with pytest.raises(
        CheckpointError, match=r"another architecture: .* is \[.*\], in .* \(\d+ of \d+ tensors differ\)"
    ):
        check_alike(other, tiny_policy)
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**settings, "model_type": "qwen3_moe"}))
    with pytest.raises(CheckpointError, match="another architecture, qwen3_moe; .* is a deepseek_v2"):
        check_alike(other, tiny_policy)
