"""What the verifiers say about programs whose verdict is known: the check that a reward does not lie, on real data.

    .venv/bin/python benchmarks/known_programs.py --data DIR [--set NAME ...] [--limit N] [--cpu-s 4]
        [--tier local|docker|weak] [--out FILE]

Runs every known-good and known-bad program of the sets in DIR (by default $ASSAY_DATA) through the verifier its task
takes, and prints per set and language how many good ones were accepted and how many bad ones rejected, and every
disagreement with the verdict and its detail. A program whose tool-chain is missing is counted, never judged. With
--out FILE the same goes into a JSON file. Leaves with status 1 where something disagrees.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import known_answers

from assay.errors import DataError, EnvironmentProblem
from assay.types import Task, Verdict
from rewards.bench import Bench
from rewards.config import RewardsConfig, SandboxConfig
from rewards.extract import as_answer
from rewards.languages import find
from rewards.reward_check import as_group
from rewards.scorer import Scorer, verifier_of
from rewards.values import BadValue, decode, parse
from rewards.verifiers.base import GroupVerifier
from rollouts.evalplus_tests import assertion, source
from rollouts.exercism import solution, with_shared
from rollouts.tasks import FORMATS

ROOT = Path(__file__).resolve().parent.parent
#: EvalPlus compares these as sets, and of those only whether something was returned (its eval/_special_oracle.py).
_AS_SETS = (
    *("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum"),
    *("intersection_array", "find_dissimilar", "Diff"),
)
_NOT_NONE = ("check_str", "text_match_three", "text_starta_endb")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A program, the task it answers, and what is known about it. Without a task: why none could be made."""

    name: str
    language: str
    program: str
    good: bool
    task: Task | None
    why_not: str = ""
    answer: str = ""  #: of several files: what the assistant writes; else the program in a block


@dataclass(slots=True, kw_only=True)
class Count:
    """What became of the programs of one set in one language."""

    good: int = 0
    accepted: int = 0
    bad: int = 0
    rejected: int = 0
    rejected_as: Counter[str] = field(default_factory=Counter)  #: verdicts of the bad ones
    not_run: Counter[str] = field(default_factory=Counter)  #: reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """A verdict that is not the known one."""

    set_name: str
    language: str
    name: str
    known: str
    verdict: str
    detail: str


def main(argv: list[str]) -> int:
    """Judge, print, and say by the status whether everything agreed."""
    options = _options(argv)
    limits = {"cpu_s": options.cpu_s, "wall_s": 3 * options.cpu_s}
    config = RewardsConfig(sandbox=SandboxConfig(tier=options.tier, **limits), whole_text=True)
    started = time.monotonic()
    counts: dict[tuple[str, str], Count] = {}
    found: list[Disagreement] = []
    scorer = Scorer(config)
    try:
        for name in options.set or SETS:
            for number, known in enumerate(SETS[name](Path(options.data), scorer)):
                if options.limit is not None and number >= options.limit:
                    break
                count = counts.setdefault((name, known.language), Count())
                disagreement = _judge(name, known, scorer, count)
                if disagreement is not None:
                    found.append(disagreement)
                    print(f"{_told(disagreement)}", file=sys.stderr, flush=True)
        isolation = str(scorer.sandbox.isolation)
    finally:
        scorer.close()
    print(_table(counts, found, isolation, time.monotonic() - started))
    if options.out:
        report = {
            "counts": [{"set": key[0], "language": key[1], **vars_of(count)} for key, count in counts.items()],
            "disagreements": [asdict(one) for one in found],
        }
        Path(options.out).write_text(json.dumps(report, indent=1))
    return 1 if found else 0


def vars_of(count: Count) -> dict[str, Any]:
    """As `asdict`, which cannot copy a Counter."""
    return {each.name: getattr(count, each.name) for each in fields(count)}


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", default=os.environ.get("ASSAY_DATA", str(ROOT.parent / "shared" / "data")))
    parser.add_argument("--set", action="append", choices=sorted(SETS), help="one of them; may be given again")
    parser.add_argument("--limit", type=int, help="only the first so many programs of each set")
    parser.add_argument("--tier", default="local", choices=("docker", "local", "weak"))
    parser.add_argument("--cpu-s", type=float, default=4.0, help="processor time of one test, where the set gives none")
    parser.add_argument("--out", help="a JSON file with the same")
    return parser.parse_args(argv)


