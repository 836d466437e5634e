"""The engine's precision: what is sent to it, and what it computes in float32 although it computes in 16 bits.

The two sides of a mixture of experts part where an order is decided: in the logits of the routers, whose near-ties
break one way or the other, and in those of the head. The trainer has both in float32 whatever `policy.dtype` says.
`rollouts.engine.fp32_router_and_head` has the engine do so too:

- the head by vLLM's own word (`head_dtype`): its weight is rounded to 16 bits, products and sums are not;
- routers by a layer of theirs that holds its weight in float32. vLLM's word for it (`moe_router_dtype`) is read by
  DeepSeek models alone, and on a CPU it widens logits that are rounded already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from assay.errors import ConfigError
from rollouts.config import EngineConfig

EXPERTS = (
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "moe_num_experts",
)  #: E in a config
ROUTER = "mlp.gate.weight"  #: how the name of a router's weight ends in a checkpoint


def as_held(items: Iterable[tuple[str, Any]], config: EngineConfig) -> Iterator[tuple[str, Any]]:
    """A policy's tensors in the engine's dtype, the routers' in float32 where it holds them so; one at a time."""
    import torch

    for name, tensor in items:
        wide = config.fp32_router_and_head and name.endswith(ROUTER)
        yield name, tensor.to(torch.float32 if wide else getattr(torch, config.dtype))


def check_routers(model: str) -> None:
    """Raise ConfigError for a mixture whose routers have names that nobody told us: they would be sent in 16 bits, and
    only then widened. A dense policy has a head alone."""
    from transformers import AutoConfig

    from assay.moe import ARCHITECTURES

    config = AutoConfig.from_pretrained(model).get_text_config()
    if any(getattr(config, name, None) for name in EXPERTS) and config.model_type not in ARCHITECTURES:
        raise ConfigError(
            f"rollouts.engine.fp32_router_and_head: assay does not know the routers of {config.model_type!r} (of "
            f"{' and '.join(ARCHITECTURES)} it does), and would round their weights; leave it out"
        )


@contextmanager
def wide_routers(wanted: bool) -> Iterator[dict[str, Any]]:
    """Inside, vLLM builds routers that compute in float32; yields what the engine has to be told beside that."""
    if not wanted:
        yield {}
        return
    import torch
    from vllm.model_executor.custom_op import op_registry_oot
    from vllm.model_executor.layers.fused_moe import GateLinear

    class WideRouter(GateLinear):
        def __init__(self, *sizes: Any, **given: Any) -> None:
            super().__init__(*sizes, **given | {"params_dtype": torch.float32, "out_dtype": torch.float32})

    op_registry_oot[GateLinear.__name__] = WideRouter  # vLLM's door for layers from outside, shut again below
    try:
        yield {"hf_overrides": {"head_dtype": "float32"}}
    finally:
        del op_registry_oot[GateLinear.__name__]
