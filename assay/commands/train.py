"""One stage at a time: `assay sft | preferences | reward-model | grpo | eval`."""

from __future__ import annotations

import argparse
import shlex
from hashlib import sha256
from pathlib import Path

from assay import config as configs
from assay.checkpoint import latest_valid
from assay.commands import stages
from assay.commands.context import Run, leave_report
from assay.commands.fleet import fleet
from assay.commands.replay import AGAIN, REPLAYED, replay
from assay.commands.schema import RunConfig
from assay.errors import ConfigError, InfraFailure
from assay.policy import check_folder
from assay.sizes import check_alike


def main(arguments: argparse.Namespace) -> int:
    if arguments.command == "grpo" and arguments.resume is not None:
        if arguments.replay is not None:
            raise ConfigError("--resume and --replay exclude each other: a replay is a run of its own, from the start")
        first = [] if arguments.config is None else [arguments.config]  # an override: there is no CONFIG before it
        return _grpo(Run.reopen(arguments.resume, [*first, *arguments.overrides]), resume=True)
    if arguments.config is None:
        replaying = (
            " beside --replay" if getattr(arguments, "replay", None) else ", or a run to take up with --resume RUN"
        )
        raise ConfigError(f"name a CONFIG{replaying}")
    config = configs.load(RunConfig, arguments.config, arguments.overrides)
    if arguments.command == "grpo":
        config.need("grpo", "grpo")
        if arguments.replay is not None:
            return replay(config, Path(arguments.replay), _grpo)
    try:
        return _stage(arguments, Run.open(config, alone=arguments.command != "eval"))
    except KeyboardInterrupt as stopped:
        if arguments.command == "grpo":  # says itself how to go on
            raise
        again = shlex.join(["assay", arguments.command, arguments.config, *arguments.overrides])
        raise KeyboardInterrupt(f"{str(stopped) or 'stopped'}; go on with: {again}") from None


def _stage(arguments: argparse.Namespace, run: Run) -> int:
    return {"sft": _sft, "preferences": _preferences, "reward-model": _reward_model, "grpo": _grpo}.get(
        arguments.command, lambda run: _eval(run, arguments.policy)
    )(run)


def _sft(run: Run) -> int:
    print(stages.sft(run, stages.base_policy(run)))
    return 0


def _preferences(run: Run) -> int:
    tuned = run.folder / "sft" / "policy"
    with fleet(run.config, tuned) as machines:
        print(stages.preferences(run, machines))
    return 0


def _reward_model(run: Run) -> int:
    print(stages.reward_model(run, run.folder / "preferences"))
    return 0


def _grpo(run: Run, resume: bool = False, samples: Path | None = None) -> int:
    """On the run's own SFT policy where there is one, else on policy.path."""
    if samples is None and REPLAYED in run.lineage.artifacts:
        made = run.lineage.artifacts[REPLAYED]["path"]
        raise ConfigError(f"{run.folder}: made by --replay from {made}, and {AGAIN}")
    if not resume and (run.folder / "grpo" / "metrics.jsonl").is_file():
        remedy = AGAIN if samples is not None else f"take it up with --resume {run.folder}, or choose another"
        raise ConfigError(f"{run.folder} holds a GRPO run; {remedy}")
    if resume and not (run.folder / "grpo" / "metrics.jsonl").is_file():
        raise ConfigError(f"{run.folder}: no GRPO step was made here, so nothing to resume; run `assay grpo CONFIG`")
    stages.check_tasks(run)
    own = run.folder / "sft" / "policy"
    start, parent = (own, "sft") if own.is_dir() else (stages.base_policy(run), "base")
    reward_model = run.config.reward_model_path or _existing(run.folder / "reward_model")
    if run.config.rewards.reward != "compiler" and reward_model is None:
        raise ConfigError(
            f"rewards.reward={run.config.rewards.reward} needs a reward model: set reward_model_path, or run "
            f"`assay reward-model` first"
        )
    _look_before_the_fleet(run, start, reward_model, resume)
    then = f"go on with: assay grpo --resume {run.folder}"
    if samples is not None:  # a resumed one would draw anew
        then = AGAIN
    try:
        with fleet(run.config, start, samples) as machines:
            if reward_model is not None:
                machines.use_reward_model(reward_model)
            print(stages.grpo(run, machines, start, parent, resume=resume))
    except InfraFailure as failure:
        raise InfraFailure(f"{failure}; {then}") from None
    except KeyboardInterrupt as stopped:
        raise KeyboardInterrupt(f"{str(stopped) or 'stopped'}; {then}") from None
    finally:
        if (run.folder / "grpo" / "metrics.jsonl").is_file():
            leave_report(run.folder)
    return 0


def _eval(run: Run, policy: str | None) -> int:
    chosen = policy or run.config.policy.path
    if chosen is None:
        raise ConfigError("name the checkpoint with --policy FOLDER, or set policy.path")
    check_folder(chosen)
    with fleet(run.config, chosen) as machines:
        where = str(Path(chosen).resolve() if Path(chosen).exists() else chosen)
        name = "-".join([*Path(chosen).parts[-2:], sha256(where.encode()).hexdigest()[:6]]).strip("/")
        result = stages.evaluation(run, machines, name, chosen, again=True)
    print(f"greedy {result.greedy}, sampled {result.sampled}")
    return 0


def _look_before_the_fleet(run: Run, start: Path | str, reward_model: Path | str | None, resume: bool) -> None:
    """What would end the run in half a minute, said now. Raises CheckpointError."""
    check_folder(start)
    if reward_model is not None:
        check_folder(reward_model, "ForSequenceClassification")
    newest = latest_valid(run.folder / "grpo" / "checkpoints") if resume else None
    if newest is not None and Path(start).is_dir():
        check_alike(newest / "model", Path(start))


def _existing(folder: Path) -> Path | None:
    return folder if (folder / "reward_model.json").is_file() else None
