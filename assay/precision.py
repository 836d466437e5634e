"""Computing in bfloat16 what is held and trained in float32: `policy.dtype: bfloat16`.

It is torch's autocast. Products of matrices and attention take their operands in 16 bits; the residual stream, norms,
softmaxes, log-probabilities, the loss, gradients of parameters, Adam and the weights themselves stay in 32, so an
update of 1e-6 to a weight of 1 is not lost. Accelerate's `mixed_precision` would do the same but for three things:

- fused experts are a grouped product, which autocast (torch 2.13) leaves in 32 bits. It is told here;
- the logits of a router are a product, and DeepSeek computes them in float32, for the order of near-ties hangs on
  them. Here a router is out of autocast's reach, and so is the head (`assay.logprobs`);
- Accelerate has one precision per process, and a recipe trains several models in one.

A frozen weight that only ever enters such products may be held in 16 bits: autocast would round it each time, so not
a bit of the result changes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import library, nn

from assay.adapter import base_of
from assay.errors import ConfigError
from assay.moe import gates_of

GROUPED = "aten::_grouped_mm"


def check_precision(dtype: str, elsewhere: str) -> None:
    """Raises ConfigError where `policy.dtype`, or what Accelerate was told (`elsewhere`), cannot be trained in."""
    if dtype == "float16":
        raise ConfigError(
            "policy.dtype=float16: gradients below 6e-8 would be zero without loss scaling, which the trainer has not; "
            "compute in bfloat16, or in float32"
        )
    if elsewhere != "no":
        raise ConfigError(
            f"Accelerate was told mixed_precision={elsewhere}, which would round router and head too; set it to no and "
            f"say policy.dtype: bfloat16"
        )


def computing(dtype: str, device: str) -> AbstractContextManager[Any]:
    """Inside, products are computed in `dtype`: forward passes go here, backward passes need not."""
    if dtype == "float32":
        return nullcontext()
    _cast_grouped_products()
    return torch.autocast(device, getattr(torch, dtype))


def keep_routers_wide(model: nn.Module) -> None:
    """Let the routers of `model` compute in float32 also where autocast is on. Once for each model, not for a copy."""
    for name, _ in gates_of(base_of(model)):
        router = base_of(model).get_submodule(name.replace(".base_layer", ""))  # with the adapter around it
        router.forward = _without_autocast(router.forward)


def _without_autocast(forward: Any) -> Any:
    def wide(hidden: torch.Tensor, *rest: Any, **named: Any) -> Any:
        with torch.autocast(hidden.device.type, enabled=False):
            return forward(hidden.float(), *rest, **named)

    return wide


def narrow_frozen(model: nn.Module, dtype: str) -> None:
    """Hold in `dtype` what is frozen and only enters products computed in it: not embedding, head, routers, norms."""
    base = base_of(model)
    wide = {
        id(p) for module in (base.get_input_embeddings(), base.get_output_embeddings()) for p in module.parameters()
    }
    wide |= {id(p) for _, gate in gates_of(base) for p in gate.parameters()}
    for parameter in base.parameters():
        if not parameter.requires_grad and parameter.dim() > 1 and id(parameter) not in wide:
            parameter.data = parameter.data.to(getattr(torch, dtype))


@cache
def _cast_grouped_products() -> None:
    for device in ("CPU", "CUDA"):
        if not torch._C._dispatch_has_kernel_for_dispatch_key(GROUPED, f"Autocast{device}"):
            library.register_autocast(GROUPED, device.lower(), torch.bfloat16)
