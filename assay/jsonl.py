"""JSONL files: one object a line, complaints with file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assay.errors import DataError


def read_rows(path: str | Path) -> Iterator[tuple[dict[str, Any], str]]:
    """(object, "file:line") of every line that is not blank.

    Raises DataError where the file cannot be read, is not UTF-8, or a line is not a JSON object.
    """
    try:
        with Path(path).open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    where = f"{path}:{number}"
                    yield _object(line, where), where
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start} of the line)") from None
    except ValueError as error:
        raise DataError(f"{where}: not valid JSON: {error}") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: a {type(row).__name__}, expected an object")
    return row
