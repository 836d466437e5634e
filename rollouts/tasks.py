"""Files of tasks: read, checked row by row, and dealt out in an order that survives a resume."""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from assay.chat import ROLES
from assay.errors import DataError
from assay.jsonl import read_rows
from assay.types import Message, Task
from rollouts.answer_formats import ANSWER_FORMATS
from rollouts.benchmark_formats import BENCHMARK_FORMATS
from rollouts.config import TaskFile
from rollouts.contest_formats import CONTEST_FORMATS
from rollouts.evalplus_tests import assertions_of, without_numpy
from rollouts.exercism import with_shared
from rollouts.unittest_formats import UNITTEST_FORMATS

Row = Mapping[str, Any]


def read_tasks(file: TaskFile) -> list[Task]:
    """All tasks of a file. Raises DataError naming file and line for a row that cannot be one."""
    tasks: list[Task] = []
    seen: dict[str, str] = {}
    for row, where in read_rows(file.path):
        try:
            task = FORMATS[file.format](_complete(row, file))
            task = _worded(_anchored(_written(task), Path(file.path).parent), file.prompt)
        except KeyError as error:
            raise DataError(f"{where}: no field {error.args[0]!r}, which format {file.format!r} needs") from None
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
        except (TypeError, AttributeError, IndexError) as error:
            raise DataError(f"{where}: a field is not what format {file.format!r} has there: {error}") from None
        if task.id in seen:
            raise DataError(f"{where}: task id {task.id!r} stands at {seen[task.id]} already")
        if not task.answer.get("tests", True):
            raise DataError(f"{where}: task {task.id!r} has no tests; nothing could ever be earned or refused")
        seen[task.id] = where
        tasks.append(task)
        if file.limit is not None and len(tasks) == file.limit:
            break
    if not tasks:
        raise DataError(f"{file.path}: holds no tasks")
    return tasks


def _written(task: Task) -> Task:
    """The task, whose names can be recorded and whose words a tokenizer takes. Raises ValueError: JSON can escape half
    of a character, and UTF-8 cannot hold it."""
    contents = (("content", message.content) for message in task.messages)
    for name, text in (("id", task.id), ("source", task.source), ("family", task.family), *contents):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            half = ascii(text[error.start])
            raise ValueError(f"{name} holds {half}, half of a pair of surrogates; write the whole character") from None
    return task


def _complete(row: Row, file: TaskFile) -> Row:
    """The row with what it refers to: files that exercises share lie beside the file of rows."""
    return with_shared(row, Path(file.path)) if file.format == "exercism" else row


def _anchored(task: Task, folder: Path) -> Task:
    """A reward function named by a relative path lies beside the task file: workers run in another directory.

    A name without a file is that of an entry point, which lies nowhere.
    """
    name = task.answer.get("function") if task.verifier == "custom" else None
    if (
        not isinstance(name, str)
        or not name.rpartition(":")[0].endswith(".py")
        or Path(name).expanduser().is_absolute()
    ):
        return task
    return replace(task, answer={**task.answer, "function": str((folder / name).resolve())})


def _worded(task: Task, wording: str) -> Task:
    """The task with its last message put into `wording`."""
    *before, last = task.messages
    return replace(task, messages=(*before, replace(last, content=wording.replace("{prompt}", last.content))))


def to_row(task: Task) -> dict[str, Any]:
    """A task as a row of format `assay`."""
    return {
        "id": task.id,
        "messages": [{"role": m.role, "content": m.content} for m in task.messages],
        "verifier": task.verifier,
        "answer": dict(task.answer),
        "source": task.source,
        "reference": task.reference,
        "family": task.family,
    }


def _assay(row: Row) -> Task:
    """assay's own rows: id, messages, verifier, answer, and optionally source, reference and family."""
    messages = [_typed(message, "a message", Mapping) for message in _typed(row["messages"], "messages", list)]
    reference = row.get("reference")
    return Task(
        id=str(row["id"]),
        messages=tuple(Message(role=_role(m), content=_typed(m["content"], "content", str)) for m in messages),
        verifier=_typed(row["verifier"], "verifier", str),
        answer=_typed(row["answer"], "answer", Mapping),
        source=_typed(row.get("source") or "", "source", str),
        reference=None if reference is None else _typed(reference, "reference", str),
        family=_typed(row.get("family") or "", "family", str),
    )


