"""The stages of a recipe. Each reads what earlier ones left in the run folder and leaves its own part there."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from assay.checkpoint import writing
from assay.commands.context import Run, say
from assay.commands.fleet import Fleet
from assay.commands.ranks import everywhere, held
from assay.errors import ConfigError, DataError
from assay.lineage import data_entry, loaded_from, mark_of
from assay.metrics import MetricsLog
from assay.policy import check_folder, create_policy
from assay.progress import Progress, progress
from assay.stopping import Stopping
from assay.types import ScoredGroup, Verdict
from evals.evaluate import evaluate
from evals.passk import EvalResult
from rewards.model.config import RewardModelConfig
from rewards.scorer import Scorer, check_answers, probes
from rollouts.engine import Sampling
from sft.config import SFTConfig

CHUNK = 64  #: prompts sampled and judged at once for the reward model: few enough to show progress


def base_policy(run: Run) -> Path | str:
    """The policy everything starts from: a checkpoint that exists, or a random one with a tokenizer of its own."""
    config = run.config.policy
    if config.path is not None:
        check_folder(config.path)
        if "base" not in run.lineage.artifacts:  # recorded anew, it would look younger than what was made from it
            run.lineage.record("base", kind="policy", path=config.path, config_section=config)
        return config.path
    from assay.tokenizer import train_tokenizer

    folder = run.folder / "policy"
    data = [data_entry(run.demonstrations)]
    with run.stage("base", folder, kind="policy", data=data, config_section=config) as todo:
        if todo:
            tokenizer = train_tokenizer(_texts(run.demonstrations), vocab_size=config.vocab_size, pieces=config.pieces)
            create_policy(config, tokenizer, run.config.seed, folder)
    return folder


def _texts(demonstrations: Path) -> list[str]:
    from sft.data import read_dialogues

    return [message.content for dialogue in read_dialogues(demonstrations) for message in dialogue.messages]


def check_tasks(run: Run) -> None:
    """Reference solutions must pass and an empty answer must fail, before anything is trained on the tasks."""
    from rewards.check_tasks import check_tasks as check

    heldout = run.heldout_tasks if run.has_heldout() else []
    shared = {task.messages for task in run.train_tasks} & {task.messages for task in heldout}
    if shared:
        raise DataError(
            f"{len(shared)} held-out prompts stand among the training prompts too; remove them from one side"
        )
    every = [*run.train_tasks, *heldout]
    check_answers(every)
    tasks = [task for task in every if task.reference is not None]
    if run.config.tasks.check == "sample":
        tasks = random.Random(run.config.seed).sample(tasks, min(64, len(tasks)))
    if run.config.tasks.check == "none" or not (tasks or probes(every)):
        return
    scorer = Scorer(run.config.rewards)
    try:
        scorer.probe(every)
        report = check(tasks, scorer)
    finally:
        scorer.close()
    say(f"tasks: {len(run.train_tasks)} for training; {report.checked} checked, isolation {report.isolation}")
    if report.disagreements:
        first = report.disagreements[0]
        raise DataError(
            f"{len(report.disagreements)} of {len(tasks)} checked tasks disagree with their tests, first {first}; "
            f"mend or remove them (`assay check-tasks` lists all)"
        )


def sft(run: Run, base: Path | str) -> Path:
    """Supervised fine-tuning on the demonstrations."""
    config = run.config.need("sft", "sft")
    out = run.folder / "sft"
    data, stop = [data_entry(run.demonstrations)], Stopping(run.limit)
    with run.stage("sft", out / "policy", kind="policy", parents=["base"], data=data, config_section=config) as todo:
        if todo:
            with training_log(out, "sft") as log, stop:
                seeded = config.model_copy(update={"seed": run.config.seed})
                job = partial(_sft, seeded, base, run.demonstrations, out)
                if everywhere(job, log=log, stop=stop) is None:
                    raise KeyboardInterrupt(stop.why)
    _before_the_next(stop)
    return out / "policy"


def _sft(config: SFTConfig, base: Path | str, demonstrations: Path, out: Path, **here: Any) -> Path | None:
    from sft.data import read_dialogues
    from sft.train import train_sft

    # policy.dtype is GRPO's, and held weights in 16 bits lose small updates
    return train_sft(config, base, read_dialogues(demonstrations), out, dtype="float32", **here)


def _before_the_next(stop: Stopping) -> None:
    """A stage that was asked to stop in its last step is whole, and nothing follows it."""
    if stop.asked:
        raise KeyboardInterrupt(stop.why)


def preferences(run: Run, fleet: Fleet) -> Path:
    """Sample the SFT policy on training prompts and label each program by its tests: the reward model's data."""
    config = run.config.need("preferences", "preferences")
    folder = run.folder / "preferences"
    row = run.data_row("train")
    with run.stage("preferences", folder, kind="data", parents=["sft"], data=[row], config_section=config) as todo:
        if todo:
            _sample_preferences(run, fleet, config, folder)
    return folder


