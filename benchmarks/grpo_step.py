"""One GRPO step, end to end, beside TRL's GRPOTrainer: generated tokens per second and peak memory.

    python benchmarks/grpo_step.py [--prompts 8] [--group 8] [--tokens 128] [--steps 3] [--threads 2]
                                  [--vocabulary 500]

Both train the same random DeepSeek-V2 mixture of experts in fp32 on the same prompts with the same reward (a function
of token ids), KL coefficient, optimizer and sampling, each in one process of its own, one after the other, with the
same threads, allocator and OpenMP runtime. assay: vLLM and the trainer in that process, weights synced with proof;
neither Ray nor a sandbox. TRL (`pip install trl==1.16.0 datasets`): transformers' generation, its own vLLM mode does
not run this architecture. The first step warms up and is left out. Memory is the highest resident size of the
process, libraries included; what it was after imports, after loading and in each phase stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TEXT = "sum of the squares up to n where every third number is left out and the rest is doubled"
LEARNING_RATE, KL, TEMPERATURE = 1e-5, 0.04, 1.0
PHASES = ("rollout", "reward", "logprobs", "update", "sync", "rest")


def main() -> int:
    options = parse()
    if options.side:
        {"assay": assay, "trl": trl}[options.side](options)
        return 0
    sys.path.insert(0, str(ROOT))
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        make_policy(Path(folder), options.vocabulary)
        for side in options.sides.split(","):
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--folder", folder]
            done = subprocess.run(command, env=environment(options.threads), stdout=subprocess.PIPE, text=True)
            if done.returncode:
                print(f"{side} ended with {done.returncode}", file=sys.stderr)
                return 1
            rows[side] = json.loads(done.stdout.splitlines()[-1])
    show(options, rows)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("prompts", 8), ("group", 8), ("tokens", 128), ("steps", 3), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--vocabulary", type=int, default=500, help="DeepSeek-V2's is 102400")
    parser.add_argument("--sides", default="assay,trl")
    parser.add_argument("--side", choices=("assay", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


def environment(threads: int) -> dict[str, str]:
    """What the engine's actor gets in a run (`grpo.cluster`), here for both sides."""
    from grpo.surroundings import engine_env
    from rollouts.config import EngineConfig, RolloutConfig

    return {**os.environ, **engine_env(RolloutConfig(engine=EngineConfig(threads=threads))), "TQDM_DISABLE": "1"}


def make_policy(folder: Path, vocabulary: int) -> None:
    """The demo's sizes. Ids beyond the tokenizer's are sampled like others, and decode to nothing."""
    from assay.policy import InitConfig, PolicyConfig, create_policy, load_policy
    from assay.tokenizer import train_tokenizer

    tokenizer = train_tokenizer([TEXT] * 3, vocab_size=500)
    create_policy(PolicyConfig(init=InitConfig()), tokenizer, 0, folder / "policy")
    model = load_policy(folder / "policy")
    model.resize_token_embeddings(vocabulary)
    model.save_pretrained(folder / "policy")


def prompts(count: int) -> list[str]:
    words = TEXT.split()
    return [" ".join(words[i % 7 : i % 7 + 8]) for i in range(count)]


def reward(token_ids: Any) -> float:
    """The share of even tokens: easy to move, and nothing to compute."""
    return sum(t % 2 == 0 for t in token_ids) / max(1, len(token_ids))


