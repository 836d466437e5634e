"""Every scored completion of a run, one parquet file per step: `samples/step-00012.parquet`.

What the policy wrote, the program taken from it, what each test said, what it was rewarded and how it was
weighted. A file appears under its name only when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from assay.errors import DataError
from assay.types import Completion, Message, RewardResult, ScoredGroup

_NAME = re.compile(r"step-(\d+)\.parquet")

COLUMNS = {
    "step": "int64",
    "task_id": "string",
    "source": "string",
    "prompt": "string",
    "prompt_ids": "list<int32>",  # its tokens: all messages, as the template put them that day
    "messages_digest": "string",
    "index": "int64",  # place in its group
    "completion": "string",
    "program": "string",
    "verdict": "string",
    "tests": "list<string>",  # one verdict per test
    "reward": "double",  # null when the harness failed
    "reward_compiler": "double",
    "reward_rm": "double",
    "parts": "string",  # every signal as JSON, for rewards of your own
    "advantage": "double",  # null when masked
    "tokens": "int64",
    "token_ids": "list<int32>",
    "logprobs": "list<float>",  # of the engine; what it computed them in
    "finish_reason": "string",
    "policy_version_min": "int64",
    "policy_version_max": "int64",
    "mismatch_max": "double",  # largest |log-ratio| between trainer and engine, nats
    "isolation": "string",
    "detail": "string",
    "seconds": "double",
}

#: stand behind them where the engine told the experts it chose: see `assay.types.RoutedExperts`
EXPERT_COLUMNS = {"experts": "binary", "experts_shape": "list<int32>"}

#: and behind those, where weights changed in the midst of a completion: (version, tokens), in order
SPAN_COLUMNS = {"spans": "list<list<int32>>"}


class SampleRecorder:
    """Writes the samples of each step into `folder`."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def write(
        self,
        step: int,
        scored: Sequence[ScoredGroup],
        advantages: Sequence[Sequence[float | None]],  # [groups][G]
        prompts: Sequence[str],  # [groups]
        mismatch: Sequence[Sequence[float | None]] | None = None,  # [groups][G]
    ) -> Path:
        """Write one step, replacing an earlier file of the same step, and return its path."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [row for group in _groups(scored, advantages, prompts, mismatch) for row in _rows(step, *group)]
        table = pa.Table.from_pylist(rows, schema=_schema(_columns(scored)))
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:05d}.parquet"
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            pq.write_table(table, temporary, compression="zstd")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def remove_after(self, step: int) -> list[int]:
        """Delete the files of later steps, for a run that resumes at `step`; returns the steps removed."""
        removed = [(number, path) for number, path in _files(self.folder) if number > step]
        for _, path in removed:
            path.unlink()
        return [number for number, _ in removed]


def recorded_steps(folder: str | Path) -> list[int]:
    """The steps that have a file, in order."""
    return [number for number, _ in _files(Path(folder))]


def read_samples(folder: str | Path, steps: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """The recorded rows, by step, group and place in the group; only those of `steps` where given."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = []
    for number, path in _files(Path(folder)):
        if steps is None or number in steps:
            rows += pq.read_table(path).to_pylist()
    return rows


def messages_digest(messages: Sequence[Message]) -> str:
    """Of who said what, 16 hexadecimal digits."""
    said = json.dumps([(message.role, message.content) for message in messages])
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def has_experts(folder: str | Path, step: int) -> bool:
    """Whether the samples of a step hold the experts that the engine chose."""
    import pyarrow.parquet as pq

    return "experts" in pq.read_schema(Path(folder) / f"step-{step:05d}.parquet").names


def _files(folder: Path) -> list[tuple[int, Path]]:
    found = [(_NAME.fullmatch(path.name), path) for path in folder.glob("step-*.parquet")]
    return sorted((int(match[1]), path) for match, path in found if match)


