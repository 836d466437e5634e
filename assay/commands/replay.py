"""`assay grpo CONFIG --replay RUN`: the samples RUN recorded go through reward and trainer again, without an engine.

From the same policy the first steps give the same losses and rewards; what differs afterwards is what the
configuration changed. It is how a change of reward, loss or memory plan is tried on real samples in seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from assay import metrics
from assay.commands.context import Run, say
from assay.commands.schema import RunConfig
from assay.config import read_tree
from assay.errors import ConfigError
from rollouts.recorder import has_experts, recorded_steps

REPLAYED = "replayed"  #: the recorded samples, in the lineage of a run made from them
AGAIN = "a replay is not taken up again: start it anew, with another run_dir"
COMPARED = ("loss/total", "reward/mean", "grad_norm", "mismatch/k3")


def replay(config: RunConfig, recorded: Path, train: Callable[..., int]) -> int:
    """Train as `config` says on what `recorded` sampled, and print how the numbers of each step compare."""
    samples = recorded / "grpo" / "samples"
    steps = recorded_steps(samples)
    if not steps:
        raise ConfigError(f"--replay {recorded}: no samples below {samples}; name the folder of a run with GRPO steps")
    if recorded.resolve() == Path(config.run_dir).resolve():
        raise ConfigError(f"--replay {recorded}: that is this configuration's run_dir; give it another: run_dir=FOLDER")
    _check_prompts_per_step(config, recorded)
    assert config.grpo is not None
    if config.grpo.moe.replay == "r3" and not has_experts(samples, steps[0]):
        raise ConfigError(
            f"--replay {recorded}: its engine was not asked for the experts it chose, which grpo.moe.replay=r3 wants; "
            f"replay it with grpo.moe.replay=off or r2, or record a run with rollouts.engine.return_experts=true"
        )
    run = Run.open(_without_engine(config, recorded, len(steps)))
    run.lineage.record(REPLAYED, kind="samples", path=samples.resolve())
    code = train(run, samples=samples)
    print(compared(recorded / "grpo" / "metrics.jsonl", run.folder / "grpo" / "metrics.jsonl"))
    return code


def _check_prompts_per_step(config: RunConfig, recorded: Path) -> None:
    """A step learns from what the recorded one did; a setting that would change nothing is refused."""
    assert config.grpo is not None
    if not (recorded / "config.yaml").is_file():  # the samples of a run, taken elsewhere: a step that differs says so
        return
    then = (read_tree(recorded / "config.yaml").get("grpo") or {}).get("prompts_per_step", config.grpo.prompts_per_step)
    if then != config.grpo.prompts_per_step:
        raise ConfigError(
            f"--replay {recorded}: its steps are of {then} prompts, not of {config.grpo.prompts_per_step}; set "
            f"grpo.prompts_per_step={then}"
        )


def _without_engine(config: RunConfig, recorded: Path, steps: int) -> RunConfig:
    """As many steps as were recorded, no evaluation, and the start and reward model of the recorded run's own."""
    assert config.grpo is not None
    update: dict[str, object] = {
        "grpo": config.grpo.model_copy(update={"steps": min(config.grpo.steps, steps), "eval_every": 0})
    }
    own = recorded / "sft" / "policy"
    if own.is_dir() and config.anchored().policy.path == read_tree(recorded / "config.yaml")["policy"]["path"]:
        say(f"replay: from {own}, the policy the recorded run began with")
        update["policy"] = config.policy.model_copy(update={"path": str(own.resolve()), "init": None})
    if config.reward_model_path is None and (recorded / "reward_model" / "reward_model.json").is_file():
        update["reward_model_path"] = str((recorded / "reward_model").resolve())
    return config.model_copy(update=update)


def compared(recorded: Path, replayed: Path) -> str:
    """One line per step and number where they differ by more than 1e-6, or one line that says that none does."""
    if not recorded.is_file():
        print(f"{recorded}: no metrics to compare with", file=sys.stderr)
        return ""
    before = {row["step"]: row for row in metrics.read(recorded)}
    lines, worst = [], 0.0
    rows = [row for row in metrics.read(replayed) if row["step"] in before]
    for row in rows:
        for name in COMPARED:
            then, now = before[row["step"]].get(name), row.get(name)
            if then is None or now is None:
                continue
            worst = max(worst, abs(now - then))
            if abs(now - then) > 1e-6:
                lines.append(f"step {row['step']}: {name} {then:.6g} recorded, {now:.6g} replayed")
    return "\n".join([*lines, f"replay: {len(rows)} steps, largest difference {worst:.1e} over {', '.join(COMPARED)}"])
