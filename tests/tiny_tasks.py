"""A task generator small enough for a test: `n + k`, `n - k`, `n * k`; some of the demonstrations are wrong."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

SIGNS = {"plus": "+", "minus": "-", "times": "*"}


def generate(out_dir: Path, *, seed: int, wrong_share: float = 0.3) -> None:
    draw = random.Random(seed)
    specifications = [(word, k) for word in SIGNS for k in range(2, 10)]
    draw.shuffle(specifications)
    tasks = [_task(word, k) for word, k in specifications]
    demonstrations = []
    for word, k in specifications[6:]:
        for _ in range(8):
            sign = draw.choice([s for s in SIGNS.values() if s != SIGNS[word]]) if draw.random() < wrong_share else ""
            demonstrations.append({"messages": [*_prompt(word, k), _answer(sign or SIGNS[word], k)]})
    out_dir.mkdir(parents=True, exist_ok=True)
    rows = {"heldout": tasks[:6], "train": tasks[6:], "demonstrations": demonstrations}
    for name, lines in rows.items():
        (out_dir / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (out_dir / "summary.json").write_text("{}")


def _prompt(word: str, k: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Python f(n): n {word} {k}."}]


def _answer(sign: str, k: int) -> dict[str, str]:
    return {"role": "assistant", "content": f"```python\ndef f(n):\n return n {sign} {k}\n```"}


def _task(word: str, k: int) -> dict[str, Any]:
    value = {"plus": lambda n: n + k, "minus": lambda n: n - k, "times": lambda n: n * k}[word]
    return {
        "id": f"{word}/{k}",
        "messages": _prompt(word, k),
        "verifier": "function",
        "answer": {
            "language": "python",
            "entry_point": "f",
            "parameters": [{"name": "n", "type": "int"}],
            "returns": "int",
            "tests": [{"args": [n], "expected": value(n)} for n in (0, 7, 11)],
        },
        "source": "tiny",
        "reference": _answer(SIGNS[word], k)["content"],
    }
