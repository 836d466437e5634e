"""Write the micro-program tasks: specifications in words, tests, and demonstrations that are often wrong.

    python examples/micro_programs/generate.py OUT --seed 0

The same seed writes the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: the repository root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.micro_programs.compose import LANGUAGES, OPERATIONS, TYPES, Composition, compositions
from examples.micro_programs.demonstrations import Demonstration, demonstrate, measured_rates, mistake_rates
from examples.micro_programs.examination import choose_tests, passes, signature

PATIENCE = 200  #: compositions turned down in a row before giving up


@dataclass(frozen=True, slots=True)
class Specification:
    """A composition with the one wording and the tests that it has in both languages."""

    composition: Composition
    wording: str
    tests: list[dict[str, Any]]

    def task_id(self, language: str) -> str:
        return f"micro_programs/{language}/{self.composition.key}"

    def messages(self, language: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.composition.prompt(language, self.wording)}]

    def task(self, language: str) -> dict[str, Any]:
        """A row of assay's task file."""
        composition = self.composition
        answer = {
            "language": language,
            "entry_point": "f",
            "parameters": [{"name": name, "type": TYPES[name]} for name in composition.parameters],
            "returns": composition.returns,
            "tests": self.tests,
        }
        return {
            "id": self.task_id(language),
            "messages": self.messages(language),
            "verifier": "function",
            "answer": answer,
            "source": f"micro_programs/{language}",
            "family": composition.key,
            "reference": composition.answer(language),
        }

    def demonstration(self, drawn: Demonstration) -> dict[str, Any]:
        """A row of the demonstrations. `correct` is what the tests say."""
        mistakes = sorted(drawn.mistakes)
        correct = passes(self.composition, self.tests, drawn.mistakes)
        if correct == bool(mistakes):
            raise AssertionError(f"{self.composition.key}: mistakes {mistakes}, and yet correct is {correct}")
        answer = {"role": "assistant", "content": self.composition.answer(drawn.language, drawn.mistakes)}
        return {
            "messages": [*self.messages(drawn.language), answer],
            "source": f"micro_programs/{drawn.language}",
            "task_id": self.task_id(drawn.language),
            "correct": correct,
            "mistakes": mistakes,
        }


def specify(
    count: int, *, seed: int, tests_per_task: int, catalogue: float = 1.0, phrasings: int = 2
) -> list[Specification]:
    """`count` specifications, no two of which are the same function.

    Raises:
        ValueError: fewer turn up than asked for.
    """
    rng = random.Random(f"{seed} specifications")
    seen: set[Any] = set()
    wordings: set[str] = set()
    used: Counter[str] = Counter()
    found: list[Specification] = []
    turned_down = 0
    for composition in compositions(rng, used, catalogue):
        if len(found) == count:
            break
        if turned_down == PATIENCE:
            raise ValueError(
                f"only {len(found)} of {count} specifications found: "
                f"lower specifications, or raise tests_per_task={tests_per_task} or catalogue={catalogue}"
            )
        turned_down += 1
        outcomes = signature(composition)
        if outcomes is None or outcomes in seen:
            continue
        wording, tests = composition.wording(rng, phrasings), choose_tests(composition, rng, tests_per_task)
        if tests is None or wording in wordings:
            continue
        seen.add(outcomes)
        wordings.add(wording)
        used.update(operation.name for operation in composition.operations)
        found.append(Specification(composition, wording, tests))
        turned_down = 0
    return found


def hold_out(specifications: Sequence[Specification], count: int, seed: int) -> frozenset[int]:
    """The numbers of the specifications kept from training; every operation stays in training at least twice.

    Raises:
        ValueError: there are not so many to spare.
    """
    uses = Counter(operation.name for item in specifications for operation in item.composition.operations)
    order = list(range(len(specifications)))
    random.Random(f"{seed} held out").shuffle(order)
    chosen: set[int] = set()
    for number in order:
        names = [operation.name for operation in specifications[number].composition.operations]
        if len(chosen) < count and all(uses[name] > 2 for name in names):
            chosen.add(number)
            uses.subtract(names)
    if len(chosen) < count:
        raise ValueError(f"only {len(chosen)} of {len(order)} specifications can be held out, not {count}")
    return frozenset(chosen)


