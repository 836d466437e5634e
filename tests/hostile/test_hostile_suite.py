"""Every hostile case on every tier there is, and that the suite itself would notice a case that wins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from assay.errors import DataError, EnvironmentProblem
from rewards.sandbox.base import Job, RunResult
from tests.hostile.cases import SECTIONS, Run, filled, load
from tests.hostile.suite import TIERS, Laboratory, NotRun, Watched

CASES = load()
RUNS = [run for case in CASES.values() for run in case.runs]


#: Minutes a tier, so whole with `make test-slow`; `make test` runs the first way of every case on the local tier.
_PARAMS = [pytest.param(tier, marks=[pytest.mark.slow] if tier != "local" else []) for tier in TIERS]
FIRST = {case.runs[0].id for case in CASES.values() if case.runs}


@pytest.fixture(scope="module", params=_PARAMS)
def laboratory(request) -> Iterator[Laboratory]:
    """A tier; where this machine does not have it, its runs are skipped with the remedy."""
    try:
        opened = Laboratory(request.param)
    except EnvironmentProblem as problem:
        pytest.skip(str(problem))
    with opened:
        yield opened


def _parameter(run: Run):
    marks = [pytest.mark.sandbox, *([pytest.mark.slow] if run.slow or run.id not in FIRST else [])]
    return pytest.param(run, id=run.id.replace(" ", "-"), marks=marks)


@pytest.mark.parametrize("run", [_parameter(run) for run in RUNS])
def test_hostile(run: Run, laboratory: Laboratory):
    try:
        outcome = laboratory.check(run)
    except NotRun as reason:
        pytest.skip(str(reason))
    if run.hole and laboratory.tier in run.hole_tiers:
        if outcome.problems:
            pytest.xfail(f"{run.hole}: {outcome}")
        pytest.fail(f"{outcome.run} holds now: take its `hole` out of the data")
    assert not outcome.problems, str(outcome)


# The data


def test_every_case_of_the_list_is_there():
    """134 hostile ones, and 13 honest ones."""
    wanted = {f"{section}{number:02}" for section, count in SECTIONS.items() for number in range(1, count + 1)}
    assert set(CASES) == wanted
    assert sum(count for section, count in SECTIONS.items() if section != "H") == 134 and SECTIONS["H"] == 13


def test_honest_programs_must_be_accepted_and_hostile_ones_need_a_reason():
    for run in RUNS:
        assert run.case[0] != "H" or run.expect in (("AC",), ("SAME",)), run.id
        assert run.case[0] == "H" or run.expect != ("AC",) or run.earned, run.id


def test_cases_that_are_not_run_say_why():
    assert {case.id: case.not_run for case in CASES.values() if not case.runs}.keys() == {"D48"}


def test_fills():
    fill = {"X": {"text": "ab", "times": 2}}
    assert filled({"a": ["@X@", 3], "b": "x@X@"}, fill) == {"a": ["abab", 3], "b": "xabab"}


MINIMAL = """
[[case]]
id = "A01"
name = "x"
expect = ["RE"]
[[case.run]]
program = "x"
"""


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("", ""), None),
        (('program = "x"', 'programme = "x"'), "did you mean 'program'"),
        (('program = "x"', ""), "needs a program"),
        (('["RE"]', '["AC"]'), "AC without earned"),
        (('["RE"]', '["INFRA"]'), "must not be able to make the harness fail"),
        (('["RE"]', '["RTE"]'), "must be some of"),
        (('["RE"]', "[]"), "must be some of"),
        (('"A01"', '"A1"'), "needs an id"),
        (("[[case.run]]", 'not_run = "y"\n[[case.run]]'), "not both"),
        (('program = "x"', 'program = "@X@"'), "fills"),
        (('program = "x"', 'program = "x"\njudge = "guess"'), "no judge 'guess'"),
        (('program = "x"', 'program = "x"\n[[case.run]]\nprogram = "y"'), "two runs are called 'python'"),
        (('program = "x"', "program = x"), "case.toml:"),
        (("[[case]]", "[[cases]]"), r"expected \[\[case\]\]"),
    ],
)
def test_data_that_cannot_mean_anything_is_refused(change, complaint, tmp_path: Path):
    (tmp_path / "case.toml").write_text(MINIMAL.replace(*change))
    if complaint is None:
        assert load(tmp_path)["A01"].runs[0].id == "A01.python"
    else:
        with pytest.raises(DataError, match=complaint):
            load(tmp_path)


def test_an_id_twice_is_refused(tmp_path: Path):
    (tmp_path / "case.toml").write_text(MINIMAL + MINIMAL)
    with pytest.raises(DataError, match="there twice"):
        load(tmp_path)


# The suite: what it must not let pass


@pytest.fixture(scope="module")
def local() -> Iterator[Laboratory]:
    """The local tier by itself."""
    try:
        opened = Laboratory("local")
    except EnvironmentProblem as problem:
        pytest.skip(str(problem))
    with opened:
        yield opened


WINS = Run(case="Z01", name="python", judge="function", expect=("WA",), program="def f(x): return x + 1")


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, "verdict AC, expected WA"),
        ({"expect": ("AC",)}, "reward 1.0"),
        ({"program": "def f(x): return 0"}, None),
        ({"program": "def f(x): return 0", "says": "held"}, "nothing said 'held'"),
        ({"program": "def f(x):\n  print('sshd', flush=True)\n  return 0", "never": "ssh"}, "something said 'ssh'"),
        ({"program": "def f(x): return 0 # 7777", "secret": "7777"}, "an expected value entered a box"),
        ({"program": "def f(x): return 0", "boxes": 2}, "judging took 1 boxes"),
        ({"program": "import time\ndef f(x): time.sleep(0.3)", "within_s": 0.2}, "judging took 0."),
    ],
)
def test_the_suite_sees_what_does_not_hold(changes, problem, local: Laboratory):
    problems = local.check(replace(WINS, **changes)).problems
    assert problems == () if problem is None else any(problem in one for one in problems)


class Tampering(Watched):
    """A sandbox that does something beside every run but the suite's own."""

    def __init__(self, inner, act) -> None:
        super().__init__(inner=inner)
        self.act = act

    def run(self, job: Job) -> RunResult:
        result = super().run(job)
        return self.act(result) if b"while judging" in job.stdin else result


@pytest.mark.sandbox
@pytest.mark.parametrize("what", ["secret", "slow", "file"])
def test_the_suite_sees_a_sandbox_that_leaks(what, local: Laboratory, monkeypatch, tmp_path):
    left = Path("/tmp") / f"assay-box-left-by-{tmp_path.name}"

    def act(result: RunResult) -> RunResult:
        if what == "file":
            left.touch()
        if what == "slow":
            monkeypatch.setattr("tests.hostile.suite.GRACE_S", -100.0)
        return replace(result, stderr=local.secret.encode()) if what == "secret" else result

    monkeypatch.setattr(local.sandbox, "inner", Tampering(local.sandbox.inner, act))
    try:
        problems = local.check(replace(WINS, program="def f(x): return 0  # while judging")).problems
    finally:
        left.unlink(missing_ok=True)
    wanted = {"secret": "a secret of this machine came out", "slow": "a box with a wall limit", "file": "folders: "}
    assert any(problem.startswith(wanted[what]) for problem in problems), problems
