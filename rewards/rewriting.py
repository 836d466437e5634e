"""Changing an answer's text by patterns, without touching the comments and texts in it."""

from __future__ import annotations

import re
from collections.abc import Iterator

_NOTHING = r"(?!)"


def outside(pattern: str, text: str, kept: str) -> Iterator[re.Match[str]]:
    """The matches of `pattern`, ^ and $ meaning lines, that do not begin in a match of `kept`; "" matches nothing."""
    either = rf"(?:{pattern})|(?P<kept>{kept or _NOTHING})"
    return (found for found in re.finditer(either, text, re.MULTILINE) if found["kept"] is None)


def replaced(pattern: str, instead: str, text: str, kept: str) -> str:
    """`re.sub` of those matches."""
    parts, at = [], 0
    for found in outside(pattern, text, kept):
        parts += [text[at : found.start()], found.expand(instead)]
        at = found.end()
    return "".join((*parts, text[at:]))
