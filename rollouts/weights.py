"""Both halves of weight sync: what the trainer publishes and how the engine's copy is proved.

The trainer publishes a `WeightBundle`: every tensor under its *checkpoint* name (transformers 5 fuses experts in
memory; `revert_weight_conversion` undoes that with the model's own mapping), a digest of each, and a version.

The engine proves in three steps, each of which names what differs:

1. *transport*: the digest of every received tensor equals the published one;
2. *holding*: every module of the engine is run on random inputs and compared with the same product computed from
   the received tensors (Freivalds' check of a matrix product). It reads no parameter layout, so it holds for
   pre-packed, fused and derived weights alike. `rollouts/holding.py` does it;
3. *computing*: log-probabilities of fixed sequences against the trainer's own (`compare_probe`).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from assay.errors import WeightMismatch
from rollouts.config import ProofConfig

if TYPE_CHECKING:  # numpy is all that travels; torch is imported where it is used
    import numpy as np
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightBundle:
    """One version of the policy on its way to the engines."""

    version: int
    tensors: Mapping[str, np.ndarray[Any, Any]]  #: checkpoint name -> values; bfloat16 travels as uint16
    dtypes: Mapping[str, str]  #: checkpoint name -> torch dtype name
    digests: Mapping[str, str]

    @property
    def size_bytes(self) -> int:
        return sum(array.nbytes for array in self.tensors.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What an engine says after taking weights: the worst relative error over all its modules, and how long it took."""

    version: int
    modules_checked: int
    max_relative_error: float
    load_s: float
    proof_s: float


def digest(array: np.ndarray[Any, Any]) -> str:
    return hashlib.blake2b(memoryview(array).cast("B"), digest_size=16).hexdigest()


def publish(state: Mapping[str, Any], version: int) -> WeightBundle:
    """Bundle a checkpoint-form state dict (name -> torch tensor, any device) as `version`."""
    import torch

    tensors, dtypes = {}, {}
    for name, tensor in state.items():
        value = tensor.detach().to("cpu").contiguous()
        dtypes[name] = str(value.dtype).removeprefix("torch.")
        value = value.view(torch.uint16) if value.dtype == torch.bfloat16 else value
        tensors[name] = value.numpy().copy()
    return WeightBundle(
        version=version, tensors=tensors, dtypes=dtypes, digests={name: digest(a) for name, a in tensors.items()}
    )


def checkpoint_state(model: Any, state: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A transformers model's tensors under their checkpoint names: what a saved folder would hold, and vLLM expects.

    `state` stands in for the model's own state dict where its tensors live elsewhere: gathered or merged.
    """
    from transformers.core_model_loading import revert_weight_conversion

    return dict(revert_weight_conversion(model, dict(model.state_dict() if state is None else state)))


class Received(Mapping[str, "torch.Tensor"]):
    """The tensors of a bundle by name. What cannot be written to, such as Ray's shared memory, is copied when it is
    asked for, so that one tensor at a time is held twice and never the whole policy."""

    def __init__(self, bundle: WeightBundle) -> None:
        self._bundle = bundle

    def __getitem__(self, name: str) -> torch.Tensor:
        import torch

        array = self._bundle.tensors[name]
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
        return tensor.view(torch.bfloat16) if self._bundle.dtypes[name] == "bfloat16" else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._bundle.tensors)

    def __len__(self) -> int:
        return len(self._bundle.tensors)


def unpack(bundle: WeightBundle) -> Received:
    """The bundle as torch tensors, after checking that each one arrived as it was sent."""
    damaged = [name for name, array in bundle.tensors.items() if digest(array) != bundle.digests.get(name)]
    missing = sorted(bundle.digests.keys() - bundle.tensors.keys())
    if damaged or missing:
        raise WeightMismatch(
            f"weights version {bundle.version} did not arrive as they were published: "
            f"{_some(damaged)} differ, {_some(missing)} missing"
        )
    return Received(bundle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Fixed token sequences and the trainer's log-probabilities of them, under the weights being published."""

    sequences: list[list[int]]
    expected: list[list[float]]  # [sequences][len - 1]


def probe_sequences(vocab_size: int, avoid: Sequence[int], seed: int = 0) -> list[list[int]]:
    """Four random sequences of 32 ordinary tokens: scoring them takes every layer, and most experts."""
    draw = random.Random(seed)
    allowed = [t for t in range(vocab_size) if t not in set(avoid)]
    return [draw.choices(allowed, k=32) for _ in range(4)]


def make_probe(model: Any, sequences: list[list[int]], pad_id: int) -> Probe:
    """The trainer's half of the probe: log-probability of every token but the first, at temperature 1."""
    import torch

    from assay.logprobs import completion_logprobs
    from assay.packing import pack_completions

    packed = pack_completions([s[:1] for s in sequences], [s[1:] for s in sequences], pad_id=pad_id)
    packed = packed.to(next(model.parameters()).device)
    with torch.no_grad():
        values = packed.split_targets(completion_logprobs(model, packed, 1.0)[0])
    return Probe(sequences=sequences, expected=[values[i].tolist() for i in range(len(sequences))])


def compare_probe(
    engine: Sequence[Sequence[float]], trainer: Sequence[Sequence[float]], proof: ProofConfig, version: int
) -> float:
    """Largest difference between the probe's log-probabilities, flips left out. Raises WeightMismatch.

    Both are [sequences][tokens]. A router that breaks a near-tie the other way shows as one token that differs
    visibly while all others agree, so `flips_allowed` of the tokens may; the median never may.
    """
    differences = sorted(
        abs(e - t) for es, ts in zip(engine, trainer, strict=True) for e, t in zip(es, ts, strict=True)
    )
    if not differences:
        raise WeightMismatch(f"weights version {version}: the probe is empty, so nothing was proved")
    kept = differences[: len(differences) - int(proof.flips_allowed * len(differences))]
    if not (median(differences) <= proof.logprob_atol and kept[-1] <= proof.logprob_atol):
        raise WeightMismatch(
            f"weights version {version}: every tensor is held, yet the engine computes other log-probabilities: "
            f"median difference {median(differences):.2e}, {kept[-1]:.2e} at the {1 - proof.flips_allowed:.0%} "
            f"quantile, worst {differences[-1]:.2e}; allowed {proof.logprob_atol:.0e}. The two sides disagree in "
            f"the forward pass itself (position encoding, router, precision), not in the weights"
        )
    return kept[-1]


def _some(names: Sequence[str], most: int = 5) -> str:
    if not names:
        return "none"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