def _sample_preferences(run: Run, fleet: Fleet, config: Any, folder: Path) -> None:
    from rollouts.recorder import SampleRecorder

    sampling = run.config.rollouts.sampling
    fleet.hold(run.folder / "sft" / "policy")
    tasks, _ = fleet.rollouts.within(run.train_tasks, sampling.max_prompt_tokens)
    tasks = random.Random(run.config.seed).sample(tasks, min(config.prompts, len(tasks)))
    drawing = Sampling(
        temperature=config.temperature,
        max_tokens=sampling.max_completion_tokens,
        samples=config.samples_per_prompt,
        seed=run.config.seed + 17,
    )
    scored: list[ScoredGroup] = []
    with progress(len(tasks), "preferences") as bar:
        stop = Stopping(run.limit)  # SIGINT and SIGTERM stop at once: there is no checkpoint of samples to wait for
        for first in range(0, len(tasks), CHUNK):
            if stop():
                raise KeyboardInterrupt(stop.why)
            chunk = tasks[first : first + CHUNK]
            drawn = replace(drawing, seed=drawing.seed + first)
            scored += fleet.rewards.judge(fleet.rollouts.generate(chunk, drawn))
            bar.advance(len(chunk))
    with writing(folder, {"kind": "preferences"}) as partial:
        SampleRecorder(partial).write(
            0, scored, [[None] * len(g.results) for g in scored], [g.group.task.messages[-1].content for g in scored]
        )
        with (partial / "rows.jsonl").open("w", encoding="utf-8") as out:
            for group in scored:
                for completion, result in zip(group.group.completions, group.results, strict=True):
                    label = None if result.verdict is Verdict.INFRA else result.verdict is Verdict.AC
                    out.write(json.dumps(_preference(group.group, completion, label)) + "\n")


def _preference(group: Any, completion: Any, passed: bool | None) -> Mapping[str, Any]:
    return {
        "task_id": group.task.id,
        "source": group.task.source,
        "family": group.task.family,
        "prompt_ids": group.prompt_ids,
        "completion_ids": completion.token_ids,
        "passed": passed,
    }


def evaluation(run: Run, fleet: Fleet, name: str, policy: Path | str, *, again: bool = False) -> EvalResult:
    """pass@1 of one policy on the held-out tasks, written to RUN/eval/NAME.json.

    Kept if it is there and of the same weights, unless `again`.
    """
    path, mark = run.folder / "eval" / f"{name}.json", mark_of(loaded_from(policy))
    if not again and path.is_file() and (kept := EvalResult.read(path)).policy == mark:
        return kept
    fleet.hold(policy)
    config, sampling = run.config, run.config.rollouts.sampling
    tasks, left_out = fleet.rollouts.within(run.heldout_tasks, sampling.max_prompt_tokens)
    result = evaluate(
        name,
        tasks,
        fleet.rollouts,
        fleet.rewards,
        config.eval,
        max_completion_tokens=sampling.max_completion_tokens,
        seed=config.seed + 7,
    )
    result = replace(result, policy=mark)
    result.write(path)
    without = f" ({left_out} prompts too long)" if left_out else ""
    say(f"pass@1 held out, {name}: greedy {result.greedy}, sampled {result.sampled}{without}")
    return result


