"""How large a policy is, from its configuration or from the headers of its weight files. Nothing is loaded; no torch.

Letters as in `config.json`'s names: H hidden_size, V vocab_size, I and M the width of a dense and of an expert MLP,
E experts of which K work on a token, n heads.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from assay.errors import CheckpointError
from assay.policy import PolicyConfig, check_folder

WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}  #: bytes of a number


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """Counts of numbers; bytes follow from the dtype each part of the run holds them in."""

    kind: str
    parameters: int
    active: int  #: parameters a token is multiplied with: K of E experts, and no table that is only looked up
    layers: int
    hidden: int
    vocabulary: int
    cached_per_token: int  #: numbers of the KV cache, all layers
    saved_per_token: int  #: numbers kept for the backward pass without checkpointing, all layers: an estimate


def of_policy(policy: PolicyConfig) -> ModelSize:
    """The policy a run starts from. Raises CheckpointError where its configuration is not at hand."""
    if policy.init is not None:
        sizes = {**policy.init.model_dump(), "vocab_size": policy.vocab_size, "model_type": "deepseek_v2"}
        return of_config({**sizes, "num_key_value_heads": policy.init.num_attention_heads})
    return of_folder(_folder_of(str(policy.path)))


def of_folder(folder: Path) -> ModelSize:
    """A checkpoint folder: counted in the headers of its weight files where they are there, else by formula."""
    config = _json(folder / "config.json")
    shapes = shapes_of(folder)
    if shapes:
        try:
            return of_config(config, counted(shapes, config))
        except KeyError as field:
            raise CheckpointError(f"{folder}/config.json: has no {field}, by which sizes are told here") from None
    if config.get("model_type") != "deepseek_v2":
        raise CheckpointError(
            f"{folder}: neither *.safetensors with headers to count in nor a deepseek_v2 config.json to compute from"
        )
    return of_config(config)


def of_config(config: Mapping[str, Any], count: tuple[int, int] | None = None) -> ModelSize:
    """Sizes from the fields of a `config.json`; `count` (all, active) replaces the formula of DeepSeek-V2."""
    parameters, active = count or deepseek_v2(config)
    return ModelSize(
        kind=str(config.get("model_type")),
        parameters=parameters,
        active=active,
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        vocabulary=config["vocab_size"],
        cached_per_token=cached_per_token(config),
        saved_per_token=saved_per_token(config),
    )


def deepseek_v2(config: Mapping[str, Any]) -> tuple[int, int]:
    """Parameters of a DeepSeek-V2 (arXiv 2405.04434, section 2), all and active.

    attention   q: H n (nope + rope), or H Q + Q + Q n (nope + rope) with a low rank Q;
                kv: H (R + rope) + R + R n (nope + v);  out: n v H
    layer       attention + 2 H (norms) + 3 H I, or 3 H M (E + shared) + H E (router)
    model       embedding V H + layers + norm H + head V H
    """
    h, v, n = config["hidden_size"], config["vocab_size"], config["num_attention_heads"]
    nope, rope, value = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
    rank, q_rank = config["kv_lora_rank"], config.get("q_lora_rank")
    q = h * n * (nope + rope) if q_rank is None else h * q_rank + q_rank + q_rank * n * (nope + rope)
    attention = q + h * (rank + rope) + rank + rank * n * (nope + value) + n * value * h
    dense = min(config.get("first_k_dense_replace", 0), config["num_hidden_layers"])
    sparse = config["num_hidden_layers"] - dense
    expert = 3 * h * config["moe_intermediate_size"]
    experts = config["n_routed_experts"]
    body = config["num_hidden_layers"] * (attention + 2 * h) + dense * 3 * h * config["intermediate_size"]
    body += sparse * (expert * (experts + config["n_shared_experts"]) + h * experts)
    table = v * h
    head = 0 if config.get("tie_word_embeddings") else table
    idle = sparse * expert * (experts - config["num_experts_per_tok"])
    return table + body + h + head, body - idle + h + table


def counted(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> tuple[int, int]:
    """All and active parameters of named shapes: K of E of what lies under `.experts.`, and the head but no table."""
    everything = sum(prod(shape) for shape in shapes.values())
    in_experts = sum(prod(shape) for name, shape in shapes.items() if ".experts." in name)
    names = ("n_routed_experts", "num_local_experts", "num_experts")
    experts = next((config[name] for name in names if config.get(name)), 1)
    idle = in_experts - in_experts * config.get("num_experts_per_tok", experts) // experts
    table = 0 if config.get("tie_word_embeddings") else config["vocab_size"] * config["hidden_size"]
    return everything, everything - idle - table


def cached_per_token(config: Mapping[str, Any]) -> int:
    """Numbers a token leaves in the KV cache: R + rope a layer with latent attention, else 2 n_kv d."""
    if config.get("kv_lora_rank"):
        each = config["kv_lora_rank"] + config["qk_rope_head_dim"]
    else:
        heads = config["num_attention_heads"]
        width = config.get("head_dim") or config["hidden_size"] // heads
        each = 2 * (config.get("num_key_value_heads") or heads) * width
    return int(config["num_hidden_layers"] * each)


def saved_per_token(config: Mapping[str, Any]) -> int:
    """Numbers the backward pass needs of a token, all layers: an estimate from the matrix products alone.

    A layer keeps its inputs and norms (4 H), queries, keys, values and the attention's result, and of every MLP that
    works on the token the input, gate, up and product (H + 3 width). Attention scores are never kept.
    """
    h, n = config["hidden_size"], config["num_attention_heads"]
    if config.get("kv_lora_rank"):
        key, value = config["qk_nope_head_dim"] + config["qk_rope_head_dim"], config["v_head_dim"]
        attention = n * (2 * key + 2 * value) + config["kv_lora_rank"] + config["qk_rope_head_dim"]
    else:
        attention = 4 * n * (config.get("head_dim") or h // n)
    dense = h + 3 * config["intermediate_size"]
    working = config.get("num_experts_per_tok") or 0
    layers = config["num_hidden_layers"]
    first = min(config.get("first_k_dense_replace", 0), layers) if working else layers
    width = config.get("moe_intermediate_size") or config["intermediate_size"]
    sparse = (working + (config.get("n_shared_experts") or 0)) * (h + 3 * width)
    return int(layers * (4 * h + attention) + first * dense + (layers - first) * sparse)


def shapes_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor, from the first bytes of each safetensors file; empty where there is none.

    Raises CheckpointError where some are there and others are not.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    files = sorted(folder.glob("*.safetensors"))
    if files:
        check_folder(folder)
    for path in files:
        try:
            with path.open("rb") as file:
                header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        except (struct.error, ValueError, MemoryError, OverflowError):
            raise CheckpointError(f"{path}: no safetensors header; the file is damaged or cut short") from None
        shapes |= {key: tuple(row["shape"]) for key, row in header.items() if key != "__metadata__"}
    return shapes


def check_alike(saved: Path, start: Path) -> None:
    """Whether weights in `saved` fit a policy like `start`, told by what lies on disk: before anything is loaded.

    Tensors of the same name must have the same shape, and there must be some. Raises CheckpointError.
    """
    kinds = [_json(folder / "config.json").get("model_type") for folder in (saved, start)]
    shapes, expected = shapes_of(saved), shapes_of(start)
    common = sorted(shapes.keys() & expected.keys())
    differ = [name for name in common if shapes[name] != expected[name]]
    if kinds[0] != kinds[1] or (shapes and expected and not common):
        raise CheckpointError(f"{saved}: another architecture, {kinds[0]}; {start} is a {kinds[1]}")
    if differ:
        first = differ[0]
        raise CheckpointError(
            f"{saved}: another architecture: {first} is {list(shapes[first])}, in {start} {list(expected[first])} "
            f"({len(differ)} of {len(common)} tensors differ)"
        )


def _folder_of(name: str) -> Path:
    """A folder, or where the hub's cache keeps a model's `config.json`: fetched if it is not there."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, "config.json")).parent
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        raise CheckpointError(
            f"{name}: no such folder, and no config.json of that name in the hub's cache or to be had from the hub; "
            f"download it, or set policy.path to a folder"
        ) from None


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent}: no config.json, so not a Hugging Face checkpoint") from None
    except (ValueError, TypeError):
        raise CheckpointError(f"{path}: not valid JSON") from None
