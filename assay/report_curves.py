"""The curves of the report: what GRPO learned, how far it moved, what it cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from assay import metrics
from assay.charts import Axis, Series, compact, line_chart, percent, seconds, stacked_chart
from assay.report_samples import VERDICT_COLORS

Rows = Sequence[Mapping[str, Any]]

PHASE_COLORS = {"wait": "c0", "rollout": "c0", "reward": "c4", "logprobs": "c5", "update": "c2", "sync": "c3",
                "checkpoint": "c7", "eval": "c1"}  # fmt: skip
VERDICT_WORDS = {"AC": "pass", "WA": "wrong", "RE": "error", "TLE": "time", "MLE": "memory", "OLE": "output",
                 "CE": "compile", "SV": "security", "INFRA": "harness"}  # fmt: skip

AGES = {"lag/share_0": ("the policy's own", "c2"), "lag/share_1": ("1 version older", "c5"),
        "lag/share_2": ("2 versions", "c0"), "lag/share_3": ("3 versions", "c4"),
        "lag/share_4_up": ("4 or more", "c1")}  # fmt: skip


def curves(rows: Rows) -> list[str]:
    """One figure per question, from the rows of grpo/metrics.jsonl."""
    xs = [row["step"] for row in rows]
    return [*_learning_charts(rows, xs), *_distance_charts(rows, xs), *_cost_charts(rows, xs)]


def value_in(row: Mapping[str, Any], name: str) -> float | None:
    """None where the number was not measured, NaN where it was not finite."""
    if name not in row:
        return None
    value = row[name]
    return math.nan if value is None else value if isinstance(value, int | float) else None


def _learning_charts(rows: Rows, xs: Sequence[int]) -> list[str]:
    reward = [
        _series(rows, "reward/mean", "mean reward", "c0", spread="reward/std"),
        _series(rows, "reward/compiler", "compiler and tests", "c2"),
        _series(rows, "reward/rm", "reward model", "c1"),
    ]
    passes = [
        _series(rows, "pass@1/train", "train", "c0"),
        _series(rows, "pass@1/heldout_sampled", "held-out, sampled", "c2", smooth=False),
        _series(rows, "pass@1/heldout_greedy", "held-out, greedy", "c1", smooth=False),
    ]
    share = Axis(label="share of completions", form=percent, low=0.0)
    return [
        line_chart("Reward", "Good: all parts rise together. The band is ± one standard deviation.", xs, reward,
                   Axis(label="reward", form=compact, low=0.0)),
        line_chart("pass@1", "Good: held-out rises with train, and stays close to it.", xs, passes, share),
    ]  # fmt: skip


def _distance_charts(rows: Rows, xs: Sequence[int]) -> list[str]:
    nats, aged = Axis(label="nats per token", form=compact, low=0.0), _age_charts(rows, xs)
    mismatch = [
        _series(rows, "mismatch/k3", "mean (k3)", "c0", smooth=False, peak=True),
        _series(rows, "mismatch/max_abs_logratio", "largest token", "c1", smooth=False, peak=True),
        _series(rows, "weights/probe_max_abs", "probe after sync", "c2", smooth=False, peak=True),
    ]
    return [
        line_chart("Distance to the reference policy", "Good: grows slowly and levels off, below 0.5.", xs,
                   [_series(rows, "kl/reference", "KL (k3)", "c0")], nats),
        line_chart("Entropy", "Good: falls gently. A collapse to zero ends exploration.", xs,
                   [_series(rows, "entropy", "entropy", "c3")], nats),
        line_chart("Engine against trainer", "Good: flat, with a mean below 0.001. A jump means other weights."
                   + (" Completions of older weights lie further off." if aged else ""), xs,
                   mismatch, Axis(label="nats, logarithmic", form=compact, log=True)),
        *aged,
    ]  # fmt: skip


def _age_charts(rows: Rows, xs: Sequence[int]) -> list[str]:
    """Where rollouts are ahead of training."""
    if not any("lag/share_0" in row for row in rows):
        return []
    ages = [_series(rows, name, label, color, smooth=False) for name, (label, color) in AGES.items()]
    return [stacked_chart("Age of the tokens", "Good: most are of the newest versions.", xs, ages,
                          Axis(label="share of tokens", form=percent, high=1.0))]  # fmt: skip


def _cost_charts(rows: Rows, xs: Sequence[int]) -> list[str]:
    verdicts = [
        _series(rows, f"verdict/{v}", f"{v} {word}", VERDICT_COLORS[v], smooth=False)
        for v, word in VERDICT_WORDS.items()
    ]
    shown = _phases(rows)
    phases = [_series(rows, f"time/{phase}_s", phase, PHASE_COLORS[phase], smooth=False) for phase in shown]
    rest = [_unclaimed(row) for row in rows]
    if any(value and value > 0 for value in rest):
        phases.append(Series(label="other", values=rest, color="c6"))
    groups = [
        _series(rows, "groups/trained", "gave a gradient", "c2", smooth=False),
        _series(rows, "groups/zero_variance", "equal rewards", "c6", smooth=False),
    ]
    return [
        stacked_chart("Verdicts", "Good: the green layer grows and the hatched one (INFRA) is absent.", xs, verdicts,
                      Axis(label="share of completions", form=percent, high=1.0)),
        stacked_chart("Time per step", "Good: flat. The widest layer is where to spend effort.", xs, phases,
                      Axis(label="seconds", form=seconds)),
        stacked_chart("Groups", "Good: most groups give a gradient.", xs, groups,
                      Axis(label="groups per step", form=compact)),
    ]  # fmt: skip


def _series(
    rows: Rows, name: str, label: str, color: str, spread: str | None = None, smooth: bool = True, peak: bool = False
) -> Series:
    deviations = [row.get(spread) for row in rows] if spread else None
    values = [value_in(row, name) for row in rows]
    return Series(label=label, values=values, color=color, spread=deviations, smooth=smooth, peak=peak)


def _phases(rows: Rows) -> list[str]:
    """Those that add up to a step: where rollouts are drawn ahead, the waiting for them and not their own time."""
    ahead = any("time/wait_s" in row for row in rows)
    return [phase for phase in metrics.PHASES if phase not in (("rollout", "reward") if ahead else ("wait",))]


def _unclaimed(row: Mapping[str, Any]) -> float | None:
    total = row.get("time/step_s")
    if total is None:
        return None
    return max(0.0, total - sum(row.get(f"time/{phase}_s") or 0.0 for phase in _phases([row])))
