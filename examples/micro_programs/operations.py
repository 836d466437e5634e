"""The operations that specifications are composed of: the words, the code in two languages, the meaning, the mistake.

An operation is one step of a small loop: where the values come from (a source), which ones count (a filter), what
is done to each (a map), how they are collected (a reduction), what becomes of the result (an adjustment). Each
has two forms: the right one and the characteristic mistake, the slip people make with exactly this operation.

Code fragments are written in the part of Python that is also C; where the two differ, the C text stands beside it.
Names in the fragments: `x` an int element, `c` a character, `E` the mapped element, `r` the result so far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Form:
    """One way to do an operation.

    `means` is the same thing as a Python callable, so that a program's outcome is known without running it:
    source (arguments) -> elements; filter and map (element, arguments) -> value;
    reduction (result, mapped element) -> result; adjustment (result, arguments) -> value.
    """

    python: str
    means: Callable[..., Any]
    c: str
    start: int = 0  #: reductions only: what `r` is before the loop


@dataclass(frozen=True, slots=True)
class Operation:
    """A step with its wordings. `{}` in a wording is the place of what it applies to."""

    kind: str  #: source, filter, map, reduction, adjustment
    name: str
    phrases: tuple[str, ...]
    right: Form
    wrong: Form | None  #: None: nothing to get wrong (the characters of s)
    element: str = "int"  #: what it consumes, or yields if a source: int, char, or any
    traits: frozenset[str] = frozenset()

    @property
    def uses(self) -> frozenset[str]:
        """Which of the parameters n, k, xs and s it mentions."""
        return self.traits & {"n", "k", "xs", "s"}


# Traits beside the parameters used:
#   keeps         what comes out is >= 0 if what went in is, in both forms (sources: always >= 0)
#   makes         what comes out is >= 0 in both forms
#   needs         the % or / in it agrees between Python and C only on values >= 0
#   positive      a source that never yields 0;  needs_positive: a filter that divides by the element
#   eats_n        the source uses n up, so that nothing after it can read it
#   ordered       a reduction whose outcome depends on the order
#   counts        a reduction that ignores the elements, so that it never follows a map
#   bool          an adjustment that returns a truth value


def form(python: str, means: Callable[..., Any], c: str | None = None, start: int = 0) -> Form:
    if c is None:
        c = python.replace(" and ", " && ").replace(" or ", " || ").replace("//", "/")
    return Form(python, means, c, start)


def when(condition: str, then: str, means: Callable[..., Any]) -> Form:
    """An adjustment under a condition."""
    c_then = then.replace("//", "/")
    return Form(f"if {condition}:\n r = {then}\nreturn r", means, f"if ({condition})\n r = {c_then};\nreturn r;")


def give(expression: str, means: Callable[..., Any]) -> Form:
    """An adjustment in the return statement."""
    return Form(f"return {expression}", means, f"return {expression.replace('//', '/')};")


def define(kind: str, element: str = "int") -> Callable[..., Operation]:
    def make(name: str, traits: str, phrases: str, right: Form, wrong: Form | None) -> Operation:
        wordings = tuple(phrase.strip() for phrase in phrases.split("/"))
        return Operation(kind, name, wordings, right, wrong, element, frozenset(traits.split()))

    return make


def over_numbers(start: str, test: str, step: str, python: str, means: Callable[..., Any]) -> Form:
    return Form(f"for x in range({python}):", means, f"for (int x = {start}; {test}; {step})")


def over_list(python: str, start: str, test: str, means: Callable[..., Any], step: str = "i++") -> Form:
    return Form(f"for x in {python}:", means, f"for (int i = {start}; {test}; {step}) {{\n int x = xs[i];")


def over_places(first: int, value: str, means: Callable[..., Any]) -> Form:
    python = f"range({first}, len(xs))" if first else "range(len(xs))"
    return Form(
        f"for i in {python}:\n x = {value}",
        means,
        f"for (int i = {first}; i < xs_len; i++) {{\n int x = {value};",
    )


def over_string(python: str, test: str, means: Callable[..., Any]) -> Form:
    return Form(f"for c in {python}:", means, f"for (int i = 0; {test}; i++) {{\n char c = s[i];")


def over_n(last: int, value: str, base: int, means: Callable[..., Any]) -> Form:
    return Form(
        f"while n > {last}:\n x = {value}\n n //= {base}",
        means,
        f"for (; n > {last}; n /= {base}) {{\n int x = {value};",
    )


def digits(n: int) -> list[int]:
    return [int(digit) for digit in reversed(str(n))]


def halves(n: int) -> list[int]:
    return [n >> shift for shift in range(n.bit_length())]


_number = define("source")
NUMBER_SOURCES = (
    _number("one_to_n", "n keeps positive", "the {}numbers from 1 to n / the {}integers 1 to n",
            over_numbers("1", "x <= n", "x++", "1, n + 1", lambda a: range(1, a["n"] + 1)),
            over_numbers("1", "x < n", "x++", "1, n", lambda a: range(1, a["n"]))),
    _number("below_n", "n keeps", "the {}numbers from 0 to n - 1 / the {}numbers from 0 up to, not including, n",
            over_numbers("0", "x < n", "x++", "n", lambda a: range(a["n"])),
            over_numbers("0", "x <= n", "x++", "n + 1", lambda a: range(a["n"] + 1))),
    _number("odd_to_n", "n keeps positive", "the {}numbers 1, 3, 5, ... up to n / the {}numbers 1, 3, ... to n",
            over_numbers("1", "x <= n", "x += 2", "1, n + 1, 2", lambda a: range(1, a["n"] + 1, 2)),
            over_numbers("2", "x <= n", "x += 2", "2, n + 1, 2", lambda a: range(2, a["n"] + 1, 2))),
    _number("multiples_to_n", "n k keeps positive", "the {}multiples of k up to n / the {}numbers k, 2k, ... to n",
            over_numbers("k", "x <= n", "x += k", "k, n + 1, k", lambda a: range(a["k"], a["n"] + 1, a["k"])),
            over_numbers("k", "x <= n", "x++", "k, n + 1", lambda a: range(a["k"], a["n"] + 1))),
    _number("k_to_n", "n k keeps positive", "the {}numbers from k to n / the {}integers k to n",
            over_numbers("k", "x <= n", "x++", "k, n + 1", lambda a: range(a["k"], a["n"] + 1)),
            over_numbers("k + 1", "x <= n", "x++", "k + 1, n + 1", lambda a: range(a["k"] + 1, a["n"] + 1))),
    _number("n_down_to_one", "n keeps positive", "the {}numbers from n down to 1 / the {}integers n down to 1",
            over_numbers("n", "x > 0", "x--", "n, 0, -1", lambda a: range(a["n"], 0, -1)),
            over_numbers("n", "x > 1", "x--", "n, 1, -1", lambda a: range(a["n"], 1, -1))),
    _number("digits", "n keeps eats_n", "the {}digits of n / the {}decimal digits of n",
            over_n(0, "n % 10", 10, lambda a: digits(a["n"])),
            over_n(9, "n % 10", 10, lambda a: digits(a["n"])[:-1])),
    _number("halves", "n keeps positive eats_n", "the {}values n takes halved to 1 / the {}numbers met halving n to 1",
            over_n(0, "n", 2, lambda a: halves(a["n"])),
            over_n(1, "n", 2, lambda a: halves(a["n"])[:-1])),
)  # fmt: skip

LIST_SOURCES = (
    _number("elements", "xs", "the {}elements of xs / the {}values in xs",
            over_list("xs", "0", "i < xs_len", lambda a: a["xs"]),
            over_list("xs[1:]", "1", "i < xs_len", lambda a: a["xs"][1:])),
    _number("even_places", "xs", "the {}elements of xs at even positions / the {}elements of xs at indices 0, 2, ...",
            over_list("xs[::2]", "0", "i < xs_len", lambda a: a["xs"][::2], "i += 2"),
            over_list("xs[1::2]", "1", "i < xs_len", lambda a: a["xs"][1::2], "i += 2")),
    _number("all_but_first", "xs", "the {}elements of xs after its first element / the {}elements of xs from index 1",
            over_list("xs[1:]", "1", "i < xs_len", lambda a: a["xs"][1:]),
            over_list("xs", "0", "i < xs_len", lambda a: a["xs"])),
    _number("all_but_last", "xs", "the {}elements of xs before its last element / the {}elements of xs without its end",
            over_list("xs[:-1]", "0", "i < xs_len - 1", lambda a: a["xs"][:-1]),
            over_list("xs", "0", "i < xs_len", lambda a: a["xs"])),
    _number("backwards", "xs", "the {}elements of xs from last to first / the {}elements of reversed xs",
            over_list("xs[::-1]", "xs_len - 1", "i >= 0", lambda a: a["xs"][::-1], "i--"),
            over_list("xs[:0:-1]", "xs_len - 1", "i > 0", lambda a: a["xs"][:0:-1], "i--")),
    _number("first_k", "xs k", "the {}values among the first k of xs / the {}elements in the first k of xs",
            over_list("xs[:k]", "0", "i < xs_len && i < k", lambda a: a["xs"][: a["k"]]),
            over_list("xs[:k + 1]", "0", "i < xs_len && i <= k", lambda a: a["xs"][: a["k"] + 1])),
    _number("steps", "xs", "the {}steps of xs (element minus previous) / the {}rises of xs (element minus previous)",
            over_places(1, "xs[i] - xs[i - 1]", lambda a: [q - p for p, q in zip(a["xs"], a["xs"][1:], strict=False)]),
            over_places(1, "xs[i - 1] - xs[i]", lambda a: [p - q for p, q in zip(a["xs"], a["xs"][1:], strict=False)])),
    _number("weighted", "xs", "the {}products element times index of xs / the {}products index times element of xs",
            over_places(0, "xs[i] * i", lambda a: [x * i for i, x in enumerate(a["xs"])]),
            over_places(0, "xs[i] * (i + 1)", lambda a: [x * i for i, x in enumerate(a["xs"], 1)])),
)  # fmt: skip

_text = define("source", "char")
STRING_SOURCES = (
    _text("characters", "s", "the {}characters of s / the {}characters in s",
          over_string("s", "s[i]", lambda a: a["s"]), None),
    _text("first_word", "s", "the {}characters of s before its first space / the {}characters of s up to any space",
          over_string("s.split(' ')[0]", "s[i] && s[i] != ' '", lambda a: a["s"].split(" ")[0]),
          over_string("s", "s[i]", lambda a: a["s"])),
    _text("all_but_last_character", "s", "the {}characters of s before the last / the {}characters of s but its last",
          over_string("s[:-1]", "s[i] && s[i + 1]", lambda a: a["s"][:-1]),
          over_string("s", "s[i]", lambda a: a["s"])),
    _text("first_k_characters", "s k", "the {}characters in the first k of s / the {}characters among the first k of s",
          over_string("s[:k]", "s[i] && i < k", lambda a: a["s"][: a["k"]]),
          over_string("s[:k + 1]", "s[i] && i <= k", lambda a: a["s"][: a["k"] + 1])),
)  # fmt: skip

# A wording that starts with "that" follows the noun, any other one precedes it.
_filter = define("filter")
_char_filter = define("filter", "char")
FILTERS = (
    _filter("even", "keeps", "even / that are even",
            form("x % 2 == 0", lambda x, a: x % 2 == 0), form("x % 2 != 0", lambda x, a: x % 2 != 0)),
    _filter("odd", "keeps", "odd / that are odd",
            form("x % 2 != 0", lambda x, a: x % 2 != 0), form("x % 2 == 0", lambda x, a: x % 2 == 0)),
    _filter("by_3", "keeps", "that are divisible by 3 / that 3 divides",
            form("x % 3 == 0", lambda x, a: x % 3 == 0), form("x % 3 != 0", lambda x, a: x % 3 != 0)),
    _filter("not_by_3", "keeps", "that are not divisible by 3 / that 3 does not divide",
            form("x % 3 != 0", lambda x, a: x % 3 != 0), form("x % 3 == 0", lambda x, a: x % 3 == 0)),
    _filter("by_4", "keeps", "that are divisible by 4 / that 4 divides",
            form("x % 4 == 0", lambda x, a: x % 4 == 0), form("x % 2 == 0", lambda x, a: x % 2 == 0)),
    _filter("positive", "makes", "positive / that are positive",
            form("x > 0", lambda x, a: x > 0), form("x > 1", lambda x, a: x > 1)),
    _filter("negative", "", "negative / that are negative",
            form("x < 0", lambda x, a: x < 0), form("x > 0", lambda x, a: x > 0)),
    _filter("nonzero", "keeps", "nonzero / that are not 0",
            form("x != 0", lambda x, a: x != 0), form("x > 0", lambda x, a: x > 0)),
    _filter("above_k", "k makes", "that are greater than k / that exceed k",
            form("x > k", lambda x, a: x > a["k"]), form("x >= k", lambda x, a: x >= a["k"])),
    _filter("at_most_k", "k keeps", "that are at most k / that do not exceed k",
            form("x <= k", lambda x, a: x <= a["k"]), form("x < k", lambda x, a: x < a["k"])),
    _filter("below_5", "keeps", "that are less than 5 / that are below 5",
            form("x < 5", lambda x, a: x < 5), form("x <= 5", lambda x, a: x <= 5)),
    _filter("from_3", "makes", "that are at least 3 / that are 3 or more",
            form("x >= 3", lambda x, a: x >= 3), form("x > 3", lambda x, a: x > 3)),
    _filter("from_2_to_6", "makes", "that are 2 to 6 / that lie in 2 to 6",
            form("x >= 2 and x <= 6", lambda x, a: 2 <= x <= 6), form("x > 2 and x < 6", lambda x, a: 2 < x < 6)),
    _filter("by_k", "k keeps", "that are divisible by k / that k divides",
            form("x % k == 0", lambda x, a: x % a["k"] == 0), form("x % k != 0", lambda x, a: x % a["k"] != 0)),
    _filter("not_k", "k keeps", "that differ from k / that are not k",
            form("x != k", lambda x, a: x != a["k"]), form("x > k", lambda x, a: x > a["k"])),
    _filter("divisor", "n keeps needs_positive", "that divide n / that are divisors of n",
            form("n % x == 0", lambda x, a: a["n"] % x == 0), form("x % n == 0", lambda x, a: x % a["n"] == 0)),
    _char_filter("digit", "keeps", "digit / that are digits",
                 form("c >= '0' and c <= '9'", lambda c, a: "0" <= c <= "9"),
                 form("c > '0' and c < '9'", lambda c, a: "0" < c < "9")),
    _char_filter("lowercase", "keeps", "lowercase / that are in a to z",
                 form("c >= 'a' and c <= 'z'", lambda c, a: "a" <= c <= "z"),
                 form("c >= 'a' and c < 'z'", lambda c, a: "a" <= c < "z")),
    _char_filter("uppercase", "keeps", "uppercase / that are in A to Z",
                 form("c >= 'A' and c <= 'Z'", lambda c, a: "A" <= c <= "Z"),
                 form("c >= 'a' and c <= 'z'", lambda c, a: "a" <= c <= "z")),
    _char_filter("nonspace", "keeps", "nonspace / that are no spaces",
                 form("c != ' '", lambda c, a: c != " "), form("c == ' '", lambda c, a: c == " ")),
    _char_filter("letter_a", "keeps", "'a' / that equal 'a'",
                 form("c == 'a'", lambda c, a: c == "a"), form("c == 'A'", lambda c, a: c == "A")),
    _char_filter("e_or_m", "keeps", "'e' or 'm' / that equal 'e' or 'm'",
                 form("c == 'e' or c == 'm'", lambda c, a: c in "em"),
                 form("c == 'e' and c == 'm'", lambda c, a: False)),
    _char_filter("before_m", "keeps", "that sort before 'm' / that come before 'm'",
                 form("c < 'm'", lambda c, a: c < "m"), form("c <= 'm'", lambda c, a: c <= "m")),
    _char_filter("from_a", "keeps", "that sort from 'a' on / that are 'a' or later",
                 form("c >= 'a'", lambda c, a: c >= "a"), form("c > 'a'", lambda c, a: c > "a")),
)  # fmt: skip
