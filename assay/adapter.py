"""LoRA on a policy, through PEFT: what is adapted, the merged weights, the folder.

    y = (W + alpha / rank * B A) x        W frozen, A and B trained, B = 0 at the start

Fused experts [E, out, in] and the router are parameters rather than linear layers; PEFT adapts them by name
(`target_parameters`), every expert with factors of its own. The head is never adapted. The frozen policy inside is
the reference of the KL: no second copy is held. Importing this module imports neither torch nor peft.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from assay.config import Section
from assay.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Target = Literal["attention", "router", "experts"]

#: what a target is called inside a decoder layer: linear layers by regular expression, parameters by the end of a
#: name. Dense and shared experts are no target: PEFT 0.21 takes `gate_proj` of a mixture of experts for the fused ones.
LAYERS: dict[Target, str] = {"attention": r".*\.self_attn\.\w*proj\w*"}
PARAMETERS: dict[Target, tuple[str, ...]] = {
    "router": ("mlp.gate.weight",),
    "experts": ("mlp.experts.gate_up_proj", "mlp.experts.down_proj"),
}
NAME = "default"


class LoraConfig(Section):
    """Adapters in place of full training. Learning rates are wanted some ten times as large as without."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1, description="the update is scaled by alpha / rank")
    targets: tuple[Target, ...] = Field(default=("attention", "router", "experts"), min_length=1)


def adapted(model: PreTrainedModel, config: LoraConfig) -> Any:
    """`model` with adapters that change nothing yet, everything else frozen. The same weights each time.

    Raises ConfigError where the model has nothing of what a target names.
    """
    import torch
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    names = [name for name, _ in model.named_parameters()]
    parameters = [p for target in config.targets for p in PARAMETERS.get(target, ())]
    layers = [LAYERS[target] for target in config.targets if target in LAYERS]
    for target in config.targets:
        if not any(_is_of(target, name) for name in names):
            raise ConfigError(f"policy.lora.targets: {target}: a {type(model).__name__} has none; leave it out")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = PeftConfig(
            task_type="CAUSAL_LM",
            r=config.rank,
            lora_alpha=config.alpha,
            target_modules="|".join(layers) or [],
            target_parameters=parameters or None,
        )
        return get_peft_model(model, settings, adapter_name=NAME)


def is_adapted(model: Any) -> bool:
    return hasattr(model, "peft_config") and hasattr(model, "disable_adapter")


def without_adapter(model: Any) -> AbstractContextManager[Any]:
    """The policy as it was before any training, for the length of a block; a plain model stays as it is."""
    return model.disable_adapter() if is_adapted(model) else nullcontext()


def base_of(model: Any) -> PreTrainedModel:
    """The transformers model inside, its layers wrapped by adapters or not."""
    return model.get_base_model() if is_adapted(model) else model


def merged_state(model: Any) -> dict[str, Tensor]:
    """State dict of the plain model with W + alpha/rank B A in place of W. The live model is left alone."""
    return dict(merged_items(model))


def merged_items(model: Any) -> Iterator[tuple[str, Tensor]]:
    """`merged_state`, one tensor at a time: what is merged is held for as long as it is looked at.

    Where ranks share the model its tensors are spread as the model's are, and every rank has to go through them.
    """
    from assay.sharded import spread

    base, adapters = base_of(model), adapters_of(model)
    for name, tensor in base.state_dict().items():
        if not is_adapted(model):
            yield name, tensor
        elif ".lora_" not in name:
            adapter = adapters.get(_plain(name))
            if adapter is not None:  # added in float32 also where the frozen weight is held in 16 bits
                tensor = tensor.float() + spread(_delta(adapter), tensor).float()
            yield _plain(name), tensor


def adapters_of(model: Any) -> dict[str, Any]:
    """The plain model's name of each adapted parameter, and PEFT's adapter around it."""
    found = {}
    if is_adapted(model):
        for name, module in base_of(model).named_modules():
            if hasattr(module, "get_delta_weight") and NAME in module.lora_A:
                found[f"{_plain(name)}.{getattr(module, 'parameter_name', 'weight')}"] = module
    return found


