"""Scored groups to a file and back, whole: what a step was made of, to look at it or to run it again.

One JSON object per group and line. Numbers that are none are written as NaN and Infinity, which Python reads back.
The experts an engine chose are kept with it, base64 of their bytes: without them a batch under replay is another one.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from assay.jsonl import read_rows
from assay.lineage import write_atomically
from assay.types import (
    Completion,
    FinishReason,
    RewardResult,
    RolloutGroup,
    RoutedExperts,
    ScoredGroup,
    TestVerdict,
    Verdict,
)
from rollouts.tasks import FORMATS, to_row

COMPLETION = ("token_ids", "logprobs", "text", "finish_reason", "policy_version", "spans")


def write_groups(scored: Sequence[ScoredGroup], path: Path) -> None:
    """What the trainer's batch is made from: tokens, the engine's log-probabilities and experts, results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(json.dumps(_row(group)) + "\n" for group in scored))


def read_groups(path: Path) -> list[ScoredGroup]:
    """What `write_groups` wrote."""
    return [_group(row) for row, _ in read_rows(path)]


def _row(scored: ScoredGroup) -> dict[str, Any]:
    return {
        "task": to_row(scored.group.task),
        "prompt_ids": scored.group.prompt_ids,
        "completions": [_said(c) for c in scored.group.completions],
        "results": [asdict(r) for r in scored.results],
    }


def _group(row: Mapping[str, Any]) -> ScoredGroup:
    group = RolloutGroup(
        task=FORMATS["assay"](row["task"]),
        prompt_ids=tuple(row["prompt_ids"]),
        completions=tuple(_completion(c) for c in row["completions"]),
    )
    return ScoredGroup(group=group, results=tuple(_result(r) for r in row["results"]))


def _said(completion: Completion) -> dict[str, Any]:
    row = {name: getattr(completion, name) for name in COMPLETION}
    if completion.experts is not None:
        row["experts"] = {"shape": completion.experts.shape, "ids": b64encode(completion.experts.ids).decode()}
    return row


def _completion(row: Mapping[str, Any]) -> Completion:
    oldest, newest = row["policy_version"]
    experts = row.get("experts")
    return Completion(
        token_ids=tuple(row["token_ids"]),
        logprobs=tuple(row["logprobs"]),
        text=row["text"],
        finish_reason=FinishReason(row["finish_reason"]),
        policy_version=(oldest, newest),
        spans=tuple((version, count) for version, count in row["spans"]),
        experts=experts and RoutedExperts(shape=tuple(experts["shape"]), ids=b64decode(experts["ids"])),
    )


def _result(row: Mapping[str, Any]) -> RewardResult:
    tests = tuple(TestVerdict(**{**test, "verdict": Verdict(test["verdict"])}) for test in row["tests"])
    steps = tuple((end, reward) for end, reward in row["steps"])
    return RewardResult(**{**row, "verdict": Verdict(row["verdict"]), "tests": tests, "steps": steps})
