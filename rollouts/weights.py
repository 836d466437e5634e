"""Both halves of weight sync: what the trainer publishes and how the engine's copy is proved.

The trainer publishes every tensor under its *checkpoint* name (transformers 5 fuses experts in memory;
`revert_weight_conversion` undoes that with the model's own mapping), with a digest of each and a version: as one
`WeightBundle`, or as a `Publication` of many, each of a bounded size.

The engine proves in three steps, each of which names what differs:

1. *transport*: buckets come in order, the digest of every tensor equals the published one, and none is missing;
2. *holding*: every module of the engine is run on random inputs and compared with the same product computed from
   the received tensors (Freivalds' check of a matrix product). It reads no parameter layout, so it holds for
   pre-packed, fused and derived weights alike. `rollouts/holding.py` does it;
3. *computing*: log-probabilities of fixed sequences against the trainer's own (`compare_probe`).
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite
from statistics import median
from typing import TYPE_CHECKING, Any

from assay.errors import WeightMismatch
from rollouts.config import ProofConfig

if TYPE_CHECKING:  # numpy is all that travels; torch is imported where it is used
    import numpy as np
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which rows of an adapted parameter a checkpoint tensor is, and of which of its experts, where it has several."""

    parameter: str
    experts: int
    expert: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What factors are added to, W + scale B A: the frozen weights of this name (`Publication.name`)."""

    base: str
    scale: float  # alpha/rank


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightBundle:
    """One version of the policy on its way to the engines, or one bucket of it: part 0 opens it, the last ends it.

    With `adapter` the tensors are a version's factors; with `places`, the frozen weights that such are added to, which
    an engine keeps (`rollouts/merging.py`).
    """

    version: int
    tensors: Mapping[str, np.ndarray[Any, Any]]  #: checkpoint name -> values; bfloat16 travels as uint16
    dtypes: Mapping[str, str]  #: checkpoint name -> torch dtype name
    digests: Mapping[str, str]
    part: int = 0
    published: Mapping[str, str] | None  #: the last bucket's: digests of the whole version. None: more is to come
    adapter: Adapter | None = None
    places: Mapping[str, Place] | None = None  #: the last bucket's: of every checkpoint tensor that has factors

    def __iter__(self) -> Iterator[WeightBundle]:
        """A whole version is its own only bucket."""
        yield self

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
    """BLAKE3: as strong as BLAKE2b, and reads memory about eight times as fast."""
    from blake3 import blake3

    return blake3(memoryview(array).cast("B")).hexdigest(length=16)


def publish(state: Mapping[str, Any], version: int) -> WeightBundle:
    """Bundle a checkpoint-form state dict (name -> torch tensor, any device) as `version`. Values are copied."""
    tensors = {name: as_array(tensor).copy() for name, tensor in state.items()}
    digests = {name: digest(a) for name, a in tensors.items()}
    dtypes = {name: dtype_name(tensor) for name, tensor in state.items()}
    return WeightBundle(version=version, tensors=tensors, dtypes=dtypes, digests=digests, published=digests)


def named(digests: Mapping[str, str], places: Mapping[str, Place] | None) -> str:
    """A name of frozen weights and of where factors go among them: other weights, or another way, another name."""
    import numpy as np

    said = repr((sorted(digests.items()), sorted((places or {}).items(), key=lambda item: item[0])))
    return digest(np.frombuffer(said.encode(), dtype=np.uint8))


def as_array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """The values in main memory; those of a contiguous CPU tensor are not copied."""
    import torch

    value = tensor.detach().to("cpu").contiguous()
    array: np.ndarray[Any, Any] = (value.view(torch.uint16) if value.dtype == torch.bfloat16 else value).numpy()
    return array


def dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


class Publication:
    """One version of the policy as buckets of at most `bucket_bytes`, or of one tensor that is larger.

    `items()` goes through (checkpoint name, tensor) and may be asked again, for an engine that comes later. Buckets
    look at the tensors where they are, so nothing is held but the bucket at hand; the digests of the first pass bind
    the later ones, and tensors that were trained meanwhile are refused.

    With `base` the items are factors, added `scale` times to the weights that publication brings; which has `places`.
    """

    def __init__(
        self,
        items: Callable[[], Iterable[tuple[str, torch.Tensor]]],
        version: int,
        bucket_bytes: int,
        *,
        places: Mapping[str, Place] | None = None,
        base: Publication | None = None,
        scale: float = 1.0,
    ):
        self.version, self._items, self._bucket_bytes = version, items, bucket_bytes
        self.base, self._places, self._scale = base, places, scale
        self._digests: dict[str, str] | None = None

    @property
    def name(self) -> str:
        """What these weights are called by all they are. Asked before they were published, they are read for it."""
        if self._digests is None:
            for _ in self:
                pass
        return named(self._digests or {}, self._places)

    def __iter__(self) -> Iterator[WeightBundle]:
        seen: dict[str, str] = {}
        part, size, group = 0, 0, dict[str, "torch.Tensor"]()
        for name, tensor in self._items():
            more = tensor.numel() * tensor.element_size()
            if group and size + more > self._bucket_bytes:
                yield self._bucket(group, part, seen, last=False)
                part, size, group = part + 1, 0, {}
            group[name] = tensor
            size += more
        yield self._bucket(group, part, seen, last=True)
        self._digests = seen

    def _bucket(self, group: Mapping[str, torch.Tensor], part: int, seen: dict[str, str], last: bool) -> WeightBundle:
        tensors = {name: as_array(tensor) for name, tensor in group.items()}
        for array in tensors.values():
            array.flags.writeable = False  # they may be the trainer's own
        digests = {name: digest(array) for name, array in tensors.items()}
        moved = [] if self._digests is None else [n for n, d in digests.items() if self._digests.get(n) != d]
        if moved:
            raise WeightMismatch(
                f"weights version {self.version} cannot be published again: {_some(moved)} were trained meanwhile"
            )
        seen |= digests
        return WeightBundle(
            version=self.version,
            tensors=tensors,
            dtypes={name: dtype_name(tensor) for name, tensor in group.items()},
            digests=digests,
            part=part,
            published=dict(seen) if last else None,
            adapter=None if self.base is None else Adapter(base=self.base.name, scale=self._scale),
            places=None if self._places is None else self._places if last else {},
        )


def checkpoint_items(model: Any, items: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """`checkpoint_state`, module by module: what is un-fused is held for one module at a time."""
    for _, group in groupby(items, key=lambda item: item[0].rpartition(".")[0]):
        yield from checkpoint_state(model, dict(group)).items()


def checkpoint_state(model: Any, state: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A transformers model's tensors under their checkpoint names: what a saved folder would hold, and vLLM expects.

    `state` stands in for the model's own state dict where its tensors live elsewhere: gathered or merged.
    """
    from transformers.core_model_loading import revert_weight_conversion

    return dict(revert_weight_conversion(model, dict(model.state_dict() if state is None else state)))


