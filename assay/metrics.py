"""What a run measures: one JSON line per step, the same numbers for TensorBoard, and the clock of each phase.

    log = MetricsLog(run / "grpo")                   # metrics.jsonl and tensorboard/
    timer = Timer()
    with timer.phase("rollout"):
        ...
    values = {"reward/mean": 0.52, **timer.take()}   # time/rollout_s, time/step_s
    log.write(step, values)
    print(time_table(values, step, steps))

`METRICS` names every number with its unit; docs/metrics.md says how each is computed, and a test compares the
two. This module imports neither torch nor tensorboard; tensorboard is imported at the first write.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from assay.errors import DataError, EnvironmentProblem
from assay.lineage import write_atomically
from assay.types import Verdict


class Metric(NamedTuple):
    """What a number is, in a few words, and in which unit; docs/metrics.md says how it is computed."""

    unit: str
    meaning: str


METRICS: dict[str, Metric] = {
    "reward/mean": Metric("reward", "mean reward of the completions that earned one"),
    "reward/std": Metric("reward", "standard deviation of the same rewards"),
    "reward/compiler": Metric("reward", "mean of the compiler-and-tests signal alone"),
    "reward/rm": Metric("probability", "mean score of the reward model alone"),
    "reward/rm_agreement": Metric("share", "completions where the reward model and the tests say the same"),
    "pass@1/train": Metric("share", "training completions that pass every test"),
    "pass@1/heldout_sampled": Metric("share", "held-out completions that pass, sampled as in training"),
    "pass@1/heldout_greedy": Metric("share", "held-out completions that pass, decoded greedily"),
    "kl/reference": Metric("nats/token", "distance to the reference policy"),
    "entropy": Metric("nats/token", "entropy of the policy's next-token distribution"),
    "entropy/coefficient": Metric("1", "what the bonus for entropy is multiplied with now"),
    "mismatch/k3": Metric("nats/token", "distance between the engine's and the trainer's log-probabilities"),
    "mismatch/max_abs_logratio": Metric("nats", "largest disagreement on a single token"),
    "mismatch/above_0.001": Metric("share", "tokens they disagree about by more than 0.001 nats"),
    "mismatch/above_0.01": Metric("share", "by more than 0.01 nats"),
    "mismatch/above_0.1": Metric("share", "by more than 0.1 nats"),
    "mismatch/above_1": Metric("share", "by more than 1 nat"),
    "correction/masked": Metric("share", "tokens the correction for that took out of the policy loss"),
    "correction/truncated": Metric("share", "tokens whose weight it cut"),
    "correction/off_policy": Metric("share", "bad completions left out because the policy has moved away from them"),
    "weights/probe_max_abs": Metric("nats", "largest log-probability difference on the probe after a weight sync"),
    "weights/sent_bytes": Metric("bytes", "sent to the engines in a weight sync, where adapters go alone"),
    "verdict/AC": Metric("share", "accepted"),
    "verdict/WA": Metric("share", "wrong answer"),
    "verdict/RE": Metric("share", "runtime error"),
    "verdict/TLE": Metric("share", "time limit"),
    "verdict/MLE": Metric("share", "memory limit"),
    "verdict/OLE": Metric("share", "output limit"),
    "verdict/CE": Metric("share", "does not compile, or holds no program"),
    "verdict/SV": Metric("share", "security violation"),
    "verdict/INFRA": Metric("share", "the harness failed; masked from the loss"),
    "groups/trained": Metric("groups", "groups that gave a gradient"),
    "groups/zero_variance": Metric("groups", "groups whose rewards are all equal"),
    "groups/masked_infra": Metric("groups", "groups with a completion masked because the harness failed"),
    "groups/infra_worst": Metric("share", "completions masked in the group with most of them"),
    "groups/generation_batches": Metric("batches", "how often the step asked the engine for groups"),
    "completions/masked_truncated": Metric("completions", "left out of the loss because they ran into the token limit"),
    "completions/truncated": Metric("share", "completions that ran into the token limit"),
    "tokens/completion_mean": Metric("tokens", "mean length of a completion"),
    "tokens/generated_per_s": Metric("tokens/s", "speed of the rollout engine"),
    "tokens/trained": Metric("tokens", "completion tokens in the loss"),
    "loss/total": Metric("nats/token", "what was minimised"),
    "loss/policy": Metric("nats/token", "its policy-gradient part"),
    "loss/kl": Metric("nats/token", "its distance-to-reference part, with its coefficient"),
    "loss/entropy": Metric("nats/token", "its bonus for entropy, negative"),
    "loss/aux": Metric("1", "its router load-balance part, with its coefficient"),
    "grad_norm": Metric("1", "global gradient norm before clipping"),
    "learning_rate": Metric("1", "learning rate of the step"),
    "clip/share": Metric("share", "tokens whose probability ratio was clipped"),
    "time/wait_s": Metric("s", "the trainer waiting for a batch drawn ahead"),
    "time/rollout_s": Metric("s", "generating completions"),
    "time/reward_s": Metric("s", "running tests and the reward model"),
    "time/logprobs_s": Metric("s", "log-probabilities of the old and reference policy"),
    "time/update_s": Metric("s", "forward, backward and optimizer"),
    "time/sync_s": Metric("s", "handing the weights to the engine and proving it"),
    "time/checkpoint_s": Metric("s", "what the trainer waits for checkpoints: copying, or writing"),
    "time/write_s": Metric("s", "writing checkpoints, beside the steps where that is in the background"),
    "time/eval_s": Metric("s", "held-out evaluation"),
    "time/step_s": Metric("s", "the whole step by the wall clock"),
    "policy/version": Metric("version", "how many updates the policy has had"),
    "lag/max": Metric("versions", "age of the oldest completion trained on"),
    "lag/share_0": Metric("share", "tokens of this step sampled by the weights it begins with"),
    "lag/share_1": Metric("share", "by weights one version older"),
    "lag/share_2": Metric("share", "two versions"),
    "lag/share_3": Metric("share", "three versions"),
    "lag/share_4_up": Metric("share", "four versions or more"),
    "moe/max_violation": Metric("1", "overload of the busiest expert"),
    "moe/dead_experts": Metric("experts", "experts that received no token"),
    "moe/agreement": Metric("share", "routings on which engine and trainer agree"),
    "memory/resident_bytes": Metric("bytes", "most memory the trainer process ever held"),
}

VERDICT_METRICS = tuple(f"verdict/{verdict.value}" for verdict in Verdict)
PHASES = ("wait", "rollout", "reward", "logprobs", "update", "sync", "checkpoint", "eval")


def undocumented(names: Iterable[str]) -> list[str]:
    """The names that METRICS, and so docs/metrics.md, does not define."""
    return sorted(set(names) - METRICS.keys() - {"step", "time"})


class MetricsLog:
    """Appends to `folder/metrics.jsonl`, flushed line by line, and to event files in `folder/tensorboard`."""

    def __init__(self, folder: str | Path, tensorboard: bool = True) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / "metrics.jsonl"
        _drop_torn_line(self.path)
        rows = read(self.path)
        self.last_step: int | None = rows[-1]["step"] if rows else None
        self._lines = self.path.open("a", encoding="utf-8")
        self._events = _Events(self.folder / "tensorboard") if tensorboard else None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append the numbers of one step. A number that is not finite becomes null, and stays in the row.

        Raises DataError if `step` is not after the last one: a resumed run calls `truncate_after` first.
        """
        if self.last_step is not None and step <= self.last_step:
            raise DataError(
                f"{self.path}: step {step} comes after step {self.last_step}; "
                f"call truncate_after({step - 1}) before repeating it, or start in an empty folder"
            )
        now = time.time()
        numbers = {name: float(value) for name, value in values.items()}
        row = {"step": step, "time": now, **{n: v if math.isfinite(v) else None for n, v in numbers.items()}}
        self._lines.write(json.dumps(row, allow_nan=False) + "\n")
        self._lines.flush()
        if self._events is not None:
            self._events.write(step, now, numbers)
        self.last_step = step

    def flush(self) -> None:
        """Have the rows on the disk, where a power cut leaves them. May be called beside `write`."""
        os.fsync(self._lines.fileno())

    def truncate_after(self, step: int) -> None:
        """Forget the rows after `step`, so that a run resumed from a checkpoint leaves no gap and no double."""
        self._lines.close()
        kept = [row for row in read(self.path) if row["step"] <= step]
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self.last_step = kept[-1]["step"] if kept else None
        self._lines = self.path.open("a", encoding="utf-8")
        if self._events is not None:
            self._events.restart(step + 1)

    def close(self) -> None:
        """Flush and close both files; writing again is an error."""
        self._lines.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Events:
    """TensorBoard scalars written as protocol buffers, so that torch is not needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None

    def write(self, step: int, now: float, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2

        scalars = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        event = event_pb2.Event(wall_time=now, step=step, summary=summary_pb2.Summary(value=scalars))
        self._open().add_event(event)
        self._writer.flush()

    def restart(self, step: int) -> None:
        """Open a new file whose first event tells TensorBoard to drop what it knows from `step` on."""
        if not self.folder.exists() and self._writer is None:
            return
        self.close()
        writer = self._open()
        from tensorboard.compat.proto import event_pb2

        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        writer.add_event(event_pb2.Event(wall_time=time.time(), step=step, session_log=start))
        writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self) -> Any:
        if self._writer is None:
            try:
                from tensorboard.summary.writer.event_file_writer import EventFileWriter
            except ImportError:
                raise EnvironmentProblem(
                    "tensorboard is not installed: pip install 'assay[train]', or MetricsLog(..., tensorboard=False)"
                ) from None
            self._writer = EventFileWriter(str(self.folder))
        return self._writer


class Timer:
    """Seconds per phase. A phase inside another is taken out of the outer one, so that phases add up to the step.

    One timer belongs to one thread; time measured elsewhere enters through `add`.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]  # per open phase: seconds spent in phases inside it
        self._since = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block to `name`, also when it raises."""
        start = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self.add(name, elapsed - self._inner.pop())
            self._inner[-1] += elapsed

    def add(self, name: str, seconds: float) -> None:
        """Add `seconds` to the phase `name`."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def take(self) -> dict[str, float]:
        """`time/<phase>_s` for each phase and `time/step_s` since the last take; starts again from zero."""
        now = time.perf_counter()
        out = {f"time/{name}_s": seconds for name, seconds in self.seconds.items()}
        out["time/step_s"] = now - self._since
        self.seconds, self._since = {}, now
        return out