def generate(
    out_dir: Path,
    *,
    seed: int = 0,
    specifications: int = 2400,
    heldout: int = 320,
    wrong_share: float = 0.5,
    demonstrations_per_task: int = 1,
    tests_per_task: int = 6,
    misconception_share: float = 0.5,
    catalogue: float = 1.0,
    phrasings: int = 2,
) -> dict[str, Any]:
    """Write train.jsonl, heldout.jsonl, demonstrations.jsonl and summary.json into `out_dir`.

    Args:
        out_dir: made if it is missing.
        seed: everything follows from it.
        specifications: how many in all; each is a task in Python and a task in C.
        heldout: how many of them are kept from training, in both languages.
        wrong_share: the share of demonstrations that fail a test of their task.
        demonstrations_per_task: programs written for each training task.
        tests_per_task: calls with an expected value; below 5, few compositions can be told from their mistakes.
        misconception_share: the share of programs with an operation that is got wrong more often than right.
        catalogue: the share of the operations of each kind that is used at all; less is easier to learn.
        phrasings: how many wordings an operation may have, at most 2.

    Returns:
        What summary.json holds: counts, shares, rates per operation, a checksum per file.
    """
    items = specify(specifications, seed=seed, tests_per_task=tests_per_task, catalogue=catalogue, phrasings=phrasings)
    kept_out = hold_out(items, heldout, seed)
    train = {number: item.composition for number, item in enumerate(items) if number not in kept_out}
    tasks = [(number, language) for number in range(len(items)) for language in LANGUAGES]
    random.Random(f"{seed} order").shuffle(tasks)
    train_tasks = [task for task in tasks if task[0] in train]
    rates = mistake_rates(
        list(train.values()), seed=seed, wrong_share=wrong_share, misconception_share=misconception_share
    )
    drawn = demonstrate(
        train, {number: items[number].tests for number in train}, train_tasks, rates,
        seed=seed, wrong_share=wrong_share, per_task=demonstrations_per_task,
    )  # fmt: skip
    rows = {
        "train.jsonl": [items[number].task(language) for number, language in train_tasks],
        "heldout.jsonl": [items[number].task(language) for number, language in tasks if number in kept_out],
        "demonstrations.jsonl": [items[each.specification].demonstration(each) for each in drawn],
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    checksums = {name: _write(out_dir / name, lines) for name, lines in rows.items()}
    asked = {"seed": seed, "specifications": specifications, "heldout": heldout, "wrong_share": wrong_share,
             "demonstrations_per_task": demonstrations_per_task, "tests_per_task": tests_per_task,
             "misconception_share": misconception_share, "catalogue": catalogue, "phrasings": phrasings}  # fmt: skip
    summary = {"asked": asked, **_summary(items, kept_out, rows, measured_rates(train, drawn)), "sha256": checksums}
    (out_dir / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


def _summary(
    items: Sequence[Specification],
    kept_out: frozenset[int],
    rows: dict[str, list[dict[str, Any]]],
    rates: dict[str, float],
) -> dict[str, Any]:
    uses: dict[str, Counter[str]] = {"train": Counter(), "heldout": Counter()}
    for number, item in enumerate(items):
        split = "heldout" if number in kept_out else "train"
        uses[split].update(operation.name for operation in item.composition.operations)
    demonstrations = rows["demonstrations.jsonl"]
    right = sum(row["correct"] for row in demonstrations)
    misconceptions = sorted(name for name, rate in rates.items() if rate > 0.5)
    trained = [item.composition for number, item in enumerate(items) if number not in kept_out]
    touched = sum(any(name in misconceptions for name in composition.can_go_wrong) for composition in trained)
    return {
        "train_tasks": len(rows["train.jsonl"]),
        "heldout_tasks": len(rows["heldout.jsonl"]),
        "demonstrations": len(demonstrations),
        "wrong_demonstrations": len(demonstrations) - right,
        "wrong_share": round(1 - right / max(1, len(demonstrations)), 4),
        "misconceptions": misconceptions,
        "misconception_share": round(touched / len(trained), 4),
        "operations": {
            operation.name: {
                "kind": operation.kind,
                "train_specifications": uses["train"][operation.name],
                "heldout_specifications": uses["heldout"][operation.name],
                "mistake_rate": rates.get(operation.name, 0.0),
            }
            for operation in OPERATIONS
        },
        "operations_per_specification": dict(
            sorted(Counter(str(len(item.composition.operations)) for item in items).items())
        ),
    }


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> str:
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir", type=Path, metavar="OUT")
    for name, kind, default in (
        ("seed", int, 0), ("specifications", int, 2400), ("heldout", int, 320), ("wrong-share", float, 0.5),
        ("demonstrations-per-task", int, 1), ("tests-per-task", int, 6), ("misconception-share", float, 0.5),
        ("catalogue", float, 1.0), ("phrasings", int, 2),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, default=default, help="%(default)s")
    try:
        summary = generate(**vars(parser.parse_args(argv)))
    except ValueError as error:
        parser.error(str(error))
    print(json.dumps({name: value for name, value in summary.items() if name != "operations"}, indent=1))


if __name__ == "__main__":
    main()
