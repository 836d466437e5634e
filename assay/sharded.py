"""Tensors spread over ranks (FSDP2 keeps each parameter as a DTensor), made whole, and spread again.

Without FSDP2 these pass plain tensors through. With it they are collective: every rank calls them, in the same
order. States stay in the form of one process, so a checkpoint can be taken up by any number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from assay.errors import CheckpointError

if TYPE_CHECKING:
    from accelerate import Accelerator


def placed(accelerator: Accelerator, model: nn.Module) -> nn.Module:
    """A model that is not trained, where the trained one lives: sharded as it is, else whole on this rank's device."""
    if not accelerator.is_fsdp2:
        return model.to(accelerator.device)
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model

    return fsdp2_prepare_model(accelerator, model)


def whole(state: Any, keep: bool = True, plain: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Any:
    """`state` (nested mappings and lists) with every spread tensor gathered into main memory, one at a time.

    A rank that does not `keep` them takes part and gets None in their place. `plain` is applied to the others.
    """
    if isinstance(state, DTensor):
        tensor = state.full_tensor()
        return tensor.to("cpu", copy=True) if keep else None
    if isinstance(state, Tensor):
        return plain(state) if keep else state
    if isinstance(state, Mapping):
        return {name: whole(value, keep, plain) for name, value in state.items()}
    if isinstance(state, list):
        return [whole(value, keep, plain) for value in state]
    return state


class Copies:
    """`plain` of `whole` for a state that is written later: a copy in main memory of what training changes in place.

    Tensors that share memory share the copy, so that tied weights stay tied. With `moving`, only those are copied
    that lie where one of these does: what is frozen, or was made for this occasion, stays as it is.
    """

    def __init__(self, moving: Iterable[Tensor] | None = None) -> None:
        self._moving = None if moving is None else {t.data_ptr() for t in moving if not isinstance(t, DTensor)}
        self._made: dict[tuple[Any, ...], Tensor] = {}

    def __call__(self, tensor: Tensor) -> Tensor:
        if self._moving is not None and tensor.data_ptr() not in self._moving:
            return tensor
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if place not in self._made:
            self._made[place] = tensor.detach().to("cpu", copy=True)
        return self._made[place]


def any_rank(accelerator: Accelerator, asked: bool) -> bool:
    """Whether any rank was asked to stop or to save: all do it at the same step, or wait for each other for ever."""
    if accelerator.num_processes == 1:
        return asked
    return bool(accelerator.reduce(torch.tensor(float(asked), device=accelerator.device), "sum"))


def agreed(accelerator: Accelerator, step: int, root: Any) -> int:
    """The step all ranks take up training at. Raises CheckpointError where they found different ones."""
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        found = sorted(set(gather_object([step])))
        if len(found) > 1:
            raise CheckpointError(
                f"{root}: ranks found checkpoints of steps {found}; run_dir has to be on a file system all share"
            )
    return step


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
