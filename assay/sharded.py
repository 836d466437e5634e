"""Tensors spread over ranks (FSDP2 keeps each parameter as a DTensor), made whole, and spread again.

Without FSDP2 these pass plain tensors through. With it they are collective: every rank calls them, in the same
order. States stay in the form of one process, so a checkpoint can be taken up by any number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

if TYPE_CHECKING:
    from accelerate import Accelerator


def placed(accelerator: Accelerator, model: nn.Module) -> nn.Module:
    """A model that is not trained, where the trained one lives: sharded as it is, else whole on this rank's device."""
    if not accelerator.is_fsdp2:
        return model.to(accelerator.device)
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model

    return fsdp2_prepare_model(accelerator, model)


def whole(state: Any, keep: bool = True) -> Any:
    """`state` (nested mappings and lists) with every spread tensor gathered into main memory, one at a time.

    A rank that does not `keep` them takes part and gets None in their place.
    """
    if isinstance(state, DTensor):
        tensor = state.full_tensor()
        return tensor.cpu() if keep else None
    if isinstance(state, Mapping):
        return {name: whole(value, keep) for name, value in state.items()}
    if isinstance(state, list):
        return [whole(value, keep) for value in state]
    return state


def spread(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, the same on all ranks, spread as `like` is."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


@contextmanager
def gathered(*modules: nn.Module) -> Iterator[None]:
    """The modules' own parameters, whole on every rank for the length of a block, and not to be trained in it."""
    spread_over = [
        (module, name, p)
        for module in modules
        for name, p in module.named_parameters(recurse=False)
        if isinstance(p, DTensor)
    ]
    for module, name, p in spread_over:
        module._parameters[name] = nn.Parameter(p.full_tensor(), requires_grad=False)
    try:
        yield
    finally:
        for module, name, p in spread_over:
            module._parameters[name] = p


def load_model_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """load_state_dict of whole tensors. Raises RuntimeError as it does where names or shapes differ."""
    own = model.state_dict()
    fits = {name for name in state if name in own and own[name].shape == state[name].shape}
    model.load_state_dict({name: spread(t, own[name]) if name in fits else t for name, t in state.items()})


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """load_state_dict of whole tensors: what has a parameter's shape is spread as the parameter is."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    spreads = {
        i: {
            k: spread(v, parameters[i]) if getattr(v, "shape", None) == parameters[i].shape else v
            for k, v in one.items()
        }
        for i, one in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": spreads})
