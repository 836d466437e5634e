"""One optimizer step of the policy, on Accelerate.

    TrainBatch -> pack -> [reference log-probs] -> forward, loss, backward per micro-batch -> clip -> AdamW

The trainer takes a batch and returns numbers. It knows nothing of engines, rewards or Ray, and runs in one process
or in several (every rank is handed the same batch and takes its share of the rows).
"""

from __future__ import annotations

import copy
import errno
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from assay.checkpoint import load_state, save_state
from assay.errors import CheckpointError, ConfigError, TrainingDiverged
from assay.logprobs import completion_logprobs
from assay.moe_replay import Route, Routers
from assay.optimization import adamw, set_rate
from assay.packing import PackedBatch, pack_completions
from assay.policy import load_policy, without_bars
from grpo.batch import TrainBatch
from grpo.config import GRPOConfig
from grpo.kl import KL, k3
from grpo.losses import clipped_surrogate
from rollouts.weights import Probe, WeightBundle, checkpoint_state, make_probe, publish

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Phase = Callable[[str], AbstractContextManager[Any]]


@dataclass(slots=True)
class Sums:
    """What is added up over micro-batches and ranks; every mean divides a global sum by a global count."""

    values: dict[str, float]

    def add(self, **values: Tensor | float) -> None:
        for name, value in values.items():
            self.values[name] = self.values.get(name, 0.0) + float(value)