def frozen_items(model: Any) -> Iterator[tuple[str, Tensor]]:
    """An adapted model's tensors but its factors, as they are held, under the plain model's names."""
    for name, tensor in base_of(model).state_dict().items():
        if ".lora_" not in name:
            yield _plain(name), tensor


def factor_items(model: Any) -> Iterator[tuple[str, Tensor]]:
    """`NAME.lora_A` [E rank, in] and `NAME.lora_B` [out, rank E] of each adapted parameter NAME, as PEFT lays them out:
    E is 1 but for experts that are one parameter."""
    for name, adapter in adapters_of(model).items():
        yield f"{name}.lora_A", adapter.lora_A[NAME].weight.detach()
        yield f"{name}.lora_B", adapter.lora_B[NAME].weight.detach()


def scale_of(model: Any) -> float:
    """alpha/rank, the same for all of a model's adapters."""
    (scale,) = {float(adapter.scaling[NAME]) for adapter in adapters_of(model).values()}
    return scale


def _delta(adapter: Any) -> Tensor:
    """alpha/rank B A, of whole factors."""
    from assay.sharded import gathered

    with gathered(adapter.lora_A[NAME], adapter.lora_B[NAME]):
        delta: Tensor = adapter.get_delta_weight(NAME).detach()
    return delta


def adapter_state(model: Any) -> dict[str, Tensor]:
    """The part of an adapted model's state dict that is trained, by its names there; of a plain one nothing."""
    return {name: t for name, t in model.state_dict().items() if ".lora_" in name} if is_adapted(model) else {}


def save_weights(model: Any, state: Mapping[str, Tensor], adapter: Mapping[str, Tensor], folder: Path) -> None:
    """`folder/model`: a Hugging Face folder of `state`, merged and whole. `folder/adapter`: PEFT's own folder of
    `adapter`, where the model has one; `peft.PeftModel.from_pretrained(policy, folder / "adapter")` reads it.
    """
    base_of(model).save_pretrained(str(folder / "model"), state_dict=dict(state))
    if is_adapted(model):
        model.save_pretrained(str(folder / "adapter"), state_dict=dict(adapter), save_embedding_layers=False)


def restore_weights(model: Any, folder: Path) -> None:
    """Take up what `save_weights` left. Raises CheckpointError where that was another architecture or adapter."""
    if is_adapted(model):
        return _load_adapter(model, folder / "adapter")
    from assay.policy import load_policy
    from assay.sharded import load_model_state

    saved = load_policy(folder / "model", str(next(model.parameters()).dtype).removeprefix("torch."))
    try:
        load_model_state(model, saved.state_dict())
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: another architecture: {' '.join(str(error).split())[:300]}") from None


def _load_adapter(model: Any, folder: Path) -> None:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from assay.sharded import spread

    try:
        state = load_file(folder / "adapter_model.safetensors")
    except (OSError, SafetensorError):
        raise CheckpointError(
            f"{folder}: no adapter can be read there; was this run trained without policy.lora?"
        ) from None
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    if {name: t.shape for name, t in own.items()} != {name: t.shape for name, t in state.items()}:
        raise CheckpointError(f"{folder}: an adapter of another rank or other targets; use the policy.lora it had")
    set_peft_model_state_dict(model, {name: spread(tensor, own[name]) for name, tensor in state.items()})


def _is_of(target: Target, parameter: str) -> bool:
    if target in PARAMETERS:
        return parameter.endswith(PARAMETERS[target])
    return re.fullmatch(LAYERS[target], parameter.removesuffix(".weight")) is not None


def _plain(name: str) -> str:
    """A name inside the adapted model as it is in the plain one: wrappers hold what they wrap as `base_layer`."""
    return name.replace(".base_layer", "")
