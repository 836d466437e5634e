"""The language table: rows that fit together, names that resolve, and every tool-chain there is, tried in a box."""

from __future__ import annotations

import os
import re
import string
from dataclasses import replace
from pathlib import Path

import pytest

from assay.errors import DataError
from rewards import building, selftest
from rewards.bench import Bench
from rewards.extract import program_of
from rewards.language_names import Kind, counts, names, resolve
from rewards.languages import LANGUAGES, PAPER, Language, find
from rewards.sandbox.base import Job, KilledBy, Limits
from rewards.sandbox.fake import FakeSandbox, ended
from rewards.selftest import CHECKS, examples, self_test

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("ASSAY_DATA", ROOT.parent / "shared" / "data"))
SUPPORTED = DATA / "deepseek_coder_v2" / "supported_langs.txt"
ROWS = list(LANGUAGES.values())
ALL = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
PATIENT_S = 30.0  #: a compiler allowed this much processor time makes a test slow


def placeholders(argv: tuple[str, ...]) -> set[str]:
    return {name for argument in argv for _, name, _, _ in string.Formatter().parse(argument) if name is not None}


def test_there_are_rows_for_the_paper_first_and_many_more():
    assert tuple(LANGUAGES)[: len(PAPER)] == PAPER and len(PAPER) == 14
    assert len(LANGUAGES) >= 45


def test_names_and_aliases_are_lower_case_and_belong_to_one_row():
    labels = [label for row in ROWS for label in (row.name, *row.aliases)]
    assert [label for label in labels if labels.count(label) > 1] == []
    assert [label for label in labels if label != label.lower().strip()] == []
    assert [name for name, row in LANGUAGES.items() if name != row.name] == []


@ALL
def test_commands_are_made_of_known_placeholders(row: Language):
    assert placeholders(row.compile) | placeholders(row.run) <= {"source", "artefact", "python"}
    for argv in filter(None, (row.compile, row.run)):
        assert argv[0].startswith(("/", "./{artefact}", "{python}")), "a box has no search path of ours"
    assert all(tool.startswith("/") for tool in row.tools)
    assert "/bin/sh" not in row.tools or row.needs, "what a shell line starts must be named in `needs`"
    text = " ".join(row.compile)
    assert all(
        tool in row.tools for tool in re.findall(r"/usr/(?:local/\S*)?bin/[\w+.-]+", text) if "_start" not in text
    )


@ALL
def test_one_file_goes_from_the_answer_to_the_run(row: Language):
    Job(argv=("./x",), files={row.source: b""}, collect=(row.artefact,))  # both are plain names
    if row.compile:
        assert "source" in placeholders(row.compile)
        assert any(row.artefact in part for part in row.compile_argv()) or row.artefact == "main.beam"
        assert row.artefact != row.source and "source" not in placeholders(row.run)
        assert "artefact" in placeholders(row.run) or row.name == "erlang"
    else:
        assert "artefact" not in placeholders(row.run)
        assert "source" in placeholders(row.run) or row.name == "haxe"


@ALL
def test_a_row_says_how_to_get_it_and_what_is_odd(row: Language):
    assert row.install or row.name == "python"
    assert not row.archive or re.fullmatch(r"https://\S+ unpacked to /usr/local/\S+", row.archive)
    assert row.status_tells or row.quirk
    assert not row.quirk or row.quirk[-1] == "."
    assert all(re.fullmatch(r"[A-Z_0-9]+=.+", setting) for setting in row.environment)
    assert 0 <= row.start_cpu_s <= 10 and 0 <= row.threads <= 64


@ALL
def test_every_row_has_its_example_programs(row: Language):
    wanted = [check for check in CHECKS if check != "sum" or row.reads_input]
    programs = examples(row.name)
    assert list(programs) == wanted
    assert len(set(programs.values())) == len(wanted) and all(text.strip() for text in programs.values())


