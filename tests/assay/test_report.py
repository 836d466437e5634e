import json
import math
import random
import re
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assay import report_curves
from assay.errors import DataError
from assay.lineage import Lineage
from assay.metrics import MetricsLog
from assay.report import write_report
from assay.report_checks import findings
from assay.types import (
    Completion,
    FinishReason,
    Message,
    RewardResult,
    RolloutGroup,
    ScoredGroup,
    Task,
    TestVerdict,
    Verdict,
)
from evals.passk import EvalResult, Sample
from rollouts.recorder import SampleRecorder

HOSTILE = "</pre></script><script>alert('owned')</script><img src=x onerror=alert(1)> \u202e \x00 & \" '"
PROGRAMS = (
    "def longest_run(values):\n    best = run = 0\n    for before, after in zip(values, values[1:]):\n"
    "        run = run + 1 if before == after else 0\n        best = max(best, run)\n    return best + 1\n",
    "def longest_run(values):\n    return max(values.count(v) for v in values)\n",
    "def longest_run(values:\n    return 1\n",
    "import itertools\n\ndef longest_run(values):\n    return max((len(list(g)) for _, g in itertools.groupby(values)),"
    " default=0)\n",
)
SHARES = {"WA": 0.42, "RE": 0.2, "TLE": 0.09, "MLE": 0.02, "OLE": 0.01, "CE": 0.25, "SV": 0.01}


def step_values(step, steps, dice):
    done = step / steps
    level = 0.32 + 0.4 * (1 - math.exp(-3 * done))
    noise = dice.gauss(0, 0.03)
    passed = min(1.0, max(0.0, level + noise))
    infra = 0.03 if step in (17, 18) else 0.0
    values = {
        "reward/mean": 0.1 + 0.9 * passed, "reward/std": 0.34 - 0.1 * done, "reward/compiler": passed,
        "reward/rm": level + dice.gauss(0, 0.02) + 0.04 * done, "reward/rm_agreement": 0.86 - 0.05 * done,
        "pass@1/train": passed, "kl/reference": 0.19 * done**0.8 + abs(dice.gauss(0, 0.004)),
        "entropy": 0.72 - 0.28 * done + dice.gauss(0, 0.012), "mismatch/k3": 10 ** dice.gauss(-5.4, 0.15),
        "mismatch/max_abs_logratio": 10 ** dice.gauss(-2.2, 0.2), "weights/probe_max_abs": 10 ** dice.gauss(-3.4, 0.1),
        "groups/trained": 22 + dice.randint(-3, 3), "groups/zero_variance": 9 + dice.randint(-2, 2),
        "groups/masked_infra": 2.0 if infra else 0.0, "completions/truncated": 0.06 * (1 - done),
        "tokens/completion_mean": 212 - 30 * done + dice.gauss(0, 6),
        "tokens/generated_per_s": 4100 + dice.gauss(0, 90),
        "tokens/trained": 47000 + dice.gauss(0, 900), "loss/total": dice.gauss(0.004, 0.003),
        "loss/policy": dice.gauss(0, 0.003), "loss/kl": 0.04 * 0.19 * done, "loss/aux": 0.001,
        "grad_norm": abs(dice.gauss(0.4, 0.08)), "learning_rate": 1e-6, "clip/share": abs(dice.gauss(0.006, 0.002)),
        "policy/version": step, "lag/max": 0, "moe/max_violation": 0.6 + dice.gauss(0, 0.04), "moe/dead_experts": 0,
        "memory/resident_bytes": 2.4e9, "verdict/AC": passed * (1 - infra), "verdict/INFRA": infra,
        "time/rollout_s": 6.2 + dice.gauss(0, 0.3), "time/reward_s": 2.6 + dice.gauss(0, 0.3), "time/logprobs_s": 1.4,
        "time/update_s": 5.1 + dice.gauss(0, 0.2), "time/sync_s": 0.6,
    }  # fmt: skip
    left = 1 - values["verdict/AC"] - infra
    values |= {f"verdict/{name}": left * share for name, share in SHARES.items()}
    if step % 10 == 0:
        values |= {
            "pass@1/heldout_sampled": level - 0.04 + noise / 3,
            "pass@1/heldout_greedy": level + 0.01 + noise / 3,
        }
        values |= {"time/eval_s": 6.0, "time/checkpoint_s": 1.2}
    if step == 33:
        values["kl/reference"] = math.nan
    values["time/step_s"] = 0.3 + sum(v for n, v in values.items() if n.startswith("time/"))
    return values


