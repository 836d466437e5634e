"""The hostile cases as data: reading `cases/*.toml`, and refusing whatever in them could not mean anything.

    [[case]]                      one line of the list in reference/sandboxes.md, by its id (H01... are the honest ones)
    id = "A14"
    name = "cpu_spin"
    expect = ["TLE"]              keys of a run may stand here; they then hold for every run of the case
    [[case.run]]                  one program; several where the case knows several ways
    language = "python"
    program = '''
    def f(x):
        while True: pass
    '''

A case that cannot be run says `not_run = "why"` instead. Unless `answer` says otherwise, the task is x -> x + 1: as a
function f (judge "function", "asserts" or "unit_tests"), or as a program that reads x and prints the result ("stdio").
Judge "box" judges nothing: it runs the program and compares what came out with `stdout` and `plain` (SAME or OTHER).
Judge "names" gives a job files of these names, each of which must be refused (REFUSED).

A program wins by being accepted, so a probe is written to return the right value only if what it tried worked, and to
raise "held: ..." otherwise; `says` then proves that it came that far.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from assay.errors import DataError
from assay.types import Verdict

FOLDER = Path(__file__).resolve().parent / "cases"
#: section -> how many cases the list has
SECTIONS = {"A": 35, "B": 27, "C": 22, "D": 50, "H": 13}
JUDGES = ("function", "asserts", "stdio", "unit_tests", "box", "names")
VERDICTS = {*Verdict, "SAME", "OTHER", "REFUSED"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One program of a case, and how it must end. Optional keys are named as in the files."""

    case: str
    name: str  #: the language, and what tells the runs of a case apart
    expect: tuple[str, ...]  #: any of these verdicts
    judge: str = ""  #: without one: "function" for Python and C, "stdio" for every other language
    language: str = "python"
    program: str = ""
    completion: str = ""  #: instead of a program: the whole text the policy wrote
    fill: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  #: @NAME@ stands for {text, times}
    answer: Mapping[str, Any] = field(default_factory=dict)  #: instead of the usual task's keys
    limits: Mapping[str, Any] = field(default_factory=dict)  #: instead of the suite's
    compile_cpu_s: float = 0.0  #: less than a compiler may usually take, so that a bomb is over soon
    earned: bool = False  #: it may be accepted, because it does solve the task
    says: str = ""  #: a pattern that its messages or its output must hold
    never: str = ""  #: a pattern they must not hold
    secret: str = ""  #: an expected value that must not enter any box
    within_s: float = 0.0  #: how long judging may take as a whole
    boxes: int = 0  #: how many boxes judging takes; more would be another try
    beside: str = ""  #: a program that runs in a second sandbox of the same tier meanwhile
    listen: bool = False  #: a server of this machine is there to be found, at port @PORT@; @CHECKOUT@ is always known
    collect: tuple[str, ...] = ()  #: "box": files to bring back
    plain: tuple[str, ...] = ()  #: "box": those of them that may come back
    stdout: str | None = None  #: "box": what it must print
    stdin_bytes: int = 0  #: "box": this much standard input
    file_names: tuple[str, ...] = ()  #: "names"
    weak: str = ""  #: why the tier without isolation cannot be expected to hold it
    weak_not_run: str = ""  #: why it would harm this machine there
    hole: str = ""  #: what is known to be missing; the case fails until it is there
    hole_tiers: tuple[str, ...] = ("local", "weak", "docker")
    slow: bool = False

    @property
    def id(self) -> str:
        """For instance "A01.python at import"."""
        return f"{self.case}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One line of the list."""

    id: str
    name: str
    not_run: str
    runs: tuple[Run, ...]


_CASE_KEYS = {"id", "name", "not_run", "run"}
_RUN_KEYS = {f.name for f in fields(Run)} - {"case"}


