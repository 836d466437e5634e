"""Completion text -> program: the last fenced block of the wanted language."""

from __future__ import annotations

import re

from rewards.languages import Language

# An opening fence, its label, and everything up to a closing fence of at least its length; a block that the length
# limit cut off runs to the end of the text. Backticks that are closed on their own line open nothing ("```pip install
# x```" is text); a single one beside the label ("```python `main.py`") does no harm, though CommonMark has it so.
_FENCE = re.compile(
    r"^(?P<indent>[ \t]*)(?P<fence>`{3,}(?![^\n]*```)|~{3,})[ \t]*(?P<label>[^\s`]*)[^\n]*\n"
    r"(?P<body>.*?)(?:^[ \t]*(?P=fence)[`~]*[ \t]*$|\Z)",
    re.MULTILINE | re.DOTALL,
)
_DECORATED = re.compile(r"[,:{]")  #: where a label ends and what is said beside it begins: "python:solution.py"


def program_of(text: str, language: Language, *, whole_text: bool = False) -> str | None:
    """The program in a completion, or None where there is none.

    The last block labelled with the language or one of its aliases wins; else the last whose label begins with one
    ("python:solution.py", "rust,no_run"); else the last block without a label; else, only with `whole_text`, the text
    itself. A block of blanks is no program.
    """
    labelled, decorated, bare = None, None, None
    names = (language.name, *language.aliases)
    for match in _FENCE.finditer(text.replace("\r\n", "\n")):
        label, body = match["label"].lower().strip("{}.:,"), match["body"]
        if not body.strip():
            continue
        if label in names:
            labelled = _shifted(body, match["indent"])
        elif _DECORATED.split(label)[0] in names:
            decorated = _shifted(body, match["indent"])
        elif not label:
            bare = _shifted(body, match["indent"])
    found = next((block for block in (labelled, decorated, bare) if block is not None), None)
    if found is not None:
        return found
    return text if whole_text and text.strip() else None


def _shifted(body: str, indent: str) -> str:
    """A block without the indentation of its fence, as in an item of a list.

    Only what its first line has of that is taken away, from each line as far as it has it: a block that stands at the
    margin below an indented fence keeps the steps of its lines.
    """
    lines = body.split("\n")
    shift = _start(indent, next(line for line in lines if line.strip()))
    return "\n".join(line[len(_start(shift, line)) :] for line in lines)


def _start(indent: str, line: str) -> str:
    """As much of `indent` as `line` begins with."""
    return next(indent[:size] for size in range(len(indent), -1, -1) if line.startswith(indent[:size]))
