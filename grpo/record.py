"""What a GRPO run leaves behind: metrics, samples, checkpoints; and how a later process takes up from there."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from assay.background import Background
from assay.checkpoint import latest_valid, read_marker, sweep, writing_step
from assay.errors import CheckpointError
from assay.metrics import MetricsLog, Timer, read, time_table
from assay.stopping import Stopping
from assay.types import FinishReason, ScoredGroup, Verdict
from grpo.batch import Advantage
from grpo.keeping import write_groups
from rollouts.recorder import SampleRecorder

SAVED = "checkpointed"  #: an empty file: a checkpoint was made here once
FROM = {"tasks": "the file of training tasks", "start": "the policy this run began from"}


class RunRecord:
    """The folder RUN/grpo. Rows, samples and checkpoints carry the number of steps done."""

    def __init__(
        self,
        folder: Path,
        steps: int,
        *,
        keep_last: int,
        snapshot: Callable[[], Callable[[Path], None]],
        background: bool = False,
        tasks: str = "",
        start: str = "",
        stop: Stopping | None = None,
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    ) -> None:
        """`snapshot()` is what writes the state as it is at that moment, later: `background` writes it beside the
        next steps, and then it must hold a copy. `tasks` is a digest of what the cursor counts in, `start` one of the
        policy that was trained from. `stop` is told how long a checkpoint takes."""
        self.folder, self.steps, self._keep_last = folder, steps, keep_last
        self._snapshot, self._say, self._stop = snapshot, say, stop or Stopping()
        self._made_from = {"tasks": tasks, "start": start}
        self._background = Background() if background else None
        self._written_s = 0.0  #: of writes that ended since the last row
        self._made = False  #: a checkpoint, by this process
        self._log = MetricsLog(folder)
        self._samples = SampleRecorder(folder / "samples")
        self.cursor = 0  #: tasks taken for the steps that are trained
        self.left: tuple[int, ...] = ()  #: of them those that no step was trained on yet
        self.last: int | None = None  #: steps done at the newest checkpoint

    def samples(self, step: int, scored: Sequence[ScoredGroup], advantages: Sequence[Sequence[Advantage]]) -> None:
        """Under process supervision the advantage on record is the first token's, the sum over all steps."""
        first = [[a[0] if isinstance(a, tuple) else a for a in advantages_G] for advantages_G in advantages]
        self._samples.write(step, scored, first, [g.group.task.messages[-1].content for g in scored])

    def offending(self, step: int, scored: Sequence[ScoredGroup]) -> Path:
        """Keep the groups of a step that stopped the run, for `read_groups`; returns the file."""
        path = self.folder / f"offending-step-{step:05d}.jsonl"
        write_groups(scored, path)
        return path

    def metrics(self, step: int, values: Mapping[str, float], timer: Timer) -> None:
        row = {**values, **timer.take(), "memory/resident_bytes": resident_bytes()}
        generated = row.pop("tokens/generated", 0.0)
        row["tokens/generated_per_s"] = generated / max(row.get("time/rollout_s", 0.0), 1e-9)
        if self._written_s and self._background is not None:
            row["time/write_s"], self._written_s = self._written_s, 0.0
        self._log.write(step, row)
        self._say(time_table(row, step, self.steps))
        if self._background is not None:
            self._background.check()

    def due(self, step: int, every: int) -> bool:
        """Whether a step is followed by a checkpoint."""
        return step % every == 0 or step == self.steps or (self._stop.untimed and not self._made)

    def checkpoint(self, step: int) -> None:
        """Write `checkpoints/step-...`, in the background where that is wanted; its marker, written last, carries the
        task cursor. Raises what an earlier write raised: one is in flight, and one copy is held, at a time."""
        self.wait()
        began = time.monotonic()
        self._stop.writing()
        facts = {"kind": "grpo", "cursor": self.cursor, "left": self.left, **self._made_from}
        save = self._snapshot()
        taken_s = time.monotonic() - began

        def write() -> None:
            with Timer().phase("write"):
                started = time.monotonic()
                with writing_step(self.folder / "checkpoints", step, facts, self._keep_last) as folder:
                    self._log.flush()  # or a power cut might leave the checkpoint, and not the rows before it
                    save(folder)
                with suppress(OSError):  # what is lost with it is a warning
                    (self.folder / SAVED).touch()
                self._written_s += time.monotonic() - started
                self._stop.saved(taken_s + time.monotonic() - started)

        if self._background is not None:
            self._background.start(write)
        else:
            write()
        self.last, self._made = step, True

    @property
    def stopped(self) -> bool:
        """Whether a signal asked to stop. That time runs out does not count: a failure is to be told then too."""
        return self._stop.signalled

    def rescue(self, step: int, since: int) -> None:
        """A checkpoint of the steps done, where there is none: something failed that is no part of the trainer. What
        then prevents it is said; the failure is what ends the run."""
        if step <= (since if self.last is None else self.last):
            return
        try:
            self.checkpoint(step)
            self.wait()
        except CheckpointError as error:
            self._say(str(error))

    def wait(self) -> None:
        """Until the newest checkpoint is whole. Raises CheckpointError where it could not be written."""
        if self._background is not None:
            self._background.wait()

    def resume(self, restore: Callable[[Path], object], every: int) -> tuple[Path | None, int, int]:
        """The newest valid checkpoint, its step and task cursor. `restore` takes it, and what was recorded after it is
        taken back once that has succeeded.

        A run that died before its first checkpoint, which come `every` so many steps, starts again: no folder, step 0,
        cursor 0. Raises CheckpointError where there must have been one; where the tasks are others by now, for the same
        places would be other prompts; or the policy that training began from, for it is the reference, and what an
        adapter belongs to.
        """
        sweep(self.folder / "checkpoints")
        folder = latest_valid(self.folder / "checkpoints")
        if folder is None:
            self._check_none_is_missing(every)
        facts: Mapping[str, Any] = read_marker(folder) if folder is not None else {"step": 0, "cursor": 0}
        for name, now in self._made_from.items() if folder is not None else ():
            if facts.get(name, now) != now:
                raise CheckpointError(
                    f"{folder}: {FROM[name]} changed since; put the old one back, or start in another run_dir from "
                    f"{folder}/model"
                )
        step, cursor = int(facts["step"]), int(facts["cursor"])
        if folder is not None:
            restore(folder)
        self._log.truncate_after(step)
        if gone := step - len(read(self.folder)):
            self._say(f"{self.folder}/metrics.jsonl: {gone} of the {step} steps before the checkpoint are not there")
        self._samples.remove_after(step)
        self.cursor, self.left = cursor, tuple(facts.get("left", ()))
        self.last = step if folder is not None else None
        return folder, step, cursor

    def _check_none_is_missing(self, every: int) -> None:
        """Without a checkpoint nobody records more than two intervals: the second one waits for the first."""
        made = self._log.last_step or 0
        if (self.folder / SAVED).exists() or made > 2 * every:
            raise CheckpointError(
                f"{self.folder} holds {made} steps, and {self.folder / 'checkpoints'} no whole checkpoint; put them "
                f"back (a disk that is not mounted?), or remove {self.folder} and begin anew"
            )

    def close(self) -> None:
        try:
            if self._background is not None:
                self._background.close()
        finally:
            self._log.close()

    def __enter__(self) -> RunRecord:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        """What ended the run is raised; that its newest checkpoint could not be written either is said beside it."""
        try:
            self.close()
        except CheckpointError as error:
            if kind is None:
                raise
            self._say(str(error))


