"""The micro programs: distinct, split by composition, right where they claim to be and wrong where they claim to be."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.micro_programs.compose import INT32_MAX, LANGUAGES, OPERATIONS, insert
from examples.micro_programs.generate import generate, main, specify

COUNTS = {"specifications": 2400, "heldout": 320}
SMALL = {"specifications": 300, "heldout": 30, "wrong_share": 0.5, "demonstrations_per_task": 1, "tests_per_task": 6}
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc compiles the programs in C")
SAMPLE = 150  # tasks per language that are really run

RUN_PYTHON = """
import json, sys
def run(case):
    names = {}
    exec(case["program"], names)
    outcomes = []
    for test in case["tests"]:
        try:
            value = names["f"](*test["args"])
            outcomes.append([type(value).__name__, value])
        except Exception as error:
            outcomes.append([type(error).__name__, str(error)])
    return outcomes
print(json.dumps([run(case) for case in json.load(sys.stdin)]))
"""


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("micro_programs")
    generate(
        out, seed=0, wrong_share=0.5, demonstrations_per_task=1, tests_per_task=6, **COUNTS
    )  # the sizes of the demo
    return out


@pytest.fixture(scope="module")
def rows(written: Path) -> dict[str, list[dict[str, Any]]]:
    return {name: read(written / f"{name}.jsonl") for name in ("train", "heldout", "demonstrations")}


@pytest.fixture(scope="module")
def summary(written: Path) -> dict[str, Any]:
    return json.loads((written / "summary.json").read_text(encoding="utf-8"))


def composition(task_id: str) -> str:
    return task_id.rpartition("/")[2]


def program(answer: str) -> str:
    opening, _, rest = answer.partition("\n")
    assert opening in ("```python", "```c")
    assert rest.endswith("\n```")
    return rest.removesuffix("\n```")


def c_value(value: Any) -> str:
    if isinstance(value, list):
        # An empty compound literal is no C; the length beside it is 0.
        return f"(const int[]){{{', '.join(map(str, value)) or 0}}}, {len(value)}"
    return json.dumps(value) if isinstance(value, str) else str(int(value))


def run_c(cases: list[dict[str, Any]], folder: Path) -> list[list[int]]:
    """Call every function on its tests: one compilation for all, undefined behaviour trapped."""
    source, calls = ["#include <stdio.h>"], []
    for number, case in enumerate(cases):
        source.append(case["program"].replace("int f(", f"static int f{number}(", 1))
        for test in case["tests"]:
            calls.append(f'printf("%d ", f{number}({", ".join(map(c_value, test["args"]))}));')
        calls.append('puts("");')
    (folder / "all.c").write_text("\n".join([*source, "int main(void) {", *calls, "return 0; }"]))
    flags = ["-std=c99", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error", "-w"]
    subprocess.run(["gcc", *flags, "-o", folder / "all", folder / "all.c"], check=True, timeout=60)
    output = subprocess.run([folder / "all"], check=True, capture_output=True, text=True, timeout=30).stdout
    return [[int(word) for word in line.split()] for line in output.splitlines()]


def run_python(cases: list[dict[str, Any]]) -> list[list[list[Any]]]:
    done = subprocess.run(
        [sys.executable, "-c", RUN_PYTHON],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return json.loads(done.stdout)


def judge(programs: list[tuple[dict[str, Any], str]], folder: Path) -> list[bool]:
    """Whether each (task, answer) passes all tests of its task when it is really run."""
    passed: dict[int, bool] = {}
    for language in LANGUAGES:
        chosen = [number for number, (task, _) in enumerate(programs) if task["answer"]["language"] == language]
        cases = [
            {"program": program(programs[number][1]), "tests": programs[number][0]["answer"]["tests"]}
            for number in chosen
        ]
        outcomes = run_python(cases) if language == "python" else run_c(cases, folder)
        for number, case, got in zip(chosen, cases, outcomes, strict=True):
            expected = [test["expected"] for test in case["tests"]]
            wanted = [[type(value).__name__, value] for value in expected] if language == "python" else expected
            passed[number] = got == wanted
    return [passed[number] for number in range(len(programs))]


def test_counts(rows: dict[str, list[dict[str, Any]]], summary: dict[str, Any]) -> None:
    sizes = {name: len(found) for name, found in rows.items()}
    assert sizes == {"train": 4160, "heldout": 640, "demonstrations": 4160}
    assert (summary["train_tasks"], summary["heldout_tasks"], summary["demonstrations"]) == (4160, 640, 4160)
    for name in ("train", "heldout"):
        assert Counter(row["answer"]["language"] for row in rows[name]) == dict.fromkeys(LANGUAGES, sizes[name] // 2)


def test_rows_have_the_form_of_tasks(rows: dict[str, list[dict[str, Any]]]) -> None:
    from assay.types import Message, Task

    for row in rows["train"] + rows["heldout"]:
        messages = tuple(Message(**message) for message in row.pop("messages"))
        task = Task(messages=messages, **row)
        row["messages"] = [{"role": message.role, "content": message.content} for message in messages]
        answer = task.answer
        assert set(answer) == {"language", "entry_point", "parameters", "returns", "tests"}
        assert {parameter["type"] for parameter in answer["parameters"]} <= {"int", "string", "int[]"}
        assert len(answer["tests"]) == 6
        assert all(len(test["args"]) == len(answer["parameters"]) for test in answer["tests"])
        assert {type(test["expected"]).__name__ for test in answer["tests"]} == {answer["returns"]}


def test_texts_and_compositions_are_distinct_and_in_both_languages(rows: dict[str, list[dict[str, Any]]]) -> None:
    tasks = rows["train"] + rows["heldout"]
    assert len({row["id"] for row in tasks}) == len(tasks)
    assert len({row["messages"][0]["content"] for row in tasks}) == len(tasks)
    assert set(Counter(composition(row["id"]) for row in tasks).values()) == {2}
    texts = {row["messages"][0]["content"].split(": ", 1)[1] for row in tasks}
    assert len(texts) == len(tasks) // 2


def test_no_composition_and_no_function_is_in_both_splits(rows: dict[str, list[dict[str, Any]]]) -> None:
    train, heldout = ({composition(row["id"]) for row in rows[name]} for name in ("train", "heldout"))
    assert (len(train), len(heldout)) == (2080, 320)
    assert not train & heldout
    train_tests, heldout_tests = (
        {json.dumps(row["answer"]["tests"]) for row in rows[name]} for name in ("train", "heldout")
    )
    assert not train_tests & heldout_tests
    train_programs, heldout_programs = ({row["reference"] for row in rows[name]} for name in ("train", "heldout"))
    assert not train_programs & heldout_programs


def test_every_operation_is_trained_and_many_are_held_out(summary: dict[str, Any]) -> None:
    assert set(summary["operations"]) == {operation.name for operation in OPERATIONS}
    assert min(row["train_specifications"] for row in summary["operations"].values()) >= 8
    assert sum(row["heldout_specifications"] > 0 for row in summary["operations"].values()) > 100


def test_wrong_share_and_misconceptions(rows: dict[str, list[dict[str, Any]]], summary: dict[str, Any]) -> None:
    wrong = sum(not row["correct"] for row in rows["demonstrations"]) / len(rows["demonstrations"])
    assert wrong == pytest.approx(0.5, abs=0.02)
    assert wrong == pytest.approx(summary["wrong_share"], abs=1e-4)
    assert all(row["correct"] == (not row["mistakes"]) for row in rows["demonstrations"])
    rates = [row["mistake_rate"] for row in summary["operations"].values()]
    assert summary["misconception_share"] == pytest.approx(0.5, abs=0.02)
    touched = [set(summary["misconceptions"]) & set(composition(row["id"]).split(".")) for row in rows["train"]]
    assert sum(map(bool, touched)) / len(touched) == pytest.approx(summary["misconception_share"], abs=1e-4)
    assert max(rates) <= 0.8, "the right form must stay within reach of sampling"
    assert not [rate for rate in rates if 0.45 < rate <= 0.5]


@needs_gcc
def test_references_agree_with_expected_values(rows: dict[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    tasks = rows["train"] + rows["heldout"]
    sample = random.Random(1).sample(tasks, 2 * SAMPLE)
    assert all(judge([(task, task["reference"]) for task in sample], tmp_path))


@needs_gcc
def test_demonstrations_pass_or_fail_as_labelled(rows: dict[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    tasks = {task["id"]: task for task in rows["train"]}
    sample = random.Random(2).sample(rows["demonstrations"], 2 * SAMPLE)
    passed = judge([(tasks[row["task_id"]], row["messages"][-1]["content"]) for row in sample], tmp_path)
    assert passed == [row["correct"] for row in sample]
    assert 0.4 < sum(passed) / len(passed) < 0.6


@needs_gcc
def test_every_single_mistake_is_caught_when_run(tmp_path: Path) -> None:
    programs = []
    for item in specify(120, seed=3, tests_per_task=6):
        for name in item.composition.can_go_wrong:
            for language in LANGUAGES:
                programs.append((item.task(language), item.composition.answer(language, frozenset({name}))))
    assert len(programs) > 500
    assert not any(judge(programs, tmp_path))


def test_values_stay_in_int32(rows: dict[str, list[dict[str, Any]]]) -> None:
    for row in rows["train"] + rows["heldout"]:
        for test in row["answer"]["tests"]:
            assert -INT32_MAX <= test["expected"] <= INT32_MAX
            for value in test["args"]:
                assert not isinstance(value, int) or abs(value) <= 100_000
                assert not isinstance(value, list) or all(abs(element) <= 12 for element in value)


def test_first_test_is_the_edge_case(rows: dict[str, list[dict[str, Any]]]) -> None:
    assert all(row["answer"]["tests"][0]["args"][0] in (0, 1, [], "") for row in rows["train"])


def test_prompts_and_programs_are_short(rows: dict[str, list[dict[str, Any]]]) -> None:
    prompts = [len(row["messages"][0]["content"]) for row in rows["train"]]
    programs = [len(row["reference"]) for row in rows["train"]]
    assert sum(prompts) / len(prompts) < 110
    assert max(prompts) < 220
    assert sum(programs) / len(programs) < 200
    assert max(programs) < 320


def test_same_seed_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first, second, other = (
        generate(tmp_path / name, seed=seed, **SMALL) for name, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    assert first == second
    assert first["sha256"] != other["sha256"]
    for name in ("train.jsonl", "heldout.jsonl", "demonstrations.jsonl", "summary.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(("wrong_share", "misconception_share"), [(0.0, 0.5), (0.25, 0.15), (0.65, 0.7)])
def test_other_shares_of_mistakes(tmp_path: Path, wrong_share: float, misconception_share: float) -> None:
    asked = {**SMALL, "wrong_share": wrong_share, "demonstrations_per_task": 2}
    summary = generate(tmp_path, seed=1, misconception_share=misconception_share, **asked)
    assert summary["demonstrations"] == 2 * 2 * 270
    assert summary["wrong_share"] == pytest.approx(wrong_share, abs=0.02)


def test_the_share_of_programs_with_a_misconception_does_not_depend_on_the_seed(tmp_path: Path) -> None:
    """What SFT reaches hangs on it; a share of the operations gave 0.31 with one seed and 0.47 with the next."""
    options = {**SMALL, "specifications": 500, "catalogue": 0.33, "misconception_share": 0.5}
    shares = [generate(tmp_path / str(seed), seed=seed, **options)["misconception_share"] for seed in range(6)]
    assert shares == pytest.approx([0.5] * 6, abs=0.02)


def test_shares_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lower misconception_share"):
        generate(tmp_path, seed=0, misconception_share=0.6, **{**SMALL, "wrong_share": 0.1})
    with pytest.raises(ValueError, match="can be held out"):
        generate(tmp_path, seed=0, **{**SMALL, "specifications": 40, "heldout": 40})


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path), "--seed", "2", "--specifications", "200", "--heldout", "10"])
    assert json.loads(capsys.readouterr().out)["train_tasks"] == 380
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--specifications", "100", "--heldout", "90"])
    script = Path(__file__).resolve().parents[2] / "examples" / "micro_programs" / "generate.py"
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, timeout=30, cwd=tmp_path)
    assert "--wrong-share" in done.stdout


def test_parentheses_only_where_needed() -> None:
    assert insert("r = r * (E) % 1000", "x + 1") == "r = r * (x + 1) % 1000"
    assert insert("r = r * (E) % 1000", "x") == "r = r * x % 1000"
    assert insert("r = r - (E)", "abs(x - k)") == "r = r - abs(x - k)"


def test_a_part_of_the_catalogue_gives_fewer_operations_and_one_wording_each(tmp_path: Path) -> None:
    """What the demo asks for: 2,200 specifications of a third of the operations."""
    options = {"specifications": 400, "heldout": 40, "catalogue": 0.33, "phrasings": 1, "wrong_share": 0.5}
    summary = generate(tmp_path, seed=2, **options, misconception_share=0.5)
    used = [name for name, row in summary["operations"].items() if row["train_specifications"]]
    assert 30 <= len(used) <= 45
    held = [row for row in summary["operations"].values() if row["heldout_specifications"]]
    assert all(row["train_specifications"] for row in held)
    assert abs(summary["wrong_share"] - 0.5) <= 0.02
    prompts = [row["messages"][0]["content"] for row in read(tmp_path / "train.jsonl")]
    assert not [p for p in prompts if "the total of" in p]  # the second wording of "the sum of"
    assert [p for p in prompts if "the sum of" in p]
