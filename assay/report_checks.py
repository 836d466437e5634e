"""What a reader should look at first: a dozen questions asked of the numbers of a run, each with its threshold.

A check is a function from the rows of grpo/metrics.jsonl (and the evaluations) to a Finding, or None when the run
did not measure what the question needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from assay.charts import compact, minus, percent

Rows = Sequence[Mapping[str, Any]]
Level = Literal["good", "watch", "bad"]
STAGE_NAMES = {"base": "the base model", "sft": "SFT", "grpo": "GRPO"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer. `level` is good, watch or bad."""

    level: Level
    title: str
    text: str


def findings(rows: Rows, evals: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Every check that could be answered, the worst first."""
    answers = [_improvement(evals), *(check(rows) for check in CHECKS)]
    order = {"bad": 0, "watch": 1, "good": 2}
    return sorted((a for a in answers if a is not None), key=lambda finding: order[finding.level])


def column(rows: Rows, name: str) -> list[tuple[int, float]]:
    """(step, value) of the finite values of a metric."""
    return [(row["step"], row[name]) for row in rows if isinstance(row.get(name), int | float)]


def thirds(rows: Rows, name: str) -> tuple[float, float] | None:
    """Mean of the first and of the last third; None with fewer than three values."""
    values = [value for _, value in column(rows, name)]
    size = len(values) // 3
    return (sum(values[:size]) / size, sum(values[-size:]) / size) if size else None


def _improvement(evals: Mapping[str, Mapping[str, Any]]) -> Finding | None:
    after = evals.get("grpo")
    before_name = next((name for name in ("sft", "base") if name in evals), None)
    if after is None or before_name is None:
        return None
    for mode in ("greedy", "sampled"):
        old, new = evals[before_name].get(mode), after.get(mode)
        if old and new and old.get("pass@1") is not None and new.get("pass@1") is not None:
            gain = new["pass@1"] - old["pass@1"]
            error = math.hypot(old.get("standard_error") or 0.0, new.get("standard_error") or 0.0)
            text = f"{minus(f'{100 * gain:+.1f}')} points {mode} over {STAGE_NAMES[before_name]}; two standard errors "
            text += f"of the difference are {200 * error:.1f} points."
            if abs(gain) <= 2 * error:
                return Finding("watch", "The gain is within the noise", text + " Evaluate on more problems.")
            better = gain > 0
            title = "GRPO improved the policy" if better else "GRPO made the policy worse"
            return Finding("good" if better else "bad", title, text)
    return None


def _finite_numbers(rows: Rows) -> Finding | None:
    if not rows:
        return None
    broken = {name: row["step"] for row in reversed(rows) for name, value in row.items() if value is None}
    if broken:
        where = ", ".join(f"{name} (first at step {step})" for name, step in sorted(broken.items()))
        return Finding("bad", "Some numbers are not finite", f"{where}. The charts mark them with a triangle.")
    return Finding("good", "Every number is finite", f"{len(rows)} steps without a NaN or infinity.")


def _infra(rows: Rows) -> Finding | None:
    shares = column(rows, "verdict/INFRA")
    if not shares:
        return None
    mean = sum(share for _, share in shares) / len(shares)
    step, worst = max(shares, key=lambda pair: pair[1])
    if worst == 0:
        return Finding("good", "The harness never failed", "No completion was lost to infrastructure.")
    text = f"{percent(mean)} of completions have no reward because the harness failed; worst at step {step} "
    text += f"({percent(worst)}). They are masked, not scored zero. Above 2\u00a0% find the cause."
    return Finding("bad" if mean > 0.02 else "watch", "The harness failed on some completions", text)


def _same_weights(rows: Rows) -> Finding | None:
    """Of the steps whose completions are the policy's own; `_age` is about the others."""
    values = column([row for row in rows if not row.get("lag/max")], "mismatch/k3")
    if not values:
        return None
    step, worst = max(values, key=lambda pair: pair[1])
    text = f"Largest mismatch {compact(worst)} nats/token, at step {step}"
    probe = column(rows, "weights/probe_max_abs")
    text += f"; largest probe difference {compact(max(v for _, v in probe))} nats." if probe else "."
    if worst > 1e-3:
        text += " Below 0.001 is rounding; above 0.01 the gradient is that of another policy."
        return Finding("bad" if worst > 1e-2 else "watch", "Engine and trainer disagree", text)
    return Finding("good", "The engine holds the trainer's weights", text)


def _age(rows: Rows) -> Finding | None:
    values = column([row for row in rows if row.get("lag/max")], "mismatch/k3")
    if not values:
        return None
    step, worst = max(values, key=lambda pair: pair[1])
    oldest = max(age for _, age in column(rows, "lag/max"))
    text = f"{len(values)} of {len(rows)} steps learned from completions of older weights, by {oldest:.0f} versions at "
    text += f"most. The policy moved up to {compact(worst)} nats/token from them, at step {step}."
    if worst > 1e-2:
        text += " Above 0.01 weigh such tokens with grpo.correction, or lower grpo.max_lag or grpo.learning_rate."
        return Finding("watch", "The policy moves away from its completions", text)
    return Finding("good", "Completions are close to the policy that learns from them", text)


def _reward_hacking(rows: Rows) -> Finding | None:
    reward = thirds(rows, "reward/mean")
    held = next((t for t in (thirds(rows, f"pass@1/heldout_{m}") for m in ("sampled", "greedy")) if t), None)
    if reward is None or held is None:
        return None
    text = f"From the first to the last third: reward {minus(f'{reward[1] - reward[0]:+.3f}')}, "
    text += f"held-out pass@1 {minus(f'{100 * (held[1] - held[0]):+.1f}')} points."
    if reward[1] > reward[0] and held[1] < held[0] - 0.01:
        text += " The policy may be gaming the reward."
        return Finding("bad", "Reward rises while held-out pass@1 falls", text)
    return Finding("good", "Reward and held-out pass@1 do not part", text)


def _reward_model(rows: Rows) -> Finding | None:
    pair = thirds(rows, "reward/rm_agreement")
    if pair is None:
        return None
    text = f"It agrees with the tests on {percent(pair[1])} of completions in the last third, {percent(pair[0])} in "
    text += "the first. Below 70\u00a0%, or 10 points down, retrain it on new samples."
    drifted = pair[1] < 0.7 or pair[1] < pair[0] - 0.1
    title = "The reward model drifts from the tests" if drifted else "The reward model follows the tests"
    return Finding("watch" if drifted else "good", title, text)


def _distance(rows: Rows) -> Finding | None:
    values = column(rows, "kl/reference")
    if not values:
        return None
    last = values[-1][1]
    crossed = next((step for step, value in values if value > 0.5), None)
    text = f"{compact(last)} nats/token from the reference at the end."
    if crossed is not None:
        text += f" It passed 0.5 at step {crossed}; lower the learning rate or raise the KL coefficient."
        return Finding("bad" if last > 2 else "watch", "The policy is far from its reference", text)
    return Finding("good", "The policy stays near its reference", text)


def _exploration(rows: Rows) -> Finding | None:
    pair = thirds(rows, "entropy")
    if pair is None or pair[0] <= 0:
        return None
    kept = pair[1] / pair[0]
    text = f"Entropy in the last third is {percent(kept)} of the first ({compact(pair[1])} nats/token)."
    if kept < 0.3:
        return Finding("watch", "The policy has almost stopped exploring", text)
    return Finding("good", "The policy still explores", text)


def _signal(rows: Rows) -> Finding | None:
    trained = sum(value for _, value in column(rows, "groups/trained"))
    flat = sum(value for _, value in column(rows, "groups/zero_variance"))
    if not trained + flat:
        return None
    share = flat / (trained + flat)
    text = f"{percent(share)} of groups have equal rewards throughout and give no gradient."
    if share > 0.5:
        return Finding("watch", "Most groups teach nothing", text + " Choose tasks nearer the policy's level.")
    return Finding("good", "Most groups give a gradient", text)


def _room(rows: Rows) -> Finding | None:
    pair = thirds(rows, "completions/truncated")
    if pair is None:
        return None
    text = f"{percent(pair[1])} of completions in the last third ran into the token limit."
    if pair[1] > 0.1:
        return Finding("watch", "Completions are cut off", text + " Raise max_completion_tokens.")
    return Finding("good", "Completions have room", text)


def _experts(rows: Rows) -> Finding | None:
    values = column(rows, "moe/dead_experts")
    if not values:
        return None
    dead = values[-1][1]
    text = f"{compact(dead)} experts received no token in the last step."
    if dead > 0:
        return Finding("watch", "Some experts are dead", text + " Check the load-balance coefficient.")
    return Finding("good", "All experts are in use", text)


CHECKS = (_reward_hacking, _finite_numbers, _infra, _same_weights, _age, _reward_model, _distance, _exploration,
          _signal, _room, _experts)  # fmt: skip
