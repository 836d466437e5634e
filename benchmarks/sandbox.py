"""What a box costs, beside what people use instead, in one run on one machine.

    .venv/bin/python benchmarks/sandbox.py [--rounds 60] [--rollouts 512] [--image assay-sandbox]

The ways take turns, so that whatever else the machine does meets all of them; read the ratios, not the milliseconds.
`fork` is a bare os.fork of this process, which holds all of assay; `fork (small)` that of an interpreter that waits and
holds what a box's holds; `exec` starts one; `harness` is a process per sample that calls exec() on it, as the HumanEval
harness does, without any wall. CPU is the processor time of the host, its supervisor and all that it reaped, per run:
what a core that has nothing else to do can be asked for. Needs nothing else to run beside it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from assay.errors import AssayError
from assay.types import Message, Task, Verdict
from rewards import building
from rewards.bench import Bench
from rewards.config import RewardsConfig, SandboxConfig
from rewards.languages import find
from rewards.reward_check import as_group, quantile
from rewards.sandbox import warm
from rewards.sandbox.base import PYTHON_FLAGS, Job, Limits, Sandbox
from rewards.sandbox.docker import DockerSandbox
from rewards.sandbox.local import LocalSandbox
from rewards.sandbox.tiers import open_sandbox
from rewards.scorer import Scorer

SCRIPT = "x = sum(range(100))\nprint(x)\n"
TESTS = 20


def by_fork() -> None:
    child = os.fork()
    if child == 0:
        exec(compile("x = sum(range(100))", "s", "exec"), {})
        os._exit(0)
    os.waitpid(child, 0)


_WAITING = """
import importlib, os, sys
for name in sys.argv[1].split(","): importlib.import_module(name)
import gc; gc.collect(); gc.freeze()
while os.read(0, 1):
    child = os.fork()
    if child == 0:
        exec(compile("x = sum(range(100))", "s", "exec"), {})
        os._exit(0)
    os.waitpid(child, 0)
    os.write(1, b".")
"""


def by_small_fork() -> Callable[[], None]:
    """A bare fork of an interpreter like a supervisor's; with a byte there and back, some 0.05 ms."""
    waiting = subprocess.Popen(
        [LocalSandbox().python, *PYTHON_FLAGS, "-c", _WAITING, ",".join(warm.PRELOADED)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
    )  # fmt: skip

    def fork() -> None:
        assert waiting.stdin and waiting.stdout
        waiting.stdin.write(b".")
        assert waiting.stdout.read(1) == b"."

    return fork


def by_exec() -> None:
    python = LocalSandbox().python
    subprocess.run([python, *PYTHON_FLAGS, "-c", SCRIPT], check=True, capture_output=True)


def _unsafe(queue: Any) -> None:
    names: dict[str, Any] = {}
    exec("x = sum(range(100))", names)
    queue.put(names["x"])


def by_harness() -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_unsafe, args=(queue,))
    process.start()
    assert queue.get(timeout=10) == 4950
    process.join()


def by_docker_run(image: str) -> None:
    subprocess.run(
        ["docker", "run", "--rm", "--network=none", image, "/usr/bin/python3", *PYTHON_FLAGS, "-c", SCRIPT],
        check=True, capture_output=True,
    )  # fmt: skip


def in_box(sandbox: Sandbox, *, warm: bool) -> Callable[[], None]:
    job = Job(argv=(sandbox.python, *PYTHON_FLAGS, "main.py"), files={"main.py": SCRIPT.encode()}, warm=warm)

    def run() -> None:
        assert sandbox.run(job).stdout == b"4950\n"

    return run


CPP = {
    "hello": '#include <bits/stdc++.h>\nint main() { std::puts("7"); }\n',
    "sort and map": """#include <bits/stdc++.h>
using namespace std;
int main() {
    int n; cin >> n; vector<int> v(n); map<int, int> m;
    for (auto &x : v) { cin >> x; m[x]++; }
    sort(v.begin(), v.end()); cout << v[0] << " " << m.size() << endl;
}
""",
}


def compiles(tier: str, image: str, rounds: int) -> None:
    """C++ with <bits/stdc++.h>, with the precompiled header and, by a macro in front that it does not fit, without."""
    row = find("cpp")
    with closing(open_sandbox(SandboxConfig(tier=tier, image=image))) as sandbox:  # type: ignore[arg-type]
        bench = Bench(sandbox=sandbox, limits=Limits())
        first = time.perf_counter()
        building.build(bench, row, CPP["hello"])
        print(f"\n{tier}: the first compile, which makes the header if need be: {time.perf_counter() - first:.1f} s")
        ways = {
            f"{name}{', plain' if plain else ''}": partial(building.build, bench, row, plain + program)
            for name, program in CPP.items()
            for plain in ("", "int before;\n")
        }
        seconds = take_turns(ways, rounds, all_rounds=True)
    print(f"{'a C++ compile':<24}{'p50 ms':>9}{'p99 ms':>9}{'compiles/s':>12}{'x plain':>9}")
    for name, taken in seconds.items():
        middle, plain = median(taken), median(seconds[name.removesuffix(", plain") + ", plain"])
        figures = f"{1e3 * middle:>9.0f}{1e3 * quantile(taken, 0.99):>9.0f}{1 / middle:>12.1f}"
        print(f"{name:<24}{figures}{plain / middle:>9.2f}")