def test_every_example_has_a_row():
    files = {path.stem for path in (Path(selftest.__file__).parent / "language_examples").iterdir()}
    assert files == {name.replace(" ", "-") for name in LANGUAGES}
    with pytest.raises(DataError, match="no example programs"):
        examples("klingon")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        *(
            ("py", "python"),
            ("js", "javascript"),
            ("ts", "typescript"),
            ("c++", "cpp"),
            ("cpp", "cpp"),
            ("cs", "csharp"),
        ),
        *(("C#", "csharp"), ("sh", "bash"), ("rs", "rust"), ("golang", "go"), ("hs", "haskell"), ("rb", "ruby")),
        *(("kt", "kotlin"), ("jl", "julia"), ("rkt", "racket"), ("R", "r"), ("F90", "fortran"), ("Perl6", "raku")),
    ],
)
def test_labels_of_fenced_blocks_are_known(label: str, name: str):
    assert find(label).name == name
    assert program_of(f"So:\n```{label}\nx\n```\n", find(name)) == "x\n"
    assert program_of(f"So:\n```{label}\nx\n```\n", find("bc")) is None


def test_an_unknown_language_names_its_neighbours():
    with pytest.raises(DataError, match="did you mean .*haskell"):
        find("haskel")
    with pytest.raises(DataError, match="there are ada, "):
        find("0")


def test_flags_go_around_the_source_and_nowhere_else():
    argv = find("c").compile_argv(flags=("-DX",), objects=("a.o",))
    assert argv[argv.index("answer.c") - 1 : argv.index("answer.c") + 2] == ("-DX", "answer.c", "a.o")
    with pytest.raises(ValueError, match="java takes no further flags"):
        find("java").compile_argv(flags=("-g",))


def test_commands_are_filled_in():
    assert find("go").run_argv()[-1] == "./program" and find("go").run_argv()[0] == "/usr/bin/env"
    assert find("java").run_argv()[-2:] == ("program.jar", "Main")
    assert find("python").run_argv(python="/usr/bin/python3") == ("/usr/bin/python3", "-P", "-s", "-S", "answer.py")
    assert "{" not in " ".join(argument for row in ROWS for argument in (*row.compile_argv(), *row.run_argv()))


def test_a_runtime_brings_its_own_needs_to_a_tests_limits():
    limits = Limits(cpu_s=1.0, wall_s=2.0, processes=10)
    java, c = find("java"), find("c")
    assert c.limits(limits) == limits
    mine = java.limits(limits)
    assert (mine.cpu_s, mine.wall_s) == (1.0 + java.start_cpu_s, 2.0 + 2 * java.start_cpu_s)
    assert mine.processes == 10 + java.threads and not mine.address_space and mine.memory_bytes == limits.memory_bytes


def test_every_name_is_one_of_three_things():
    assert len(names()) == 338 and sum(counts().values()) == 338
    for name in names():
        found = resolve(name)
        assert (found.kind is Kind.RUNS) == (found.row != "") and (not found.row or found.row in LANGUAGES)
        assert found.sentence or found.kind is Kind.RUNS
    assert counts()[Kind.RUNS] >= 70 and counts()[Kind.CHECKED] >= 80
    unnamed = {"d", "prolog", "forth"}  # not in the list
    assert {resolve(name).row for name in names()} - {""} == set(LANGUAGES) - unnamed


def test_names_resolve_to_what_they_are():
    assert resolve("C#").row == "csharp" and resolve("c#") == resolve("C#")
    assert resolve("JSON").kind is Kind.CHECKED and "json" in resolve("JSON").sentence
    assert resolve("SAS").kind is Kind.MISSING and resolve("SAS").sentence.startswith("only inside SAS")
    assert "Julia" in names() and LANGUAGES[resolve("Julia").row].archive
    with pytest.raises(DataError, match="did you mean .*Haskell"):
        resolve("Haskel")


@pytest.mark.skipif(not SUPPORTED.is_file(), reason=f"no {SUPPORTED}: set ASSAY_DATA to the folder of data sets")
def test_the_names_are_those_of_the_release():
    assert sorted(line.strip() for line in SUPPORTED.read_text().splitlines() if line.strip()) == list(names())


