"""The languages answers are written in: one row each, and nothing about a language anywhere else but its driver.

The rows stand in `language_rows_native` (compiled to machine code), `language_rows_managed` (run by the JVM, Mono,
Node or BEAM) and `language_rows_scripts` (interpreted); this module is the table made of them.
"""

from __future__ import annotations

import difflib

from assay.errors import DataError
from rewards.language_row import Language, interpreter
from rewards.language_rows_managed import MANAGED
from rewards.language_rows_native import NATIVE
from rewards.language_rows_scripts import SCRIPTS

__all__ = ["ARTEFACT", "LANGUAGES", "PAPER", "Language", "find", "interpreter"]

ARTEFACT = "program"

#: the languages DeepSeek-Coder-V2 is evaluated in (arXiv:2406.11931, Table 3), in its order
PAPER = (
    *("python", "java", "cpp", "csharp", "typescript", "javascript", "php", "bash", "swift", "r", "julia", "d"),
    *("rust", "racket"),
)

_ROWS = {row.name: row for row in (*NATIVE, *MANAGED, *SCRIPTS)}
LANGUAGES: dict[str, Language] = {name: _ROWS[name] for name in dict.fromkeys((*PAPER, *_ROWS))}


def find(name: str) -> Language:
    """The row called `name`, by its name or an alias. Raises DataError naming the nearest there are."""
    wanted = name.strip().lower()
    for row in LANGUAGES.values():
        if wanted == row.name or wanted in row.aliases:
            return row
    labels = [label for row in LANGUAGES.values() for label in (row.name, *row.aliases)]
    near = difflib.get_close_matches(wanted, labels, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(LANGUAGES))}"
    raise DataError(f"no language {name!r}; {hint}")
