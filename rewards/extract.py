"""Completion text -> program: the last fenced block of the wanted language."""

from __future__ import annotations

import re

from rewards.languages import Language

# An opening fence, its label, and everything up to a closing fence of at least its length; a block that the length
# limit cut off runs to the end of the text.
_FENCE = re.compile(
    r"^[ \t]*(?P<fence>`{3,}|~{3,})[ \t]*(?P<label>[^\s`]*)[^\n]*\n(?P<body>.*?)(?:^[ \t]*(?P=fence)[`~]*[ \t]*$|\Z)",
    re.MULTILINE | re.DOTALL,
)


def program_of(text: str, language: Language, *, whole_text: bool = False) -> str | None:
    """The program in a completion, or None where there is none.

    The last block labelled with the language or one of its aliases wins; else the last block without a label; else,
    only with `whole_text`, the text itself. A block of blanks is no program.
    """
    labelled, bare = None, None
    for match in _FENCE.finditer(text.replace("\r\n", "\n")):
        label, body = match["label"].lower().strip("{}.:,"), match["body"]
        if not body.strip():
            continue
        if label == language.name or label in language.aliases:
            labelled = body
        elif not label:
            bare = body
    if labelled is not None or bare is not None:
        return labelled if labelled is not None else bare
    return text if whole_text and text.strip() else None
