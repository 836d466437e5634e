"""Does this engine hold these weights? Asked of every module of a vLLM model, by running it.

Reading parameters back would not do. On a CPU vLLM pre-packs linear layers and frees the originals, experts lie
in a grouped-matmul layout, and MLA keeps derived copies of `kv_b_proj`. So each module is *run* on random inputs
and compared with the same product computed from the tensors the trainer sent (Freivalds, "Probabilistic machines
can use less running time", 1977: a wrong product survives a random vector with probability 0 over the reals).

A product has an error of its own, 1e-5 in 32 bits and up to 3% in 16, under which small updates hide: the first of an
adapter, one in warm-up. So a module's values are looked at too, to the last bit: some columns of a linear layer, which
are its products with unit vectors, other ones at every sync, and its bias; of routed experts all values, whatever order
they were packed in.

The tensors come in buckets and are gone when the last one is loaded. What is kept of each is what the answer needs:
the product with the inputs its module will be run on, or a digest where the module's own copy can be read. So the
modules are asked when all is loaded, packed and derived, and nothing of the policy is held twice.

`ANSWERS` is a literal table: class name of a vLLM module -> how it is asked. A tensor no module answered for is a
mismatch too, so the proof cannot lose coverage when vLLM renames a class. Imported inside the engine's process only.
A tensor-parallel worker holds a slice of each tensor and is asked for that slice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, cast
from zlib import crc32

import torch
import torch.nn.functional as F

from assay.errors import WeightMismatch
from rollouts.weights import as_array, digest

#: vLLM's fused linear layers and the checkpoint tensors they are made of, in order
FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "fused_qkv_a_proj": ("q_a_proj", "kv_a_proj_with_mqa"),
}
ROWS = 4  # random input rows per matrix; one would do over the reals, four make the maximum steadier
COLUMNS = 8  # of a matrix, read to the last bit
NARROW = (torch.bfloat16, torch.float16)
WORDS = 1 << 17  # of an expert, at a time: they stay in a processor's cache
MIXING = ((-0x61C88647, 16), (0x2C1B3C6D, 12))  # odd factors, of which the first is 2^32/phi


class Question(Protocol):
    """What one module is asked. It hears of the tensors it is made of, and answers when all are loaded."""

    wanted: tuple[str, ...]  #: tensors it cannot do without
    heeded: tuple[str, ...]  #: further ones it answers for where they are sent

    def hear(self, name: str, tensor: torch.Tensor, its_digest: str) -> None: ...

    def answers(self) -> Iterator[tuple[str, float]]:
        """(module, relative error) of the module or its parts."""
        ...


class Holding:
    """One version of the weights on its way into a model: hear every tensor, load them, then check."""

    def __init__(self, model: torch.nn.Module, seed: int) -> None:
        self._device = next(model.parameters()).device
        self._heard: dict[str, str] = {}  # name -> digest, of what could be tied to another
        self._questions: list[Question] = []
        for name, module in model.named_modules():
            ask = next((ANSWERS[cls.__name__] for cls in type(module).__mro__ if cls.__name__ in ANSWERS), None)
            if ask is not None:
                self._questions.append(ask(name, module, seed))
        self._listeners: dict[str, list[Question]] = {}
        for question in self._questions:
            for tensor in (*question.wanted, *question.heeded):
                self._listeners.setdefault(tensor, []).append(question)

    @torch.inference_mode()
    def hear(self, name: str, tensor: torch.Tensor, its_digest: str) -> None:
        self._heard[name] = its_digest
        for question in self._listeners.get(name, ()):
            question.hear(name, tensor.to(self._device), its_digest)

    @torch.inference_mode()
    def check(self, rtol: float) -> tuple[int, float]:
        """Ask every module: (modules asked, worst relative error). Raises WeightMismatch naming what differs."""
        answers: dict[str, float] = {}
        for question in self._questions:
            for name in question.wanted:
                if name not in self._heard:
                    raise WeightMismatch(f"the engine asks for {name}, and nothing of that name was sent")
            answers.update(question.answers())
        wrong = {name: error for name, error in answers.items() if not error <= rtol}
        silent = sorted(self._heard.keys() - self._listeners.keys() - self._tied())
        if wrong:
            worst = sorted(wrong, key=lambda name: -wrong[name])
            shown = ", ".join(f"{name} (relative error {wrong[name]:.1e})" for name in worst[:4])
            more = f" and {len(worst) - 4} more" if len(worst) > 4 else ""
            raise WeightMismatch(
                f"the engine does not hold the trainer's weights: {shown}{more}, "
                f"{len(wrong)} of {len(answers)} modules; allowed {rtol:.0e}"
            )
        if silent:
            raise WeightMismatch(f"no module of the engine answers for {', '.join(silent[:4])} ({len(silent)} tensors)")
        return len(answers), max(answers.values())

    def _tied(self) -> set[str]:
        """A `lm_head.weight` that is the embedding under another name needs no answer of its own."""
        table = next((d for name, d in self._heard.items() if name.endswith(TABLE)), None)
        return {HEAD} if self._heard.get(HEAD, "") == table else set()


HEAD, TABLE = "lm_head.weight", "embed_tokens.weight"


class Linear:
    """A linear layer, alone or fused, whole or one worker's slice of it."""

    def __init__(self, name: str, module: Any, seed: int) -> None:
        parent, _, leaf = name.rpartition(".")
        self._name, self._module = name, module
        self._parts = [f"{parent}.{part}" for part in FUSED[leaf]] if leaf in FUSED else [name]
        self.wanted = tuple(f"{part}.weight" for part in self._parts)
        self.heeded = tuple(f"{part}.bias" for part in self._parts)
        width = getattr(module, "input_size_per_partition", module.input_size)
        self._split = module.tp_size > 1 and hasattr(module, "input_size_per_partition")
        self._inputs = _inputs(seed, name, ROWS, width, module.params_dtype)
        self._columns = _columns(seed, name, width) if _multiplies_whole(module.params_dtype) else torch.empty(0).long()
        self._kept: dict[str, torch.Tensor] = {}
        self._read: dict[str, torch.Tensor] = {}  # [columns, out] of each weight

    def hear(self, name: str, tensor: torch.Tensor, its_digest: str) -> None:
        part, _, kind = name.rpartition(".")
        own = self._slice(self._parts.index(part), tensor, kind == "weight").to(self._module.params_dtype)
        if kind == "weight" and own.shape[-1] != self._inputs.shape[-1]:
            raise WeightMismatch(f"{name} is {list(tensor.shape)}, and the engine's {self._name} takes another width")
        self._inputs, self._columns = self._inputs.to(own.device), self._columns.to(own.device)
        self._kept[name] = F.linear(self._inputs, own) if kind == "weight" else own.clone()
        if kind == "weight":
            self._read[name] = own.T[self._columns]

    def _slice(self, part: int, tensor: torch.Tensor, weight: bool) -> torch.Tensor:
        module = self._module
        if not self._split:
            return tensor
        if module.input_size_per_partition < module.input_size:  # cut along its input; the bias is whole
            width = module.input_size_per_partition
            return tensor[:, module.tp_rank * width :][:, :width] if weight else tensor
        rows = module.output_partition_sizes[part]
        copies = getattr(module, "num_kv_head_replicas", 1) if part else 1  # keys and values of q, k, v
        return tensor[module.tp_rank // copies * rows :][:rows]

    def answers(self) -> Iterator[tuple[str, float]]:
        expected = torch.cat([self._kept[name] for name in self.wanted], dim=-1)
        biases = [self._kept[name] for name in self.heeded if name in self._kept]
        got = self._run(self._inputs)
        error = _relative(got, expected + torch.cat(biases) if biases else expected)
        if len(self._columns):
            units = F.one_hot(self._columns, self._inputs.shape[-1]).to(self._inputs.dtype)
            columns = self._module.quant_method.apply(self._module, units, None)
            error = max(error, _exact(columns, torch.cat([self._read[name] for name in self.wanted], dim=-1)))
            if biases:
                error = max(error, _exact(self._run(torch.zeros_like(units[:1]))[0], torch.cat(biases)))
        yield self._name, error

    def _run(self, inputs: torch.Tensor) -> torch.Tensor:
        if self._split:  # the product of this worker alone: the layer's own forward pass joins those of all workers
            got = self._module.quant_method.apply(self._module, inputs, getattr(self._module, "bias", None))
        else:
            out = self._module(inputs)
            got = out[0] if isinstance(out, tuple) else out
        return cast(torch.Tensor, got)


class Table:
    """Embedding and output head: rows can be read; vLLM may pad the vocabulary. A tied head is the embedding."""

    def __init__(self, name: str, module: Any, seed: int) -> None:
        self._name, self._module = name, module
        start, _, _ = name.rpartition("lm_head")
        head = name.endswith("lm_head")
        self.wanted = () if head else (f"{name}.weight",)
        self.heeded = (f"{name}.weight", f"{start}model.{TABLE}") if head else ()
        self._kept: dict[str, tuple[torch.Size, str]] = {}

    def hear(self, name: str, tensor: torch.Tensor, its_digest: str) -> None:
        own, rows = tensor, self._module.shard_indices
        if self._module.tp_size > 1:
            own, its_digest = tensor[rows.org_vocab_start_index : rows.org_vocab_end_index], ""
        self._kept[name] = own.shape, _fingerprint(own, self._module.weight.dtype, its_digest)

    def answers(self) -> Iterator[tuple[str, float]]:
        name = next((n for n in (*self.wanted, *self.heeded) if n in self._kept), None)
        if name is None:
            raise WeightMismatch(f"the engine asks for {self._name}.weight, and nothing of that name was sent")
        shape, expected = self._kept[name]
        yield self._name, _same(self._module.weight[: shape[0]], shape, expected)


class Norm:
    def __init__(self, name: str, module: Any, seed: int) -> None:
        self._name, self._module = name, module
        self.wanted, self.heeded = (), (f"{name}.weight",)
        self._kept: torch.Tensor | None = None

    def hear(self, name: str, tensor: torch.Tensor, its_digest: str) -> None:
        self._kept = tensor.clone()

    def answers(self) -> Iterator[tuple[str, float]]:
        if self._kept is not None:
            yield self._name, _exact(self._module.weight, self._kept)


class LatentAttention:
    """MLA keeps two derived copies of kv_b_proj: W_UK^T [H, nope, R] and W_UV [H, R, v], used in decoding."""

    def __init__(self, name: str, module: Any, seed: int) -> None:
        self._name, self._module, self.heeded = name, module, ()
        derived = getattr(module, "W_UV", None) is not None
        self.wanted = (f"{name.removesuffix('.mla_attn').removesuffix('.mla_attn')}.kv_b_proj.weight",) * derived
        self._shape, self._dtype = (module.W_UK_T.shape, module.W_UV.dtype) if derived else ((), None)
        self._kept: list[tuple[torch.Size, str]] = []

    def hear(self, name: str, tensor: torch.Tensor, its_digest: str) -> None:
        linear, (heads, nope, rank) = self._module.kv_b_proj, self._shape
        rows = len(tensor) // linear.tp_size
        full = tensor[linear.tp_rank * rows :][:rows].view(heads, -1, rank)
        parts = full[:, :nope], full[:, nope:].transpose(1, 2)
        self._kept = [(part.shape, _fingerprint(part, self._dtype)) for part in parts]

    def answers(self) -> Iterator[tuple[str, float]]:
        for kind, (shape, expected) in zip(("W_UK_T", "W_UV"), self._kept, strict=False):
            yield f"{self._name}.{kind}", _same(getattr(self._module, kind), shape, expected)


class Experts:
    """Each routed expert alone: row e of the input goes to expert e with weight 1."""

    heeded: tuple[str, ...] = ()

    def __init__(self, name: str, module: Any, seed: int) -> None:
        self._prefix, self._module = name.removesuffix(".routed_experts"), module
        self._count = module.w13_weight.shape[0]
        self.wanted = tuple(
            f"{self._prefix}.{e}.{part}_proj.weight" for e in range(self._count) for part in ("gate", "up", "down")
        )
        self._seed, self._inputs = seed, torch.empty(0)
        self._kept: dict[str, torch.Tensor] = {}
        self._sums: dict[str, int] = {}  # of the values of "3.up"

    def hear(self, name: str, tensor: torch.Tensor, its_digest: str) -> None:
        one, part = name.removeprefix(f"{self._prefix}.").removesuffix("_proj.weight").split(".")
        own = self._slice(tensor, dim=1 if part == "down" else 0).to(self._module.params_dtype)
        self._sums[f"{one}.{part}"] = _sum_of_values(own)
        if part != "down" and not len(self._inputs):
            self._inputs = _inputs(self._seed, self._prefix, self._count, own.shape[1], own.dtype).to(own.device)
        self._kept[f"{one}.{part}"] = own if part == "down" else F.linear(self._inputs[int(one)], own)
        if all(f"{one}.{each}" in self._kept for each in ("gate", "up", "down")):
            gate, up, down = (self._kept.pop(f"{one}.{each}") for each in ("gate", "up", "down"))
            self._kept[one] = F.linear(F.silu(gate) * up, down)

    def _slice(self, tensor: torch.Tensor, dim: int) -> torch.Tensor:
        split = self._module.moe_config.moe_parallel_config
        width = tensor.shape[dim] // split.tp_size
        return tensor.narrow(dim, split.tp_rank * width, width)

    def answers(self) -> Iterator[tuple[str, float]]:
        device, method = self._inputs.device, self._module.quant_method
        if getattr(method, "moe_kernel", True) is None:  # no expert came, so none was packed
            yield from ((f"{self._prefix}.{e}", float("inf")) for e in range(self._count))
            return
        ids = torch.arange(self._count, device=device, dtype=torch.int32).unsqueeze(1)
        ones = torch.ones(self._count, 1, device=device, dtype=torch.float32)
        got = method.apply(self._module, self._inputs.clone(), ones, ids, None, None)
        for e in range(self._count):
            yield f"{self._prefix}.{e}", max(_relative(got[e], self._kept[str(e)]), self._misread(e))

    def _misread(self, one: int) -> float:
        """0 where the expert's values are those that were sent: kernels want them in orders of their own, and pad."""
        first = _sum_of_values(self._module.w13_weight[one]) - _sum_of_values(self._module.w2_weight[one])
        sent = self._sums[f"{one}.gate"] + self._sums[f"{one}.up"] - self._sums[f"{one}.down"]
        return 0.0 if (first - sent) % 2**32 == 0 else 1.0


ANSWERS: dict[str, type[Question]] = {
    "LinearBase": Linear,
    "VocabParallelEmbedding": Table,
    "RMSNorm": Norm,
    "MLAAttention": LatentAttention,
    "RoutedExperts": Experts,
}


def _inputs(seed: int, name: str, rows: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    """Random inputs [rows, width] of a module, other ones for each version."""
    generator = torch.Generator().manual_seed(crc32(f"{seed} {name}".encode()))
    return torch.randn(rows, width, generator=generator).to(dtype)


def _columns(seed: int, name: str, width: int) -> torch.Tensor:
    """Which columns of a module's weight are read, other ones for each version."""
    generator = torch.Generator().manual_seed(crc32(f"{seed} columns {name}".encode()))
    return torch.randperm(width, generator=generator)[:COLUMNS]


def _multiplies_whole(dtype: torch.dtype) -> bool:
    """Whether a product with a unit vector is a column to the last bit: not where float32 is cut to TF32 or less."""
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:  # set by torch's other words for it, which this one cannot express
        precision = "unknown"
    return dtype in NARROW or (dtype == torch.float32 and precision == "highest")


def _sum_of_values(tensor: torch.Tensor) -> int:
    """A sum over a tensor of 16 or 32 bits that knows every value and no place, and zero for nothing. Modulo 2^32.

    The bits of each value are mixed (multiplied, shifted onto themselves, twice), so that small differences of many do
    not cancel. Once is not enough: of values of 16 bits in 32 the lower half of the first product is zero.
    """
    words = tensor.contiguous().flatten().view(torch.int32 if tensor.dtype == torch.float32 else torch.int16)
    total = 0
    for part in words.split(WORDS if words.device.type == "cpu" else max(1, len(words))):
        mixed = part.to(torch.int32, copy=True)
        for factor, shift in MIXING:
            mixed.mul_(factor)
            mixed.bitwise_xor_(mixed >> shift)
        total += int(mixed.sum(dtype=torch.int32))
    return total


def _fingerprint(tensor: torch.Tensor, dtype: torch.dtype, known: str = "") -> str:
    """Digest of the values in `dtype`; `known` is that of the tensor as it is."""
    return known if known and tensor.dtype == dtype else digest(as_array(tensor.to(dtype)))


def _same(got: torch.Tensor, shape: torch.Size, expected: str) -> float:
    """0 when equal to the bit, else more than any tolerance lets through."""
    return 0.0 if got.shape == shape and _fingerprint(got, got.dtype) == expected else float("inf")


def _relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    if got.shape != expected.shape:
        return float("inf")
    scale = expected.float().abs().max().clamp_min(1e-30)
    error = (got.float() - expected.float()).abs().max() / scale
    return float("inf") if not torch.isfinite(error) else error.item()


def _exact(got: torch.Tensor, expected: torch.Tensor) -> float:
    """0 when equal to the bit; otherwise a relative error that no tolerance lets through."""
    if got.shape == expected.shape and torch.equal(got, expected.to(got.dtype)):
        return 0.0
    return float("inf") if got.shape != expected.shape else max(1.0, _relative(got, expected))