def grpo(run: Run, fleet: Fleet, start: Path | str, parent: str, *, resume: bool = False) -> Path | None:
    """GRPO from `start`. Returns the trained policy's folder, or None where the run was asked to stop early."""
    from grpo import loop
    from grpo.record import RunRecord
    from grpo.trainer import PolicyTrainer
    from rollouts.tasks import TaskStream

    config, sampling = run.config.need("grpo", "grpo"), run.config.rollouts.sampling
    out = run.folder / "grpo"
    make = partial(
        PolicyTrainer,
        start,
        config,
        dtype=run.config.policy.dtype,
        temperature=sampling.temperature,
        pad_id=fleet.tokenizer.pad_token_id,
        lora=run.config.policy.lora,
        experts=run.config.policy.experts,
        attention=run.config.policy.attention,
    )
    trainer: PolicyTrainer = held(make)
    tasks, left_out = fleet.rollouts.within(run.train_tasks, sampling.max_prompt_tokens)
    if left_out:
        say(f"tasks: {left_out} of {len(tasks) + left_out} left out, their prompts are longer than "
            f"max_prompt_tokens={sampling.max_prompt_tokens}")  # fmt: skip

    stop = Stopping(run.limit)
    # what walks an adapted model's modules must not do so beside its forward pass, in which PEFT changes them
    beside = config.checkpoint_async and run.config.policy.lora is None
    record = RunRecord(
        out,
        config.steps,
        keep_last=config.keep_last,
        snapshot=_snapshots(trainer, fleet.tokenizer, copied=beside),
        background=beside,
        tasks=run.data_row("train")["sha256"],
        start=mark_of(loaded_from(start)),
        stop=stop,
    )
    first, cursor = 0, 0
    if resume and not run.made("grpo", out / "policy"):  # then its checkpoints may be gone
        checkpoint, first, cursor = record.resume(trainer.restore, config.checkpoint_every)
        say(f"grpo: resumed from {checkpoint or start}, {first} of {config.steps} steps done")
    parts = loop.Parts(
        tasks=TaskStream(tasks, run.config.seed, cursor, record.left),
        rollouts=fleet.rollouts,
        rewards=fleet.rewards,
        trainer=trainer,
        sync=lambda: fleet.update(trainer),
        rest=fleet.rest,
        evaluate=_during(run, fleet) if run.has_heldout() else None,
        recorded=fleet.recorded(tasks),
    )
    parents = [parent, *({"replayed"} & run.lineage.artifacts.keys())]
    with run.stage("grpo", out / "policy", kind="policy", parents=parents, data=[run.data_row("train")],
                   config_section=config) as todo:  # fmt: skip
        if not todo:
            return out / "policy"
        with record, stop:
            done = loop.run(config, sampling, parts, record, seed=run.config.seed, start=first, stop=stop)
            if done < config.steps:
                if record.last is None or record.last < done:
                    record.checkpoint(done)
                record.wait()
                raise KeyboardInterrupt(stop.why)
        with writing(out / "policy", {"kind": "policy", "steps": done}) as folder:
            trainer.export(folder)
            fleet.tokenizer.save_pretrained(str(folder))
    _before_the_next(stop)
    return out / "policy"


def _snapshots(trainer: Any, tokenizer: Any, *, copied: bool) -> Callable[[], Callable[[Path], None]]:
    """What `RunRecord` takes of a trainer: its state, with a tokenizer beside the weights."""
    own = deepcopy(tokenizer)  # one that encodes in another thread cannot be read meanwhile

    def snapshot() -> Callable[[Path], None]:
        save = trainer.snapshot(copied)

        def write(folder: Path) -> None:
            save(folder)
            own.save_pretrained(str(folder / "model"))

        return write

    return snapshot


