"""The policy on disk: make one from nothing, or load one, and say in one line what is wrong with a folder.

Importing this module does not import torch; the functions do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from assay.adapter import LoraConfig, base_of, merged_state
from assay.checkpoint import write_failure, writing
from assay.config import Section
from assay.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Dtype = Literal["float32", "bfloat16", "float16"]
Experts = Literal["grouped_mm", "eager", "batched_mm"]
Attention = Literal["sdpa", "segments"]


class InitConfig(Section):
    """Sizes of a random DeepSeek-V2 mixture of experts: the published architecture in small.

    `kv_lora_rank` and `qk_rope_head_dim` keep their published 512 + 64: vLLM's latent attention on a CPU takes
    no other sum. Everything else may shrink. The gate is DeepSeek-V2-Lite's: softmax over all experts, greedy
    top-k, no renormalisation, scale 1.

    `initializer_range` defaults to hidden_size ** -0.5, which keeps activations at their size through a layer. The
    published 0.02 does that for a width of 2,048; at 128 it starves the first hundred thousand tokens of training
    (after 90 thousand, other things equal, the held-out loss is 1.87 nats at 0.06 and 1.21 at 0.09).
    """

    hidden_size: int = Field(default=128, ge=8)
    num_hidden_layers: int = Field(default=3, ge=1)
    num_attention_heads: int = Field(default=4, ge=1)
    qk_nope_head_dim: int = Field(default=32, ge=1)
    qk_rope_head_dim: int = Field(default=64, ge=2)
    v_head_dim: int = Field(default=32, ge=1)
    kv_lora_rank: int = Field(default=512, ge=1)
    intermediate_size: int = Field(default=256, ge=1)
    moe_intermediate_size: int = Field(default=64, ge=1)
    n_routed_experts: int = Field(default=8, ge=1)
    n_shared_experts: int = Field(default=1, ge=1)
    num_experts_per_tok: int = Field(default=2, ge=1)
    first_k_dense_replace: int = Field(default=1, ge=0)
    max_position_embeddings: int = Field(default=2048, ge=16)
    initializer_range: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _experts(self) -> InitConfig:
        if self.num_experts_per_tok > self.n_routed_experts:
            raise ValueError(
                f"num_experts_per_tok={self.num_experts_per_tok} of n_routed_experts={self.n_routed_experts}"
            )
        return self


class PolicyConfig(Section):
    """Where the policy comes from: `path` (a Hugging Face folder or hub name) or `init` (random weights)."""

    path: str | None = None
    init: InitConfig | None = None
    vocab_size: int = Field(default=1024, ge=262, description="of the tokenizer trained for `init`")
    pieces: Literal["words", "lines"] = Field(
        default="words", description="what that tokenizer's tokens may not reach across"
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="what GRPO computes products in; what is trained stays in float32, what is frozen is held in this",
    )
    experts: Experts | None = Field(
        default=None,
        description="how GRPO computes fused experts: transformers' experts_implementation; unset: its own",
    )
    attention: Attention = Field(
        default="sdpa",
        description="GRPO, over rows of several sequences: under a mask, or one sequence at a time (faster on a CPU)",
    )
    lora: LoraConfig | None = Field(default=None, description="GRPO trains adapters; unset: all weights")

    @model_validator(mode="after")
    def _one_source(self) -> PolicyConfig:
        if (self.path is None) == (self.init is None):
            raise ValueError("set exactly one of policy.path (a checkpoint) and policy.init (random weights)")
        return self


def create_policy(config: PolicyConfig, tokenizer: PreTrainedTokenizerBase, seed: int, out_dir: str | Path) -> Path:
    """Write a random policy and its tokenizer as a Hugging Face folder; the same seed gives the same bytes."""
    import torch
    from transformers import DeepseekV2Config, DeepseekV2ForCausalLM

    if config.init is None:
        raise ConfigError("policy.init: required to create a policy; policy.path names one that exists")
    sizes = config.init.model_dump()
    sizes["initializer_range"] = sizes["initializer_range"] or config.init.hidden_size**-0.5
    hf_config = DeepseekV2Config(
        **sizes,
        vocab_size=len(tokenizer),
        num_key_value_heads=config.init.num_attention_heads,
        q_lora_rank=None,
        topk_method="greedy",
        n_group=1,
        topk_group=1,
        scoring_func="softmax",
        norm_topk_prob=False,
        routed_scaling_factor=1.0,
        moe_layer_freq=1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = DeepseekV2ForCausalLM(hf_config)
    with writing(Path(out_dir), {"kind": "policy", "seed": seed}) as folder:
        save_policy(model, tokenizer, folder)
    return Path(out_dir)


def save_policy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write model and tokenizer into `folder`; wrap it in `checkpoint.writing` to have it complete or not at all.

    `state` stands in for the model's own where ranks share that.
    """
    write_model(model, merged_state(model) if state is None else state, folder)  # adapters go into the weights
    tokenizer.save_pretrained(str(folder))


def write_model(model: PreTrainedModel, state: Mapping[str, Tensor], folder: Path) -> None:
    """The configuration of `model` and the tensors of `state`, as a Hugging Face folder."""
    from safetensors import SafetensorError

    try:
        with without_bars():
            base_of(model).save_pretrained(str(folder), state_dict=dict(state))
    except SafetensorError as error:
        raise write_failure(error, folder) from None