class PolicyTrainer:
    """Holds the policy, the frozen reference and the optimizer."""

    def __init__(self, policy: str | Path, config: GRPOConfig, *, dtype: Any, temperature: float, pad_id: int) -> None:
        from accelerate import Accelerator

        self.config, self.temperature, self.pad_id = config, temperature, pad_id
        self.version = 0
        self.accelerator = Accelerator(gradient_accumulation_steps=1)
        if dtype != "float32":
            raise ConfigError(
                f"policy.dtype={dtype}: the trainer updates the weights it holds, and in 16 bits an update of 1e-6 "
                f"rounds to nothing; train in float32 (the engine's dtype is rollouts.engine.dtype)"
            )
        model = load_policy(policy, dtype)
        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable()
        self.routers = Routers(model, config.moe.replay, config.moe.aux_coef)
        self.reference = copy.deepcopy(model).eval().requires_grad_(False).to(self.accelerator.device)
        self.optimizer: torch.optim.Optimizer = adamw(
            list(model.parameters()),
            rate=config.learning_rate,
            betas=config.optimizer.betas,
            weight_decay=config.optimizer.weight_decay,
        )
        self.model: PreTrainedModel
        self.model, self.optimizer = self.accelerator.prepare(model, self.optimizer)
        self.model.train()

    # -- one step -----------------------------------------------------------------------------------------------

    def step(self, batch: TrainBatch, phase: Phase = lambda _: nullcontext()) -> dict[str, float]:
        """Update the policy on one batch; returns the step's metrics. Raises TrainingDiverged before any update."""
        if not batch.completions:
            return {"grad_norm": 0.0, "tokens/trained": 0.0, "learning_rate": self._learning_rate()}
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        packed = pack_completions(batch.prompts, batch.completions, pad_id=self.pad_id)
        share = packed.share(rank, world)
        micro = [m.to(self.accelerator.device) for m in share.micro_batches(self.config.micro_batch_tokens)]
        with phase("logprobs"):
            reference = [self._reference_logprobs(m) for m in micro]
            routes = [self.routers.route(m, getattr(batch, "experts", None)) for m in micro]
            once = self.config.updates_per_rollout == 1
            old = [None if once else self._logprobs(m, route) for m, route in zip(micro, routes, strict=True)]
        metrics: dict[str, float] = {}
        for update in range(self.config.updates_per_rollout):
            sums = Sums({})
            with phase("update"):
                for i, (m, ref, prior, route) in enumerate(zip(micro, reference, old, routes, strict=True)):
                    waiting = i + 1 < len(micro)  # ranks exchange gradients with the last micro-batch only
                    with self.accelerator.no_sync(self.model) if waiting else nullcontext(), route:
                        self._backward(m, ref, prior, batch, sums)
                norm = self._apply()
            first = self._means(sums, batch, norm) | self.routers.metrics(self.accelerator.reduce)
            metrics = first if update == 0 else {**first, **{k: metrics[k] for k in metrics if "mismatch" in k}}
        self.version += 1
        return metrics

    def _backward(self, m: PackedBatch, reference: Tensor, old: Tensor | None, batch: TrainBatch, sums: Sums) -> None:
        config = self.config
        logprobs, entropy = completion_logprobs(self.model, m, self.temperature, with_entropy=True)
        segments = m.target_segments()
        advantages = torch.tensor(batch.advantages, device=logprobs.device)[segments]
        weights = torch.tensor(batch.weights, device=logprobs.device)[segments]
        engine = m.gather_targets(batch.engine_logprobs)
        prior = logprobs.detach() if old is None else old
        policy, clipped = clipped_surrogate(logprobs, prior, advantages, *config.clip)
        loss = (weights * policy).sum()
        penalty = config.kl.coef * (weights * KL[config.kl.estimator](logprobs, reference)).sum()
        aux = self.routers.balance(len(batch.completions))
        total = loss + penalty + aux
        if not torch.isfinite(total):
            self.optimizer.zero_grad()
            raise TrainingDiverged(
                f"the loss is {total.item()} (policy {loss.item()}, KL {penalty.item()}); the optimizer did not step"
            )
        # DistributedDataParallel averages over ranks; the weights already divide by the global batch
        self.accelerator.backward(total * self.accelerator.num_processes)
        with torch.no_grad():
            log_ratio = prior - engine
            sums.add(
                policy=loss,
                penalty=penalty,
                aux=aux,
                kl=k3(logprobs, reference).sum(),
                entropy=0.0 if entropy is None else entropy.sum(),
                clipped=clipped.sum(),
                mismatch=k3(engine, prior).sum(),
            )
            worst = log_ratio.abs().max().item() if log_ratio.numel() else 0.0
            sums.values["worst"] = max(sums.values.get("worst", 0.0), worst)

    def _apply(self) -> float:
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.optimizer.grad_clip)
        value = float(norm) if norm is not None else 0.0
        if not isfinite(value):
            self.optimizer.zero_grad()
            raise TrainingDiverged(f"the gradient norm is {value}; the optimizer did not step")
        set_rate(self.optimizer, self._learning_rate())
        self.optimizer.step()
        self.optimizer.zero_grad()
        return value

    def _learning_rate(self) -> float:
        warmup = self.config.optimizer.warmup_steps
        return self.config.learning_rate * min(1.0, (self.version + 1) / warmup if warmup else 1.0)

    def _means(self, sums: Sums, batch: TrainBatch, norm: float) -> dict[str, float]:
        values = self._over_ranks(sums)
        n = batch.num_tokens
        return {
            "loss/total": values["policy"] + values["penalty"] + values["aux"],
            "loss/policy": values["policy"],
            "loss/kl": values["penalty"],
            **({"loss/aux": values["aux"]} if self.config.moe.aux_coef else {}),
            "kl/reference": values["kl"] / n,
            "entropy": values["entropy"] / n,
            "clip/share": values["clipped"] / n,
            "mismatch/k3": values["mismatch"] / n,
            "mismatch/max_abs_logratio": values["worst"],
            "grad_norm": norm,
            "learning_rate": self._learning_rate(),
            "tokens/trained": float(n),
        }

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
    def _reference_logprobs(self, m: PackedBatch) -> Tensor:
        return completion_logprobs(self.reference, m, self.temperature)[0]

    @torch.no_grad()
    def _logprobs(self, m: PackedBatch, route: Route) -> Tensor:
        with route:
            return completion_logprobs(self.model, m, self.temperature)[0]

    # -- what others ask of it ------------------------------------------------------------------------------------

    def publish(self) -> WeightBundle:
        """The policy as engines take it: checkpoint names, digests, this version."""
        return publish(checkpoint_state(self.unwrapped), self.version)

    def probe(self, sequences: list[list[int]]) -> Probe:
        """The trainer's own log-probabilities of the probe's sequences."""
        return make_probe(self.unwrapped, sequences, self.pad_id)

    @property
    def unwrapped(self) -> PreTrainedModel:
        """The plain Hugging Face model."""
        return self.accelerator.unwrap_model(self.model)

    def save(self, folder: Path) -> None:
        """Model as a Hugging Face folder, optimizer and version beside it. Wrap it in `assay.checkpoint.writing`."""
        try:
            with without_bars():
                self.unwrapped.save_pretrained(str(folder / "model"))
        except SafetensorError as error:  # safetensors' own word for a full disk
            raise OSError(errno.EIO, " ".join(str(error).split())[:200]) from None
        save_state({"optimizer": self.optimizer.state_dict(), "version": self.version}, folder / "trainer.pt")

    def restore(self, folder: Path) -> None:
        """Take up where `save` left off. Raises CheckpointError where the folder holds another architecture."""
        model = load_policy(folder / "model", str(next(self.model.parameters()).dtype).removeprefix("torch."))
        saved = load_state(folder / "trainer.pt")
        try:
            self.unwrapped.load_state_dict(model.state_dict())
        except RuntimeError as error:
            raise CheckpointError(f"{folder}: another architecture: {' '.join(str(error).split())[:300]}") from None
        self.optimizer.load_state_dict(saved["optimizer"])
        self.version = saved["version"]
