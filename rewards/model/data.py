"""Judged completions: what the reward model learns from.

A sample without a verdict (`passed` is null: the harness failed) says nothing about its program. It is left out
and counted, never read as a failure.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.errors import DataError
from assay.jsonl import read_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One completion and whether it passed all its tests; `passed` is None where the harness failed."""

    prompt_ids: tuple[int, ...]  # [P]
    completion_ids: tuple[int, ...]  # [T]
    passed: bool | None
    task_id: str
    source: str = ""
    family: str = ""  # what tasks of one problem share; unset, the task is alone

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


def read_samples(path: str | Path) -> list[Sample]:
    """All rows of a JSONL file of {prompt_ids, completion_ids, passed, task_id, source, family}; the last two may
    be left out.

    Raises DataError, with file and line, where the file is missing or empty or a row is malformed.
    """
    samples = [_parse(row, where) for row, where in read_rows(path)]
    if not samples:
        raise DataError(f"{path}: holds no samples; expected one judged completion per line")
    return samples


def usable(samples: Sequence[Sample], max_length: int) -> tuple[list[Sample], dict[str, int]]:
    """The samples that can be learned from, and how many were left out for which reason."""
    judged = [s for s in samples if s.passed is not None]
    kept = [s for s in judged if 0 < len(s) <= max_length]
    return kept, {"left_out_infra": len(samples) - len(judged), "left_out_length": len(judged) - len(kept)}


def split_by_task(samples: Sequence[Sample], fraction: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """(train, held out) with no task on both sides, nor a problem in two languages: a model that recognises its tasks
    must not look good.

    Raises DataError where there are too few tasks, or where the training side has only one kind of verdict.
    """
    tasks = sorted({s.family or s.task_id for s in samples})
    if len(tasks) < 2:
        raise DataError(f"the samples come from {len(tasks)} task(s); a held-out set by task needs at least 2")
    count = min(len(tasks) - 1, max(1, round(fraction * len(tasks))))
    held = set(random.Random(f"{seed}/heldout").sample(tasks, count))
    train = [s for s in samples if (s.family or s.task_id) not in held]
    if len({s.passed for s in train}) < 2:
        kind = "passes" if train[0].passed else "fails"
        raise DataError(f"every one of {len(train)} training samples {kind}; there is nothing to tell apart")
    return train, [s for s in samples if (s.family or s.task_id) in held]


def _parse(row: dict[str, Any], where: str) -> Sample:
    if "passed" not in row or not isinstance(row["passed"], bool | None):
        raise DataError(f"{where}: passed is {row.get('passed')!r}; expected true, false, or null for no verdict")
    if not isinstance(row.get("task_id"), str):
        raise DataError(f"{where}: task_id is {row.get('task_id')!r}, expected text")
    return Sample(
        prompt_ids=_ids(row, "prompt_ids", where),
        completion_ids=_ids(row, "completion_ids", where),
        passed=row["passed"],
        task_id=row["task_id"],
        source=str(row.get("source") or ""),
        family=str(row.get("family") or ""),
    )


def _ids(row: dict[str, Any], key: str, where: str) -> tuple[int, ...]:
    ids = row.get(key)
    if not isinstance(ids, list) or not all(type(i) is int and i >= 0 for i in ids):
        raise DataError(f"{where}: {key} must be a list of token ids")
    return tuple(ids)
