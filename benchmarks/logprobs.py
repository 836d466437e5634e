"""The head's log-probabilities, forward and backward: peak memory and time beside whole logits.

    python benchmarks/logprobs.py [--tokens 8192] [--hidden 2048] [--vocabulary 102400] [--threads 2] [--repeats 1]

    whole       linear -> log_softmax -> gather -> backward, every [tokens, V] tensor freed as soon as it can be
    chunked     assay.logprobs, the loss not announced: logits are computed again in the backward pass
    announced   assay.logprobs, the loss announced: gradients are made in the forward pass

Each variant runs in a process of its own, on the same numbers. Memory is the highest resident size above what weight
and hidden states take; time is the best of the repeats, on the clock and of the processors: on a busy machine the
second says more. The norms of the gradients stand beside.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = ("whole", "chunked", "announced")


def main() -> int:
    options = parse()
    if options.variant:
        print(json.dumps(measure(options)))
        return 0
    print(f"{options.tokens} tokens, hidden {options.hidden}, vocabulary {options.vocabulary}, fp32")
    heads = ("peak", "of first", "time", "of first", "CPU time", "of first")
    print(f"{'':<12}" + "".join(f"{head:>10}" for head in heads) + "   gradient norms (hidden, weight)")
    first: dict[str, float] = {}
    for variant in options.variants.split(","):
        command = [sys.executable, __file__, "--variant", variant, *sys.argv[1:]]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"{variant}: ended with {done.returncode} (out of memory?)", file=sys.stderr)
            return 1
        row = json.loads(done.stdout.splitlines()[-1])
        first = first or row
        print(
            f"{variant:<12}{row['peak'] / 2**30:>6.2f} GiB{row['peak'] / first['peak']:>10.3f}"
            f"{row['seconds']:>8.2f} s{row['seconds'] / first['seconds']:>10.3f}"
            f"{row['cpu']:>8.2f} s{row['cpu'] / first['cpu']:>10.3f}   "
            + " ".join(f"{norm:.7g}" for norm in row["norms"]),
            flush=True,
        )
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("tokens", 8192), ("hidden", 2048), ("vocabulary", 102_400), ("threads", 2), ("repeats", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--variants", default=",".join(VARIANTS), help="in this order, ratios to the first")
    parser.add_argument("--variant", choices=VARIANTS, help="measure one, here")
    return parser.parse_args()


def measure(options: argparse.Namespace) -> dict[str, object]:
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    head = torch.empty(options.vocabulary, options.hidden).normal_(std=options.hidden**-0.5).requires_grad_()
    hidden = torch.empty(options.tokens, options.hidden).normal_().requires_grad_()
    targets = torch.randint(0, options.vocabulary, (options.tokens,))
    weights = torch.empty(options.tokens).normal_().div_(options.tokens)
    run = {"whole": whole, "chunked": chunked, "announced": announced}[options.variant]
    small = slice(0, 8)
    run(
        hidden.detach()[small].requires_grad_(),
        head[:64].detach().requires_grad_(),
        targets[small] % 64,
        weights[small],
    )
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest resident size so far
    before, seconds, busy = status("VmRSS"), [], []
    for _ in range(options.repeats):
        hidden.grad = head.grad = None
        started, used = time.perf_counter(), time.process_time()
        run(hidden, head, targets, weights)
        seconds.append(time.perf_counter() - started)
        busy.append(time.process_time() - used)
    peak = status("VmHWM") - before
    return {
        "peak": peak,
        "seconds": min(seconds),
        "cpu": min(busy),
        "norms": [float(t.grad.double().norm()) for t in (hidden, head)],
    }


def status(field: str) -> int:
    found = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def whole(hidden, head, targets, weights) -> None:
    from torch.nn.functional import linear, log_softmax

    logprobs = log_softmax(linear(hidden, head), dim=-1).gather(-1, targets[:, None]).squeeze(-1)
    (weights * logprobs).sum().backward()


def chunked(hidden, head, targets, weights, announce: bool = False) -> None:
    sys.path.insert(0, str(ROOT))
    from assay.logprobs import Reading, head_logprobs

    def loss(logprobs, entropies=None, at=slice(None)):
        return (weights[at] * logprobs).sum()

    (logprobs,) = head_logprobs(hidden, head, None, targets, Reading(loss=loss if announce else None))
    loss(logprobs).backward()


def announced(hidden, head, targets, weights) -> None:
    chunked(hidden, head, targets, weights, announce=True)


if __name__ == "__main__":
    sys.exit(main())
