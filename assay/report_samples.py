"""The part of the report that shows what the policy wrote. All of it is untrusted: every string is escaped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from assay.charts import compact, escaped, percent

VERDICT_COLORS = {"AC": "c2", "WA": "c4", "RE": "c1", "TLE": "c3", "MLE": "c5", "OLE": "c0", "CE": "c6", "SV": "c7",
                  "INFRA": "hatch"}  # fmt: skip
GROUPS_SHOWN = 4
TEXT_LIMIT = 12_000
TESTS_SHOWN = 60
COLUMNS = ("task_id", "source", "prompt", "completion", "program", "verdict", "tests", "reward", "reward_compiler",
           "reward_rm", "advantage", "tokens", "finish_reason", "policy_version_min", "policy_version_max",
           "mismatch_max", "isolation", "detail")  # fmt: skip

Row = Mapping[str, Any]


def steps_with_samples(folder: Path) -> dict[int, Path]:
    """Step -> parquet file, in order."""
    names = {path.stem.removeprefix("step-"): path for path in folder.glob("step-*.parquet")}
    return {int(step): names[step] for step in sorted(names) if step.isdigit()}


def read_rows(path: Path, columns: Sequence[str] = COLUMNS) -> list[dict[str, Any]]:
    """The rows of one recorded step. Raises what pyarrow raises where a column is missing."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(path, columns=list(columns)).select(list(columns)).to_pylist()
    return rows