def _columns(scored: Sequence[ScoredGroup]) -> dict[str, str]:
    completions = [c for group in scored for c in group.group.completions]
    routed, spanned = any(c.experts is not None for c in completions), any(c.spans for c in completions)
    return {**COLUMNS, **(EXPERT_COLUMNS if routed else {}), **(SPAN_COLUMNS if spanned else {})}


def _schema(columns: Mapping[str, str]) -> Any:
    import pyarrow as pa

    types = {
        "int64": pa.int64(),
        "double": pa.float64(),
        "string": pa.string(),
        "list<string>": pa.list_(pa.string()),
        "list<int32>": pa.list_(pa.int32()),
        "list<list<int32>>": pa.list_(pa.list_(pa.int32())),
        "list<float>": pa.list_(pa.float32()),
        "binary": pa.binary(),
    }
    return pa.schema([(name, types[kind]) for name, kind in columns.items()])


def _groups(
    scored: Sequence[ScoredGroup],
    advantages: Sequence[Sequence[float | None]],
    prompts: Sequence[str],
    mismatch: Sequence[Sequence[float | None]] | None,
) -> list[tuple[ScoredGroup, Sequence[float | None], str, Sequence[float | None]]]:
    """The four arguments side by side; lengths that differ are an error, never a silent cut."""
    if mismatch is None:
        mismatch = [[None] * len(group.results) for group in scored]
    lengths = {"scored": len(scored), "advantages": len(advantages), "prompts": len(prompts), "mismatch": len(mismatch)}
    if len(set(lengths.values())) > 1:
        raise DataError(f"samples: {', '.join(f'{n} {k}' for k, n in lengths.items())}; give one of each per group")
    groups = list(zip(scored, advantages, prompts, mismatch, strict=True))
    for group, values, _, ratios in groups:
        if not len(group.results) == len(values) == len(ratios):
            raise DataError(
                f"samples of task {group.group.task.id!r}: {len(group.results)} completions, {len(values)} advantages, "
                f"{len(ratios)} mismatches; give one per completion"
            )
    return groups


def _rows(
    step: int, scored: ScoredGroup, advantages: Sequence[float | None], prompt: str, mismatch: Sequence[float | None]
) -> list[dict[str, Any]]:
    task = scored.group.task
    shared = {"step": step, "task_id": task.id, "source": task.source, "prompt": prompt}
    shared |= {"prompt_ids": list(scored.group.prompt_ids), "messages_digest": messages_digest(task.messages)}
    pairs = zip(scored.group.completions, scored.results, advantages, mismatch, strict=True)
    return [
        {**shared, "index": i, "advantage": advantage, "mismatch_max": ratio, **_said(completion), **_judged(result)}
        for i, (completion, result, advantage, ratio) in enumerate(pairs)
    ]


def _said(completion: Completion) -> dict[str, Any]:
    oldest, newest = completion.policy_version
    return {
        "completion": _clean(completion.text),
        "tokens": len(completion.token_ids),
        "token_ids": list(completion.token_ids),
        "logprobs": list(completion.logprobs),
        "finish_reason": completion.finish_reason.value,
        "policy_version_min": oldest,
        "policy_version_max": newest,
        "experts": completion.experts and completion.experts.ids,
        "experts_shape": completion.experts and list(completion.experts.shape),
        "spans": [list(span) for span in completion.spans] or None,
    }


def _judged(result: RewardResult) -> dict[str, Any]:
    return {
        "program": _clean(result.program),
        "verdict": result.verdict.value,
        "tests": [test.verdict.value for test in result.tests],
        "reward": result.reward,
        "reward_compiler": result.parts.get("compiler"),
        "reward_rm": result.parts.get("rm"),
        "parts": json.dumps(dict(result.parts)),
        "isolation": result.isolation,
        "detail": _clean(result.detail),
        "seconds": result.seconds,
    }


def _clean(text: str) -> str:
    """Lone surrogates, which a program may print, cannot be stored as UTF-8; they become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
