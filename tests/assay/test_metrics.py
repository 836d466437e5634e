import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assay.errors import DataError
from assay.metrics import METRICS, VERDICT_METRICS, MetricsLog, Timer, read, time_table, undocumented

ROOT = Path(__file__).parents[2]


def test_every_metric_is_defined_in_the_docs_with_the_same_unit():
    text = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([^`]+)` \| ([^|]+?) \| .+ \|$", text, re.M)
    assert dict(documented) == {name: metric.unit for name, metric in METRICS.items()}
    assert len(documented) == len(METRICS)
    assert set(VERDICT_METRICS) <= METRICS.keys()
    assert undocumented(["reward/mean", "step", "reward/maen"]) == ["reward/maen"]


def test_the_modules_that_only_describe_a_run_do_not_import_torch():
    code = (
        "import assay.metrics, assay.report, assay.lineage, assay.progress, rollouts.recorder, evals.passk, sys;"
        "print(sorted({'torch', 'tensorboard', 'pyarrow', 'rich', 'vllm', 'ray'} & sys.modules.keys()))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_rows_are_flushed_and_a_number_that_is_not_finite_stays_visible(tmp_path):
    log = MetricsLog(tmp_path, tensorboard=False)
    log.write(1, {"reward/mean": 0.5, "kl/reference": math.nan, "grad_norm": math.inf})
    text = (tmp_path / "metrics.jsonl").read_text()  # before close
    assert "NaN" not in text and "Infinity" not in text
    row = json.loads(text)
    assert row["step"] == 1 and row["reward/mean"] == 0.5 and row["time"] > 0
    assert row["kl/reference"] is None and row["grad_norm"] is None
    assert read(tmp_path) == read(tmp_path / "metrics.jsonl") == [row]
    assert read(tmp_path / "none") == []


def test_a_resumed_run_leaves_no_gap_and_no_double(tmp_path):
    with MetricsLog(tmp_path, tensorboard=False) as log:
        for step in range(6):
            log.write(step, {"reward/mean": step})
    with MetricsLog(tmp_path, tensorboard=False) as log:
        assert log.last_step == 5
        with pytest.raises(DataError, match=r"truncate_after\(3\)"):
            log.write(4, {})
        log.truncate_after(3)
        log.write(4, {"reward/mean": 40})
        log.write(5, {"reward/mean": 50})
    assert [(row["step"], row["reward/mean"]) for row in read(tmp_path)] == [
        (0, 0), (1, 1), (2, 2), (3, 3), (4, 40), (5, 50),
    ]  # fmt: skip
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*.tmp"))


def test_half_a_line_left_by_a_crash_is_dropped_but_damage_inside_is_an_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "rew')
    assert [row["step"] for row in read(path)] == [1]
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.write(2, {})
    assert [row["step"] for row in read(path)] == [1, 2]
    path.write_text('{"step": 1}\nrubbish\n{"step": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2"):
        read(path)


def test_tensorboard_reads_the_same_numbers_and_forgets_what_was_truncated(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with MetricsLog(tmp_path) as log:
        for step in range(4):
            log.write(step, {"reward/mean": step / 4, "entropy": math.nan})
    time.sleep(1.1)  # event files are ordered by the second in their names
    with MetricsLog(tmp_path) as log:
        log.truncate_after(1)
        log.write(2, {"reward/mean": 9.0, "entropy": 1.0})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("reward/mean")] == [(0, 0.0), (1, 0.25), (2, 9.0)]
    assert math.isnan(events.Scalars("entropy")[0].value)


def test_phases_inside_one_another_add_up(monkeypatch):
    clock = iter([0.0, 1.0, 2.0, 5.0, 7.0, 8.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    timer = Timer()  # 0
    with timer.phase("rollout"), timer.phase("sync"):  # 1, 2 .. 5, 7
        pass
    timer.add("reward", 0.5)
    taken = timer.take()  # 8
    assert taken == {"time/sync_s": 3.0, "time/rollout_s": 3.0, "time/reward_s": 0.5, "time/step_s": 8.0}
    assert timer.seconds == {}


def test_a_phase_that_raises_is_still_counted():
    timer = Timer()
    with pytest.raises(ZeroDivisionError), timer.phase("update"):
        1 / 0  # noqa: B018
    assert "time/update_s" in timer.take()


def test_the_line_for_the_terminal():
    values = {
        "reward/mean": 0.52, "pass@1/train": 0.48, "kl/reference": 0.013, "entropy": 0.61, "mismatch/k3": 3e-6,
        "loss/total": 0.1, "time/rollout_s": 1.2, "time/reward_s": 0.8, "time/logprobs_s": 0.5, "time/update_s": 1.9,
        "time/sync_s": 0.2, "time/step_s": 4.6,
    }  # fmt: skip
    assert time_table(values, 12, 60) == (
        "step 12/60  reward 0.52  pass 0.48  kl 0.013  ent 0.61  mismatch 3e-6 | "
        "rollout 1.2s reward 0.8s logprobs 0.5s update 1.9s sync 0.2s = 4.6s"
    )
    assert time_table({"step": 3, "loss/total": 2.5}) == "step 3  loss 2.50"
    assert time_table({"reward/mean": None, "verdict/INFRA": 0.125}, 1) == "step 1  reward NOT-FINITE  INFRA 12.5%"
