"""What it would save, and cost, to stop drawing a group once its first completions all have one reward.

    .venv/bin/python benchmarks/decided.py [RUN]          RUN: runs/demo, a folder with grpo/samples

Groups of one reward teach nothing, so one might stop a group that looks decided. Of a recorded run, for every number of
completions that one could look at first: how many groups look flat by then, the share of them that are not, the share
of all groups with something to teach that would be lost so, and the share of all drawn tokens that would be saved.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq


def main(run: str = "runs/demo") -> int:
    groups = read(Path(run) / "grpo" / "samples")
    if not groups:
        print(f"{run}: no samples of grpo in it; give the folder of a run", file=sys.stderr)
        return 2
    teaching = sum(not same(rewards) for rewards, _ in groups)
    drawn = sum(sum(tokens) for _, tokens in groups)
    print(f"{len(groups)} groups, {teaching} of them with something to teach")
    print(f"{'looked at':>10}{'look flat':>12}{'are not':>10}{'teaching lost':>16}{'tokens saved':>15}")
    for first in range(2, max(len(rewards) for rewards, _ in groups)):
        flat = [(rewards, tokens) for rewards, tokens in groups if same(rewards[:first])]
        lost = sum(not same(rewards) for rewards, _ in flat)
        saved = sum(sum(tokens[first:]) for _, tokens in flat)
        shares = (len(flat) / len(groups), lost / max(1, len(flat)), lost / max(1, teaching), saved / max(1, drawn))
        print(f"{first:>10}{shares[0]:>12.1%}{shares[1]:>10.1%}{shares[2]:>16.1%}{shares[3]:>15.1%}")
    return 0


def read(folder: Path) -> list[tuple[list[float | None], list[int]]]:
    """Rewards and lengths of every group, in the order of its completions."""
    groups: dict[tuple[str, str], list[tuple[int, float | None, int]]] = defaultdict(list)
    for file in sorted(folder.glob("*.parquet")):
        for row in pq.read_table(file, columns=["task_id", "index", "reward", "tokens"]).to_pylist():
            groups[file.name, row["task_id"]].append((row["index"], row["reward"], row["tokens"]))
    ordered = [sorted(rows, key=lambda row: row[0]) for rows in groups.values()]
    return [([reward for _, reward, _ in rows], [tokens for *_, tokens in rows]) for rows in ordered]


def same(rewards: list[float | None]) -> bool:
    return len(set(rewards)) <= 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
