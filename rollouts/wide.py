"""The engine's precision: what is sent to it, and what it computes in float32 although it computes in 16 bits.

The two sides of a mixture of experts part where an order is decided: in the logits of the routers, whose near-ties
break one way or the other, and in those of the head. The trainer has both in float32 whatever `policy.dtype` says.
`rollouts.engine.fp32_router_and_head` has the engine do so too:

- the head by vLLM's own word (`head_dtype`): its weight is rounded to 16 bits, products and sums are not;
- routers by a layer of theirs that holds its weight in float32. vLLM's word for it (`moe_router_dtype`) is read by
  DeepSeek models alone, and on a CPU it widens logits that are rounded already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rollouts.config import EngineConfig

ROUTER = "mlp.gate.weight"  #: how the name of a router's weight ends in a checkpoint


class AsHeld(Mapping[str, Any]):
    """A policy's tensors in the engine's dtype, the routers' in float32 where it holds them so; each when asked for."""

    def __init__(self, state: Mapping[str, Any], config: EngineConfig) -> None:
        self._state, self._config = state, config

    def __getitem__(self, name: str) -> Any:
        import torch

        wide = self._config.fp32_router_and_head and name.endswith(ROUTER)
        return self._state[name].to(torch.float32 if wide else getattr(torch, self._config.dtype))

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


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
