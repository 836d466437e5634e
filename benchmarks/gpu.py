"""One trainer step on a device, at a published shape with random weights, beside TRL's on the same shape and tokens.

    python benchmarks/gpu.py --shape lite [--sequences 16] [--tokens 1024] [--rank 16] [--steps 4] [--peak-tflops 494]
    python benchmarks/gpu.py --shape tiny --device cpu      # the same path, in seconds, anywhere

`lite` is DeepSeek-Coder-V2-Lite's shape (15.7 billion parameters, 62.8 GB in fp32), trained by LoRA on attention: the
frozen weights are the reference too, and only the adapters have Adam states, so it fits on one card of 80 GB with
activations recomputed. Each side runs in a process of its own, one after the other: log-probabilities of the reference,
forward, backward, optimizer. Shown are tokens/s, the highest memory of the device, and MFU: the floating-point
operations a step needs at least (8 per active parameter and token: two forward passes, and the gradient of the
activations; none for frozen weights, none for recomputing) over what the device could do in that time. The default
peak is an H200's in TF32, which both sides use for fp32.

Without a device this has only been run as `--shape tiny --device cpu`.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: InitConfig's names; what is not said is as in `assay.policy`
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "lite": {
        "hidden_size": 2048,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "intermediate_size": 10944,
        "moe_intermediate_size": 1408,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "num_experts_per_tok": 6,
        "max_position_embeddings": 4096,
        "initializer_range": 0.02,
    },
}
VOCABULARY = {"tiny": 512, "lite": 102_400}
PROMPT = 128  #: tokens in front of each completion


def main() -> int:
    options = parse()
    if options.side:
        print(json.dumps(SIDES[options.side](options)))
        return 0
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        active = make_policy(options, Path(folder))
        rows = {}
        for side in options.sides.split(","):
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--folder", folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                print(f"{side} ended with {done.returncode}", file=sys.stderr)
                return 1
            rows[side] = json.loads(done.stdout.splitlines()[-1])
    show(options, rows, active)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="lite")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    for name, default in (("sequences", 16), ("tokens", 1024), ("rank", 16), ("steps", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--layers", type=int, help="fewer than the shape has, for a smaller device or disk")
    parser.add_argument("--peak-tflops", type=float, default=494.0)
    parser.add_argument("--sides", default="assay,trl")
    parser.add_argument("--scratch", help="a folder with room for the weights")
    parser.add_argument("--side", choices=("assay", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


def make_policy(options: argparse.Namespace, folder: Path) -> int:
    """Random weights as a Hugging Face folder, in 16 bits; returns the parameters a token is multiplied with."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from assay.policy import InitConfig, PolicyConfig, create_policy
    from assay.sizes import of_folder
    from assay.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(["one two three"] * 3, vocab_size=300)
    policy = create_policy(PolicyConfig(init=InitConfig()), tokenizer, 0, folder / "policy")
    sizes = SHAPES[options.shape] | ({"num_hidden_layers": options.layers} if options.layers else {})
    config = AutoConfig.from_pretrained(policy, vocab_size=VOCABULARY[options.shape], **sizes)
    if heads := sizes.get("num_attention_heads"):
        config.num_key_value_heads = heads
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(policy)
    return of_folder(policy).active


def rows_of(options: argparse.Namespace) -> tuple[list[list[int]], list[list[int]], list[float]]:
    """Prompts, completions of one length, advantages."""
    import torch

    draw, count = torch.Generator().manual_seed(0), options.sequences

    def tokens(length: int) -> list[list[int]]:
        return torch.randint(6, 290, (count, length), generator=draw).tolist()

    return tokens(PROMPT), tokens(options.tokens), [1.0 if i % 2 else -1.0 for i in range(count)]


def measured(options: argparse.Namespace, step: Callable[[], None]) -> dict[str, float]:
    """Median seconds of a step after a first one, and the highest memory in bytes."""
    import torch

    on_device, seconds = options.device == "cuda", []
    for _ in range(options.steps + 1):
        if on_device:
            torch.cuda.synchronize()
        started = time.perf_counter()
        step()
        if on_device:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() if on_device else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": median(seconds[1:]), "bytes": float(peak)}


