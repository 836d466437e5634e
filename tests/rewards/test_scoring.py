"""From completions to rewards: extraction, caching, retries, the mix, custom functions, checked tasks."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from assay.config import validate
from assay.errors import ConfigError, DataError, InfraFailure
from assay.types import Completion, FinishReason, Message, RewardResult, RolloutGroup, Task, Verdict
from rewards.check_tasks import check_tasks
from rewards.config import MixWeights, RewardsConfig
from rewards.extract import program_of
from rewards.languages import LANGUAGES, find
from rewards.mix import combine
from rewards.sandbox.base import Job, KilledBy, RunResult
from rewards.sandbox.fake import FakeSandbox, ended
from rewards.scorer import Scorer

CHECKOUT = Path(__file__).resolve().parents[2]
PYTHON = LANGUAGES["python"]
READY = b"-2 0 0 0 0 0 0\n"


def record(index: int, value: int) -> bytes:
    data = f'V["i","{value:x}"]'.encode()
    return f"{index} 0 0 5 6 7 {len(data)}\n".encode() + data


def group_of(task: Task, *texts: str) -> RolloutGroup:
    completions = tuple(
        Completion(
            token_ids=(1, 2), logprobs=(0.0, 0.0), text=text, finish_reason=FinishReason.STOP, policy_version=(0, 0)
        )
        for text in texts
    )
    return RolloutGroup(task=task, prompt_ids=(1,), completions=completions)


def fenced(program: str, label: str = "python") -> str:
    return f"Here it is:\n```{label}\n{program}\n```\nThat is all."


@pytest.fixture
def task(function_task) -> Task:
    return function_task("python", {"x": "int"}, "int", [([1], 2), ([5], 6)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```python\na\n```", "a\n"),
        ("```py\na\n```\n```python3\nb\n```", "b\n"),
        ("```\na\n```", "a\n"),
        ("```python\na\n```\nOutput:\n```\n5\n```", "a\n"),  # a labelled block beats a later bare one
        ("```c\na\n```", None),
        ("```Python title=x\r\na\r\n```", "a\n"),
        ("```python\na\n", "a\n"),  # cut off by the length limit
        ("```python\n\n```", None),
        ("~~~python\na\n~~~", "a\n"),
        ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),
        ("  ```python\n  a\n  ```", "a\n"),  # in an item of a list: the fence's indentation is not the program's
        ("1. So:\n\n   ```python\n   def f():\n\n       a\n   ```", "def f():\n\n    a\n"),
        ("- So:\n\t```py\n\tif a:\n\t\tb\n\t```", "if a:\n\tb\n"),
        ("   ```python\ndef f():\n  if a:\n    b\n   ```", "def f():\n  if a:\n    b\n"),  # at the margin
        ("   ```python\n\n   s = '''\nx\n \x0c y'''\n   ```", "\ns = '''\nx\n\x0c y'''\n"),
        ("```pip install x```\n```python\na\n```", "a\n"),  # one line of text opens no block
        ("```python `main.py`\na\n```\nand so on", "a\n"),
        ("````x```\n```python\na\n```\n```pip x```", "a\n"),
        ("~~~python `x`\na\n~~~", "a\n"),
        ("```python:solution.py\na\n```\n```\n5\n```", "a\n"),
        ("```python,linenos\na\n```", "a\n"),
        ("```python{1,3}\na\n```", "a\n"),
        ("```{.python .numberLines}\na\n```", "a\n"),
        ("```python\na\n```\n```python:tests.py\nb\n```", "a\n"),  # the plain label wins
        ("```\na\n```\n```output:python\nb\n```", "a\n"),
        ("```c,python\na\n```", None),
        ("```:python\na\n```", "a\n"),
        ("no fence", None),
        ("", None),
    ],
)
def test_the_last_block_of_the_language_is_the_program(text, expected):
    assert program_of(text, PYTHON) == expected


def test_whole_text_is_a_program_only_on_request():
    assert program_of("x = 1", PYTHON) is None
    assert program_of("x = 1", PYTHON, whole_text=True) == "x = 1"
    assert program_of("  ", PYTHON, whole_text=True) is None
    assert program_of("so ```python\nx\n```", PYTHON, whole_text=True) == "so ```python\nx\n```"


def test_languages_are_found_by_alias():
    assert find("Py").name == "python" and find("c11").name == "c"
    with pytest.raises(DataError, match="no language 'xyzzy'; there are .*python"):
        find("xyzzy")


@pytest.mark.sandbox
def test_a_group_is_scored_end_to_end(task):
    scorer = Scorer(RewardsConfig())
    texts = [fenced("def f(x): return x + 1"), fenced("def f(x): return 2"), "I cannot.", fenced("def f(x) return")]
    results = scorer.score_group(group_of(task, *texts))
    scorer.close()
    scorer.close()
    assert [(r.verdict, r.reward) for r in results] == [("AC", 1.0), ("WA", 0.0), ("CE", 0.0), ("CE", 0.0)]
    assert all(r.isolation.startswith("local:") and r.parts == {"compiler": r.reward} for r in results)
    assert [len(r.tests) for r in results] == [2, 2, 0, 2] and results[0].program == "def f(x): return x + 1\n"


@pytest.mark.sandbox
def test_partial_credit_is_the_share_of_tests(task):
    scorer = Scorer(RewardsConfig(partial=True))
    (result,) = scorer.score_group(group_of(task, fenced("def f(x): return 2")))
    scorer.close()
    assert (result.verdict, result.reward) == (Verdict.WA, 0.5)


@pytest.mark.parametrize(("isolate", "boxes"), [("test", 2), ("task", 1)])
def test_the_configuration_says_how_many_boxes_a_task_takes(isolate, boxes, task):
    answers = {1: [record(0, 2), record(0, 6)], 0: [record(0, 2) + record(1, 6)]}[boxes - 1]
    fake = FakeSandbox([ended(READY + answer) for answer in answers])
    (result,) = Scorer(RewardsConfig(isolate=isolate), fake).score_group(group_of(task, fenced("f")))
    assert result.reward == 1.0 and len(fake.jobs) == boxes


def test_equal_programs_run_once(task):
    fake = FakeSandbox([ended(READY + record(0, 2) + record(1, 6))])
    config = RewardsConfig(isolate="task")
    results = Scorer(config, fake).score_group(group_of(task, *[fenced("def f(x): return x + 1")] * 5))
    assert [r.reward for r in results] == [1.0] * 5 and len(fake.jobs) == 1


def test_a_harness_failure_is_retried_once_and_then_masked(task):
    good = ended(READY + record(0, 2) + record(1, 6))
    fake = FakeSandbox([InfraFailure("box 1 died"), good])
    config = RewardsConfig(isolate="task")
    (result,) = Scorer(config, fake).score_group(group_of(task, fenced("f = 1")))
    assert (result.verdict, result.reward, len(fake.jobs)) == (Verdict.AC, 1.0, 2)
    fake = FakeSandbox([InfraFailure("box 1 died"), InfraFailure("box 2 died"), good])
    scorer = Scorer(config, fake)
    (result,) = scorer.score_group(group_of(task, fenced("f = 1")))
    assert (result.verdict, result.reward, result.detail) == (Verdict.INFRA, None, "box 2 died")
    (again,) = scorer.score_group(group_of(task, fenced("f = 1")))
    assert again.verdict is Verdict.AC  # a failure is not remembered


def test_a_compiler_that_did_not_end_in_time_is_tried_once_more(function_task):
    """On a machine in trouble it is chance; twice, it is the answer (an include that waits for ever)."""
    task = function_task("c", {"x": "int"}, "int", [([1], 2), ([5], 6)])
    waits = replace(ended(), exit_code=None, killed_by=KilledBy.WALL)

    def built(job: Job) -> RunResult:
        return replace(ended(), files={name: b"code" for name in job.collect})

    good = ended(READY + record(0, 2) + record(1, 6))
    fake = FakeSandbox([built, waits, built, good])
    config = RewardsConfig(isolate="task")
    (result,) = Scorer(config, fake).score_group(group_of(task, fenced("int f(int x);", "c")))
    assert (result.verdict, len(fake.jobs)) == (Verdict.AC, 4)
    (result,) = Scorer(RewardsConfig(), FakeSandbox([built, waits])).score_group(
        group_of(task, fenced("int f(int x);", "c"))
    )
    assert result.verdict is Verdict.CE and "wall" in result.detail


def test_an_unknown_verifier_is_named():
    task = Task(id="t", messages=(Message(role="user", content=""),), verifier="magic", answer={})
    with pytest.raises(
        DataError, match="no verifier 'magic'; there are asserts, checker, custom, function, literal, math, p"
    ):
        Scorer(RewardsConfig(), FakeSandbox([ended()])).score_group(group_of(task, "x"))


def result_of(reward: float | None) -> RewardResult:
    verdict = Verdict.INFRA if reward is None else Verdict.AC if reward == 1 else Verdict.WA
    return RewardResult(verdict=verdict, reward=reward)


@pytest.mark.parametrize(
    ("mode", "rewards"),
    [
        ("compiler", [1.0, 0.0, None, 1.0]),
        ("rm", [0.25, 0.75, None, None]),
        ("mix", [0.8 * 1 + 0.2 * 0.25, 0.2 * 0.75, None, None]),
    ],
)
def test_the_mix_keeps_every_part_whatever_trains(mode, rewards):
    results = [result_of(1.0), result_of(0.0), result_of(None), result_of(1.0)]
    scores = [0.25, 0.75, 0.5, float("nan")]
    combined = combine(results, scores, mode, MixWeights(compiler=0.8, rm=0.2))
    assert [r.reward for r in combined] == pytest.approx(rewards)
    assert [r.parts for r in combined] == [
        {"compiler": 1.0, "rm": 0.25}, {"compiler": 0.0, "rm": 0.75}, {"rm": 0.5}, {"compiler": 1.0},
    ]  # fmt: skip
    assert [r.verdict is Verdict.INFRA for r in combined] == [reward is None for reward in rewards]


def test_signals_of_one_spread_before_they_are_mixed_by_hand():
    # compiler 1 0 0: mean 1/3, deviation sqrt(1/3); rm 0.9 0.8 0.7: mean 0.8, deviation 0.1; the fourth has no score
    results = [result_of(1.0), result_of(0.0), result_of(0.0), result_of(1.0), result_of(None)]
    weights = MixWeights(compiler=0.75, rm=0.25, normalise=True)
    combined = combine(results, [0.9, 0.8, 0.7, None, 0.5], "mix", weights)
    compiler = [2 / 3**0.5, -1 / 3**0.5, -1 / 3**0.5]
    assert [r.reward for r in combined[:3]] == pytest.approx(
        [0.75 * c + 0.25 * m for c, m in zip(compiler, [1, 0, -1], strict=True)]
    )
    assert [r.reward for r in combined[3:]] == [None, None]
    assert combined[0].parts == {"compiler": 1.0, "rm": 0.9}  # recorded as they were
    # where the tests say the same of all, the reward model decides alone
    alike = combine([result_of(1.0)] * 3, [0.9, 0.8, 0.7], "mix", weights)
    assert [r.reward for r in alike] == pytest.approx([0.25, 0.0, -0.25])
    shifted = combine(results[:3], [0.09, 0.08, 0.07], "mix", weights)  # another scale is no other reward
    assert [r.reward for r in shifted] == pytest.approx([r.reward for r in combined[:3]])
    assert [r.reward for r in combine(results[:3], [0.9, 0.8, 0.7], "rm", weights)] == [0.9, 0.8, 0.7]


def test_the_mix_wants_a_score_per_result():
    with pytest.raises(ValueError, match="1 results but 2"):
        combine([result_of(1.0)], [None, None], "compiler", MixWeights())


CUSTOM = """
def length(prompts, completions, target, **columns):
    assert prompts[0][0]["role"] == "user" and len(columns["completion_ids"][0]) == 2
    return [1.0 if len(c[0]["content"]) == t else 0.0 for c, t in zip(completions, target, strict=True)]
