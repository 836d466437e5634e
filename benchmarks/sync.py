"""What a weight sync costs: seconds, bytes per second as a share of memcpy, memory beyond the weights, and the proof.

    python benchmarks/sync.py                             a table over all sizes, each in a process of its own
    python benchmarks/sync.py small medium medium+lora    some of them
    python benchmarks/sync.py --prompts 64 large          steps of 64 prompts in place of 16

One engine on a CPU in fp32, weights handed over as Ray hands them over: a bucket at a time, copied to memory that
cannot be written to (counted as "copy", and as the engine's). A step is 8 completions of 40 tokens for each of 16
prompts, 5,120 tokens as in the demo, or for each of as many as asked for, and one update of the policy on them.
"Beyond" is the largest resident size during the phase less what was resident before, in units of the weights' size. Of
the trainer: a pass over its buckets that keeps none. Of the engine: what it takes to load and prove, with the bucket at
hand and its copy, as both sides are one process here. With "+lora" GRPO trains factors of rank 16, which alone are sent
(`rollouts.engine.lora_sync: adapter`); the frozen weights, brought once, are not counted, and merging with its checks
is a part of "load", not of the proof.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "small": {},  # the demo's
    "medium": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 1024,
               "moe_intermediate_size": 160, "n_routed_experts": 12},
    "large": {"hidden_size": 768, "num_hidden_layers": 7, "num_attention_heads": 8, "intermediate_size": 2048,
              "moe_intermediate_size": 384, "n_routed_experts": 16},
}  # fmt: skip
ROUNDS = 3
GROUP, TOKENS = 8, 40
LORA = "+lora"  #: after a size
BUCKET_MIB = 16  #: the sizes here are small
COLUMNS = ("size", "parameters", "MB sent", "publish", "copy", "digests", "load", "modules", "probe", "sync",
           "of memcpy", "proof / sync", "proof / step", "step", "beyond, trainer", "beyond, engine")  # fmt: skip


def main(names: list[str], prompts: int) -> int:
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + " --- |" * len(COLUMNS))
    for name in names or [*SIZES, *(f"{size}{LORA}" for size in SIZES)]:
        command = [sys.executable, __file__, "--prompts", str(prompts), "--one", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=900)
        print(line(name, json.loads(done.stdout.splitlines()[-1])), flush=True)
    return 0


def line(name: str, m: dict[str, float]) -> str:
    proof = m["digests"] + m["modules"] + m["probe"]
    sync = m["publish"] + m["copy"] + m["load"] + proof
    share = "-" if name.endswith(LORA) else f"{m['bytes'] / (sync - proof) / m['memcpy']:.0%}"
    cells = [name, f"{m['parameters'] / 1e6:.1f} M", f"{m['bytes'] / 1e6:.3g}"]
    cells += [f"{m[part]:.3f} s" for part in ("publish", "copy", "digests", "load", "modules", "probe")]
    cells += [f"{sync:.3f} s", share, f"{proof / sync:.0%}", f"{proof / (m['step'] + sync):.1%}"]
    cells += [f"{m['step']:.2f} s", f"{m['beyond_trainer']:.2f}", f"{m['beyond_engine']:.2f}"]
    return "| " + " | ".join(cells) + " |"


def one(name: str, prompts: int) -> dict[str, float]:
    """Medians over ROUNDS syncs, each after a step."""
    from assay.adapter import LoraConfig
    from assay.policy import InitConfig, PolicyConfig, create_policy
    from assay.tokenizer import train_tokenizer
    from grpo.config import GRPOConfig
    from grpo.trainer import PolicyTrainer
    from rollouts.config import EngineConfig, ProofConfig
    from rollouts.vllm import VLLMEngine
    from rollouts.weights import probe_sequences

    tokenizer = train_tokenizer(["def f(n): return n"], vocab_size=1024)
    with tempfile.TemporaryDirectory() as folder:
        size, _, adapted = name.partition("+")
        lora, sent = (LoraConfig(rank=16), "adapter") if adapted else (None, "merged")
        init = InitConfig(**SIZES[size])
        path = create_policy(PolicyConfig(init=init), tokenizer, 0, Path(folder) / "policy")
        config = GRPOConfig(kl={"estimator": "none"}, learning_rate=1e-5)
        trainer = PolicyTrainer(
            path, config, dtype="float32", temperature=1.0, pad_id=tokenizer.pad_token_id, lora=lora
        )
        how = EngineConfig(max_num_seqs=128, sync_bucket_mib=BUCKET_MIB, lora_sync=sent)
        engine = VLLMEngine(str(path), how, ProofConfig(), max_model_len=128, eos_token_id=1)
        sequences = probe_sequences(len(tokenizer), tokenizer.all_special_ids)
        for bucket in trainer.publication(how, keep=False).base or ():
            engine.load_weights(bucket)
        rows = [measured(engine, trainer, how, sequences, prompts) for _ in range(ROUNDS + 1)]
    return {part: median(row[part] for row in rows[1:]) for part in rows[0]}  # the first warms up


def measured(engine: Any, trainer: Any, how: Any, sequences: list[list[int]], prompts: int) -> dict[str, float]:
    """One step, then one sync in its parts."""
    from rollouts.config import ProofConfig
    from rollouts.weights import compare_probe

    row: dict[str, float] = {"step": timed(lambda: step(engine, trainer, prompts))[1]}
    published = trainer.publication(how, keep=False)
    (sizes, passed), extra = beyond(lambda: timed(lambda: [bucket.size_bytes for bucket in published]))
    row["bytes"] = float(sum(sizes))
    state = trainer.unwrapped.state_dict()
    held = float(sum(tensor.nbytes for tensor in state.values()))
    row["beyond_trainer"] = extra / held
    spent = {"digests": 0.0, "copy": 0.0}
    report, extra = beyond(lambda: given(engine, published, spent))
    row["beyond_engine"] = extra / held
    probe, asked = timed(lambda: trainer.probe(sequences))
    answers, scored = timed(lambda: engine.score(probe.sequences))
    compare_probe(answers, probe.expected, ProofConfig(), published.version)
    row |= {"digests": 2 * spent["digests"], "copy": spent["copy"], "publish": passed - spent["digests"]}
    row |= {"modules": report.proof_s - spent["digests"], "probe": asked + scored, "load": report.load_s}
    row |= {"memcpy": memcpy(state), "parameters": float(sum(tensor.numel() for tensor in state.values()))}
    return row


def given(engine: Any, published: Any, spent: dict[str, float]) -> Any:
    """Every bucket to the engine, out of a copy that cannot be written to; what copies and digests took is added up."""
    from rollouts.weights import digest

    report = None
    for bucket in published:
        spent["digests"] += timed(lambda b=bucket: [digest(array) for array in b.tensors.values()])[1]
        copies, seconds = timed(lambda b=bucket: {name: array.copy() for name, array in b.tensors.items()})
        spent["copy"] += seconds
        for array in copies.values():
            array.flags.writeable = False
        report = engine.load_weights(replace(bucket, tensors=copies))
        del bucket, copies
    return report


def step(engine: Any, trainer: Any, count: int) -> None:
    """Sample, and update on what was sampled; half of it is called good."""
    from grpo.batch import TrainBatch
    from rollouts.engine import Sampling

    prompts = [tuple(range(20 + p, 52 + p)) for p in range(count)]
    groups = engine.generate(prompts, Sampling(temperature=1.0, max_tokens=TOKENS, samples=GROUP))
    said = [completion for group in groups for completion in group]
    batch = TrainBatch(
        prompts=tuple(prompt for prompt in prompts for _ in range(GROUP)),
        completions=tuple(c.token_ids for c in said),
        engine_logprobs=tuple(c.logprobs for c in said),
        advantages=(1.0, -1.0) * (len(said) // 2),
        weights=tuple(1 / (len(said) * len(c.token_ids)) for c in said),
        oldest_version=0,
        counts={},
    )
    trainer.step(batch)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def beyond(work: Callable[[], Any]) -> tuple[Any, float]:
    """The answer of `work`, and by how many bytes this process was larger at most meanwhile. Linux."""
    ctypes.CDLL(None).malloc_trim(0)  # or what was freed before would be used again, and not count
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    answer = work()
    return answer, resident("VmHWM") - before


def resident(field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return float(found[1]) * 1024 if found else float("nan")


def memcpy(state: dict[str, Any]) -> float:
    """Bytes per second of a plain copy of the same tensors."""
    arrays = [tensor.numpy() for tensor in state.values()]
    copies = [array.copy() for array in arrays]
    _, seconds = timed(lambda: [c.__setitem__(..., a) for c, a in zip(copies, arrays, strict=True)])
    return float(sum(array.nbytes for array in arrays) / seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="SIZE", help=f"{', '.join(SIZES)}; with {LORA} behind it, of factors"
    )
    parser.add_argument("--prompts", type=int, default=16, help="of a step")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.prompts)))
        sys.exit(0)
    sys.exit(main(options.names, options.prompts))
