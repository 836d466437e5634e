"""One optimizer step of the policy, on Accelerate.

    TrainBatch -> pack -> [reference log-probs] -> forward, loss, backward per micro-batch -> clip -> AdamW

The trainer takes a batch and returns numbers. It knows nothing of engines, rewards or Ray, and runs in one process
or in several (every rank is handed the same batch and takes its share of the rows).
"""

from __future__ import annotations

import copy
import errno
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from assay.adapter import (
    LoraConfig,
    adapted,
    adapter_state,
    base_of,
    factor_items,
    frozen_items,
    merged_items,
    merged_state,
    restore_weights,
    save_weights,
    scale_of,
    without_adapter,
)
from assay.checkpoint import load_state, save_state
from assay.errors import ConfigError, TrainingDiverged
from assay.logprobs import completion_logprobs
from assay.moe_replay import Route, Routers
from assay.optimization import adamw, set_rate
from assay.packing import PackedBatch, pack_completions
from assay.policy import Attention, Dtype, Experts, load_policy, without_bars, without_dropout, write_model
from assay.precision import check_precision, computing, keep_routers_wide, narrow_frozen
from assay.segments import attend_by_segment
from assay.sharded import Copies, load_model_state, load_optimizer_state, placed, whole
from grpo.batch import TrainBatch, with_gradient
from grpo.config import GRPOConfig
from grpo.entropy import Bonus
from grpo.mismatch import THRESHOLDS, share_above
from grpo.objective import Known, by_token, disagreement, objective
from rollouts.config import EngineConfig
from rollouts.merging import places
from rollouts.weights import Probe, Publication, WeightBundle, checkpoint_items, checkpoint_state, make_probe, publish
from rollouts.wide import as_held

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Phase = Callable[[str], AbstractContextManager[Any]]
Item = tuple[str, Tensor]
Items = Callable[[], Iterator[Item]]


@dataclass(slots=True)
class Sums:
    """What is added up over micro-batches and ranks; every mean divides a global sum by a global count."""

    values: dict[str, float]

    def add(self, **values: Tensor | float) -> None:
        for name, value in values.items():
            self.values[name] = self.values.get(name, 0.0) + float(value)