class Stopwatch:
    """Seconds by phase of the current step, and the highest resident size in each phase so far."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self.peaks: dict[str, int] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.note("rest")
        Path("/proc/self/clear_refs").write_text("5")  # forget the highest resident size so far
        started = time.perf_counter()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - started
            self.note(name)

    def note(self, name: str) -> None:
        self.peaks[name] = max(self.peaks.get(name, 0), status("VmHWM"))

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return function(*args, **kwargs)

        return timed

    def take(self, total: float, tokens: int) -> dict[str, float]:
        row = {**self.phases, "total": total, "tokens": float(tokens)}
        row["rest"] = total - sum(self.phases.values())
        self.phases = {}
        return row


def assay(options: argparse.Namespace) -> None:
    sys.path.insert(0, str(ROOT))
    import torch

    from assay.policy import load_tokenizer
    from grpo.config import GRPOConfig
    from grpo.trainer import PolicyTrainer
    from rollouts.config import EngineConfig, ProofConfig
    from rollouts.engine import Sampling
    from rollouts.vllm import VLLMEngine
    from rollouts.weights import compare_probe, probe_sequences

    torch.set_num_threads(options.threads)
    policy = Path(options.folder) / "policy"
    tokenizer = load_tokenizer(policy)
    ids = [tuple(tokenizer(p).input_ids) for p in prompts(options.prompts)]
    sequences = options.prompts * options.group
    length = max(map(len, ids)) + options.tokens
    engine = VLLMEngine(
        str(policy),
        EngineConfig(max_num_seqs=sequences, threads=options.threads),
        ProofConfig(),
        max_model_len=max(64, -(-length // 16) * 16),  # the probe takes 33
        eos_token_id=tokenizer.eos_token_id,
    )
    imported = status("VmRSS")
    config = GRPOConfig(learning_rate=LEARNING_RATE, kl={"coef": KL}, group_size=options.group)
    trainer = PolicyTrainer(policy, config, dtype="float32", temperature=TEMPERATURE, pad_id=tokenizer.pad_token_id)
    loaded, rows, watch = status("VmRSS"), [], Stopwatch()
    probing = probe_sequences(len(tokenizer), tokenizer.all_special_ids)
    for step in range(options.steps + 1):
        started = time.perf_counter()
        sampling = Sampling(temperature=TEMPERATURE, max_tokens=options.tokens, samples=options.group, seed=step)
        with watch.phase("rollout"):
            groups = engine.generate(ids, sampling)
        with watch.phase("reward"):
            rewards = [[reward(c.token_ids) for c in group] for group in groups]
        trainer.step(train_batch(ids, groups, rewards), watch.phase)
        with watch.phase("sync"):
            engine.load_weights(trainer.publish())
            probe = trainer.probe(probing)
            compare_probe(engine.score(probe.sequences), probe.expected, ProofConfig(), trainer.version)
        tokens = sum(len(c.token_ids) for group in groups for c in group)
        rows.append(watch.take(time.perf_counter() - started, tokens))
    report(rows, imported, loaded, watch)


def train_batch(ids: Any, groups: Any, rewards: Any) -> Any:
    from grpo.advantages import mean_std
    from grpo.batch import TrainBatch

    completions = [c for group in groups for c in group]
    return TrainBatch(
        prompts=tuple(prompt for prompt, group in zip(ids, groups, strict=True) for _ in group),
        completions=tuple(c.token_ids for c in completions),
        engine_logprobs=tuple(c.logprobs for c in completions),
        advantages=tuple(a for row in rewards for a in mean_std(row)),
        weights=tuple(1 / (len(completions) * len(c.token_ids)) for c in completions),
        oldest_version=0,
        counts={},
    )


def trl(options: argparse.Namespace) -> None:
    hide("vllm")  # TRL imports it where it is installed, and does not use it here: some 200 MiB
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(options.threads)
    imported, watch, rows, generated = status("VmRSS"), Stopwatch(), [], [0]
    policy = str(Path(options.folder) / "policy")
    sequences = options.prompts * options.group

    def rewards(prompts: Any, completions: Any, completion_ids: Any, **columns: Any) -> list[float]:
        generated[0] = sum(map(len, completion_ids))
        with watch.phase("reward"):
            return [reward(ids) for ids in completion_ids]

    settings = GRPOConfig(
        output_dir=str(Path(options.folder) / "trl"),
        per_device_train_batch_size=sequences,
        num_generations=options.group,
        max_completion_length=options.tokens,
        max_steps=options.steps + 1,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        weight_decay=0.0,
        beta=KL,
        loss_type="grpo",
        temperature=TEMPERATURE,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        model_init_kwargs={"dtype": "float32"},
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )

    class Steps(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            # the batch, and with it the generation, is prepared inside the step
            self.started = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            rows.append(watch.take(time.perf_counter() - self.started, generated[0]))

    data = Dataset.from_dict({"prompt": prompts(options.prompts)})
    trainer = GRPOTrainer(
        model=policy,
        reward_funcs=rewards,
        args=settings,
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(policy),
        callbacks=[Steps()],
    )
    loaded = status("VmRSS")
    trainer.model.generate = watch.wrap("rollout", trainer.model.generate)
    score, update = trainer._get_per_token_logps_and_entropies, trainer.compute_loss

    def scored(*args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():  # part of the update
            return score(*args, **kwargs)
        with watch.phase("logprobs"):
            return score(*args, **kwargs)

    trainer._get_per_token_logps_and_entropies = scored
    trainer.compute_loss = watch.wrap("update", update)
    trainer.accelerator.backward = watch.wrap("update", trainer.accelerator.backward)
    trainer.train()
    report(rows, imported, loaded, watch)


def hide(package: str) -> None:
    """Let this process believe that a package is not installed."""
    import importlib.util

    find = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if name.split(".")[0] == package else find(name, *rest)


def report(rows: list[dict[str, float]], imported: int, loaded: int, watch: Stopwatch) -> None:
    watch.note("rest")
    sizes = {"imported": imported, "loaded": loaded, **watch.peaks, "peak": max(watch.peaks.values())}
    print(json.dumps({"rows": rows[1:], "sizes": sizes}))


def status(field: str) -> int:
    found = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def show(options: argparse.Namespace, rows: dict[str, Any]) -> None:
    print(
        f"{options.prompts} prompts x {options.group} completions x {options.tokens} tokens, vocabulary "
        f"{options.vocabulary}, fp32, KL {KL}, medians"
    )
    print(f"{'':<22}" + "".join(f"{side:>12}" for side in rows))
    for phase in (*PHASES, "total"):
        print(f"{phase + ', s':<22}" + "".join(f"{of(row, phase):>12.2f}" for row in rows.values()))
    speeds = {side: of(row, "tokens") / of(row, "total") for side, row in rows.items()}
    print(f"{'generated tokens/s':<22}" + "".join(f"{speed:>12.0f}" for speed in speeds.values()))
    for size in ("imported", "loaded", *PHASES, "peak"):
        values = [row["sizes"].get(size, 0) / 2**20 for row in rows.values()]
        print(f"{'memory ' + size + ', MiB':<22}" + "".join(f"{value:>12.0f}" for value in values))
    if {"assay", "trl"} <= rows.keys():
        print(f"tokens/s, assay over TRL    {speeds['assay'] / speeds['trl']:.2f}")
        print(f"peak memory, assay over TRL {rows['assay']['sizes']['peak'] / rows['trl']['sizes']['peak']:.2f}")


def of(row: dict[str, Any], name: str) -> float:
    return median(step.get(name, 0.0) for step in row["rows"])


if __name__ == "__main__":
    sys.exit(main())
