"""`assay recipe CONFIG`: every stage in order, on one fleet. Run again, it goes on where it was interrupted."""

from __future__ import annotations

import argparse
import shlex

from assay import config as configs
from assay.commands import stages
from assay.commands.context import Run, leave_report
from assay.commands.fleet import fleet
from assay.commands.schema import RunConfig
from evals.passk import EvalResult


def main(arguments: argparse.Namespace) -> int:
    try:
        return _recipe(arguments)
    except KeyboardInterrupt as stopped:
        again = shlex.join(["assay", "recipe", arguments.config, *arguments.overrides])
        raise KeyboardInterrupt(f"{str(stopped) or 'interrupted'}; go on with: {again}") from None


def _recipe(arguments: argparse.Namespace) -> int:
    config = configs.load(RunConfig, arguments.config, arguments.overrides)
    for section in ("sft", "preferences", "reward_model", "grpo"):
        config.need(section, "recipe")
    run = Run.open(config)
    try:
        results = _stages(run)
    finally:
        if (run.folder / "grpo" / "metrics.jsonl").is_file():
            leave_report(run.folder)
    print(summary(results))
    return 0


def _stages(run: Run) -> list[EvalResult]:
    stages.check_tasks(run)
    base = stages.base_policy(run)
    tuned = stages.sft(run, base)
    with fleet(run.config, tuned) as machines:
        rows = stages.preferences(run, machines)
        machines.use_reward_model(stages.reward_model(run, rows))
        resume = (run.folder / "grpo" / "metrics.jsonl").is_file()
        trained = stages.grpo(run, machines, tuned, "sft", resume=resume)
        policies = {"base": base, "sft": tuned, "grpo": trained}
        return [stages.evaluation(run, machines, name, policy) for name, policy in policies.items()]


def summary(results: list[EvalResult]) -> str:
    """The last lines of a run: pass@1 on held-out specifications with k/n and standard error."""
    rows = [f"{'held-out pass@1':<16} {'greedy':<28} sampled (T=1)"]
    rows += [f"{r.name:<16} {r.greedy!s:<28} {r.sampled!s}" for r in results]
    return "\n".join(rows)