def first_middle_last(files: Mapping[int, Path]) -> list[int]:
    """Up to three steps, in order, without repeats."""
    steps = list(files)
    return sorted({steps[0], steps[len(steps) // 2], steps[-1]}) if steps else []


def samples_section(by_step: Mapping[int, Sequence[Row]]) -> str:
    """One tab per step; in each, the groups with the widest spread of reward: their best and worst completion."""
    names = ["First", "Middle", "Last"] if len(by_step) == 3 else ["First", "Last"] if len(by_step) == 2 else ["Only"]
    tabs, panels = [], []
    for number, (step, rows) in enumerate(by_step.items()):
        checked = " checked" if number == len(by_step) - 1 else ""
        tabs.append(f'<input type="radio" name="tab" id="tab{number}"{checked}><label for="tab{number}">')
        tabs.append(f"{names[number]} · step {step}</label>")
        groups = "".join(_group(group) for group in _choose(rows))
        nothing = '<p class="absent">No completions in this step.</p>'
        panels.append(f'<div class="panel" id="panel{number}">{groups or nothing}</div>')
    return f'<div class="tabs">{"".join(tabs + panels)}</div>'


def sources_table(rows: Sequence[Row]) -> str:
    """Per task source: how many completions, the pass rate early and late, how they fail, what the harness lost."""
    steps = sorted({row["step"] for row in rows})
    third = max(1, len(steps) // 3)
    early, late = set(steps[:third]), set(steps[-third:])
    body = []
    for source in sorted({row["source"] or "" for row in rows}):
        own = [row for row in rows if (row["source"] or "") == source]
        failures = Counter(row["verdict"] for row in own if row["verdict"] not in ("AC", "INFRA"))
        infra = sum(row["verdict"] == "INFRA" for row in own)
        kinds = " ".join(f"{_verdict(kind)} {percent(count / len(own))}" for kind, count in failures.most_common(3))
        cells = (_rate([r for r in own if r["step"] in early]), _rate([r for r in own if r["step"] in late]))
        body.append(
            f"<tr><td>{escaped(source) or '(no source)'}</td><td class=number>{len(own)}</td>"
            f"<td class=number>{cells[0]}</td><td class=number>{cells[1]}</td><td>{kinds or 'none'}</td>"
            f"<td class=number>{infra or '0'}</td></tr>"
        )
    head = (
        "<tr><th>Source</th><th class=number>Completions</th><th class=number>Pass, first third</th>"
        "<th class=number>Pass, last third</th><th>Commonest failures</th><th class=number>INFRA</th></tr>"
    )
    return f'<table class="plain">{head}{"".join(body)}</table>'


def _rate(rows: Sequence[Row]) -> str:
    scored = [row for row in rows if row["verdict"] != "INFRA"]
    return percent(sum(row["verdict"] == "AC" for row in scored) / len(scored)) if scored else "–"


def _choose(rows: Sequence[Row]) -> list[list[Row]]:
    """The groups whose completions differ most in reward, and then the one that fails worst."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["task_id"], row["prompt"]), []).append(row)

    def rewards(group: Sequence[Row]) -> list[float]:
        return [row["reward"] for row in group if row["reward"] is not None] or [0.0]

    widest = sorted(groups.values(), key=lambda g: min(rewards(g)) - max(rewards(g)))
    shown = widest[: GROUPS_SHOWN - 1]
    rest = sorted(widest[GROUPS_SHOWN - 1 :], key=lambda g: sum(rewards(g)) / len(rewards(g)))
    return shown + rest[:1]


def _group(group: Sequence[Row]) -> str:
    scored = sorted((row for row in group if row["reward"] is not None), key=lambda row: row["reward"])
    lost = len(group) - len(scored)
    passed = sum(row["verdict"] == "AC" for row in group)
    facts = f"{escaped(group[0]['source'] or '')} · {passed} of {len(group)} passed"
    if scored:
        facts += f" · rewards {compact(scored[0]['reward'])} to {compact(scored[-1]['reward'])}"
    if lost:
        facts += f" · {lost} lost to INFRA"
    if not scored:
        pair = _sample("Harness failed", group[0])
    elif len(scored) == 1:
        pair = _sample("Only completion with a reward", scored[0])
    else:
        same = scored[0]["reward"] == scored[-1]["reward"]
        names = ("One of equals", "Another") if same else ("Best", "Worst")
        pair = _sample(names[0], scored[-1]) + _sample(names[1], scored[0])
    prompt = f'<details><summary>Prompt</summary><pre class="wrap">{_text(group[0]["prompt"])}</pre></details>'
    return (
        f'<article class="card group"><header><h3>{escaped(group[0]["task_id"])}</h3><span>{facts}</span></header>'
        f'{prompt}<div class="pair">{pair}</div></article>'
    )


def _sample(name: str, row: Row) -> str:
    facts = [
        ("reward", row["reward"]),
        ("advantage", row["advantage"]),
        ("compiler", row["reward_compiler"]),
        ("reward model", row["reward_rm"]),
        ("tokens", row["tokens"]),
        ("mismatch", row["mismatch_max"]),
    ]
    numbers = "".join(f"<span>{label} <b>{compact(value)}</b></span>" for label, value in facts if value is not None)
    if row["advantage"] is None:
        numbers += "<span>advantage <b>masked</b></span>"
    versions = sorted({row["policy_version_min"], row["policy_version_max"]})
    origin = f"policy version {'–'.join(map(str, versions))} · ended by {escaped(row['finish_reason'])}"
    origin += f" · isolation {escaped(row['isolation'])}" if row["isolation"] else ""
    detail = f'<pre class="detail wrap">{_text(row["detail"])}</pre>' if row["detail"] else ""
    program = f"<pre>{_text(row['program'])}</pre>" if row["program"] else '<p class="absent">No program.</p>'
    return (
        f'<div class="sample"><div class="sample-head"><strong>{name}</strong>{_verdict(row["verdict"])}</div>'
        f'<div class="facts">{numbers}</div>{_tests(row["tests"] or [])}{program}{detail}'
        f'<details><summary>Whole completion</summary><pre class="wrap">{_text(row["completion"])}</pre></details>'
        f'<div class="facts">{origin}</div></div>'
    )


def _tests(verdicts: Sequence[str]) -> str:
    if not verdicts:
        return ""
    passed = sum(verdict == "AC" for verdict in verdicts)
    shown = "".join(_test(number, verdict) for number, verdict in enumerate(verdicts[:TESTS_SHOWN], start=1))
    more = f" and {len(verdicts) - TESTS_SHOWN} more" if len(verdicts) > TESTS_SHOWN else ""
    return f'<div class="tests"><span>tests {passed}/{len(verdicts)}</span>{shown}{more}</div>'


def _test(number: int, verdict: str) -> str:
    tone = "good" if verdict == "AC" else "none" if verdict == "INFRA" else "bad"
    return f'<i class="tag {tone}" title="test {number}">{escaped(verdict)}</i>'


def _verdict(verdict: str) -> str:
    tone = "good" if verdict == "AC" else "none" if verdict == "INFRA" else "bad"
    return f'<span class="tag {tone}">{escaped(verdict)}</span>'


def _text(text: str | None) -> str:
    text = text or ""
    if len(text) <= TEXT_LIMIT:
        return escaped(text)
    return escaped(text[:TEXT_LIMIT]) + f'\n<span class="absent">… {len(text) - TEXT_LIMIT:,} more characters</span>'
