"""Practice exercises of Exercism's tracks for Python, Ruby, C and Bash, made into tasks with all their tests on.

    track, slug, instructions, stub, example, tests (path -> text), solution_paths, support

Python and Ruby with one file of tests and nothing beside it go to "unit_tests", all others to "project": Unity for C,
bats for Bash, unittest and minitest with the files that tests read. A file that all exercises of a track share may
stand in `support` as {"shared": ID}; its text is then in TRACK.shared.json (or .gz) beside the file of rows.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from assay.types import Message, Task
from rollouts.wording import WHOLE, block

Row = Mapping[str, Any]

_EACH = "Answer with the whole of every file ({names}), each in a code block of its own, behind a line with its path."
#: what keeps a test from running, by track; and in Ruby how the tests load the answer, which is there already
_SWITCHED_OFF = {
    "python": r"^[ \t]*@unittest\.skip\b.*\n",
    "ruby": r"^[ \t]*(?:skip|require_relative\b.*|require 'minitest/autorun')[ \t]*$",
    "c": r"^[ \t]*TEST_IGNORE(?:_MESSAGE)?\s*\([^;]*\);.*\n",
    "bash": r"(?!)",
}
_SKIP_IN_RUBY = r"^[ \t]*skip\b[ \t]*$"
_REPORT = {"python": "unittest", "ruby": "minitest", "c": "unity", "bash": "bats"}
#: tests of Bash's that only a terminal can run, or that the track leaves out when all are on ("extra credit")
_LEFT_OUT = re.compile(r"(?:\(\(\s*HAS_TTY\s*\)\)|\[\[ \$RUN_HARD_TEST .*\]\])\s*\|\|\s*skip")


def exercism(row: Row) -> Task:
    """A task of one exercise. Raises ValueError where a part of it is missing."""
    track, slug = row["track"], row["slug"]
    if track not in _REPORT:
        raise ValueError(f"track {track!r}: there are {', '.join(_REPORT)}")
    beside = _beside(row)
    if track in ("c", "bash") or beside or len(row["tests"]) != 1 or len(row["solution_paths"]) != 1:
        judged: dict[str, Any] = {"verifier": "project", "answer": _project(row, beside)}
    else:
        judged = {"verifier": "unit_tests", "answer": _unit_tests(row)}
    stub, good = solution(row, "stub"), solution(row, "example")
    if len(row["solution_paths"]) == 1:
        begins = f"The file begins like this:\n\n{block(track, *stub.values())}"
        asked, reference = WHOLE.format(label=track), block(track, *good.values())
    else:
        begins = f"The files begin like this:\n\n{_blocks(track, stub)}"
        asked, reference = _EACH.format(names=", ".join(stub)), _blocks(track, good)
    if track == "c":
        asked += _compiled(_variable("CFLAGS", beside.get("makefile", "")))
    return Task(
        id=f"exercism/{track}/{slug}",
        messages=(Message(role="user", content=f"{row['instructions'].strip()}\n\n{begins}\n\n{asked}"),),
        source="exercism",
        reference=reference,
        **judged,
    )


def solution(row: Row, key: str) -> dict[str, str]:
    """The files of a solution as an answer has them: those of `key` ("stub", "example"), by name or ending, else the
    stub's. Raises ValueError where a file has neither.
    """
    found = {}
    endings = [path.rpartition(".")[2] for path in row["solution_paths"]]
    for path, ending in zip(row["solution_paths"], endings, strict=True):
        fits = [f"/{path}", f"/{path.rpartition('/')[2]}", *([f".{ending}"] if endings.count(ending) == 1 else [])]
        found_by = ([text for name, text in row[key].items() if f"/{name}".endswith(part)] for part in fits)
        texts = next(filter(None, found_by), [text for name, text in row["stub"].items() if name == path])
        if len(texts) != 1:
            raise ValueError(f"exercise {row['slug']!r}: {len(texts)} texts of {key} for {path}")
        found[path] = texts[0]
    return found


def with_shared(row: Row, path: Path) -> Row:
    """A row of the file at `path` with the texts of its shared files. Raises ValueError where they are not there."""
    support = row.get("support") or {}
    wanted = {name: text["shared"] for name, text in support.items() if isinstance(text, Mapping)}
    if not wanted:
        return row
    shared = _shared_of(path.parent, path.name.partition(".")[0])
    absent = [name for name, key in wanted.items() if key not in shared]
    if absent:
        raise ValueError(f"{absent[0]} is shared by exercises, and {path.name.partition('.')[0]}.shared.json lacks it")
    return {**row, "support": {**support, **{name: shared[key] for name, key in wanted.items()}}}


@cache
def _shared_of(folder: Path, stem: str) -> Mapping[str, str]:
    for name, opened in ((f"{stem}.shared.json.gz", gzip.open), (f"{stem}.shared.json", open)):
        if (folder / name).exists():
            with opened(folder / name, "rt", encoding="utf-8") as file:
                return dict(json.load(file))
    raise ValueError(f"its support files are shared by the exercises: {stem}.shared.json.gz is not in {folder}")


def _beside(row: Row) -> dict[str, str]:
    """The files that tests may read. Raises ValueError for one whose text is elsewhere."""
    found = {}
    for path, text in row["support"].items():
        if path.startswith(".") or path.endswith(".md"):
            continue
        if not isinstance(text, str):
            raise ValueError(f"exercise {row['slug']!r}: the text of {path} is in {row['track']}.shared.json.gz")
        found[path] = text
    return found


def _unit_tests(row: Row) -> dict[str, Any]:
    (path,), (text,) = row["solution_paths"], row["tests"].values()
    answer = {"language": row["track"], "tests": [_switched_on(row["track"], text)]}
    return {**answer, "module": path.removesuffix(".py").replace("/", ".")} if row["track"] == "python" else answer


def _project(row: Row, beside: Mapping[str, str]) -> dict[str, Any]:
    track, files = row["track"], list(row["solution_paths"])
    tests = {path: _switched_on(track, text, whole=True) for path, text in row["tests"].items()}
    answer: dict[str, Any] = {"language": track, "files": files, "given": {**beside, **tests}, "report": _REPORT[track]}
    if track == "c":
        makefile = answer["given"].pop("makefile", "")
        sources = [path for path in (*beside, *files, *tests) if path.endswith(".c")]
        flags, libraries = _variable("CFLAGS", makefile), _variable("LIBS", makefile)
        build = ["/usr/bin/gcc", *flags, "-o", "tests.out", *sources, *libraries]
        return answer | {"build": build, "artefact": "tests.out", "run": ["./tests.out"]}
    if track == "bash":
        return answer | {"run": ["/usr/bin/env", "BATS_RUN_SKIPPED=true", "/usr/bin/bats", "--tap", *tests]}
    if track == "ruby":
        return answer | {"run": ["/usr/bin/ruby", *tests]}
    return answer


def _compiled(flags: Sequence[str]) -> str:
    """How the track compiles C, as a sentence for the prompt: nobody can guess that a warning is an error."""
    standard = next((f" as {flag.removeprefix('-std=').upper()}" for flag in flags if flag.startswith("-std=")), "")
    told = " ".join(flag for flag in flags if flag.startswith(("-W", "-pedantic")))
    strict = ", so every warning is an error" if "-Werror" in flags else ""
    if strict and "-Wmissing-declarations" in flags:
        strict += ", and so is a function that is neither static nor declared in a header"
    return f" The files are compiled{standard} with gcc {told}{strict}." if told else ""


def _variable(name: str, makefile: str) -> list[str]:
    """What a makefile sets a variable to."""
    return [word for line in re.findall(rf"^{name}\s*\+?=(.*)$", makefile, re.MULTILINE) for word in line.split()]


def _switched_on(track: str, text: str, *, whole: bool = False) -> str:
    """Tests without what keeps them from running; `whole` where they load the answer themselves."""
    off = _SKIP_IN_RUBY if whole and track == "ruby" else _SWITCHED_OFF[track]
    text = re.sub(off, "", text, flags=re.MULTILINE)
    if track != "bash":
        return text
    head, *tests = re.split(r"^(?=@test[ \t])", text, flags=re.MULTILINE)
    return head + "".join(test for test in tests if not _LEFT_OUT.search(test))


def _blocks(language: str, files: Mapping[str, str]) -> str:
    return "\n\n".join(f"`{path}`\n{block(language, text)}" for path, text in files.items())
