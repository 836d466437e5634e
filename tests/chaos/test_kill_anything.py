"""Whatever is killed, the run ends with every prompt trained on once and with the weights of a quiet run, to the bit.

The short form: one run in which every kind of worker is killed, and one whose driver is. The long form is a matrix
of victim x phase x seed (`make chaos`), with a table of who came back after how long. And because a quiet run is at
hand: its samples, replayed without an engine, give its losses and its weights.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytest
import torch

import grpo.cluster
from assay import metrics
from assay.checkpoint import step_folder
from assay.commands.fleet import Fleet, fleet
from tests.chaos import rig
from tests.chaos.engine import HoldingEngineActor
from tests.chaos.saboteur import Order, Saboteur

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(rig.ROOT), "OMP_NUM_THREADS": "1"}

#: of Ray: they hold nothing of ours, and look only now and then whether their raylet lives
RAYS_OWN = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")

pytestmark = [pytest.mark.ray, pytest.mark.sandbox]

#: one of each kind of worker, at work and at the wrong moment: `sync` 1 is the one before the first step
ORDERS = (
    Order("engine", "rollout", 2),
    Order("reward", "reward", 2),
    Order("supervisor", "reward", 3),
    Order("engine", "sync", 4),
    Order("rm", "reward", 4),
    Order("reward", "checkpoint", 2),
    Order("engine", "checkpoint", 2),
)


class Rig:
    def __init__(self, folder: Path, config: Path, machines: Fleet) -> None:
        self.folder, self.config, self.machines = folder, config, machines
        self.delays: dict[tuple[str, str], list[float]] = {}  #: (victim, phase) -> seconds lost over it
        self.quiet = self.train("quiet")
        ends = [row["time"] for row in metrics.read(folder / "quiet" / "grpo")]
        self.step_s = median(b - a for a, b in pairwise(ends))

    def train(self, name: str, *, resume: bool = False) -> dict[str, Any]:
        rig.train(self.config, self.folder / name, self.machines, resume=resume)
        return rig.traces(self.folder / name)

    def note(self, name: str, saboteur: Saboteur) -> None:
        """From each kill to the end of the step it fell into, less what a quiet step takes."""
        ends = [row["time"] for row in metrics.read(self.folder / name / "grpo")]
        for order, moment in saboteur.killed:
            after = next((end - moment - self.step_s for end in ends if end > moment), 0.0)
            self.delays.setdefault((order.victim, order.phase), []).append(max(0.0, after))

    def table(self) -> str:
        lines = [f"{'victim':11} {'phase':11} {'kills':>5} {'median lost':>12} {'worst':>8}"]
        for (victim, phase), lost in sorted(self.delays.items()):
            lines.append(f"{victim:11} {phase:11} {len(lost):5} {median(lost):10.1f} s {max(lost):6.1f} s")
        back = [recovery.seconds for recovery in self.machines.rollouts.recoveries]
        if back:
            lines.append(f"{len(back)} engines back with proof: median {median(back):.1f} s, worst {max(back):.1f} s")
        return "\n".join(["", f"a quiet step takes {self.step_s:.2f} s", *lines])


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory, tiny_policy: Path) -> Iterator[Rig]:
    folder, threads = tmp_path_factory.mktemp("chaos"), torch.get_num_threads()
    config = rig.prepare(folder, tiny_policy)
    settings = rig.settings(config, folder / "quiet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo.cluster, "EngineActor", HoldingEngineActor)
        # as in the driver that is killed; where vLLM ran in this process, torch.set_num_threads does nothing any more
        torch._C.set_num_threads(1)
        with fleet(settings, tiny_policy) as machines:
            machines.use_reward_model(settings.reward_model_path or "")
            made = Rig(folder, config, machines)
            yield made
            print(made.table())
        torch._C.set_num_threads(threads)


def test_a_quiet_run_trains_on_every_prompt_once_and_rewards_differ(chaos: Rig):
    taken = Counter(row["task_id"] for row in chaos.quiet["samples"])
    assert len(taken) == rig.STEPS * rig.PROMPTS and set(taken.values()) == {rig.GROUP}
    assert {row["reward_compiler"] for row in chaos.quiet["samples"]} == {0.0, 1.0}
    assert {row["reward_rm"] for row in chaos.quiet["samples"]} == {0.5}
    norms = [row["grad_norm"] for row in chaos.quiet["metrics"]]
    assert len(norms) == rig.STEPS and min(norms) > 0


def test_workers_killed_in_every_phase_leave_no_trace(chaos: Rig):
    chaos.machines.rollouts.recoveries.clear()
    with Saboteur(ORDERS, seed=1).at_work() as saboteur:
        noisy = chaos.train("noisy")
    assert {order for order, _ in saboteur.killed} == set(ORDERS)
    assert len(chaos.machines.rollouts.recoveries) == sum(order.victim == "engine" for order in ORDERS)
    chaos.note("noisy", saboteur)
    for part, value in chaos.quiet.items():
        assert noisy[part] == value, part


@pytest.mark.parametrize("seed", [0])
def test_a_killed_driver_is_taken_up_again_to_the_same_weights(chaos: Rig, seed: int):
    """While its second checkpoint is being written, beside the next step: only the first is valid then."""
    left = killed_and_resumed(chaos, "write", 2, seed)
    assert left == [step_folder(Path(), 2), Path(".step-00000004.partial")]


def test_the_recorded_samples_replayed_without_an_engine_give_the_same_run(chaos: Rig):
    done = subprocess.run(
        [sys.executable, "-m", "assay.cli", "grpo", str(chaos.config), f"run_dir={chaos.folder / 'replayed'}",
         "--replay", str(chaos.folder / "quiet")],
        cwd=rig.ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1].startswith(f"replay: {rig.STEPS} steps, largest difference ")
    replayed = rig.traces(chaos.folder / "replayed")
    for then, now in zip(chaos.quiet["metrics"], replayed["metrics"], strict=True):
        assert "weights/probe_max_abs" not in now, "nothing was proved, so nothing is claimed"
        for name in ("loss/total", "reward/mean", "grad_norm", "kl/reference", "mismatch/k3"):
            assert now[name] == pytest.approx(then[name], abs=1e-6), name
    assert replayed["weights"] == chaos.quiet["weights"]
    assert replayed["samples"] == chaos.quiet["samples"]


# -- the long form ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("phase", ["rollout", "reward", "logprobs", "update", "sync", "checkpoint"])
@pytest.mark.parametrize("victim", ["engine", "reward", "supervisor", "rm"])
def test_matrix_of_workers(chaos: Rig, victim: str, phase: str, seed: int):
    name = f"{victim}-{phase}-{seed}"
    with Saboteur([Order(victim, phase, 2)], seed).at_work() as saboteur:
        noisy = chaos.train(name)
    assert len(saboteur.killed) == 1
    chaos.note(name, saboteur)
    for part, value in chaos.quiet.items():
        assert noisy[part] == value, part


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("phase", ["rollout", "reward", "update", "sync", "checkpoint", "write"])
def test_matrix_of_drivers(chaos: Rig, phase: str, seed: int):
    """`sync` 5 is that of the second step: 1 is before the first, and each step has another when its engines rest."""
    killed_and_resumed(chaos, phase, {"checkpoint": 2, "write": 2, "sync": 5}.get(phase, 3), seed)


def killed_and_resumed(chaos: Rig, phase: str, turn: int, seed: int) -> list[Path]:
    """A process of its own runs `assay grpo`, kills itself, leaves no process behind, and is taken up here.

    Returns what stood among the checkpoints when it was dead.
    """
    name = f"driver-{phase}-{seed}"
    config = chaos.folder / f"{name}.yaml"
    config.write_text(chaos.config.read_text().replace(str(chaos.folder / "quiet"), str(chaos.folder / name)))
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.rig", str(config), phase, str(turn), str(seed)],
        cwd=rig.ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    family: list[psutil.Process] = []
    said = []
    assert driver.stderr is not None
    for line in driver.stderr:
        said.append(line)
        if line.startswith("step 1/"):
            family = [p for p in psutil.Process(driver.pid).children(recursive=True) if p.name() not in RAYS_OWN]
        if line.startswith("chaos: SIGKILL for driver"):
            break
    assert driver.wait(timeout=60) == -signal.SIGKILL, "".join(said[-30:])
    driver.stderr.close()
    _, left = psutil.wait_procs(family, timeout=30)
    assert family and not left, f"still running: {left}"
    recorded = (chaos.folder / name / "grpo" / "metrics.jsonl").read_text().count("\n")
    assert recorded < rig.STEPS and not (chaos.folder / name / "grpo" / "policy").exists()
    kept = sorted((chaos.folder / name / "grpo" / "checkpoints").glob("*"), reverse=True)
    started = time.monotonic()
    resumed = chaos.train(name, resume=True)
    for part, value in chaos.quiet.items():
        assert resumed[part] == value, part
    print(
        f"\ndriver killed in {phase} {turn}: {recorded} steps recorded, {time.monotonic() - started:.1f} s to the end"
    )
    return [Path(path.name) for path in kept]