def _judge(set_name: str, known: Known, scorer: Scorer, count: Count) -> Disagreement | None:
    """Count one program; a disagreement if its verdict is not the known one."""
    if known.task is None:
        count.not_run[known.why_not] += 1
        return None
    try:
        verifier = verifier_of(known.task)
        if isinstance(verifier, GroupVerifier):
            (result,) = scorer.score_group(as_group(known.task, [known.program]))
        else:
            language = verifier.check(known.task)
            result = scorer.score_text(known.task, known.answer or _fenced(language.name, known.program))
    except (DataError, EnvironmentProblem) as problem:
        count.not_run[str(problem)] += 1
        return None
    accepted = result.verdict is Verdict.AC
    if known.good:
        count.good, count.accepted = count.good + 1, count.accepted + accepted
    else:
        count.bad, count.rejected = count.bad + 1, count.rejected + (not accepted)
        count.rejected_as[str(result.verdict)] += not accepted
    if accepted == known.good and result.verdict is not Verdict.INFRA:
        return None
    return Disagreement(
        set_name=set_name,
        language=known.language,
        name=known.name,
        known="good" if known.good else "bad",
        verdict=str(result.verdict),
        detail=" ".join(result.detail.split())[:300],
    )


def _fenced(language: str, program: str) -> str:
    fence = "`" * 8
    return f"{fence}{language.replace(' ', '')}\n{program}\n{fence}"


def _told(one: Disagreement) -> str:
    return f"  {one.set_name} {one.language} {one.name}: known {one.known}, verdict {one.verdict} {one.detail}"


def _table(counts: Mapping[tuple[str, str], Count], found: list[Disagreement], isolation: str, seconds: float) -> str:
    lines = [
        f"{'set':<17}{'language':<23}{'good accepted':>15}{'bad rejected':>15}{'not run':>9}  rejected as",
        *(
            f"{name:<17}{language:<23}{f'{c.accepted}/{c.good}':>15}{f'{c.rejected}/{c.bad}':>15}"
            f"{c.not_run.total():>9}  {', '.join(f'{verdict} {n}' for verdict, n in c.rejected_as.most_common() if n)}"
            for (name, language), c in counts.items()
        ),
        f"isolation {isolation}; {seconds:.0f} s",
    ]
    reasons = [
        f"  {name} {language}: {number} not run: {reason}"
        for (name, language), count in counts.items()
        for reason, number in count.not_run.items()
    ]
    if reasons:
        lines += ["not run:", *reasons]
    lines += [f"{len(found)} disagreements", *map(_told, found)]
    return "\n".join(lines)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    data = path.read_bytes()
    for line in (gzip.decompress(data) if path.suffix == ".gz" else data).split(b"\n"):
        if line.strip():
            yield json.loads(line)


def _known(name: str, language: str, program: str, *, good: bool, make: Callable[[], Task]) -> Known:
    try:
        return Known(name=name, language=language, program=program, good=good, task=make())
    except (DataError, ValueError) as error:
        return Known(name=name, language=language, program=program, good=good, task=None, why_not=str(error))


def _humaneval(data: Path, scorer: Scorer) -> Iterator[Known]:
    for row in _rows(data / "humaneval" / "HumanEval.jsonl.gz"):
        program = row["prompt"] + row["canonical_solution"]
        yield _known(row["task_id"], "python", program, good=True, make=partial(FORMATS["human_eval"], row))


def _mbpp(data: Path, scorer: Scorer) -> Iterator[Known]:
    for row in _rows(data / "mbpp" / "mbpp.jsonl"):
        name = f"mbpp/{row['task_id']}"
        yield _known(name, "python", row["code"], good=True, make=partial(FORMATS["mbpp"], row))


def _humanevalpack(data: Path, scorer: Scorer) -> Iterator[Known]:
    for path in sorted((data / "humanevalpack").glob("humanevalpack_*.jsonl")):
        for row in _rows(path):
            language = {"js": "javascript"}.get(path.stem.rpartition("_")[2], path.stem.rpartition("_")[2])
            for good, key in ((True, "canonical_solution"), (False, "buggy_solution")):
                program = row["declaration"].lstrip("\n") + row[key]
                name = f"{row['task_id']} {key}"
                yield _known(name, language, program, good=good, make=partial(FORMATS["humanevalpack"], row))


def _quixbugs(data: Path, scorer: Scorer) -> Iterator[Known]:
    for row in _rows(data / "quixbugs" / "quixbugs_python.jsonl"):
        for good, key in ((True, "solution"), (False, "buggy_program")):
            name = f"{row['name']} {key}"
            yield _known(name, "python", row[key], good=good, make=partial(FORMATS["quixbugs"], row))