def assay(options: argparse.Namespace) -> dict[str, float]:
    sys.path.insert(0, str(ROOT))
    import torch

    from assay.adapter import LoraConfig
    from grpo.batch import TrainBatch
    from grpo.config import GRPOConfig
    from grpo.trainer import PolicyTrainer

    torch.set_float32_matmul_precision("high")
    prompts, completions, advantages = rows_of(options)
    config = GRPOConfig(
        learning_rate=1e-4,
        gradient_checkpointing=True,
        micro_batch_tokens=2 * (PROMPT + options.tokens),
    )
    lora = LoraConfig(rank=options.rank, alpha=options.rank, targets=("attention",))
    policy = Path(options.folder) / "policy"
    trainer = PolicyTrainer(policy, config, dtype="float32", temperature=1.0, pad_id=2, lora=lora)
    batch = TrainBatch(
        prompts=tuple(map(tuple, prompts)),
        completions=tuple(map(tuple, completions)),
        engine_logprobs=tuple((-8.0,) * options.tokens for _ in completions),
        advantages=tuple(advantages),
        weights=tuple(1 / (len(completions) * options.tokens) for _ in completions),
        oldest_version=0,
        counts={},
    )
    return measured(options, lambda: trainer.step(batch) and None)


def trl(options: argparse.Namespace) -> dict[str, float]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    torch.set_float32_matmul_precision("high")
    policy, device = str(Path(options.folder) / "policy"), torch.device(options.device)
    prompts, completions, advantages = (torch.tensor(x, device=device) for x in rows_of(options))
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(policy, dtype="float32"),
        reward_funcs=lambda completions, **rest: [0.0] * len(completions),
        args=GRPOConfig(
            output_dir=str(Path(options.folder) / "trl"),
            per_device_train_batch_size=2,
            num_generations=2,
            beta=0.04,
            loss_type="grpo",
            use_bias_correction_kl=False,
            temperature=1.0,
            bf16=False,
            use_cpu=options.device == "cpu",
            gradient_checkpointing=True,
            report_to=[],
        ),
        train_dataset=Dataset.from_dict({"prompt": ["one"]}),
        processing_class=AutoTokenizer.from_pretrained(policy),
        peft_config=LoraConfig(
            r=options.rank,
            lora_alpha=options.rank,
            target_modules=["q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"],
        ),
    )
    model, parts = trainer.model, range(0, options.sequences, 2)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.0)
    trainer.current_gradient_accumulation_steps = len(parts)

    def inputs(at: int) -> dict[str, Any]:
        ids, mask = torch.cat([prompts, completions], dim=1)[at : at + 2], None
        mask = torch.ones_like(ids)
        with torch.no_grad(), trainer.accelerator.unwrap_model(model).disable_adapter():
            reference, *_ = trainer._get_per_token_logps_and_entropies(model, ids, mask, options.tokens)
        return {
            "prompt_ids": prompts[at : at + 2],
            "prompt_mask": mask[:, :PROMPT],
            "completion_ids": completions[at : at + 2],
            "completion_mask": mask[:, PROMPT:],
            "advantages": advantages[at : at + 2],
            "ref_per_token_logps": reference,
            "num_items_in_batch": torch.tensor(float(options.sequences * options.tokens), device=device),
        }

    def step() -> None:
        model.train()
        for at in parts:
            trainer.accelerator.backward(trainer._compute_loss(model, inputs(at)))
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return measured(options, step)


SIDES: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {"assay": assay, "trl": trl}


def show(options: argparse.Namespace, rows: dict[str, dict[str, float]], active: int) -> None:
    tokens = options.sequences * (PROMPT + options.tokens)
    print(
        f"{options.shape}, {options.device}, fp32, LoRA rank {options.rank} on attention: {options.sequences} rows "
        f"of {PROMPT} + {options.tokens} tokens, {active / 1e9:.3f} billion parameters active"
    )
    for side, row in rows.items():
        flops = 8 * active * tokens / row["seconds"]
        print(f"{side:<6}{row['seconds']:>9.2f} s/step{tokens / row['seconds']:>10.0f} tokens/s"
              f"{row['bytes'] / 2**30:>9.2f} GiB   MFU {flops / options.peak_tflops / 1e12:.1%}")  # fmt: skip
    if {"assay", "trl"} <= rows.keys():
        faster = rows["trl"]["seconds"] / rows["assay"]["seconds"]
        print(f"assay over TRL: {faster:.2f} times the tokens/s, "
              f"{rows['assay']['bytes'] / rows['trl']['bytes']:.2f} of the memory")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
