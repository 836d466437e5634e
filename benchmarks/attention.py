"""Packed rows: attention under a block-diagonal mask beside one sequence at a time (`policy.attention: segments`).

    python benchmarks/attention.py [--threads 2] [--repeats 2]

Log-probabilities of one row, forward and backward, on a DeepSeek-V2 of 2 layers with 4 heads: best of some repeats.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from assay.logprobs import completion_logprobs
from assay.packing import PackedBatch, pack_completions
from assay.policy import InitConfig, PolicyConfig, create_policy, load_policy
from assay.segments import attend_by_segment
from assay.tokenizer import train_tokenizer

ROWS = ((16, 64), (8, 128), (4, 512), (8, 512))  # sequences of a row, tokens of each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer = train_tokenizer(["def f(n): return n + 1", "sum of the squares"] * 3, vocab_size=300)
    sizes = InitConfig(num_hidden_layers=2, max_position_embeddings=4096)
    folder = create_policy(PolicyConfig(init=sizes, vocab_size=300), tokenizer, 0, Path(tempfile.mkdtemp()) / "policy")
    masked, apart = load_policy(folder), load_policy(folder)
    attend_by_segment(apart)
    print("| row | masked | by segment | ratio | largest difference |\n|---|---|---|---|---|", flush=True)
    for count, length in ROWS:
        packed = one_row(count, length)
        (a, before), (b, after) = (best(model, packed, options.repeats) for model in (masked, apart))
        worst = (before - after).abs().max().item()
        print(f"| {count} x {length} | {a:.3f} s | {b:.3f} s | {a / b:.2f} | {worst:.1e} |", flush=True)


def one_row(count: int, length: int) -> PackedBatch:
    draw = torch.Generator().manual_seed(0)
    tokens = [torch.randint(20, 280, (length - 1,), generator=draw).tolist() for _ in range(count)]
    return pack_completions([[0]] * count, tokens, pad_id=2, row_tokens=count * length)


def best(model: Any, packed: PackedBatch, repeats: int) -> tuple[float, torch.Tensor]:
    seconds, values = float("inf"), torch.empty(0)
    for _ in range(repeats):
        model.zero_grad()
        start = time.perf_counter()
        values, _ = completion_logprobs(model, packed)
        values.sum().backward()
        seconds = min(seconds, time.perf_counter() - start)
    return seconds, values.detach()


if __name__ == "__main__":
    main()