def _exercism(data: Path, scorer: Scorer) -> Iterator[Known]:
    for path in sorted((data / "exercism").glob("*.jsonl.gz")):
        for row in (with_shared(row, path) for row in _rows(path)):
            for good, key in ((True, "example"), (False, "stub")):
                files = solution(row, key)
                text = as_answer(files)
                program = text if len(files) > 1 else files[row["solution_paths"][0]]
                made = _known(
                    f"{row['slug']} {key}", row["track"], program, good=good, make=partial(FORMATS["exercism"], row)
                )
                yield replace(made, answer=text) if len(files) > 1 else made


def _kattis(data: Path, scorer: Scorer) -> Iterator[Known]:
    problems = json.loads((data / "kattis" / "kattis_problems.json").read_text(encoding="utf-8"))
    for row in _rows(data / "kattis" / "kattis.jsonl"):
        joined = {**problems[row["problem"]], **row}
        if row["problem"] == "different":  # its validator came without its header; it says that comparing words will do
            joined["custom_validator"] = False
        (path, program), *_ = row["files"].items()
        if row["language"] in ("java", "scala"):  # the class is called after its file, and here the file is Main
            program = re.sub(rf"\b{re.escape(Path(path).stem)}\b", "Main", program)

        def make(row: Mapping[str, Any] = row, joined: Mapping[str, Any] = joined) -> Task:
            if len(row["files"]) != 1:
                raise ValueError(f"a submission of {len(row['files'])} files")
            if not set(row["expected"]) <= {"AC", "AC-slow", "WA", "RTE", "TLE", "PARTIAL"}:  # a part is not all
                raise ValueError(f"its published verdict is {row['dir_verdict']}")
            find(row["language"])
            return FORMATS["kattis"](joined)

        name = f"{row['id']} ({row['dir_verdict']})"
        yield _known(name, row["language"], program, good=row["dir_verdict"].startswith("AC"), make=make)


def _evalplus(data: Path, scorer: Scorer) -> Iterator[Known]:
    """Programs two models wrote. HumanEval's base verdict by its own tests, MBPP's by the inputs of base and plus."""
    folder = data / "evalplus"
    humaneval = {row["task_id"]: row for row in _rows(data / "humaneval" / "HumanEval.jsonl.gz")}
    mbpp = {str(row["task_id"]): row for row in _rows(folder / "MbppBase.jsonl")}
    plus = {str(row["task_id"]).rpartition("/")[2]: row for row in _rows(folder / "MbppPlus.jsonl")}
    kept: dict[str, Task] = {}
    for path in sorted(folder.glob("*_eval_results.json")):
        model = path.name.split("--")[1].split("_")[0]
        for task_id, (result, *_) in json.loads(path.read_text(encoding="utf-8"))["eval"].items():
            number = task_id.rpartition("/")[2]
            if task_id.startswith("HumanEval"):
                yield _known(
                    f"{task_id} {model} base",
                    "python",
                    result["solution"],
                    good=result["base_status"] == "pass",
                    make=partial(FORMATS["human_eval"], humaneval[task_id]),
                )
                continue
            for part in ("base", "plus"):
                if number not in plus or number not in mbpp:
                    continue
                key = f"{number}/{part}"

                def make(key: str = key, number: str = number, part: str = part) -> Task:
                    if key not in kept:
                        kept[key] = _from_inputs(scorer, mbpp[number], plus[number], part)
                    return kept[key]

                yield _known(
                    f"{task_id} {model} {part}",
                    "python",
                    result["solution"],
                    good=result["base_status"] == "pass" and result[f"{part}_status"] == "pass",
                    make=make,
                )


def _from_inputs(scorer: Scorer, base: Mapping[str, Any], plus: Mapping[str, Any], part: str) -> Task:
    """An MBPP task whose expected values are what the canonical solution returns, computed in a box of its own."""
    like = _arguments_of(base["assertion"], base["entry_point"])
    given = [*plus["base_input"], *(plus["plus_input"] if part == "plus" else ())]  # Mbpp/793 has {} for none
    inputs = [[_shaped(value, form) for value, form in zip(one, like, strict=True)] for one in given]
    expected = _returned(scorer, plus["canonical_solution"], plus["entry_point"], inputs)
    tests = [
        _assertion(plus["entry_point"], arguments, value, float(plus["atol"]))
        for arguments, value in zip(inputs, expected, strict=True)
    ]
    task = FORMATS["evalplus"](base)
    answer = {"language": "python", "tests": tests}  # no set-up: an import would make good one that the answer lacks
    return Task(id=f"{task.id}/{part}", messages=task.messages, verifier="asserts", answer=answer, source="evalplus")