@pytest.mark.parametrize(
    ("name", "remedy"), [("lua", "apt-get install lua5.4"), ("swift", "https://download.swift.org")]
)
def test_the_self_test_reports_what_a_machine_lacks(name: str, remedy: str, monkeypatch):
    bare = FakeSandbox([ended()])
    monkeypatch.setattr(bare, "has", lambda tool: False)
    report = self_test(bare, find(name))
    assert not report.ok and report.missing is not None and remedy in report.missing and bare.jobs == []
    assert str(report).startswith(f"{name}: not installed: /usr/")


def script(*, hello=b"hello\n", total=b"42\n", syntax=1, runtime=(b"before\n", 1), loop=KilledBy.CPU):
    """A sandbox whose boxes end as the five programs of an interpreted language should, but for what is given."""
    return FakeSandbox(
        [
            ended(hello),
            ended(total),
            ended(exit_code=syntax),
            ended(runtime[0], exit_code=runtime[1]),
            replace(ended(), exit_code=None, signal=9, killed_by=loop),
        ]
    )


@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        ({}, None),
        ({"hello": b"hello hello\n"}, "hello"),
        ({"hello": b""}, "hello"),
        ({"total": b"0\n"}, "sum"),
        ({"syntax": 0}, "syntax error"),
        ({"runtime": (b"before\n", 0)}, "runtime error"),
        ({"runtime": (b"", 1)}, "runtime error"),
        ({"loop": KilledBy.MEMORY}, "endless loop"),
        ({"loop": None}, "endless loop"),
    ],
)
def test_the_self_test_judges_each_check(wrong: dict, check: str | None):
    report = self_test(script(**wrong), replace(find("python"), run=("/bin/true", "{source}")))
    assert report.missing is None and [entry.name for entry in report.checks] == list(CHECKS)
    assert [entry.name for entry in report.checks if not entry.passed] == ([check] if check else [])
    assert report.ok == (check is None) and (check or "ok") in str(report)


@pytest.mark.sandbox
def test_a_wrong_recipe_is_found(sandbox):
    lazy = replace(find("python"), run=("{python}", "-c", "pass"))
    assert [check.name for check in self_test(sandbox, lazy).checks if not check.passed] == list(CHECKS)
    no_compiler = replace(find("c"), compile=("/bin/false", "{source}", "{artefact}"))
    failed = [check.name for check in self_test(sandbox, no_compiler).checks if not check.passed]
    assert failed == [check for check in CHECKS if check != "syntax error"]


@ALL
def test_code_that_does_nothing_is_taken_for_a_program(row: Language):
    assert row.comment.strip() and find(row.label) is row
    for text in filter(None, (row.comment, row.idle)):
        assert program_of(f"```{row.label}\n{text}\n```", row) == f"{text}\n"


def slow_if_patient(row: Language):
    slow = row.compile_limits.cpu_s > PATIENT_S or row.start_cpu_s >= 2
    return pytest.param(row, id=row.name, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.sandbox
@pytest.mark.parametrize("row", [slow_if_patient(row) for row in ROWS])
def test_a_language_works_in_a_box(row: Language, sandbox):
    report = self_test(sandbox, row)
    if report.missing:
        pytest.skip(str(report))
    assert report.ok, str(report)


@pytest.mark.sandbox
@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row.name, marks=[pytest.mark.slow] if row.compile else []) for row in ROWS]
)
def test_a_program_that_does_nothing_ends_in_order_and_says_nothing(row: Language, sandbox):
    if not all(map(sandbox.has, row.tools)):
        pytest.skip(f"not installed: {row.install}")
    bench = Bench(sandbox=sandbox, limits=Limits(cpu_s=3, wall_s=15))
    run = building.run(bench, row, building.build(bench, row, f"{row.idle or row.comment}\n"), bench.limits, b"1\n")
    assert run.ok and run.stdout == b"", run