class Received(Mapping[str, "torch.Tensor"]):
    """The tensors of a bundle by name. What cannot be written to, such as Ray's shared memory, is copied when it is
    asked for, so that one tensor at a time is held twice and never the whole policy. `look` copies nothing."""

    def __init__(self, bundle: WeightBundle) -> None:
        self._bundle = bundle

    def __getitem__(self, name: str) -> torch.Tensor:
        array = self._bundle.tensors[name]
        return self._tensor(name, array if array.flags.writeable else array.copy())

    def look(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors for reading alone: writing to one may end the process."""
        return ((name, self._tensor(name, array)) for name, array in self._bundle.tensors.items())

    def _tensor(self, name: str, array: np.ndarray[Any, Any]) -> torch.Tensor:
        import torch

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            tensor = torch.from_numpy(array)
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
            f"version {bundle.version} did not arrive as it was published: {_some(damaged)} differ, "
            f"{_some(missing)} missing"
        )
    return Received(bundle)


class Arrival:
    """What an engine has taken of a version: each bucket in its turn and as it was sent, and in the end all of them."""

    def __init__(self) -> None:
        self._next = (-1, 0)
        self._digests: dict[str, str] = {}

    def take(self, bundle: WeightBundle) -> Received:
        """The next bucket's tensors. Raises WeightMismatch, with the last bucket also for what never came."""
        if bundle.part == 0:
            self._next, self._digests = (bundle.version, 0), {}
        if self._next != (bundle.version, bundle.part):
            raise WeightMismatch(
                f"bucket {bundle.part} came in place of bucket {self._next[1]} of version {self._next[0]}"
            )
        received = unpack(bundle)
        self._next = (bundle.version, bundle.part + 1)
        self._digests |= bundle.digests
        lost = sorted((bundle.published or {}).items() - self._digests.items())
        if lost:
            raise WeightMismatch(f"{_some([n for n, _ in lost])} of what was published never came")
        return received


def check_base(bundle: WeightBundle, kept: str) -> None:
    """Raises WeightMismatch where a bucket of factors is for other frozen weights than an engine keeps."""
    wanted = bundle.adapter.base if bundle.adapter is not None else ""
    if wanted != kept:
        keeps = f"the engine keeps {kept[:8]}" if kept else "the engine keeps none"
        raise WeightMismatch(
            f"factors of version {bundle.version} are for the trainer's frozen weights {wanted[:8]}, and {keeps}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Fixed token sequences and the trainer's log-probabilities of them, under the weights being published."""

    sequences: list[list[int]]
    expected: list[list[float]]  # [sequences][len - 1]


PROBE_TOKENS = 32


def probe_sequences(vocab_size: int, avoid: Sequence[int], seed: int = 0) -> list[list[int]]:
    """Four random sequences of 32 ordinary tokens: scoring them takes every layer, and most experts."""
    draw = random.Random(seed)
    allowed = [t for t in range(vocab_size) if t not in set(avoid)]
    return [draw.choices(allowed, k=PROBE_TOKENS) for _ in range(4)]


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

    Both are [sequences][tokens]; a value that is no finite number is refused. A router that breaks a near-tie the other
    way shows as one token that differs visibly while all others agree, so `flips_allowed` of the tokens may; the median
    never may.
    """
    differences = sorted(
        abs(e - t) for es, ts in zip(engine, trainer, strict=True) for e, t in zip(es, ts, strict=True)
    )
    if not differences:
        raise WeightMismatch(f"weights version {version}: the probe is empty, so nothing was proved")
    if wrong := sum(not isfinite(difference) for difference in differences):
        raise WeightMismatch(
            f"weights version {version}: {wrong} of {len(differences)} log-probabilities of the probe are no finite "
            "numbers: a kernel of the engine or of the trainer fails on these weights"
        )
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