def read(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, or of the one in a folder; a last line cut short by a crash is left out."""
    path = Path(path)
    path = path / "metrics.jsonl" if path.is_dir() else path
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    rows = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline was never finished
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise DataError(f"{path}:{number}: not a JSON object with a step; delete the line to go on")
        rows.append(row)
    return rows


def _drop_torn_line(path: Path) -> None:
    """Cut what follows the last newline: half a row, left by a crash, would spoil the next one."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("rb+") as file:
            file.truncate(whole)


_HEADLINE = (
    ("reward", "reward/mean"),
    ("pass", "pass@1/train"),
    ("kl", "kl/reference"),
    ("ent", "entropy"),
    ("mismatch", "mismatch/k3"),
    ("loss", "loss/total"),
)


def time_table(values: Mapping[str, float | None], step: int | None = None, steps: int | None = None) -> str:
    """One line for the terminal: the numbers to watch, then where the time went. What was not measured is left out.

    >>> time_table({"reward/mean": 0.5171, "time/rollout_s": 1.2, "time/update_s": 1.9, "time/step_s": 3.2}, 12, 60)
    'step 12/60  reward 0.52 | rollout 1.2s update 1.9s = 3.2s'
    """
    step = values.get("step") if step is None else step  # type: ignore[assignment]
    head = [] if step is None else [f"step {step}" + (f"/{steps}" if steps else "")]
    shown = [(label, name) for label, name in _HEADLINE if name in values]
    if len(shown) > 5:  # the loss is for stages that have no reward
        shown = shown[:5]
    head += [f"{label} {_short(values[name])}" for label, name in shown]
    if values.get("verdict/INFRA"):
        head.append(f"INFRA {values['verdict/INFRA']:.1%}")
    clock = [f"{phase} {values[f'time/{phase}_s']:.1f}s" for phase in PHASES if values.get(f"time/{phase}_s")]
    total = values.get("time/step_s")
    if total is not None:
        clock.append(f"= {total:.1f}s")
    return " | ".join(part for part in ("  ".join(head), " ".join(clock)) if part)


def _short(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "NOT-FINITE"
    if value == 0 or 0.1 <= abs(value) < 1000:
        return f"{value:.2f}"
    if 0.001 <= abs(value) < 0.1:
        return f"{value:.3f}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"