def _arguments_of(assertion: str, entry: str) -> list[Any]:
    """The arguments of the first call of `entry`: they show which lists of the JSON inputs stand for tuples."""
    for node in ast.walk(ast.parse(assertion)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == entry:
            return [eval(ast.unparse(argument), {"__builtins__": {}}) for argument in node.args]  # literals of the data
    raise ValueError(f"no call of {entry}")


def _shaped(value: Any, like: Any) -> Any:
    """`value`, as JSON has it, with the types of `like`."""
    if isinstance(value, str) and isinstance(like, complex | float | int):  # Mbpp/124 and 252: numbers as text
        with suppress(ValueError):  # a list of both has numbers where this one has words
            return complex(value) if isinstance(like, complex) else float(value)
    if isinstance(value, list) and isinstance(like, dict | set):  # Mbpp/115: empty ones are dicts there
        return set(value) if value else {}
    if isinstance(value, list) and isinstance(like, list | tuple):
        return type(like)(_shaped(item, _form_of(item, at, list(like))) for at, item in enumerate(value))
    if isinstance(value, dict) and isinstance(like, dict) and like:
        form = next(iter(like.values()))
        return {key: _shaped(item, form) for key, item in value.items()}
    return value


def _form_of(item: Any, at: int, forms: list[Any]) -> Any:
    """The form of the item at a place: the one there, or else the first that is as much of a container as the item."""
    if at < len(forms) and isinstance(item, list | dict) == isinstance(forms[at], list | tuple | set | dict):
        return forms[at]
    alike = (form for form in forms if isinstance(item, list | dict) == isinstance(form, list | tuple | set | dict))
    return next(alike, None)


def _returned(scorer: Scorer, program: str, entry: str, inputs: list[list[Any]]) -> list[Any]:
    from rewards import drivers

    bench = Bench(sandbox=scorer.sandbox, limits=scorer.config.sandbox.limits())
    calls = [f"{entry}(*{source(arguments)})" for arguments in inputs]
    _, report = drivers.call_python(bench, bench.limits, {"answer": program}, calls)
    try:
        values = [decode(parse(record.data[1:]), exact=False) for record in report.records if record.data[:1] == b"V"]
    except BadValue as error:
        raise ValueError(f"the canonical solution returns what is no built-in value: {error}") from None
    if len(values) != len(inputs):
        raise ValueError(f"the canonical solution of {entry} returned {len(values)} of {len(inputs)} values")
    return values


def _assertion(entry: str, arguments: list[Any], expected: Any, atol: float) -> str:
    """EvalPlus' comparison of one output: equal, or near where floats are expected, or as the few special tasks say."""
    call, wanted = f"{entry}(*{source(arguments)})", source(expected)
    if entry == "are_equivalent":  # every value passes, as long as one is returned
        return f"assert [{call}] != []"
    if entry == "sum_div":
        return f"assert (lambda out: out == {wanted} or out == 0)({call})"
    if entry in _AS_SETS:
        return f"assert set({call}) == set({wanted})"
    if entry in _NOT_NONE:
        return (
            f"assert (lambda out: out == {wanted} if isinstance(out, bool) else {wanted} == (out is not None))({call})"
        )
    return assertion(entry, arguments, expected, atol)


def _given(rows: Callable[[Path], Iterator[known_answers.Given]], data: Path, scorer: Scorer) -> Iterator[Known]:
    for name, language, text, good, make in rows(data):
        yield _known(name, language, text, good=good, make=make)


SETS: dict[str, Callable[[Path, Scorer], Iterator[Known]]] = {
    "humaneval": _humaneval,
    "humanevalpack": _humanevalpack,
    "quixbugs": _quixbugs,
    "mbpp": _mbpp,
    "evalplus": _evalplus,
    "kattis": _kattis,
    "exercism": _exercism,
    "humaneval_plus": partial(_given, known_answers.humaneval_plus),
    "mbpp_test": partial(_given, known_answers.mbpp_test),
    "mbpp_sanitized": partial(_given, known_answers.mbpp_sanitized),
    "cruxeval": partial(_given, known_answers.cruxeval),
    "cruxeval_outputs": partial(_given, known_answers.cruxeval_outputs),
    "gsm8k": partial(_given, known_answers.gsm8k),
    "math": partial(_given, known_answers.math),
    "aime": partial(_given, known_answers.aime),
    "formats": partial(_given, known_answers.formats),
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
