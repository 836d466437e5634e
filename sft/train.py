"""Supervised fine-tuning on Accelerate: packed rows, loss on the assistant's tokens, budgets in tokens.

The gradient of a step is a sum over all its target tokens divided by their number over all micro-batches and
ranks, so neither the split into micro-batches nor the number of processes changes it.

    out_dir/checkpoints/step-*/   policy + trainer.pt; the newest complete one is resumed from
    out_dir/policy/               the result: a Hugging Face folder, with complete.json written last
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from assay.checkpoint import (
    is_complete,
    latest_valid,
    load_state,
    read_marker,
    restore_rng,
    rng_state,
    save_state,
    writing,
    writing_step,
)
from assay.errors import CheckpointError, TrainingDiverged
from assay.lineage import mark_of
from assay.logprobs import completion_logprobs
from assay.optimization import adamw, set_rate
from assay.packing import PackedBatch, pack
from assay.policy import Dtype, load_policy, load_tokenizer, save_policy
from assay.sharded import agreed, any_rank, load_model_state, load_optimizer_state, whole
from assay.stopping import Stopping
from sft.balance import routing, sequence_balance
from sft.config import SFTConfig
from sft.data import Dialogue, Example, encode_examples
from sft.schedule import check_warmup, learning_rate, plan_steps, split_heldout

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Log = Callable[[dict[str, float]], None]


def train_sft(
    config: SFTConfig,
    policy_dir: str | Path,
    dialogues: Sequence[Dialogue],
    out_dir: str | Path,
    log: Log = lambda row: None,
    dtype: Dtype = "float32",
    stop: Stopping | None = None,
) -> Path | None:
    """Train the policy in `policy_dir` on `dialogues`; returns the folder of the result, `out_dir/policy`.

    None where `stop` said so first; then the newest checkpoint is of the last step. A run that was interrupted goes on
    from its last complete checkpoint and ends with the same weights as one that was not. `log` gets one row per step:
    step (from 1), steps, loss, learning_rate, tokens (so far), tokens_per_s, grad_norm, balance_loss where the policy
    has routers, and heldout_loss where it was measured.
    """
    result = Path(out_dir) / "policy"
    tokenizer = load_tokenizer(policy_dir)
    examples, left_out = encode_examples(tokenizer, dialogues, config.max_length)
    kept, held = split_heldout(len(examples), config)
    train, heldout = [examples[i] for i in kept], [examples[i] for i in held]
    plan = plan_steps([len(e.token_ids) for e in train], config)
    check_warmup(len(plan), config)
    fingerprint = _fingerprint(config, examples, f"{mark_of(policy_dir)} {dtype}")
    facts = {"kind": "sft", "steps": len(plan), "left_out": left_out, "fingerprint": fingerprint}
    if is_complete(result):
        _check_same_run(result, facts)
        return result

    trainer = SFTTrainer(config, policy_dir, dtype, tokenizer)
    checkpoints, stop = Path(out_dir) / "checkpoints", stop or Stopping()
    trainer.resume(checkpoints, facts)
    agreed(trainer.accelerator, trainer.step, checkpoints)
    heldout_loss = math.nan
    for step in range(trainer.step, len(plan)):
        if any_rank(trainer.accelerator, stop()):
            trainer.checkpoint(checkpoints, facts)
            return None
        row = trainer.train_step([train[i] for i in plan[step]], learning_rate(step, len(plan), config))
        last = step + 1 == len(plan)
        if heldout and (last or _due(config.evaluate_every, step + 1)):
            row["heldout_loss"] = heldout_loss = trainer.mean_loss(heldout)
        log({"step": step + 1, "steps": len(plan), **row})
        due = _due(config.checkpoint_every, step + 1) or any_rank(trainer.accelerator, stop.untimed)
        if not last and due:
            with stop.saving():
                trainer.checkpoint(checkpoints, facts)
    state = whole(trainer.policy.state_dict(), trainer.accelerator.is_main_process)
    if trainer.accelerator.is_main_process:
        with writing(result, {**facts, "tokens": trainer.tokens, "heldout_loss": _finite(heldout_loss)}) as folder:
            save_policy(trainer.policy, tokenizer, folder, state)
    trainer.accelerator.wait_for_everyone()
    return result


class SFTTrainer:
    """The policy, its optimizer, and how far it has come."""

    def __init__(self, config: SFTConfig, policy_dir: str | Path, dtype: Dtype, tokenizer: Any) -> None:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs, set_seed

        set_seed(config.seed)
        self.config, self.tokenizer = config, tokenizer
        self.step = 0
        self.tokens = 0
        self._saved = 0  # the step of the newest checkpoint
        # buffers are constants, and ranks may differ in how often they call forward
        self.accelerator = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)])
        policy = load_policy(policy_dir, dtype)
        optimizer = adamw(
            list(policy.parameters()),
            rate=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        self.model, self.optimizer = self.accelerator.prepare(policy, optimizer)
        self.model.train()

    @property
    def policy(self) -> PreTrainedModel:
        """The Hugging Face model without what Accelerate put around it."""
        return self.accelerator.unwrap_model(self.model)

    def train_step(self, examples: Sequence[Example], rate: float) -> dict[str, float]:
        """One optimizer step on `examples`, the whole step's, of which this rank takes its share of rows."""
        started = time.perf_counter()
        set_rate(self.optimizer, rate)
        sums = self.backward(examples)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        row = {k: float(v) for k, v in sums.items()} | {"learning_rate": rate, "grad_norm": float(norm)}
        if not all(map(math.isfinite, row.values())):
            raise TrainingDiverged(f"step {self.step + 1}: {row}; lower sft.learning_rate={self.config.learning_rate}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        tokens = sum(len(e.token_ids) for e in examples)
        self.step += 1
        self.tokens += tokens
        return row | {"tokens": self.tokens, "tokens_per_s": tokens / (time.perf_counter() - started)}

    def backward(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Leave the step's gradient in the parameters; returns its losses, summed over ranks."""
        targets, sequences = sum(sum(e.loss_mask[1:]) for e in examples), len(examples)
        micros = self._share(examples)
        sums: dict[str, Tensor] = {}
        for i, micro in enumerate(micros):
            # ranks exchange gradients with the last micro-batch only; where they shard them, with each
            waiting = i + 1 < len(micros) and not self.accelerator.is_fsdp2
            with self.accelerator.no_sync(self.model) if waiting else nullcontext():
                parts = self._losses(micro, targets, sequences)
                # DistributedDataParallel averages over ranks; the denominators are already global, so undo it
                self.accelerator.backward(sum(parts.values()) * self.accelerator.num_processes)
            for name, value in parts.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach()
        return {name: self.accelerator.reduce(value, "sum") for name, value in sums.items()}

    @torch.no_grad()
    def mean_loss(self, examples: Sequence[Example]) -> float:
        """Mean negative log-likelihood of the target tokens of `examples`, in nats per token."""
        total = torch.zeros((), dtype=torch.float64, device=self.accelerator.device)
        for micro in self._share(examples):
            total -= completion_logprobs(self.model, micro)[0].double().sum()
        return float(self.accelerator.reduce(total, "sum")) / sum(sum(e.loss_mask[1:]) for e in examples)

    def checkpoint(self, root: Path, facts: dict[str, Any]) -> None:
        """Write everything a resumed run needs, the marker last; nothing where it is there already.

        Every rank has to call it; the main process writes.
        """
        if self._saved == self.step:
            return
        self._saved, main = self.step, self.accelerator.is_main_process
        weights, optimizer = whole(self.policy.state_dict(), main), whole(self.optimizer.state_dict(), main)
        if main:
            with writing_step(root, self.step, facts, self.config.keep_last) as folder:
                save_policy(self.policy, self.tokenizer, folder, weights)
                state = {"optimizer": optimizer, "rng": rng_state(), "tokens": self.tokens}
                save_state(state, folder / "trainer.pt")
        self.accelerator.wait_for_everyone()

    def resume(self, root: Path, facts: dict[str, Any]) -> None:
        """Go on from the newest complete checkpoint below `root`, if there is one."""
        folder = latest_valid(root)
        if folder is None:
            return
        _check_same_run(folder, facts)
        state = load_state(folder / "trainer.pt")
        load_model_state(self.policy, load_policy(folder).state_dict())
        load_optimizer_state(self.optimizer, state["optimizer"])
        restore_rng(state["rng"])
        self.step, self.tokens = int(read_marker(folder)["step"]), state["tokens"]
        self._saved = self.step

    def _losses(self, micro: PackedBatch, targets: int, sequences: int) -> dict[str, Tensor]:
        """This micro-batch's share of the step's losses: sums over global counts."""
        alpha = self.config.balance_alpha
        with routing(self.policy) if alpha else nullcontext([]) as routed:
            logprobs, _ = completion_logprobs(self.model, micro, loss=lambda logprobs, _, at: -logprobs.sum())
        losses = {"loss": -logprobs.sum() / targets}
        if routed:
            segments = micro.segment_ids.flatten()
            total = sum(sequence_balance(logits, chosen, segments) for logits, chosen in routed)
            own = micro.num_targets > 0  # an idle rank's share belongs to another rank
            losses["balance_loss"] = own * alpha * total / sequences
        return losses

    def _share(self, examples: Sequence[Example]) -> list[PackedBatch]:
        """This rank's share of the rows, cut to what fits into one forward pass."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        pad_id = self.tokenizer.pad_token_id
        packed = pack(
            [e.token_ids for e in examples],
            [e.loss_mask for e in examples],
            pad_id=self.tokenizer.eos_token_id if pad_id is None else pad_id,
        )
        share = packed.balanced(self.config.micro_batch_tokens, world)[rank::world]
        return [m.to(self.accelerator.device) for m in share]


def _fingerprint(config: SFTConfig, examples: Sequence[Example], policy: str) -> str:
    """What decides the outcome: settings, less those that only decide when to look and save, data, first policy."""
    settings = config.model_dump(exclude={"data", "evaluate_every", "checkpoint_every", "keep_last"})
    digest = hashlib.sha256(json.dumps([settings, policy], sort_keys=True).encode())
    for example in examples:
        digest.update(repr((example.token_ids, example.loss_mask)).encode())
    return digest.hexdigest()[:16]


def _check_same_run(folder: Path, facts: dict[str, Any]) -> None:
    if read_marker(folder).get("fingerprint") != facts["fingerprint"]:
        raise CheckpointError(
            f"{folder}: was made with other data or settings, or from another policy; choose another output folder, "
            "or remove it to start over"
        )


def _due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
