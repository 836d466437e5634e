"""How long the whole recipe takes, where the time goes, and how much memory it needs at once.

    .venv/bin/python benchmarks/demo.py [CONFIG] [key.sub=value ...]

Runs `assay recipe`, and samples the proportional set size (shared pages counted once) of its whole process tree,
Ray's daemons and actors included, every second. Prints seconds per stage, seconds per GRPO phase, time to the first
GRPO step, and the peak. Needs a run_dir that does not exist yet.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median

import psutil
import yaml

from assay.metrics import PHASES

ROOT = Path(__file__).resolve().parent.parent


def main(argv: list[str]) -> int:
    config, overrides = (argv[0], argv[1:]) if argv and "=" not in argv[0] else ("configs/demo.yaml", argv)
    run = Path(next((o.split("=", 1)[1] for o in overrides if o.startswith("run_dir=")), "") or _run_dir(config))
    if run.exists():
        print(f"{run} exists; remove it or give run_dir=", file=sys.stderr)
        return 2
    started = time.time()
    process = subprocess.Popen([sys.executable, "-m", "assay.cli", "recipe", config, *overrides], cwd=ROOT)
    peak, by_name = _watch(process)
    total = time.time() - started
    if process.returncode:
        return process.returncode
    print(f"\nwhole recipe      {total:7.0f} s")
    for artifact in json.loads((run / "lineage.json").read_text())["artifacts"]:
        print(f"  {artifact['name']:<16}{_seconds(artifact):7.0f} s")
    rows = [json.loads(line) for line in (run / "grpo" / "metrics.jsonl").read_text().splitlines()]
    print(f"first GRPO step   {rows[0]['time'] - started:7.0f} s after the start")
    print(f"GRPO step, median {median(row['time/step_s'] for row in rows):7.2f} s, of which")
    for phase in PHASES:
        values = [row[f"time/{phase}_s"] for row in rows if f"time/{phase}_s" in row]
        if values:
            print(f"  {phase:<16}{median(values):7.2f} s  (in {len(values)} of {len(rows)} steps)")
    print(f"peak memory       {peak / 2**30:7.2f} GiB, of which")
    for name, size in sorted(by_name.items(), key=lambda item: -item[1])[:8]:
        print(f"  {name:<24}{size / 2**30:7.2f} GiB")
    return 0


def _run_dir(config: str) -> str:
    return str(ROOT / yaml.safe_load((ROOT / config).read_text())["run_dir"])


def _seconds(artifact: dict[str, str]) -> float:
    from datetime import datetime

    if not artifact.get("started"):
        return 0.0
    return (datetime.fromisoformat(artifact["finished"]) - datetime.fromisoformat(artifact["started"])).total_seconds()


def _watch(process: subprocess.Popen[bytes]) -> tuple[int, dict[str, int]]:
    """Peak of the tree's proportional set size in bytes, and by process name at that moment."""
    peak, at_peak = 0, dict[str, int]()
    done = threading.Event()

    def sample() -> None:
        nonlocal peak, at_peak
        root = psutil.Process(process.pid)
        while not done.wait(1.0):
            now: dict[str, int] = {}
            try:
                for p in [root, *root.children(recursive=True)]:
                    now[p.name()] = now.get(p.name(), 0) + p.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            if sum(now.values()) > peak:
                peak, at_peak = sum(now.values()), now

    watcher = threading.Thread(target=sample, daemon=True)
    watcher.start()
    process.wait()
    done.set()
    watcher.join()
    return peak, at_peak


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