class PolicyTrainer:
    """Holds the policy, the frozen reference and the optimizer."""

    def __init__(
        self,
        policy: str | Path,
        config: GRPOConfig,
        *,
        dtype: Dtype,
        temperature: float,
        pad_id: int,
        lora: LoraConfig | None = None,
        experts: Experts | None = None,
        attention: Attention = "sdpa",
    ) -> None:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs

        self.config, self.temperature, self.pad_id = config, temperature, pad_id
        self.version = 0
        self._base: Publication | None = None  #: what adapters are added to, once it was asked for
        self.accelerator = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)])
        check_precision(dtype, self.accelerator.mixed_precision)
        self.dtype = dtype  # of products; trained weights are float32
        model = load_policy(policy, "float32", experts)
        without_dropout(model, str(policy))
        if attention == "segments":
            attend_by_segment(model)
        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable()
        self.routers = Routers(model, config.moe.replay, config.moe.aux_coef)
        self.reference: PreTrainedModel | None = None
        if lora is not None:  # an adapted policy carries its reference inside
            model = adapted(model, lora)
        elif config.kl.estimator != "none":  # copied before its routers are wrapped: a wrapper belongs to one model
            self.reference = placed(self.accelerator, self._held(copy.deepcopy(model).eval().requires_grad_(False)))
        if lora is not None and config.kl.reset_every:
            raise ConfigError("grpo.kl.reset_every: an adapted policy's reference is the policy inside; leave it out")
        self._held(model)
        self.bonus = Bonus(config.entropy.coef)
        self.optimizer: torch.optim.Optimizer = adamw(
            [p for p in model.parameters() if p.requires_grad],
            rate=config.learning_rate,
            betas=config.optimizer.betas,
            weight_decay=config.optimizer.weight_decay,
        )
        self.model: PreTrainedModel
        self.model, self.optimizer = self.accelerator.prepare(model, self.optimizer)
        self.model.train()

    def _held(self, model: Any) -> Any:
        """`model` with the precision of its parts: routers in float32, what is frozen in that of the products."""
        if self.dtype == "float32":
            return model
        keep_routers_wide(model)
        if not self.accelerator.is_fsdp2:  # which shards tensors of one width only
            narrow_frozen(model, self.dtype)
        return model

    # -- one step -----------------------------------------------------------------------------------------------

    def step(self, batch: TrainBatch, phase: Phase = lambda _: nullcontext()) -> dict[str, float]:
        """Update the policy on one batch; returns the step's metrics.

        Raises TrainingDiverged before the update that cannot be made, and says how many of the batch's were made.
        """
        if not batch.completions:
            return {"grad_norm": 0.0, "tokens/trained": 0.0, "learning_rate": self._learning_rate()}
        self._reset_reference()
        with phase("logprobs"):
            parts = [(part, self._micro_batches(part)) for part in batch.parts()]
            reference = [[self._reference_logprobs(m) for m in micro] for _, micro in parts]
            total = self.config.updates_per_rollout * len(parts)
            moves = total > 1  # else pi_old is pi, and ratios are 1
            routes = [[self.routers.route(m, part.experts) for m in micro] for part, micro in parts]
            old = [
                [self._logprobs(m, route) if moves else None for m, route in zip(micro, along, strict=True)]
                for (_, micro), along in zip(parts, routes, strict=True)
            ]
        metrics: dict[str, float] = {}
        for update in range(self.config.updates_per_rollout):
            sums, norm = Sums({}), 0.0
            with phase("update"):
                for k, ((part, micro), ref, prior, along) in enumerate(zip(parts, reference, old, routes, strict=True)):
                    for i, m in enumerate(micro):
                        # ranks exchange gradients with the last micro-batch only; where they shard them, with each
                        waiting = i + 1 < len(micro) and not self.accelerator.is_fsdp2
                        with self.accelerator.no_sync(self.model) if waiting else nullcontext(), along[i]:
                            self._backward(m, ref[i], prior[i], part, sums)
                    norm = self._apply(sums, _made(update * len(parts) + k, total))
            first = self._means(sums, batch, norm, len(parts)) | self.routers.metrics(self.accelerator.reduce)
            metrics = first if update == 0 else {**first, **{k: metrics[k] for k in metrics if "mismatch" in k}}
        self.version += 1
        seek = self.config.entropy
        self.bonus = self.bonus.after(metrics["entropy"], seek.target, seek.step, seek.max_coef)
        return metrics

    def _micro_batches(self, batch: TrainBatch) -> list[PackedBatch]:
        """This rank's share of the rows, cut to what fits into one forward pass."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        only = None if self.config.moe.aux_coef else with_gradient(batch, self.config)  # all are routed
        packed = pack_completions(batch.prompts, batch.completions, pad_id=self.pad_id, only=only)
        share = packed.balanced(self.config.micro_batch_tokens, world)[rank::world]
        return [m.to(self.accelerator.device) for m in share]

    def _backward(
        self, m: PackedBatch, reference: Tensor | None, old: Tensor | None, batch: TrainBatch, sums: Sums
    ) -> None:
        bonus, segments = self.bonus.applied(self.config.entropy.target), m.target_segments()
        known = Known(
            old=old,
            engine=m.gather_targets(batch.engine_logprobs),
            reference=reference,
            advantages=_per_token(batch.advantages, m, segments),
            weights=torch.tensor(batch.weights, device=segments.device)[segments],
            segments=segments,
        )

        def loss(logprobs: Tensor, entropy: Tensor | None, at: slice) -> Tensor:
            return objective(known.tokens(logprobs, entropy, at), self.config, bonus, batch.num_tokens)[0]

        wanted = "gradient" if bonus else True
        announced = loss if by_token(self.config) else None
        with self._computing():
            logprobs, entropy = completion_logprobs(self.model, m, self.temperature, wanted, announced)
        tokens = known.tokens(logprobs, entropy)
        total, values = objective(tokens, self.config, bonus, batch.num_tokens)
        # DistributedDataParallel averages over ranks; the weights already divide by the global batch
        aux = self.routers.balance(len(batch.completions))
        self.accelerator.backward((total + aux) * self.accelerator.num_processes)
        with torch.no_grad():
            differences, worst = disagreement(tokens)
            sums.add(tokens=float(m.num_targets), aux=aux, **values, **differences)
            sums.values["worst"] = max(sums.values.get("worst", 0.0), worst)

    def _apply(self, sums: Sums, made: str) -> float:
        """The optimizer's step. Raises TrainingDiverged before it, on every rank alike, and forgets the gradient.

        `made`: what the optimizer did with this batch before.
        """
        values = self._over_ranks(sums)
        total = values["policy"] + values["penalty"] + values["aux"] + values.get("bonus", 0.0)
        if not isfinite(total):
            self.optimizer.zero_grad()
            raise TrainingDiverged(f"the loss is {total} (policy {values['policy']}, KL {values['penalty']}); {made}")
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.optimizer.grad_clip)
        value = float(norm) if norm is not None else 0.0
        if not isfinite(value):
            self.optimizer.zero_grad()
            raise TrainingDiverged(f"the gradient norm is {value}; {made}")
        set_rate(self.optimizer, self._learning_rate())
        self.optimizer.step()
        self.optimizer.zero_grad()
        return value

    def _learning_rate(self) -> float:
        warmup = self.config.optimizer.warmup_steps
        return self.config.learning_rate * min(1.0, (self.version + 1) / warmup if warmup else 1.0)

    def _means(self, sums: Sums, batch: TrainBatch, norm: float, parts: int) -> dict[str, float]:
        values = self._over_ranks(sums)
        n = values["tokens"]  # completions that move nothing are not looked at
        policy, penalty = values["policy"] / parts, values["penalty"] / parts
        bonus, aux = values.get("bonus", 0.0) / parts, values["aux"] / parts
        metrics = {
            "loss/total": policy + penalty + bonus + aux,
            "loss/policy": policy,
            "loss/kl": penalty,
            "entropy": values["entropy"] / n,
            "clip/share": values["clipped"] / n,
            "mismatch/k3": values["mismatch"] / n,
            "mismatch/max_abs_logratio": values["worst"],
            **{share_above(t): values[share_above(t)] / n for t in THRESHOLDS},
            "correction/masked": values["masked"] / n,
            "correction/truncated": values["truncated"] / n,
            "correction/off_policy": values["off_policy"] / len(batch.completions),
            "grad_norm": norm,
            "learning_rate": self._learning_rate(),
            "tokens/trained": n,
        }
        if self.config.moe.aux_coef:
            metrics["loss/aux"] = aux
        if "kl" in values:
            metrics["kl/reference"] = values["kl"] / n
        if self.config.entropy.coef or self.config.entropy.target:
            metrics |= {"loss/entropy": bonus, "entropy/coefficient": self.bonus.applied(self.config.entropy.target)}
        return metrics

    def _over_ranks(self, sums: Sums) -> dict[str, float]:
        if self.accelerator.num_processes == 1:
            return sums.values
        names = sorted(sums.values)
        stacked = torch.tensor([sums.values[k] for k in names], dtype=torch.float64, device=self.accelerator.device)
        gathered = self.accelerator.gather(stacked).view(-1, len(names))
        return {
            name: (gathered[:, i].max() if name == "worst" else gathered[:, i].sum()).item()
            for i, name in enumerate(names)
        }

    @torch.no_grad()
    def _reference_logprobs(self, m: PackedBatch) -> Tensor | None:
        if self.config.kl.estimator == "none":
            return None
        with without_adapter(self.unwrapped), self._computing():
            return completion_logprobs(self.reference or self.model, m, self.temperature)[0]

    def _reset_reference(self) -> None:
        """The policy becomes its own reference every `kl.reset_every` steps: DeepSeekMath Algorithm 1."""
        every = self.config.kl.reset_every
        if self.reference is not None and every and self.version and self.version % every == 0:
            self.reference.load_state_dict(self.unwrapped.state_dict())

    @torch.no_grad()
    def _logprobs(self, m: PackedBatch, route: Route) -> Tensor:
        with route, self._computing():
            return completion_logprobs(self.model, m, self.temperature)[0]

    def _computing(self) -> AbstractContextManager[Any]:
        return computing(self.dtype, self.accelerator.device.type)

    # -- what others ask of it ------------------------------------------------------------------------------------

    def publish(self) -> WeightBundle:
        """The policy in float32 under checkpoint names, digests, this version. Empty but on the main process."""
        main = self.accelerator.is_main_process
        state = whole(merged_state(self.unwrapped), main)
        return publish(checkpoint_state(base_of(self.unwrapped), state) if main else {}, self.version)

    def publication(self, engine: EngineConfig, keep: bool) -> Publication:
        """The policy in buckets and in the precision of `engine`, read from the weights where they are; or from a copy,
        where engines may ask again while the weights are trained. Ranks gather for each reading, so with several there
        is a copy, on the main one. With `lora_sync: adapter` the buckets are the factors', as they are."""
        bucket = engine.sync_bucket_mib << 20
        copied = keep or self.accelerator.num_processes > 1
        if engine.lora_sync == "adapter":
            factors = self._items(lambda: factor_items(self.unwrapped), iter, copied)
            return Publication(factors, self.version, bucket, base=self._frozen(bucket), scale=scale_of(self.unwrapped))

        def held(gathered: Iterator[Item]) -> Iterator[Item]:
            return as_held(checkpoint_items(base_of(self.unwrapped), gathered), engine)

        return Publication(self._items(lambda: merged_items(self.unwrapped), held, copied), self.version, bucket)

    def _frozen(self, bucket: int) -> Publication:
        """What adapters are added to, one publication for the whole run: the same tensors under the same name. Nobody
        trains them, so they need no copy but where ranks share them and could not gather at any time."""
        if self._base is None:
            base = base_of(self.unwrapped)
            frozen = [*frozen_items(self.unwrapped)]  # in a forward pass PEFT has some of them under other names
            items = self._items(
                lambda: iter(frozen), lambda gathered: checkpoint_items(base, gathered), self.accelerator.is_fsdp2
            )
            self._base = Publication(items, self.version, bucket, places=places(self.unwrapped))
        return self._base

    def _items(self, read: Items, form: Callable[[Iterator[Item]], Iterator[Item]], copied: bool) -> Items:
        """`form` of what `read` goes through, gathered: whole on the main process, nothing on others. Each reading goes
        through it anew; `copied`, it was gone through here, once."""
        main = self.accelerator.is_main_process

        def items() -> Iterator[Item]:
            gathered = ((name, whole(tensor, main)) for name, tensor in read())
            if main:
                yield from form(gathered)
            else:
                deque(gathered, maxlen=0)

        if not copied:
            return items
        copies = [(name, tensor.to("cpu", copy=True)) for name, tensor in items()]
        return lambda: iter(copies)

    def probe(self, sequences: list[list[int]]) -> Probe:
        """The trainer's own log-probabilities of the probe's sequences."""
        with self._computing():
            return make_probe(self.unwrapped, sequences, self.pad_id)

    @property
    def unwrapped(self) -> PreTrainedModel:
        """The Hugging Face model without what Accelerate put around it; with its adapter, where it has one."""
        return self.accelerator.unwrap_model(self.model)

    def save(self, folder: Path) -> None:
        """Weights (`save_weights`), optimizer and version. Wrap it in `assay.checkpoint.writing`.

        Every rank has to call it; the main process writes.
        """
        self.snapshot(copied=False)(folder)

    def snapshot(self, copied: bool = True) -> Callable[[Path], None]:
        """`save` of the state as it is now, to be called later, or by another thread while training goes on.

        Every rank has to take it. Not `copied`, it has to be called before the next step.
        """
        main, model = self.accelerator.is_main_process, self.unwrapped
        moving = Copies(p for p in model.parameters() if p.requires_grad) if copied else _as_it_is
        state, adapter = whole(merged_state(model), main, moving), whole(adapter_state(model), main, moving)
        saved = {
            "optimizer": whole(self.optimizer.state_dict(), main, Copies() if copied else _as_it_is),
            "version": self.version,
            "bonus": (self.bonus.coefficient, self.bonus.entropy),
        }
        if self.reference is not None and self.config.kl.reset_every:  # else it is the policy the run began from
            saved["reference"] = whole(self.reference.state_dict(), main, Copies() if copied else _as_it_is)

        def save(folder: Path) -> None:
            if not main:
                return
            try:
                with without_bars():
                    save_weights(model, state, adapter, folder)
            except SafetensorError as error:  # safetensors' own word for a full disk
                raise OSError(errno.EIO, " ".join(str(error).split())[:200]) from None
            save_state(saved, folder / "trainer.pt")

        return save

    def export(self, folder: Path) -> None:
        """The policy alone, adapters merged, as a Hugging Face folder. Every rank has to call it; one writes."""
        main = self.accelerator.is_main_process
        state = whole(merged_state(self.unwrapped), main)
        if main:
            write_model(self.unwrapped, state, folder)

    def restore(self, folder: Path) -> None:
        """Take up where `save` left off. Raises CheckpointError where the folder holds another architecture."""
        restore_weights(self.unwrapped, folder)
        saved = load_state(folder / "trainer.pt")
        load_optimizer_state(self.optimizer, saved["optimizer"])
        self.version = saved["version"]
        self.bonus = Bonus(*saved.get("bonus", (self.config.entropy.coef, 0.0)))
        if self.reference is not None and "reference" in saved:
            load_model_state(self.reference, saved["reference"])


def _made(updates: int, of: int) -> str:
    """What the optimizer did with a batch before it stopped: a policy that moved is not the one that was proved."""
    if not updates:
        return "the optimizer did not step"
    return (
        f"the optimizer had made {updates} of this batch's {of} updates; go on from a checkpoint, not from this policy"
    )


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _per_token(advantages_S: Sequence[float | tuple[float, ...]], m: PackedBatch, segments_N: Tensor) -> Tensor:
    """Advantages [N]: one for all tokens of a completion, or under process supervision one for each."""
    if any(isinstance(a, tuple) for a in advantages_S):
        return m.gather_targets(advantages_S)
    return torch.tensor(advantages_S, device=segments_N.device)[segments_N]