def _during(run: Run, fleet: Fleet) -> Any:
    """Held-out pass@1 while training, on the weights the engines hold."""
    config, sampling = run.config, run.config.rollouts.sampling
    tasks, _ = fleet.rollouts.within(run.heldout_tasks, sampling.max_prompt_tokens)
    chosen = random.Random(config.seed).sample(tasks, min(config.grpo.eval_limit if config.grpo else 0, len(tasks)))

    def measure(step: int) -> Mapping[str, float]:
        result = evaluate(
            f"step {step}",
            chosen,
            fleet.rollouts,
            fleet.rewards,
            config.eval.model_copy(update={"limit": None, "samples": 1}),
            max_completion_tokens=sampling.max_completion_tokens,
            seed=config.seed + 7,
        )
        rates = {"pass@1/heldout_greedy": result.greedy, "pass@1/heldout_sampled": result.sampled}
        return {name: rate.rate for name, rate in rates.items() if rate is not None and rate.rate is not None}

    return measure


def reward_model(run: Run, rows: Path) -> Path:
    """Train the reward model on the labelled samples, initialised from the SFT policy."""
    config = run.config.need("reward_model", "reward-model")
    if not (rows / "rows.jsonl").is_file():
        raise ConfigError(f"{run.folder} holds no judged samples yet: run `assay preferences` first")
    out = run.folder / "reward_model"
    data, stop = [data_entry(rows / "rows.jsonl")], Stopping(run.limit)
    with run.stage(
        "reward_model", out, kind="reward model", parents=["sft", "preferences"], data=data, config_section=config
    ) as todo:
        if todo:
            logs = run.folder / "reward_model_log"
            with training_log(logs, "reward model") as log, stop:
                seeded = config.model_copy(update={"seed": run.config.seed})
                tuned = run.folder / "sft" / "policy"
                job = partial(_reward_model, seeded, tuned, rows / "rows.jsonl", out, logs / "checkpoints")
                if everywhere(job, log=log, stop=stop) is None:
                    raise KeyboardInterrupt(stop.why)
            (logs / "metrics.jsonl").replace(out / "metrics.jsonl")
            shutil.rmtree(logs)
    facts = json.loads((out / "reward_model.json").read_text(encoding="utf-8"))
    say(f"reward model: held-out accuracy {facts.get('heldout_accuracy')}, base rate {facts.get('base_rate')}")
    _before_the_next(stop)
    return out


def _reward_model(
    config: RewardModelConfig, tuned: Path, rows: Path, out: Path, checkpoints: Path, **here: Any
) -> Path | None:
    from rewards.model.data import read_samples
    from rewards.model.train import train_reward_model

    # policy.dtype is GRPO's, and held weights in 16 bits lose small updates
    samples = read_samples(rows)
    return train_reward_model(config, tuned, samples, out, dtype="float32", checkpoints=checkpoints, **here)


@contextmanager
def training_log(folder: Path, label: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A callback that takes a trainer's rows to `folder/metrics.jsonl` and to a progress bar."""
    log = MetricsLog(folder)
    with ExitStack() as stack:
        stack.callback(log.close)
        bar: Progress[int] | None = None

        def take(row: dict[str, Any]) -> None:
            nonlocal bar
            step, steps = int(row["step"]), int(row["steps"])
            if log.last_step is not None and step <= log.last_step:  # resumed from an earlier checkpoint
                log.truncate_after(step - 1)
            log.write(step, {k: v for k, v in row.items() if k not in ("step", "steps") and v is not None})
            if bar is None:
                bar = stack.enter_context(progress(steps, label))
                bar.advance(step - 1)
            bar.advance(1, note=f"loss {row['loss']:.3f}")

        yield take