def take_turns(ways: dict[str, Callable[[], Any]], rounds: int, all_rounds: bool = False) -> dict[str, list[float]]:
    """Seconds of every way in every round; slow ways (over 0.2 s) take part in every tenth."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for name, way in ways.items():
        way()  # what happens the first time is not the question
        seconds[name].clear()
    for number in range(rounds):
        for name, way in ways.items():
            if not all_rounds and number % 10 and seconds[name] and seconds[name][0] > 0.2:
                continue
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def runs(image: str, rounds: int) -> None:
    local = LocalSandbox()
    ways: dict[str, Callable[[], None]] = {
        "fork (bare)": by_fork,
        "fork (small)": by_small_fork(),
        "exec (bare)": by_exec,
        "harness (no wall)": by_harness,
        "local, warm": in_box(local, warm=True),
        "local, started": in_box(local, warm=False),
    }
    container = DockerSandbox(image)
    try:
        assert container.isolation
        ways["docker, warm"] = in_box(container, warm=True)
        ways["docker, started"] = in_box(container, warm=False)
        ways["docker run"] = lambda: by_docker_run(image)
    except AssayError as problem:
        print(f"docker tier left out: {problem}")
    try:
        seconds = take_turns(ways, rounds)
    finally:
        local.close()
        container.close()
    base, small = median(seconds["fork (bare)"]), median(seconds["fork (small)"])
    print(f"\n{'a Python run':<20}{'p50 ms':>9}{'p99 ms':>9}{'x fork':>8}{'x small':>8}{'runs/s':>8}")
    for name, row in seconds.items():
        middle = median(row)
        against = f"{middle / base:>8.2f}{middle / small:>8.2f}"
        print(f"{name:<20}{1e3 * middle:>9.2f}{1e3 * quantile(row, 0.99):>9.2f}{against}{1 / middle:>8.0f}")


def alone(rounds: int) -> None:
    """Warm runs one after another and nothing between: wall and processor time of each."""
    with LocalSandbox() as local:
        way = in_box(local, warm=True)
        way()
        assert local._supervisor is not None
        pid = local._supervisor.pid
        wall, cpu = time.perf_counter(), _cpu_s(os.getpid()) + _cpu_s(pid)
        for _ in range(rounds):
            way()
        wall, cpu = time.perf_counter() - wall, _cpu_s(os.getpid()) + _cpu_s(pid) - cpu
    print(f"local, warm, {rounds} in a row: {1e3 * wall / rounds:.2f} ms, {rounds / wall:.0f} runs/s; "
          f"CPU {1e3 * cpu / rounds:.2f} ms, {rounds / cpu:.0f} runs/s/core")  # fmt: skip


def _cpu_s(pid: int) -> float:
    """Processor time of a process and of its children that were waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def rewards(rollouts: int, tier: str, image: str) -> None:
    """Score `rollouts` answers with 20 tests each, one worker, and say where the time goes."""
    tests = [{"args": [n], "expected": n + 1} for n in range(TESTS)]
    answer = {"language": "python", "entry_point": "f", "parameters": [{"name": "n", "type": "int"}],
              "returns": "int", "tests": tests}  # fmt: skip
    task = Task(id="b", messages=(Message(role="user", content="f"),), verifier="function", answer=answer)
    texts = [f"```python\n# {n}\ndef f(n):\n    return n + {1 if n % 3 else 2}\n```" for n in range(rollouts)]
    scorer = Scorer(RewardsConfig(sandbox=SandboxConfig(tier=tier, image=image)))  # type: ignore[arg-type]
    try:
        scorer.score_group(as_group(task, texts[:1] * 2))
        started = time.perf_counter()
        results = scorer.score_group(as_group(task, texts))
        took = time.perf_counter() - started
    finally:
        scorer.close()
    infra = sum(r.verdict is Verdict.INFRA for r in results)
    each = [r.seconds for r in results]
    used = sum(test.cpu_s for r in results for test in r.tests)
    print(f"\n{rollouts} answers x {TESTS} tests, one {tier} worker: {took:.2f} s, {rollouts / took:.0f} answers/s, "
          f"{rollouts * TESTS / took:.0f} tests/s")  # fmt: skip
    print(f"an answer: p50 {1e3 * median(each):.1f} ms, p99 {1e3 * quantile(each, 0.99):.1f} ms; INFRA {infra}")
    print(f"of the {took:.2f} s: answers' own processor time {used:.2f}, boxes, driver and judging {took - used:.2f}")
    again = Scorer(RewardsConfig(sandbox=SandboxConfig(tier=tier, image=image)))  # type: ignore[arg-type]
    try:
        started = time.perf_counter()
        again.score_group(as_group(task, texts[:1] * rollouts))
        print(f"the same answer {rollouts} times: {time.perf_counter() - started:.3f} s (run once)")
    finally:
        again.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--rollouts", type=int, default=512)
    parser.add_argument("--image", default="assay-sandbox")
    arguments = parser.parse_args()
    runs(arguments.image, arguments.rounds)
    alone(10 * arguments.rounds)
    compiles("local", arguments.image, max(5, arguments.rounds // 6))
    rewards(arguments.rollouts, "local", arguments.image)
    return 0


if __name__ == "__main__":
    sys.exit(main())