def load_policy(path: str | Path, dtype: Dtype = "float32", experts: Experts | None = None) -> PreTrainedModel:
    """The causal language model in a folder or on the hub, in `dtype`, with attention that respects packing.

    Raises CheckpointError, in one line, where the folder is incomplete, of another architecture, where names or
    shapes of its weights are not those its configuration asks for, or where a mixture of experts was loaded whose
    gates, experts or attention scale compute something else (`assay.moe.check_moe`).
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    from assay.moe import check_moe

    check_folder(path)
    try:
        with without_bars():
            model, info = AutoModelForCausalLM.from_pretrained(
                str(path),
                dtype=getattr(torch, dtype),
                attn_implementation="sdpa",
                experts_implementation=experts,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be loaded: {_one_line(error)}") from None
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if info.get(what):
            raise CheckpointError(f"{path}: {what.replace('_keys', ' weights')}: {_some(info[what])}")
    check_moe(model, str(path))
    model.config.use_cache = False
    return model


def without_dropout(model: PreTrainedModel, name: str) -> None:
    """Switch off what a model draws at random in training mode: dropout of any kind, jitter of routers.

    For GRPO, whose policy is the distribution that engines sample from; with dropout it would be another one at every
    pass. `model.config`, which is exported, stays as it was. Raises ConfigError where two passes still differ.
    """
    import torch

    def off(values: Mapping[str, Any], module: object = None) -> list[str]:
        own = {"p"} if isinstance(module, torch.nn.modules.dropout._DropoutNd) else set()
        drawn = (key for key, value in values.items() if isinstance(value, float) and value > 0)
        return [key for key in drawn if _AT_RANDOM.search(key) or key in own]

    for module in model.modules():
        for key in off(vars(module), module):
            setattr(module, key, 0.0)
    if not (asked := off(model.config.to_dict())):
        return
    tokens, training = torch.arange(8, device=model.device)[None], model.training
    model.train()
    with torch.no_grad(), torch.random.fork_rng():
        first, second = (model(input_ids=tokens).logits for _ in range(2))
    model.train(training)
    if not torch.equal(first, second):
        raise ConfigError(
            f"{name}: two passes in training mode differ, by {', '.join(asked)} of its config.json; GRPO cannot train "
            f"a policy that drops at random: set these to 0 there"
        )


_AT_RANDOM = re.compile("drop|jitter")


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder or on the hub. Raises CheckpointError where there is none, or another model's: one with
    more tokens than the model beside it embeds. Engines have none, so this is the only place to see it."""
    from transformers import AutoTokenizer

    if not _on_the_hub(path) and not Path(path).is_dir():
        raise CheckpointError(f"{path}: no such folder; make that policy first, or name one that exists")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: no tokenizer can be loaded: {_one_line(error)}") from None
    if (Path(path) / "config.json").is_file():
        config = _read_config(Path(path))
        embedded = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
        if embedded is not None and len(tokenizer) > embedded:
            raise CheckpointError(
                f"{path}: its tokenizer has {len(tokenizer)} tokens and its model embeds {embedded}: that is another "
                f"model's tokenizer; put the model's own there"
            )
    return tokenizer


def _on_the_hub(path: str | Path) -> bool:
    """Whether this can only be the name of a model on the hub: org/name, and no such path here."""
    name = str(path)
    return not Path(path).exists() and not name.startswith(".") and bool(re.fullmatch(r"[\w.-]+/[\w.-]+", name))


def check_folder(path: str | Path, architecture: str = "ForCausalLM") -> None:
    """Look at a local checkpoint folder without loading it; a hub name passes, the hub answers for itself."""
    folder = Path(path)
    if _on_the_hub(path):
        return
    if not folder.is_dir():
        raise CheckpointError(f"{path}: no such folder; name a Hugging Face folder or a hub model like org/name")
    config = _read_config(folder)
    found = config.get("architectures") or [f"model_type {config.get('model_type')!r} without an architecture"]
    if not any(str(name).endswith(architecture) for name in found):
        raise CheckpointError(f"{path}: expected a *{architecture} checkpoint, found {', '.join(map(str, found))}")
    absent = [name for name in _weight_files(folder) if not (folder / name).is_file()]
    if absent:
        raise CheckpointError(f"{path}: incomplete, {_some(absent)} is missing; point to a finished checkpoint")


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError:
        raise CheckpointError(f"{folder}: no config.json, so not a Hugging Face checkpoint") from None
    except ValueError as error:
        raise CheckpointError(f"{folder}/config.json: not valid JSON: {_one_line(error)}") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder}/config.json: expected a mapping")
    return config


def _weight_files(folder: Path) -> list[str]:
    """The weight files a complete folder has: those its index names, or the single one."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        single = next((n for n in ("model.safetensors", "pytorch_model.bin") if (folder / n).is_file()), None)
        return [single or "model.safetensors"]
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{index}: not a valid weight index") from None


@contextmanager
def without_bars() -> Iterator[None]:
    """transformers draws a progress bar for every file; assay has its own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _some(names: Any) -> str:
    names = [str(n) for n in sorted(names, key=str)]
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:300] or type(error).__name__
