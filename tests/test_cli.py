"""The command line as a user meets it: help at once, one line for a mistake, nothing half done."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from assay.checkpoint import writing_step
from assay.cli import COMMANDS, _parsed, build_parser
from assay.commands.context import Run, leave_report
from assay.commands.schema import RunConfig
from assay.commands.stages import base_policy
from assay.config import validate
from assay.errors import DataError
from assay.lineage import Lineage
from assay.policy import InitConfig, PolicyConfig, create_policy, load_tokenizer
from tests import tiny_tasks

ROOT = Path(__file__).resolve().parent.parent


def assay(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "assay.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def test_help_names_every_command_without_loading_anything_heavy():
    code = (
        "import sys, contextlib, io\nfrom assay.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): main(['--help'])\n"
        "sys.exit(len({'torch', 'ray', 'vllm', 'pydantic', 'yaml'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    out = assay("--help").stdout
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str):
    result = assay(name, "--help")
    assert result.returncode == 0
    assert "usage: assay" in result.stdout


def config(tmp_path: Path, **tree: object) -> str:
    base = {"run_dir": str(tmp_path / "run"), "policy": {"init": {}}, "tasks": {"train": {"path": "nowhere.jsonl"}}}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({**base, **tree}))
    return str(path)


@pytest.mark.parametrize(
    ("command", "extra", "said"),
    [
        ("grpo", ["nowhere.yaml"], "nowhere.yaml: cannot be read"),
        ("grpo", [], "name a CONFIG"),
        ("grpo", ["--resume", "nowhere"], "no config.yaml, so not the folder of a run"),
        ("grpo", ["configs/mbpp.yaml", "--replay", "nowhere"], "--replay nowhere: no samples below nowhere"),
        ("grpo", ["--resume", "a", "--replay", "b"], "--resume and --replay exclude each other"),
        ("report", ["nowhere"], "nowhere"),
        ("check-tasks", ["nowhere.jsonl"], "nowhere.jsonl: cannot be read"),
        ("check-tasks", ["x", "--format", "nowhere"], "no such format"),
        ("eval", ["configs/mbpp.yaml", "--policy", "/nowhere/at/all"], "no such folder"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(command: str, extra: list[str], said: str):
    result = assay(command, *extra)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_settings_are_checked_before_anything_is_written(tmp_path: Path):
    result = assay("grpo", config(tmp_path, grpo={"group_size": 1}))
    assert result.returncode == 2
    assert "a group of one" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_missing_section_is_named(tmp_path: Path):
    assert "needs a `grpo:` section" in assay("grpo", config(tmp_path)).stderr
    assert "needs a `sft:` section" in assay("recipe", config(tmp_path)).stderr


def test_a_folder_made_with_other_settings_is_not_overwritten(tmp_path: Path):
    mistyped = config(tmp_path, sft={"data": "nowhere.jsonl"})
    assert "nowhere.jsonl" in assay("sft", mistyped).stderr
    mended = config(tmp_path, sft={"data": "elsewhere.jsonl"})  # nothing was made yet, so nothing can be mixed up
    assert "elsewhere.jsonl" in assay("sft", mended).stderr
    Lineage(tmp_path / "run").record("base", kind="policy", path="somewhere")
    result = assay("sft", config(tmp_path, sft={"data": "elsewhere.jsonl", "learning_rate": 0.1}))
    assert result.returncode == 2
    assert "made with other settings (sft.learning_rate)" in result.stderr


def test_a_run_keeps_absolute_paths_and_leaves_hub_names_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "tasks.jsonl").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA", ".")
    tree = {"run_dir": "run", "policy": {"path": "someone/some-model"}, "sft": {"data": "tasks.jsonl"},
            "tasks": {"train": {"path": "$DATA/tasks.jsonl"}, "heldout": {"path": "nowhere.jsonl"}}}  # fmt: skip
    kept = Run.open(validate(RunConfig, tree, "test")).config
    assert Run.reopen(tmp_path / "run").config.tasks == kept.tasks
    assert kept.tasks.train is not None and kept.tasks.heldout is not None and kept.sft is not None
    assert kept.tasks.train.path == kept.sft.data == str(tmp_path / "tasks.jsonl")
    assert kept.tasks.heldout.path == str(tmp_path / "nowhere.jsonl")
    assert kept.policy.path == "someone/some-model"


def test_a_policy_that_exists_stays_as_old_as_it_is(tmp_path: Path):
    """Recorded anew it would look younger than the stages made from it, and none could be taken up."""
    tree = {"run_dir": str(tmp_path / "run"), "policy": {"path": "someone/some-model"},
            "tasks": {"train": {"path": "t.jsonl"}}}  # fmt: skip
    run = Run.open(validate(RunConfig, tree, "test"))
    assert base_policy(run) == "someone/some-model"
    first = run.lineage.artifacts["base"]["finished"]
    run.lineage.record("sft", kind="policy", path="x", parents=["base"])
    again = Run.reopen(tmp_path / "run")
    base_policy(again)
    assert again.lineage.artifacts["base"]["finished"] == first


def test_a_failed_write_leaves_the_settings_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tree = {"run_dir": str(tmp_path / "run"), "policy": {"init": {}}, "tasks": {"train": {"path": "t.jsonl"}}}
    Run.open(validate(RunConfig, tree, "test"))
    before = (tmp_path / "run" / "config.yaml").read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        Run.open(validate(RunConfig, {**tree, "seed": 3}, "test"))
    assert (tmp_path / "run" / "config.yaml").read_text() == before


def test_a_mistake_in_the_first_attempt_does_not_lock_the_folder(tmp_path: Path):
    policy = {"path": "someone/some-model"}
    tree = {"run_dir": str(tmp_path / "run"), "policy": policy, "tasks": {"train": {"path": "nowhere.jsonl"}}}
    base_policy(Run.open(validate(RunConfig, tree, "test")))
    Run.open(validate(RunConfig, {**tree, "tasks": {"train": {"path": "elsewhere.jsonl"}}}, "test"))


def test_there_must_be_something_to_resume(tmp_path: Path):
    run = config(tmp_path, grpo={})
    Run.open(validate(RunConfig, yaml.safe_load(Path(run).read_text()), "test"))
    result = assay("grpo", "--resume", str(tmp_path / "run"))
    assert result.returncode == 2 and "nothing to resume" in result.stderr


@pytest.mark.sandbox
def test_a_wrong_checkpoint_is_found_before_anything_is_started(tmp_path: Path, tiny_policy: Path):
    tiny_tasks.generate(tmp_path / "tasks", seed=0)
    tree = {"policy": {"path": str(tiny_policy)}, "grpo": {"steps": 1}, "rewards": {"reward": "rm"},
            "tasks": {"train": {"path": str(tmp_path / "tasks" / "train.jsonl")}, "check": "none"}}  # fmt: skip
    result = assay("grpo", config(tmp_path, **tree, reward_model_path=str(tiny_policy)))
    assert result.returncode == 2 and "expected a *ForSequenceClassification checkpoint" in result.stderr
    assert "fleet" not in result.stderr


@pytest.mark.sandbox
def test_a_checkpoint_of_other_sizes_is_found_before_anything_is_started(tmp_path: Path, tiny_policy: Path):
    tiny_tasks.generate(tmp_path / "tasks", seed=0)
    tree = {"policy": {"path": str(tiny_policy)}, "grpo": {"steps": 2},
            "tasks": {"train": {"path": str(tmp_path / "tasks" / "train.jsonl")}, "check": "none"}}  # fmt: skip
    run = Run.open(validate(RunConfig, yaml.safe_load(Path(config(tmp_path, **tree)).read_text()), "test"))
    (run.folder / "grpo").mkdir()
    (run.folder / "grpo" / "metrics.jsonl").write_text('{"step": 1}\n')
    with writing_step(run.folder / "grpo" / "checkpoints", 1, {"cursor": 1}) as folder:
        made = PolicyConfig(init=InitConfig(hidden_size=64, num_hidden_layers=1))
        create_policy(made, load_tokenizer(tiny_policy), 0, folder / "model")
    assert run.claim is not None
    run.claim.release()
    result = assay("grpo", "--resume", str(run.folder))
    assert result.returncode == 2 and "another architecture: " in result.stderr and "fleet" not in result.stderr


def test_a_report_that_cannot_be_written_hides_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(DataError, match="the first"):
        try:
            raise DataError("the first")
        finally:
            leave_report(tmp_path)
    assert "no report was written" in capsys.readouterr().err


def test_resume_takes_no_settings_but_where_and_how_long_it_runs(tmp_path: Path):
    run = Run.open(validate(RunConfig, yaml.safe_load(Path(config(tmp_path, grpo={})).read_text()), "test"))
    for word in ("grpo.steps=9", "nowhere.yaml", "run_dir=x"):
        result = assay("grpo", "--resume", str(run.folder), word)
        assert result.returncode == 2 and f"takes the run's own settings, given {word}; only max" in result.stderr
    anew = Run.reopen(run.folder, ["max_hours=2", "cluster.address=head:6379"]).config
    assert (anew.max_hours, anew.cluster.address) == (2, "head:6379")
    assert run.claim is not None
    run.claim.release()
    assert "nothing to resume" in assay("grpo", "--resume", str(run.folder), "max_hours=2").stderr
    Lineage(run.folder).record("sft", kind="policy", path="x")
    Run.open(anew)  # the same run, elsewhere


@pytest.mark.sandbox
def test_check_tasks_lists_what_disagrees(tmp_path: Path):
    def row(name: str, reference: str, expected: int) -> dict[str, object]:
        answer = {
            "language": "python",
            "entry_point": "f",
            "parameters": [{"name": "n", "type": "int"}],
            "returns": "int",
            "tests": [{"args": [3], "expected": expected}, {"args": [5], "expected": expected + 2}],
        }
        return {
            "id": name,
            "messages": [{"role": "user", "content": "f"}],
            "verifier": "function",
            "answer": answer,
            "reference": f"```python\n{reference}\n```",
        }

    file = tmp_path / "tasks.jsonl"
    rows = [row("right", "def f(n): return n + 1", 4), row("wrong", "def f(n): return n", 4)]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    result = assay("check-tasks", str(file))
    assert result.returncode == 1
    assert "2 tasks checked, 1 disagree" in result.stdout
    assert "wrong: the reference should pass" in result.stdout
    assert "right:" not in result.stdout


def test_help_answers_quickly():
    """Bounded far above what it takes (0.1 s) so that a busy machine does not fail it; imports are asserted above."""
    started = time.monotonic()
    assay("--help")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "words",
    [
        ["grpo", "a.yaml", "--replay", "RUN", "run_dir=NEW", "seed=3"],
        ["grpo", "a.yaml", "run_dir=NEW", "--replay", "RUN", "seed=3"],
        ["grpo", "a.yaml", "run_dir=NEW", "seed=3", "--replay", "RUN"],
    ],
)
def test_overrides_may_stand_before_and_behind_options(words: list[str]):
    found = _parsed(build_parser(), words)
    assert (found.config, found.replay, found.overrides) == ("a.yaml", "RUN", ["run_dir=NEW", "seed=3"])


@pytest.mark.parametrize(
    "words", [["grpo", "a.yaml", "--nothing", "x=1"], ["doctor", "x=1"], ["grpo", "a.yaml", "b", "--replay", "R", "c"]]
)
def test_what_is_no_override_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        _parsed(build_parser(), words)
    assert "unrecognized arguments" in capsys.readouterr().err


def test_a_signal_that_python_swallows_is_told_again():
    """It comes while an object ends, where an exception is heard by nobody."""
    code = (
        "import os, signal, time\nfrom assay import cli\n"
        "class Ends:\n    def __del__(self):\n        os.kill(os.getpid(), signal.SIGTERM)\n        time.sleep(0.01)\n"
        "def run(arguments):\n    ends = Ends()\n    del ends\n    print('swallowed', flush=True)\n    time.sleep(20)\n"
        "cli._run = run\nraise SystemExit(cli.main(['doctor']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=15, check=False
    )
    assert (done.returncode, done.stdout) == (130, "swallowed\n")
    assert done.stderr == "assay doctor: interrupted\n"