async def later(completions, **columns): return [0.5] * len(completions)
def sparse(completions, **columns): return [None, float("nan"), "x", 1][:len(completions)]
def short(completions, **columns): return []
def broken(completions, **columns): raise KeyError("oops")
def steps(completions, **columns): return [[(0, 1.0), (1, 0.5)], [], [(0, "x")], [(0, float("nan"))]][:len(completions)]
"""


def custom(tmp_path: Path, name: str, *texts: str, **columns) -> list[RewardResult]:
    file = tmp_path / "random.py"  # a name that would shadow a module if it were imported by name
    file.write_text(CUSTOM)
    answer = {"function": f"{file}:{name}", "columns": columns}
    task = Task(id="c", messages=(Message(role="user", content="hi"),), verifier="custom", answer=answer)
    return Scorer(RewardsConfig(), FakeSandbox([ended()])).score_group(group_of(task, *texts))


def test_a_reward_function_in_trl_s_form(tmp_path):
    assert [r.reward for r in custom(tmp_path, "length", "abc", "ab", target=3)] == [1.0, 0.0]
    assert [r.reward for r in custom(tmp_path, "later", "abc", "ab")] == [0.5, 0.5]


def test_a_reward_function_that_fails_is_never_a_zero(tmp_path):
    assert [r.reward for r in custom(tmp_path, "sparse", "a", "b", "c", "d")] == [None, None, None, 1.0]
    for name, words in (("short", "0 rewards for 2"), ("broken", "KeyError: 'oops'")):
        results = custom(tmp_path, name, "a", "b")
        assert [r.verdict for r in results] == [Verdict.INFRA] * 2 and words in results[0].detail
    with pytest.raises(DataError, match="no function 'absent'"):
        custom(tmp_path, "absent", "a")


def test_pairs_of_a_custom_function_are_the_rewards_of_steps(tmp_path):
    good, *bad = custom(tmp_path, "steps", "a", "b", "c", "d")
    assert (good.steps, good.reward, good.verdict) == (((0, 1.0), (1, 0.5)), 0.75, Verdict.AC)
    assert [(r.steps, r.verdict) for r in bad] == [((), Verdict.INFRA)] * 3


@pytest.mark.sandbox
def test_check_tasks_names_every_disagreement_and_its_cause(function_task, asserts_task):
    def named(task: Task, name: str, reference: str | None) -> Task:
        return Task(id=name, messages=task.messages, verifier=task.verifier, answer=task.answer, reference=reference)

    c_task = function_task("c", {"x": "int"}, "int", [([1], 2)])
    tasks = [
        named(c_task, "good", fenced("int f(int x) { return x + 1; }", "c")),
        named(c_task, "wrong", fenced("int f(int x) { return x; }", "c")),
        named(asserts_task("assert 1 == 1"), "trivial", fenced("pass")),
        named(asserts_task(), "empty", None),
        named(asserts_task("assert f() == 1"), "unreferenced", None),
    ]
    scorer = Scorer(RewardsConfig())
    report = check_tasks(tasks, scorer)
    scorer.close()
    causes = {found.task_id: found.cause for found in report.disagreements}
    assert set(causes) == {"wrong", "trivial", "empty"} and not report.ok
    assert causes["wrong"] == "the reference should pass: WA test 0: another value"
    assert causes["trivial"].startswith("an empty program should fail: AC")
    assert "at least one test" in causes["empty"]
    assert (report.checked, report.unchecked) == (4, 1) and "local:" in report.isolation
    assert str(report).startswith("4 tasks checked, 3 disagree, 1 unchecked\n  wrong: ")


@pytest.mark.parametrize(
    ("tree", "complaint"),
    [
        ({"reward": "tests"}, "reward='tests'"),
        ({"sandbox": {"tier": "podman"}}, "sandbox.tier='podman'"),
        ({"sandbox": {"cpu_s": 9, "wall_s": 3}}, "a busy machine would decide verdicts"),
        ({"sandbox": {"cpus": 1}}, "unknown key 'sandbox.cpus'; did you mean 'cpu_s'"),
        ({"mix_weights": {"compiler": 0, "rm": 0}}, "not both be 0"),
        ({"workers": 0}, "workers=0"),
        ({"isolate": "box"}, "isolate='box'"),
    ],
)
def test_configuration_complaints_name_the_key_and_the_remedy(tree, complaint):
    with pytest.raises(ConfigError, match=complaint):
        validate(RewardsConfig, tree, "test")


def test_config_and_results_survive_pickling(task):
    config = RewardsConfig(partial=True)
    assert pickle.loads(pickle.dumps(config)) == config
    assert config.sandbox.limits().cpu_s == 4.0


def test_importing_rewards_stays_light():
    """Everything but the learned reward model: no torch, vllm or ray, and nothing starts."""
    code = (
        "import sys, rewards.scorer, rewards.check_tasks, rewards.probe, rewards.mix, rewards.sandbox.fake\n"
        "print([m for m in ('torch', 'vllm', 'ray', 'transformers', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert out.stdout == "[]\n", out.stderr
