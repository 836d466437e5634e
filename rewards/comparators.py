"""Whether what a program wrote is what was expected: pure functions on bytes, (output, expected) -> bool.

    exact      the same bytes. A final newline is a byte like any other: b"5\\n" is not b"5"
    lines      the same lines; spaces and tabs at the end of a line and blank lines at the end of the text do not count
    tokens     the same words in the same order, however they are spaced; "Yes" is not "YES", "1" is not "1.0"
    float      tokens, and two numbers are equal within a tolerance (see `floats`)
    unordered  the same lines, each as often, in any order; blank lines and spaces at the end of a line do not count
    yes_no     tokens, and where "yes" or "no" is expected, upper and lower case are the same

All of them are strict where they say nothing: every word or line must be there, and none may follow. Whitespace is
space, tab and newline; a carriage return belongs to a newline only right before it. Every other byte is content, so
NUL, form feed, a byte-order mark, a no-break space or a letter of another script that looks the same is a difference.

What does not count is bounded too: a stretch of whitespace more than `GAP_BYTES` longer than the longest one expected
makes the output another one, so an output limit cannot be filled behind a right answer.

Time is linear in both texts, and reading stops at the first difference: what an output holds beyond it costs nothing.
"""

from __future__ import annotations

import io
import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import repeat, zip_longest

GAP_BYTES = 4096  #: of whitespace in one stretch, beyond the longest stretch that is expected

#: Both tolerances of `floats`: the default of DMOJ's checker "floats" (precision=6, dmoj/checkers/floats.py), and what
#: programming contests mean by "an absolute or relative error of at most 10^-6".
ABS_TOL = REL_TOL = 1e-6

Comparator = Callable[[bytes, bytes], bool]

_WHITESPACE = b" \t\n"
_AS_SPACES = bytes.maketrans(_WHITESPACE, b"   ")
_TOKEN = re.compile(rb"[^ \t\n]+")
#: What float() reads, without its underscores, its spaces and its words; possessive, so that nothing is tried twice.
_NUMBER = re.compile(rb"[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?")


def exact(output: bytes, expected: bytes) -> bool:
    """The same bytes, the final newline included."""
    return output == expected


def lines(output: bytes, expected: bytes) -> bool:
    """The same lines, but for whitespace at their ends and blank lines at the end of the text."""
    return _alike(output, expected, _lines, operator.eq)


def tokens(output: bytes, expected: bytes) -> bool:
    """The same words in the same order."""
    return _alike(output, expected, _tokens, operator.eq)


def floats(output: bytes, expected: bytes, *, abs_tol: float = ABS_TOL, rel_tol: float = REL_TOL) -> bool:
    """The same words, where numbers a (output) and b (expected) are the same if

        |a - b| <= abs_tol   or   |a - b| <= rel_tol * |b|

    which is the default mode of DMOJ's "floats" and testlib's doubleCompare; whole numbers are numbers too, so an
    exact count beside approximate values wants a checker. A number is decimal digits with an optional sign, point
    and exponent, whose double is finite. Anything else ("nan", "inf", "0x10", "1_000", "1e999") is a word, and equal
    to the same bytes only: NaN is near nothing and no tolerance reaches infinity.
    """
    return _alike(output, expected, _tokens, lambda a, b: a == b or _near(a, b, abs_tol, rel_tol))


def unordered(output: bytes, expected: bytes) -> bool:
    """The same lines, each as often, in any order; blank lines do not count."""
    output, expected = _unix(output), _unix(expected)
    if _padded(output, expected):
        return False
    left = Counter(filter(None, _lines(expected)))
    for line in filter(None, _lines(output)):
        if left[line] == 0:
            return False
        left[line] -= 1
    return left.total() == 0


def yes_no(output: bytes, expected: bytes) -> bool:
    """The same words, where an expected yes or no may be written in any case."""
    return _alike(output, expected, _tokens, _same_word)


COMPARATORS: dict[str, Comparator] = {
    "exact": exact,
    "lines": lines,
    "tokens": tokens,
    "float": floats,
    "unordered": unordered,
    "yes_no": yes_no,
}


def difference(output: bytes, expected: bytes, compare: Comparator) -> str:
    """For people: the first line on which two texts that `compare` told apart are not the same."""
    pairs = zip_longest(_lines(_unix(output)), _lines(_unix(expected)))
    for number, (found, wanted) in enumerate(pairs, start=1):
        if found is None or wanted is None or (found != wanted and not compare(found, wanted)):
            return f"line {number} is {_shown(found)}, expected {_shown(wanted)}"
    return "the lines are the same, whitespace or line ends are not"


def _alike(
    output: bytes,
    expected: bytes,
    split: Callable[[bytes], Iterator[bytes]],
    same: Callable[[bytes, bytes], bool],
) -> bool:
    output, expected = _unix(output), _unix(expected)
    if _padded(output, expected):
        return False
    pairs = zip_longest(split(output), split(expected))
    return all(found is not None and wanted is not None and same(found, wanted) for found, wanted in pairs)


def _unix(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n")


def _padded(output: bytes, expected: bytes) -> bool:
    """Whether the output holds more whitespace in one stretch than may be ignored."""
    output = output.translate(_AS_SPACES)
    if b" " * (GAP_BYTES + 1) not in output:
        return False
    longest = max((len(gap) for gap in re.findall(rb" +", expected.translate(_AS_SPACES))), default=0)
    return b" " * (GAP_BYTES + longest + 1) in output


def _tokens(text: bytes) -> Iterator[bytes]:
    return (match.group() for match in _TOKEN.finditer(text))


def _lines(text: bytes) -> Iterator[bytes]:
    """The lines without whitespace at their ends; blank lines only where another line follows."""
    blank = 0
    for line in io.BytesIO(text):
        line = line.rstrip(_WHITESPACE)
        if not line:
            blank += 1
            continue
        yield from repeat(b"", blank)
        blank = 0
        yield line


def _near(found: bytes, wanted: bytes, abs_tol: float, rel_tol: float) -> bool:
    a, b = _number(found), _number(wanted)
    if a is None or b is None:
        return False
    distance = abs(a - b)  # infinite where it overflows, and then greater than any tolerance
    return distance <= abs_tol or distance <= rel_tol * abs(b)


def _same_word(found: bytes, wanted: bytes) -> bool:
    return found == wanted or (wanted.lower() in (b"yes", b"no") and found.lower() == wanted.lower())


def _number(token: bytes) -> float | None:
    if not _NUMBER.fullmatch(token):
        return None
    value = float(token)
    return value if math.isfinite(value) else None


def _shown(line: bytes | None) -> str:
    if line is None:
        return "missing"
    text = line[:60].decode("utf-8", "backslashreplace")
    return repr(text) + ("..." if len(line) > 60 else "")