def scored_group(number, step, dice, text=None):
    source = ("mbpp", "humaneval", "contests")[number % 3]
    prompt = "Write `longest_run(values)`: the length of the longest run of equal neighbours."
    task = Task(id=f"{source}/{100 + number}", messages=(Message(role="user", content=prompt),), verifier="python",
                answer={}, source=source)  # fmt: skip
    completions, results = [], []
    for i in range(6):
        verdict = dice.choice([Verdict.AC, Verdict.AC, Verdict.WA, Verdict.CE, Verdict.TLE])
        if number == 2 and i == 5:
            verdict = Verdict.INFRA
        program = text or (PROGRAMS[3] if verdict is Verdict.AC else dice.choice(PROGRAMS[:3]))
        said = text or f"Walk through the list once.\n\n```python\n{program}```\n"
        completions.append(
            Completion(token_ids=tuple(range(140 + i)), logprobs=(-0.3,) * (140 + i), text=said,
                       finish_reason=FinishReason.STOP, policy_version=(step - 1, step)))  # fmt: skip
        tests = [Verdict.AC] * 8 if verdict is Verdict.AC else [Verdict.AC, verdict, Verdict.AC, verdict, verdict]
        score = {Verdict.AC: 1.0, Verdict.WA: 0.0, Verdict.CE: 0.0, Verdict.TLE: 0.0}.get(verdict)
        rm = dice.random() * 0.3 + (0.6 if verdict is Verdict.AC else 0.1)
        results.append(
            RewardResult(verdict=verdict, reward=None if score is None else 0.7 * score + 0.3 * rm,
                         parts={} if score is None else {"compiler": score, "rm": rm}, program=program,
                         tests=tuple(TestVerdict(verdict=v) for v in tests),
                         detail=text or ("" if verdict is Verdict.AC else "AssertionError: longest_run([1, 1, 2]) "
                                                                          "gave 3, expected 2"),
                         isolation="local:user,pid,mnt,net,ipc,uts", seconds=0.2))  # fmt: skip
    group = RolloutGroup(task=task, prompt_ids=(1, 2, 3), completions=tuple(completions))
    return ScoredGroup(group=group, results=tuple(results))