def load(folder: Path = FOLDER) -> dict[str, Case]:
    """Every case by its id, in the list's order. Raises DataError naming file, case and what is wrong."""
    cases: dict[str, Case] = {}
    for path in sorted(folder.glob("*.toml")):
        try:
            tables = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{path.name}: {error}") from None
        if set(tables) != {"case"}:
            raise DataError(f"{path.name}: has {', '.join(sorted(tables)) or 'nothing'}, expected [[case]] alone")
        for table in tables["case"]:
            case = _case(path.name, table)
            if case.id in cases:
                raise DataError(f"{path.name}: case {case.id} is there twice")
            cases[case.id] = case
    return dict(sorted(cases.items()))


def filled(value: Any, fill: Mapping[str, Mapping[str, Any]]) -> Any:
    """`value` with every @NAME@ in its strings replaced by what `fill` says."""
    if isinstance(value, str):
        for name, part in fill.items():
            value = value.replace(f"@{name}@", part["text"] * part["times"])
        return value
    if isinstance(value, Mapping):
        return {key: filled(item, fill) for key, item in value.items()}
    return [filled(item, fill) for item in value] if isinstance(value, list) else value


def _case(where: str, table: Mapping[str, Any]) -> Case:
    where = f"{where}: case {table.get('id', '?')}"
    _require_known(where, table, _CASE_KEYS | _RUN_KEYS)
    if not re.fullmatch(r"[A-Z]\d\d", table.get("id", "")) or not table.get("name"):
        raise DataError(f"{where}: needs an id like A01 and a name")
    not_run, tables = table.get("not_run", ""), table.get("run", [])
    if bool(not_run) == bool(tables):
        raise DataError(f"{where}: needs runs, or the reason why it is not run, and not both")
    defaults = {key: value for key, value in table.items() if key not in _CASE_KEYS}
    runs = tuple(_run(where, table["id"], {**defaults, **one}) for one in tables)
    names = [run.name for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{where}: two runs are called {name!r}; give them names")
    return Case(id=table["id"], name=table["name"], not_run=not_run, runs=runs)


def _run(where: str, case: str, table: dict[str, Any]) -> Run:
    _require_known(where, table, _RUN_KEYS)
    language = table.get("language", "python")
    name = " ".join(filter(None, (language, table.get("name"))))
    where = f"{where}, run {name!r}"
    judge = table.get("judge") or ("function" if language in ("python", "c") else "stdio")
    lists = {
        key: tuple(table[key]) for key in ("expect", "collect", "plain", "file_names", "hole_tiers") if key in table
    }
    run = Run(**{**table, **lists, "case": case, "name": name, "judge": judge, "expect": lists.get("expect", ())})
    if judge not in JUDGES:
        raise DataError(f"{where}: no judge {judge!r}; there are {', '.join(JUDGES)}")
    unknown = set(run.expect) - VERDICTS
    if unknown or not run.expect:
        raise DataError(f"{where}: expect={list(run.expect)} must be some of {', '.join(sorted(VERDICTS))}")
    if "AC" in run.expect and not run.earned:
        raise DataError(f"{where}: expects AC without earned = true")
    if "INFRA" in run.expect:
        raise DataError(f"{where}: a program must not be able to make the harness fail")
    given = [bool(run.program), bool(run.completion), bool(run.file_names)]
    if sum(given) != 1 or bool(run.file_names) != (judge == "names"):
        raise DataError(f'{where}: needs a program or a completion (or, for the judge "names", file_names)')
    _require_filled(where, run)
    return run


def _require_known(where: str, table: Mapping[str, Any], known: set[str]) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise DataError(f"{where}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def _require_filled(where: str, run: Run) -> None:
    text = repr((run.program, run.completion, run.answer, run.file_names))
    used = set(re.findall(r"@([A-Z]+)@", text)) - {"PORT", "CHECKOUT"}
    if used != set(run.fill) or ("@PORT@" in text) != run.listen:
        raise DataError(f"{where}: fills {sorted(run.fill)}, but its texts use {sorted(used)}")
    for name, part in run.fill.items():
        if set(part) != {"text", "times"}:
            raise DataError(f"{where}: fill {name} needs text and times")