def _role(message: Row) -> str:
    if message["role"] not in ROLES:
        raise ValueError(f"role {message['role']!r}; expected one of {', '.join(ROLES)}")
    return str(message["role"])


def _typed(value: Any, name: str, kind: Any) -> Any:
    """`value`, which must be of a kind. Raises ValueError naming the field."""
    if not isinstance(value, kind):
        wanted = {str: "text", list: "a list", Mapping: "an object"}[kind]
        raise ValueError(f"{name} is {value!r:.60}, expected {wanted}")
    return value


def _mbpp(row: Row) -> Task:
    """MBPP (Austin et al. 2021, arXiv 2108.07732): text, code, test_list, test_setup_code; or prompt and test.

    MBPP+ (arXiv 2305.01210) has all of EvalPlus' inputs in `test`, one text; what it shows is still `test_list`.
    """
    if isinstance(row.get("test"), str):
        return _mbpp_plus(row)
    tests = list(row["test"] if "test" in row else row["test_list"])
    text = row["prompt"] if "prompt" in row else row["text"]
    prompt = f"{text.strip()} Your code should pass these tests:\n\n" + "\n".join(tests)
    imports = [line for line in row.get("test_imports") or () if _names_of(line) & _used(tests)]
    return Task(
        id=f"mbpp/{row['task_id']}",
        messages=(Message(role="user", content=prompt),),
        verifier="asserts",
        answer={"language": "python", "tests": tests, "setup": "\n".join([*imports, row.get("test_setup_code") or ""])},
        source="mbpp",
        reference=f"```python\n{row['code']}\n```",
    )


def _names_of(line: str) -> set[str]:
    """The names that an import brings; none for a text that is no import."""
    nodes = [node for node in ast.parse(line).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return {alias.asname or alias.name.partition(".")[0] for node in nodes for alias in node.names}


def _used(tests: Sequence[str]) -> set[str]:
    """The names in tests, but for `math.isclose`, which is compared outside: its import is left to the answer."""
    text = "\n".join(tests).replace("math.isclose", "isclose")
    return {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}


def _mbpp_plus(row: Row) -> Task:
    task = _mbpp({key: value for key, value in row.items() if key != "test"})
    tree = ast.parse(row["test"])
    tests = assertions_of(tree.body)
    verifier = "asserts" if tests else "unit_tests"
    tree.body = without_numpy(tree.body)
    answer = {"language": "python", "tests": tests or [ast.unparse(tree)]}
    return replace(task, id=f"mbppplus/{row['task_id']}", verifier=verifier, answer=answer)


FORMATS: dict[str, Callable[[Row], Task]] = {
    "assay": _assay,
    "mbpp": _mbpp,
    **BENCHMARK_FORMATS,
    **UNITTEST_FORMATS,
    **CONTEST_FORMATS,
    **ANSWER_FORMATS,
}


class TaskStream:
    """An endless, seeded order over the tasks; its whole state is how many were taken, and which of them come again.

    Every epoch is a fresh shuffle drawn from (seed, epoch), so a cursor is enough to take up again anywhere. `left`:
    places before the cursor whose tasks were taken and not learned from; they come first.
    """

    def __init__(self, tasks: Sequence[Task], seed: int, cursor: int = 0, left: Sequence[int] = ()) -> None:
        if not tasks:
            raise DataError("no tasks to train on")
        self._tasks, self._seed, self.cursor = tuple(tasks), seed, cursor
        self.left = tuple(left)
        self._epoch, self._order = -1, list[int]()

    def take(self, count: int) -> list[Task]:
        """The next `count` tasks."""
        return [self.at(place) for place in self.places(count)]

    def places(self, count: int) -> list[int]:
        """Take the next `count` places in the order."""
        again, self.left = self.left[:count], self.left[count:]
        first, self.cursor = self.cursor, self.cursor + count - len(again)
        return [*again, *range(first, self.cursor)]

    def at(self, place: int) -> Task:
        epoch, position = divmod(place, len(self._tasks))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, list(range(len(self._tasks)))
            random.Random(f"{self._seed}/{epoch}").shuffle(self._order)
        return self._tasks[self._order[position]]