def make_run(run, steps=60, text=None):
    """A run folder as `assay recipe` leaves it, with invented numbers."""
    dice = random.Random(7)
    (run / "data").mkdir(parents=True)
    (run / "data/train.jsonl").write_text('{"id": "a"}\n' * 374)
    (run / "config.yaml").write_text("seed: 7\npolicy:\n  model: tiny-moe-coder\ngrpo:\n  steps: 60\n  group_size: 6\n"
                                     "  clip: [0.2, 0.28]\n  kl_coefficient: 0.04\n")  # fmt: skip
    with MetricsLog(run / "grpo", tensorboard=False) as log:
        for step in range(1, steps + 1):
            log.write(step, step_values(step, steps, dice))
    with MetricsLog(run / "sft", tensorboard=False) as log:
        for step in range(1, 41):
            log.write(
                step, {"loss/total": 1.1 * math.exp(-step / 15) + 0.4 + dice.gauss(0, 0.02), "learning_rate": 2e-5}
            )
    recorder = SampleRecorder(run / "grpo/samples")
    for step in sorted({1, max(1, steps // 2), steps}):
        groups = [scored_group(number, step, dice, text) for number in range(6)]
        advantages = [[None if r.reward is None else r.reward - 0.5 for r in group.results] for group in groups]
        prompts = [group.group.task.messages[0].content for group in groups]
        recorder.write(step, groups, advantages, prompts, [[0.004] * 6] * 6)
    for name, level in (("base", 0.31), ("sft", 0.42), ("grpo", 0.61)):
        problems = [(f"p{i}", ("mbpp", "humaneval", "contests")[i % 3]) for i in range(164)]
        drawn = {p: min(1.0, max(0.0, dice.gauss(level, 0.2))) for p, _ in problems}
        greedy = [Sample(p, s, Verdict.AC if dice.random() < drawn[p] + 0.03 else Verdict.WA) for p, s in problems]
        sampled = [
            Sample(p, s, Verdict.AC if dice.random() < drawn[p] else Verdict.RE) for p, s in problems for _ in "1234"
        ]
        sampled += [Sample("p0", "mbpp", Verdict.INFRA)] * (3 if name == "grpo" else 0)
        EvalResult.of(name, greedy, sampled, ks=[4]).write(run / f"eval/{name}.json")
    bins = [{"predicted": (i + 0.5) / 10, "observed": min(1, max(0, (i + 0.5) / 10 + dice.gauss(0, 0.04))),
             "n": 40 + 12 * abs(i - 5)} for i in range(10)]  # fmt: skip
    (run / "reward_model").mkdir()
    (run / "reward_model/reward_model.json").write_text(
        json.dumps({"heldout": {"accuracy": 0.874, "auc": 0.931, "ece": 0.031, "n": 700, "bins": bins}})
    )
    lineage = Lineage(run)
    data = [{"path": "data/train.jsonl", "sha256": "5f2c" * 16, "rows": 374}]
    lineage.record("base", kind="policy", path="policy", seed=7)
    lineage.record(
        "sft", kind="policy", path="sft/model", parents=["base"], data=data, seed=7, config_section={"lr": 2e-5}
    )
    lineage.record("reward_model", kind="reward model", path="reward_model", parents=["sft"], seed=7)
    lineage.record("grpo/step-00060", kind="policy", path="grpo/checkpoints/step-00060",
                   parents=["sft", "reward_model"], data=data, seed=7,
                   config_section={"group_size": 6, "clip": [0.2, 0.28]})  # fmt: skip
    return run


class Elements(HTMLParser):
    """Counts the elements of a page, and notes scripts that would run, handlers and whatever would be fetched."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.odd, self.tags, self.open = 0, [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        names = dict(attributes)
        if tag == "script" and names.get("type") != "application/json":
            self.scripts += 1
        self.odd += [(tag, n, v) for n, v in attributes if n.startswith("on") or n in ("src", "srcset", "action")]
        self.odd += [(tag, "href", names["href"])] if not names.get("href", "#").startswith("#") else []
        self.odd += [(tag, "", "")] if tag in ("img", "iframe", "link", "object", "embed", "base") else []
        if tag not in ("meta", "br", "input", "!doctype"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_report(make_run(tmp_path_factory.mktemp("runs") / "laptop")).read_text(encoding="utf-8")


def test_the_page_is_well_formed_self_contained_and_runs_one_script(page):
    seen = Elements(page)
    assert seen.open == [] and seen.scripts == 1 and seen.odd == []
    assert "http://" not in page and "https://" not in page and "url(#hatch)" in page
    assert len(page) < 3_000_000


def test_it_shows_every_part(page):
    for heading in ("Result", "Checks", "Curves", "Reward model", "Sources", "Samples", "Lineage", "Config"):
        assert f"<h2>{heading}</h2>" in page
    titles = ("Reward", "pass@1", "Distance to the reference policy", "Entropy", "Engine against trainer", "Verdicts",
              "Time per step", "Groups", "Does a score of 0.8 mean 80 % pass?")  # fmt: skip
    figures = re.findall(r'<figure class="card chart"><figcaption><h3>(.*?)</h3><p class="good">(.*?)</p>', page)
    assert [title for title, _ in figures] == list(titles)
    assert all(good.startswith("Good: ") for _, good in figures)
    assert page.count("optimizer step</text>") == 8 and "nats per token</text>" in page and "seconds</text>" in page
    assert "87.4\u00a0%" in page and "0.931" in page and "0.031" in page and ">700<" in page
    assert "of 656 passed · 3 INFRA left out" in page and "of 164 passed" in page
    assert "First · step 1<" in page and "Middle · step 30<" in page and "Last · step 60<" in page
    assert "5f2c5f2c5f2c" in page and "grpo/checkpoints/step-00060" in page and "kl_coefficient" in page
    assert '<section id="not-in-this-run">' in page  # reward_model/metrics.jsonl


def test_headline_numbers_are_those_of_the_evaluations(tmp_path):
    run = make_run(tmp_path / "run", steps=3)
    page = write_report(run).read_text(encoding="utf-8")
    for name in ("base", "sft", "grpo"):
        result = EvalResult.read(run / f"eval/{name}.json")
        for rate in (result.greedy, result.sampled):
            error = f'<span class="pm">± {100 * rate.standard_error:.1f}</span>'
            assert f'<span class="big">{100 * rate.rate:.1f}&nbsp;%</span>{error}' in page
            assert f"{rate.passed} of {rate.scored} passed" in page


def test_hostile_text_stays_text(tmp_path):
    run = make_run(tmp_path / "run", steps=4, text=HOSTILE)
    with (run / "config.yaml").open("a") as file:
        file.write(f"note: {HOSTILE!r}\n")
    result = EvalResult.of("base", [Sample("a", HOSTILE, Verdict.AC)])
    result.write(run / "eval/base.json")
    result.write(run / f"eval/{'<script>alert(2)'}.json")
    Lineage(run).record(HOSTILE, kind=HOSTILE, path=HOSTILE, config_section={"x": HOSTILE})
    with MetricsLog(run / "grpo", tensorboard=False) as log:
        log.write(9, {HOSTILE: math.nan, "reward/mean": math.inf})
    page = write_report(run).read_text(encoding="utf-8")
    seen = Elements(page)
    assert seen.open == [] and seen.scripts == 1 and seen.odd == []
    assert "alert(&#x27;owned&#x27;)" in page and "<script>alert" not in page and "<img" not in page
    assert "\u202e" not in page and "U+202E" in page and "\x00" not in page
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy


def test_an_empty_folder_and_a_damaged_one_still_give_a_report(tmp_path):
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Nothing has been measured in this run yet." in page and "run assay grpo" in page
    assert "<code>grpo/metrics.jsonl</code> written by assay grpo" in page
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval/sft.json").write_text("{")
    (tmp_path / "grpo/samples").mkdir(parents=True)
    (tmp_path / "grpo/samples/step-00001.parquet").write_bytes(b"PAR1")
    (tmp_path / "grpo/metrics.jsonl").write_text("rubbish\n")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "not valid JSON" in page and "recorded completions cannot be read" in page and "metrics.jsonl:1" in page
    assert Elements(page).open == []
    pq.write_table(pa.table({"step": [1], "verdict": ["AC"]}), tmp_path / "grpo/samples/step-00001.parquet")
    assert "recorded completions cannot be read" in write_report(tmp_path).read_text(encoding="utf-8")
    with pytest.raises(DataError, match="no such run folder"):
        write_report(tmp_path / "none")


@pytest.mark.parametrize("steps", [1, 2, 1500])
def test_runs_of_any_length_draw(tmp_path, steps):
    run = tmp_path / "run"
    with MetricsLog(run / "grpo", tensorboard=False) as log:
        for step in range(steps):
            log.write(step, step_values(step, steps, random.Random(step)))
    page = write_report(run).read_text(encoding="utf-8")
    assert Elements(page).open == [] and "nan" not in re.findall(r'd="([^"]*)"', page)
    assert len(page) < 1_500_000


def rows(count, **columns):
    return [
        {"step": i, **{name.replace("__", "/"): f(i / (count - 1)) for name, f in columns.items()}}
        for i in range(count)
    ]


def found(some_rows, evals=None):
    return {finding.title: finding.level for finding in findings(some_rows, evals or {})}


def test_checks_name_what_went_wrong_in_a_planted_bad_run():
    bad = found(rows(30, reward__mean=lambda t: 0.3 + 0.4 * t, **{
        "pass@1__heldout_sampled": lambda t: 0.4 - 0.2 * t, "verdict__INFRA": lambda t: 0.1 * (t > 0.5),
        "mismatch__k3": lambda t: 0.05 * (t > 0.9), "reward__rm_agreement": lambda t: 0.9 - 0.4 * t,
        "kl__reference": lambda t: 4 * t, "entropy": lambda t: 1.0 - 0.95 * t, "groups__trained": lambda t: 2,
        "groups__zero_variance": lambda t: 8, "completions__truncated": lambda t: t,
        "moe__dead_experts": lambda t: 3, "grad_norm": lambda t: None if t > 0.7 else 1.0}))  # fmt: skip
    assert bad == {
        "Reward rises while held-out pass@1 falls": "bad",
        "Some numbers are not finite": "bad",
        "The harness failed on some completions": "bad",
        "Engine and trainer disagree": "bad",
        "The policy is far from its reference": "bad",
        "The reward model drifts from the tests": "watch",
        "The policy has almost stopped exploring": "watch",
        "Most groups teach nothing": "watch",
        "Completions are cut off": "watch",
        "Some experts are dead": "watch",
    }
    where = {f.title: f.text for f in findings(rows(30, kl__reference=lambda t: 4 * t), {})}
    assert "It passed 0.5 at step 4" in where["The policy is far from its reference"]  # 4 * 4/29 = 0.55


def test_what_older_weights_sampled_is_no_disagreement_of_engine_and_trainer():
    own, older = {"step": 1, "mismatch/k3": 1e-9, "lag/max": 0.0}, {"step": 2, "mismatch/k3": 2e-3, "lag/max": 2.0}
    holds, close = "The engine holds the trainer's weights", "Completions are close to the policy that learns from them"
    assert found([own, older]) == {holds: "good", "Every number is finite": "good", close: "good"}
    far = found([own, {**older, "mismatch/k3": 0.04}])
    assert far[holds] == "good" and far["The policy moves away from its completions"] == "watch"
    assert found([{**own, "mismatch/k3": 0.04}, older])["Engine and trainer disagree"] == "bad"
    assert close not in found([own]) and holds not in found([older])
    (text,) = (f.text for f in findings([own, older], {}) if f.title == close)
    assert text.startswith("1 of 2 steps learned from completions of older weights, by 2 versions at most.")


def test_the_age_of_tokens_is_drawn_where_rollouts_are_ahead():
    row = {"mismatch/k3": 1e-3, "lag/max": 0.0}
    shares = {name: 0.2 for name in report_curves.AGES}
    plain = "".join(report_curves.curves([{"step": i, **row} for i in range(3)]))
    ahead = "".join(report_curves.curves([{"step": i, **row, **shares} for i in range(3)]))
    assert "Age of the tokens" not in plain and "older weights" not in plain
    assert "Age of the tokens" in ahead and "Completions of older weights lie further off." in ahead


def test_a_gain_is_compared_with_its_error():
    def result(rate, error):
        return {"greedy": {"pass@1": rate, "standard_error": error}}

    assert found([], {"sft": result(0.4, 0.01), "grpo": result(0.5, 0.01)}) == {"GRPO improved the policy": "good"}
    assert found([], {"sft": result(0.4, 0.04), "grpo": result(0.5, 0.04)}) == {"The gain is within the noise": "watch"}
    assert found([], {"base": result(0.4, 0.01), "grpo": result(0.3, 0.01)}) == {"GRPO made the policy worse": "bad"}
    assert found([], {"grpo": result(0.5, 0.01)}) == {}


@pytest.mark.parametrize(
    "layout",
    [
        {"accuracy": 0.8, "auc": 0.9, "ece": 0.05, "n": 50},
        {"train": {"accuracy": 0.99}, "held_out": {"accuracy": 0.8, "auc": 0.9, "ece": 0.05, "n": 50}},
        {"heldout_accuracy": 0.8, "heldout_auc": 0.9, "heldout_ece": 0.05, "heldout_n": 50, "train_accuracy": 0.99},
    ],
)
def test_the_reward_model_card_prefers_held_out_numbers(tmp_path, layout):
    (tmp_path / "reward_model").mkdir()
    (tmp_path / "reward_model/reward_model.json").write_text(json.dumps(layout))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    shown = dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)<small>", page))
    assert shown == {
        "Accuracy": "80\u00a0%",
        "AUC": "0.9",
        "Calibration error": "0.05",
        "Held-out completions": "50",
    }
    assert "holds no calibration bins" in page


def test_the_layers_of_a_step_are_those_that_add_up():
    behind = [{"step": 1, "time/step_s": 3.0, "time/rollout_s": 2.0, "time/reward_s": 0.5}]
    ahead = [{"step": 1, "time/step_s": 3.0, "time/rollout_s": 2.0, "time/reward_s": 2.0, "time/wait_s": 0.5}]
    assert [p in report_curves._phases(behind) for p in ("wait", "rollout", "reward")] == [False, True, True]
    assert [p in report_curves._phases(ahead) for p in ("wait", "rollout", "reward")] == [True, False, False]
    assert [report_curves._unclaimed(row) for row in (*behind, *ahead)] == [0.5, 2.5]
