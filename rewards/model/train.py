"""Train the reward model on judged completions, and say on held-out tasks how far it can be trusted."""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.checkpoint import (
    latest_valid,
    load_state,
    read_marker,
    restore_rng,
    rng_state,
    save_state,
    writing,
    writing_step,
)
from assay.errors import CheckpointError, DataError, TrainingDiverged
from assay.lineage import mark_of
from assay.optimization import adamw, set_rate, warmup_cosine
from assay.packing import PackedBatch, pack_completions
from assay.policy import Dtype, load_tokenizer
from assay.sharded import agreed, any_rank, load_model_state, load_optimizer_state, whole
from assay.stopping import Stopping
from rewards.model.config import RewardModelConfig
from rewards.model.data import Sample, split_by_task, usable
from rewards.model.losses import LOSSES
from rewards.model.network import RewardModel
from rewards.model.quality import calibration_bins, report

Log = Callable[[dict[str, float]], None]


def train_reward_model(
    config: RewardModelConfig,
    sft_dir: str | Path,
    samples: Sequence[Sample],
    out_dir: str | Path,
    log: Log = lambda row: None,
    dtype: Dtype = "float32",
    checkpoints: Path | None = None,
    stop: Stopping | None = None,
) -> Path | None:
    """Train on most tasks, measure on the others, write the folder `out_dir`; returns it.

    With `checkpoints`, a folder, an interrupted training goes on from the newest one there and ends with the same
    weights; None is returned where `stop` said so before the last step.

    `reward_model.json` holds heldout_accuracy, heldout_auc, heldout_pair_accuracy, heldout_calibration_error,
    base_rate, the same per source, and every count. `log` gets one row per step: step (from 1), steps, loss,
    learning_rate, grad_norm, samples_per_s, tokens_per_s.
    """
    kept, left_out = usable(samples, config.max_length)
    if not kept:
        raise DataError(f"none of {len(samples)} samples can be learned from: {left_out}")
    train, held = split_by_task(kept, config.heldout_fraction, config.seed)
    plan = plan_batches(train, config)
    if not plan:
        raise DataError("no task has both a passing and a failing completion; the pairwise loss has nothing to compare")
    trainer = RewardModelTrainer(config, sft_dir, dtype)
    if not _train(
        trainer, plan, log, checkpoints, _fingerprint(config, kept, f"{mark_of(sft_dir)} {dtype}"), stop or Stopping()
    ):
        return None
    facts = {
        "loss": config.loss,
        **measure(trainer.score(held), held),
        "train_samples": len(train),
        "train_tasks": len({s.task_id for s in train}),
        "train_base_rate": sum(map(passed, train)) / len(train),
        **left_out,
    }
    state = whole(trainer.network.classifier.state_dict(), trainer.accelerator.is_main_process)
    if trainer.accelerator.is_main_process:
        with writing(Path(out_dir), {"kind": "reward_model", "steps": len(plan)}) as folder:
            trainer.network.save(trainer.tokenizer, folder, state)
            (folder / "reward_model.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    trainer.accelerator.wait_for_everyone()
    return Path(out_dir)


def _train(
    trainer: RewardModelTrainer,
    plan: Sequence[list[list[Sample]]],
    log: Log,
    root: Path | None,
    fingerprint: str,
    stop: Stopping,
) -> bool:
    """The steps of the plan, from the newest checkpoint below `root` on; False where `stop` said so before the last."""
    config = trainer.config
    first = agreed(trainer.accelerator, trainer.resume(root, fingerprint), root) if root is not None else 0
    for step, batch in enumerate(plan[first:], start=first):
        if any_rank(trainer.accelerator, stop()):
            if root is not None:
                trainer.checkpoint(root, step, fingerprint)
            return False
        rate = warmup_cosine(
            step,
            len(plan),
            peak=config.learning_rate,
            warmup_steps=round(config.warmup_ratio * len(plan)),
            final_ratio=0.0,
        )
        log({"step": step + 1, "steps": len(plan), **trainer.train_step(batch, rate)})
        due = (step + 1) % config.checkpoint_every == 0 or any_rank(trainer.accelerator, stop.untimed)
        if root is not None and due and step + 1 < len(plan):
            with stop.saving():
                trainer.checkpoint(root, step + 1, fingerprint)
    return True


def _fingerprint(config: RewardModelConfig, samples: Sequence[Sample], policy: str) -> str:
    """What decides the outcome: settings, less those that only decide when to save, data, first policy."""
    settings = config.model_dump(exclude={"checkpoint_every", "keep_last"})
    digest = hashlib.sha256(json.dumps([settings, policy], sort_keys=True).encode())
    for sample in samples:
        digest.update(repr(sample).encode())
    return digest.hexdigest()[:16]


def plan_batches(samples: Sequence[Sample], config: RewardModelConfig) -> list[list[list[Sample]]]:
    """The optimizer steps: each a list of units that must be seen together, of `batch_size` samples or a little more.

    A unit is a sample, or for a loss that compares, all samples of a task that has both verdicts. Every epoch
    shuffles the units anew, from (seed, epoch).
    """
    loss = LOSSES[config.loss]
    by_task: dict[str, list[Sample]] = {}
    for sample in samples:
        by_task.setdefault(sample.task_id, []).append(sample)
    units = [g for g in by_task.values() if loss.terms(g)] if loss.needs_whole_tasks else [[s] for s in samples]
    steps: list[list[list[Sample]]] = []
    for epoch in range(config.epochs):
        step: list[list[Sample]] = []
        for unit in random.Random(f"{config.seed}/{epoch}").sample(units, len(units)):
            step.append(unit)
            if sum(map(len, step)) >= config.batch_size:
                steps.append(step)
                step = []
        if step:
            steps.append(step)
    return steps


def measure(scores: Sequence[float], held: Sequence[Sample]) -> dict[str, Any]:
    """The held-out report, whole and by source."""

    def part(indices: Sequence[int]) -> dict[str, Any]:
        return report(
            [scores[i] for i in indices], [passed(held[i]) for i in indices], [held[i].task_id for i in indices]
        )

    altogether = part(range(len(held)))
    by_source = {
        source: part([i for i, s in enumerate(held) if s.source == source])
        for source in sorted({s.source for s in held})
    }
    return {
        "base_rate": altogether.pop("base_rate"),
        **{f"heldout_{k}": v for k, v in altogether.items()},
        "heldout_bins": calibration_bins(scores, [passed(s) for s in held]),
        "by_source": by_source,
    }


def passed(sample: Sample) -> bool:
    """The pass bit of a sample that has one."""
    if sample.passed is None:
        raise ValueError(f"task {sample.task_id!r}: a sample without a verdict has no pass bit")
    return sample.passed


class RewardModelTrainer:
    """The network, its optimizer, and one step."""

    def __init__(self, config: RewardModelConfig, sft_dir: str | Path, dtype: Dtype = "float32") -> None:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs, set_seed

        set_seed(config.seed)
        self.config, self.loss = config, LOSSES[config.loss]
        self.tokenizer = load_tokenizer(sft_dir)
        self.accelerator = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)])
        network = RewardModel.from_policy(sft_dir, dtype)
        optimizer = adamw(
            list(network.parameters()),
            rate=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        self.model, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.model.train()

    @property
    def network(self) -> RewardModel:
        """The reward model without what Accelerate put around it."""
        return self.accelerator.unwrap_model(self.model)

    def train_step(self, units: Sequence[Sequence[Sample]], rate: float) -> dict[str, float]:
        """One optimizer step; the loss is a mean over all terms of the batch, on all ranks."""
        started = time.perf_counter()
        set_rate(self.optimizer, rate)
        total = self.backward(units)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        row = {"loss": float(total), "learning_rate": rate, "grad_norm": float(norm)}
        if not all(map(math.isfinite, row.values())):
            raise TrainingDiverged(f"reward model: {row}; lower reward_model.learning_rate={self.config.learning_rate}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - started
        samples = [s for unit in units for s in unit]
        return row | {"samples_per_s": len(samples) / seconds, "tokens_per_s": sum(map(len, samples)) / seconds}

    def backward(self, units: Sequence[Sequence[Sample]]) -> Tensor:
        """Leave the batch's gradient in the parameters; returns its loss."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        terms = self.loss.terms([s for unit in units for s in unit])
        micros = micro_batches(units, self.config.micro_batch_tokens, world)[rank::world]
        total = torch.zeros((), device=self.accelerator.device)
        for i, (samples, weight) in enumerate(micros):
            waiting = i + 1 < len(micros) and not self.accelerator.is_fsdp2
            with self.accelerator.no_sync(self.model) if waiting else nullcontext():
                scores = self.model(self._pack(samples))
                bits = torch.tensor([passed(s) for s in samples], device=scores.device)
                names = {s.task_id: n for n, s in enumerate(samples)}
                tasks = torch.tensor([names[s.task_id] for s in samples], device=scores.device)
                loss = weight * self.loss.total(scores, bits, tasks) / terms
                self.accelerator.backward(loss * world)  # DistributedDataParallel averages; the terms are global
            total += loss.detach()
        return self.accelerator.reduce(total, "sum")

    def checkpoint(self, root: Path, step: int, fingerprint: str) -> None:
        """Write everything a resumed training needs after `step` steps, the marker last. Every rank has to call it."""
        main = self.accelerator.is_main_process
        state = whole(self.network.classifier.state_dict(), main)
        optimizer = whole(self.optimizer.state_dict(), main)
        if main:
            facts = {"kind": "reward_model", "fingerprint": fingerprint}
            with writing_step(root, step, facts, self.config.keep_last) as folder:
                self.network.save(self.tokenizer, folder, state)
                save_state({"optimizer": optimizer, "rng": rng_state()}, folder / "trainer.pt")
        self.accelerator.wait_for_everyone()

    def resume(self, root: Path, fingerprint: str) -> int:
        """Go on from the newest checkpoint below `root`; the steps it has done, 0 where there is none."""
        folder = latest_valid(root)
        if folder is None:
            return 0
        facts = read_marker(folder)
        if facts.get("fingerprint") != fingerprint:
            raise CheckpointError(
                f"{folder}: was made with other data or settings, or from another policy; remove {root} to start over"
            )
        state = load_state(folder / "trainer.pt")
        load_model_state(self.network, RewardModel.load(folder).state_dict())
        load_optimizer_state(self.optimizer, state["optimizer"])
        restore_rng(state["rng"])
        return int(facts["step"])

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Probabilities of passing, in the order of `samples`."""
        from accelerate.utils import gather_object

        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        share = self._pack(samples).balanced(self.config.micro_batch_tokens, world)[rank::world]
        found: dict[int, float] = {}
        for part in gather_object([probabilities(self.model, share)]):
            found |= part
        return [found[i] for i in sorted(found)]

    def _pack(self, samples: Sequence[Sample]) -> PackedBatch:
        packed = pack_completions(
            [s.prompt_ids for s in samples], [s.completion_ids for s in samples], pad_id=pad_id(self.tokenizer)
        )
        return packed.to(self.accelerator.device)


def micro_batches(
    units: Sequence[Sequence[Sample]], max_tokens: int, world: int = 1
) -> list[tuple[list[Sample], float]]:
    """Samples to be seen together, and their weight, for `world` ranks, which take every `world`-th.

    Units, longest first, together up to `max_tokens` or a rank's even share; a unit is never cut. Made up to a
    multiple of `world` with the last one again at weight 0: ranks that shard a model have to run it equally often.
    """
    limit = min(max_tokens, -(-sum(len(s) for unit in units for s in unit) // world))
    batches: list[list[Sample]] = []
    room = 0
    for unit in sorted(units, key=lambda u: -max(map(len, u))):
        room -= sum(map(len, unit))
        if not batches or room < 0:
            batches.append([])
            room = limit - sum(map(len, unit))
        batches[-1].extend(unit)
    return [(batch, 1.0) for batch in batches] + [(batches[-1], 0.0)] * (-len(batches) % world)


@torch.no_grad()
def probabilities(network: torch.nn.Module, micros: Iterable[PackedBatch]) -> dict[int, float]:
    """The logistic function of the score of each packed sequence."""
    found: dict[int, float] = {}
    for micro in micros:
        segments = [s for s in micro.segment_ids.unique().tolist() if s >= 0]
        found |= dict(zip(segments, network(micro).sigmoid().tolist(), strict=True))
    return found


def pad_id(tokenizer: Any) -> int:
    """A token to fill rows with; which one does not matter, nothing looks at it."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
