"""A policy from nothing and back, and one line for every broken folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from assay.checkpoint import is_complete
from assay.config import validate
from assay.errors import CheckpointError, ConfigError
from assay.policy import InitConfig, PolicyConfig, check_folder, create_policy, load_policy, load_tokenizer
from assay.tokenizer import train_tokenizer

SMALL = PolicyConfig(init=InitConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2))


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["hello there"] * 5, vocab_size=300)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_policy(SMALL, tokenizer, 7, tmp_path_factory.mktemp("policy") / "p")


def test_the_architecture_is_deepseek_v2_lite_in_small(folder: Path) -> None:
    config = load_policy(folder).config
    assert config.architectures == ["DeepseekV2ForCausalLM"]
    assert (config.kv_lora_rank, config.qk_rope_head_dim, config.q_lora_rank) == (512, 64, None)
    assert (config.topk_method, config.norm_topk_prob, config.routed_scaling_factor) == ("greedy", False, 1.0)
    assert config.first_k_dense_replace == 1 and config.n_shared_experts == 1
    assert is_complete(folder)


def test_the_default_has_about_one_and_a_half_million_parameters(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["hello there"] * 5, vocab_size=300)
    model = load_policy(create_policy(PolicyConfig(init=InitConfig()), tokenizer, 0, tmp_path / "p"))
    assert 1.0e6 < sum(p.numel() for p in model.parameters()) < 2.0e6


def test_same_seed_same_weights(tokenizer, folder: Path, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    again = create_policy(SMALL, tokenizer, 7, tmp_path / "again")
    other = create_policy(SMALL, tokenizer, 8, tmp_path / "other")
    assert torch.equal(state, torch.get_rng_state()), "the caller's generator was moved"
    weights = (folder / "model.safetensors").read_bytes()
    assert (again / "model.safetensors").read_bytes() == weights
    assert (other / "model.safetensors").read_bytes() != weights


def test_load_gives_the_dtype_asked_for(folder: Path) -> None:
    assert load_policy(folder, "bfloat16").dtype == torch.bfloat16
    assert load_policy(folder).dtype == torch.float32


def _edit_config(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return edit


BROKEN = {
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "config not JSON": (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
    "truncated weights": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:5000]),
        "cannot be loaded",
    ),
    "an encoder": (_edit_config(architectures=["BertModel"]), r"expected a \*ForCausalLM checkpoint, found BertModel"),
    "unknown architecture": (_edit_config(model_type="not_a_model"), "not_a_model"),
    "one layer too many": (_edit_config(num_hidden_layers=3), "missing weights: model.layers.2"),
    "one layer too few": (_edit_config(num_hidden_layers=1), "unexpected weights: model.layers.1"),
    "another width": (_edit_config(moe_intermediate_size=48), "mismatched weights|cannot be loaded"),
    "missing shard": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2-of-2.safetensors"}}'),
        "model-2-of-2.safetensors is missing",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_one_line(folder: Path, tmp_path: Path, case: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    damage, complaint = BROKEN[case]
    damage(broken)
    with pytest.raises(CheckpointError, match=complaint) as caught:
        load_policy(broken)
    assert "\n" not in str(caught.value) and str(broken) in str(caught.value)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        check_folder(tmp_path / "nowhere")
    check_folder("some-org/some-model")  # a hub name: the hub answers for itself


def test_a_folder_without_a_tokenizer(folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(folder / "config.json", bare)
    with pytest.raises(CheckpointError, match="no tokenizer can be loaded"):
        load_tokenizer(bare)


@pytest.mark.parametrize(
    ("tree", "complaint"),
    [
        ({}, "exactly one of"),
        ({"path": "a/b", "init": {}}, "exactly one of"),
        ({"init": {"num_experts_per_tok": 9}}, "num_experts_per_tok=9 of n_routed_experts=8"),
        ({"init": {"hiden_size": 9}}, "did you mean 'hidden_size'"),
    ],
)
def test_configurations_that_mean_nothing(tree: dict, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        validate(PolicyConfig, tree, "test")


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_loads_the_folder_and_generates(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}.items():
        monkeypatch.setenv(name, value)
    vllm = pytest.importorskip("vllm")
    engine = vllm.LLM(model=str(folder), dtype="float32", enforce_eager=True, max_model_len=64)
    out = engine.generate(
        [{"prompt_token_ids": [0, 10, 11]}], vllm.SamplingParams(max_tokens=5, ignore_eos=True), use_tqdm=False
    )
    assert len(out[0].outputs[0].token_ids) == 5


def test_the_tokenizer_of_another_model_is_refused_before_anything_is_started(folder: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(folder, mixed)
    load_tokenizer(mixed)
    words = [f"one{i} two{i} three{i}" for i in range(200)]
    train_tokenizer(words, vocab_size=600).save_pretrained(mixed)
    with pytest.raises(CheckpointError, match=r"tokenizer has \d+ tokens and its model embeds \d+: that is another"):
        load_tokenizer(mixed)