def describe(scored: Sequence[ScoredGroup]) -> dict[str, float]:
    """Rewards, parts, verdict mix and lengths of one step, over all completions."""
    results = [r for group in scored for r in group.results]
    completions = [c for group in scored for c in group.group.completions]
    rewards = [r.reward for r in results if r.reward is not None]
    judged = [r for r in results if r.verdict is not Verdict.INFRA]
    out = {f"verdict/{v.value}": sum(r.verdict is v for r in results) / len(results) for v in Verdict}
    out["groups/infra_worst"] = max(fmean(r.verdict is Verdict.INFRA for r in group.results) for group in scored)
    if rewards:
        out |= {"reward/mean": fmean(rewards), "reward/std": pstdev(rewards)}
    if judged:
        out["pass@1/train"] = fmean(r.verdict is Verdict.AC for r in judged)
    for part in ("compiler", "rm"):
        values = [r.parts[part] for r in results if part in r.parts]
        if values:
            out[f"reward/{part}"] = fmean(values)
    both = [(r.parts["rm"] > 0.5) == (r.verdict is Verdict.AC) for r in judged if "rm" in r.parts]
    if both:
        out["reward/rm_agreement"] = fmean(both)
    lengths = [len(c.token_ids) for c in completions]
    out["completions/truncated"] = fmean(c.finish_reason is FinishReason.LENGTH for c in completions)
    out |= {"tokens/completion_mean": fmean(lengths), "tokens/generated": float(sum(lengths))}
    return out


LAGS = 4  #: from so many versions on they are counted together


def lag_shares(scored: Sequence[ScoredGroup], version: int) -> dict[str, float]:
    """Share of the completion tokens by the age of the weights that sampled them; training begins at `version`."""
    tokens = [0] * (LAGS + 1)
    for completion in (c for group in scored for c in group.group.completions):
        for sampled, count in completion.spans or ((completion.policy_version[0], len(completion.token_ids)),):
            tokens[min(LAGS, max(0, version - sampled))] += count
    names = [*(f"lag/share_{n}" for n in range(LAGS)), f"lag/share_{LAGS}_up"]
    return {name: count / max(1, sum(tokens)) for name, count in zip(names, tokens, strict=True)}


def resident_bytes() -> float:
    """Peak resident memory of this process."""
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024
