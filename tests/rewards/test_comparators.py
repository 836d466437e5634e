"""Comparators: what each forgives, that nothing else passes, and that no output makes them slow."""

from __future__ import annotations

import time
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.comparators import COMPARATORS, GAP_BYTES, difference, floats

NAMES = tuple(COMPARATORS)
FORGIVING = tuple(name for name in NAMES if name != "exact")
SAID = b"3 YES\n1.5 two\nno 7\n"

words = (
    st.text(alphabet="0123456789.-+eEaYy\u00e9\0\r\f\u00a0", min_size=1, max_size=6)
    .filter(lambda word: not word.endswith("\r"))  # which would become a line end
    .map(str.encode)
)
word_lists = st.lists(words, min_size=1, max_size=12)
texts = st.lists(st.sampled_from([b" ", b"\t", b"\n", b"\r\n", b"\r", b"\0", b"1", b"1.0", b"a", b"Yes"])).map(b"".join)
finite = st.floats(allow_nan=False, allow_infinity=False, min_value=1e-100, max_value=1e100)


@pytest.mark.parametrize(
    ("name", "output", "expected"),
    [
        ("exact", b"5\n", b"5\n"),
        ("exact", b"", b""),
        ("lines", b"5", b"5\n"),
        ("lines", b"5 \t\n6\r\n\n \n", b"5\n6"),
        ("lines", b"\n\na", b"\n\na\n\n"),
        ("lines", b"a\x0b\n", b"a\x0b"),
        ("tokens", b" 1 2\n3", b"1\n2\t3\n"),
        ("tokens", b"1\r\n2\r\n", b"1 2"),
        ("float", b"1", b"1.0"),
        ("float", b"1e2 +.5 -0", b"100 0.5 0"),
        ("float", b"0.3333333", b"0.33333333333"),
        ("float", b"1000000.9", b"1000000"),
        ("float", b"abc 0.68 def", b"abc 0.6800001 def"),
        ("float", b"nan -inf 1e999", b"nan -inf 1e999"),
        ("float", b"0.0000001", b"0"),
        ("float", b"1e-999", b"0"),
        ("unordered", b"b\na \nb", b"b\nb\na\n"),
        ("unordered", b"\nb\n\na", b"a\nb"),
        ("yes_no", b"yes No\nnO", b"YES NO NO"),
        ("yes_no", b"yes\n1 2\n", b"Yes 1 2"),
    ],
)
def test_what_is_forgiven(name, output, expected):
    assert COMPARATORS[name](output, expected) is True


@pytest.mark.parametrize(
    ("name", "output", "expected"),
    [
        ("exact", b"5", b"5\n"),
        ("exact", b"5\n", b"5"),
        ("exact", b"5\r\n", b"5\n"),
        ("lines", b" 5", b"5"),
        ("lines", b"1  2", b"1 2"),
        ("lines", b"1 2", b"1\n2"),
        ("lines", b"\n5", b"5"),
        ("lines", b"a\n\nb", b"a\nb"),
        ("lines", b"1\r2", b"1\n2"),
        ("lines", b"YES", b"yes"),
        ("tokens", b"YES", b"yes"),
        ("tokens", b"12", b"1 2"),
        ("tokens", b"1.0", b"1"),
        ("tokens", b"01", b"1"),
        ("tokens", b"True", b"1"),
        ("tokens", b"1\r2", b"1 2"),
        ("tokens", b"1 2", b"2 1"),
        ("float", b"1.001", b"1"),
        ("float", b"-1", b"1"),
        ("float", b"1.00000", b"1.000003"),
        ("float", b"nan", b"1"),
        ("float", b"1", b"nan"),
        ("float", b"NaN", b"nan"),
        ("float", b"inf", b"1e308"),
        ("float", b"1e308", b"inf"),
        ("float", b"1e999", b"1e308"),
        ("float", b"1e999", b"2e999"),
        ("float", b"1", b"1e999"),
        ("float", b"-1.7e308", b"1.7e308"),
        ("float", b"1_0", b"10"),
        ("float", b"0xA", b"10"),
        ("float", b"1,0", b"1.0"),
        ("float", b"1.0.0", b"1.0"),
        ("float", b"1e", b"1"),
        ("float", b".", b"0"),
        ("float", b"True", b"1"),
        ("float", "\u0661".encode(), b"1"),
        ("float", "\uff11".encode(), b"1"),
        ("float", "\u22121".encode(), b"-1"),
        ("unordered", b"a\nb", b"a\nb\nb"),
        ("unordered", b"a\nb\nb", b"a\nb"),
        ("unordered", b"a\na\nb", b"a\nb\nb"),
        ("unordered", b"b a", b"a\nb"),
        ("unordered", b" a", b"a"),
        ("yes_no", b"YES\nNO", b"YES"),
        ("yes_no", b"yes", b"no"),
        ("yes_no", b"y", b"yes"),
        ("yes_no", b"YES!", b"YES"),
        ("yes_no", b"Maybe", b"maybe"),
        ("yes_no", "\u0443es".encode(), b"yes"),
    ],
)
def test_what_is_not(name, output, expected):
    assert COMPARATORS[name](output, expected) is False


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"3 YES\n",
        b"3 YES\n1.5 two\nno",
        SAID[:-2],
        SAID + b"7\n",
        SAID + b"x",
        SAID + SAID,
        b"0\n" + SAID,
        SAID + b"\0",
        SAID + b"\0junk",
        SAID.replace(b"two", b"two\0"),
        SAID.replace(b"7", b"7\x1a"),
        b"\xef\xbb\xbf" + SAID,
        SAID.replace(b"3 ", "3\u00a0".encode()),
        SAID.replace(b"3 ", b"3\f"),
        SAID.replace(b"3 ", b"3\x0b"),
        SAID.replace(b"3 ", b"3\x1c"),
        SAID.replace(b"\n", "\u2028".encode()),
        SAID.replace(b"\n", "\u0085".encode()),
        SAID.replace(b"\n", b"\r"),
        SAID.replace(b"two", "tw\u043e".encode()),
        SAID.replace(b"two", "\u202etwo".encode()),
        SAID.replace(b"two", "t\u200bwo".encode()),
        SAID.replace(b"two", b"\x1b[0mtwo"),
        SAID.replace(b"two", b"TWO"),
        SAID.replace(b"two", b"\xff"),
        SAID.replace(b"3", b"4"),
        SAID.decode().encode("utf-16"),
        SAID + b" " * 10_000_000,
        SAID + b"\n" * 10_000_000,
        SAID + b"\r\n" * 5_000_000,
        SAID + b" \t\n" * 3_000_000,
    ],
    ids=lambda output: repr(output[:32]),
)
def test_near_misses_pass_no_comparator(name, output):
    assert COMPARATORS[name](SAID, SAID) is True
    assert COMPARATORS[name](output, SAID) is False


@pytest.mark.parametrize("name", FORGIVING)
def test_the_whitespace_that_is_forgiven_is_bounded(name):
    compare = COMPARATORS[name]
    for fill in (b" ", b"\n", b"\t"):
        assert compare(b"5" + fill * GAP_BYTES, b"5")
        assert not compare(b"5" + fill * (GAP_BYTES + 1), b"5")
        assert not compare(b"5" + (fill + b"\r\n") * (GAP_BYTES // 2 + 1), b"5")


def test_a_gap_that_is_expected_may_be_as_long_as_it_is():
    wide = b"a" + b" " * (3 * GAP_BYTES) + b"b\n"
    assert all(compare(wide, wide) for compare in COMPARATORS.values())
    assert not COMPARATORS["tokens"](wide + b" " * (4 * GAP_BYTES), wide)


@given(texts, st.sampled_from(NAMES))
@settings(deadline=None)
def test_a_text_equals_itself(text, name):
    assert COMPARATORS[name](text, text)


@given(word_lists, st.sampled_from(NAMES), st.data())
@settings(deadline=None)
def test_a_part_or_more_than_all_is_never_equal(whole, name, data):
    cut = data.draw(st.integers(0, len(whole) - 1))
    text = b"\n".join(whole) + b"\n"
    for other in (whole[:cut], whole[:cut] + whole[cut + 1 :], [*whole, b"0"], [b"0", *whole]):
        assert not COMPARATORS[name](b"\n".join(other) + b"\n", text)


@given(word_lists, st.data())
@settings(deadline=None)
def test_order_matters_to_all_but_unordered(whole, data):
    shuffled = data.draw(st.permutations(whole))
    output, expected = b"\n".join(shuffled), b"\n".join(whole)
    assert COMPARATORS["unordered"](output, expected)
    same_order = list(shuffled) == whole
    assert COMPARATORS["lines"](output, expected) == COMPARATORS["tokens"](output, expected) == same_order


@given(word_lists, st.lists(st.sampled_from([b" ", b"\t", b"\n", b"\r\n", b" \n "]), min_size=12, max_size=12))
@settings(deadline=None)
def test_spacing_matters_to_lines_and_not_to_tokens(whole, gaps):
    spaced = b"".join(word + gap for word, gap in zip(whole, gaps, strict=False))
    expected = b" ".join(whole)
    assert COMPARATORS["tokens"](spaced, expected)
    at_once = all(b"\n" not in gap for gap in gaps[: len(whole) - 1])
    assert COMPARATORS["lines"](spaced, expected) == (at_once and b"\t" not in gaps[: len(whole) - 1])


@given(texts, texts)
@settings(deadline=None)
def test_each_comparator_forgives_what_a_stricter_one_does(one, other):
    judged = {name: compare(one, other) for name, compare in COMPARATORS.items()}
    for stricter, looser in (("exact", "lines"), ("lines", "tokens"), ("tokens", "float"), ("tokens", "yes_no")):
        assert judged[looser] or not judged[stricter]
    assert judged["unordered"] or not judged["lines"]


@given(finite, st.integers(-100, 100), st.sampled_from([1, -1]))
@settings(deadline=None)
def test_a_relative_tolerance_scales(value, exponent, sign):
    compare = partial(floats, abs_tol=0.0, rel_tol=1e-6)
    scaled = sign * value * 10.0**exponent
    expected = repr(scaled).encode()
    assert compare(repr(scaled * (1 + 0.9e-6)).encode(), expected)
    assert compare(repr(scaled * (1 - 0.9e-6)).encode(), expected)
    assert not compare(repr(scaled * (1 + 1.1e-6)).encode(), expected)
    assert not compare(repr(scaled * (1 - 1.1e-6)).encode(), expected)
    assert not compare(repr(-scaled).encode(), expected)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 10))
@settings(deadline=None)
def test_an_absolute_tolerance_does_not(value, tolerance):
    compare = partial(floats, abs_tol=tolerance, rel_tol=0.0)
    expected = repr(value).encode()
    assert compare(repr(value + 0.9 * tolerance).encode(), expected)
    assert not compare(repr(value + 1.2 * tolerance).encode(), expected)


def test_no_tolerance_is_equality_of_numbers():
    compare = partial(floats, abs_tol=0.0, rel_tol=0.0)
    assert compare(b"1", b"1.0") and not compare(b"1.0000000000000002", b"1")


HUGE = 4_000_000


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (b"1" * HUGE + b"x", b"1" * HUGE),
        (b"0." + b"0" * HUGE + b"1", b"0.5"),
        (b"1e" + b"9" * HUGE, b"1"),
        (b"1e-" + b"9" * HUGE, b"1"),
        ((b"a" + b" " * GAP_BYTES) * (HUGE // GAP_BYTES), b"a"),
        (b"\n \n" * (HUGE // 3) + b"a", b"a"),
        (b"1 " * (HUGE // 2), b"1 2"),
        (b"1\n" * (HUGE // 2), b"1"),
        (b"\r" * HUGE, b"1"),
    ],
    ids=lambda text: repr(text[:8]),
)
def test_no_output_makes_a_comparison_slow(name, output, expected):
    started = time.process_time()
    assert COMPARATORS[name](output, expected) is False
    assert difference(output, expected, COMPARATORS[name])
    assert time.process_time() - started < 2


def test_numbers_of_a_million_digits_are_numbers():
    assert floats(b"0" * HUGE + b"1", b"1") and floats(b"1." + b"0" * HUGE, b"1")
    assert not floats(b"1" * HUGE, b"1")  # no finite double: a word


@pytest.mark.parametrize(
    ("name", "output", "expected", "words_of_it"),
    [
        ("lines", b"1\n2\n", b"1\n3\n", "line 2 is '2', expected '3'"),
        ("lines", b"1\n", b"1\n3\n", "line 2 is missing, expected '3'"),
        ("lines", b"1\n2", b"1", "line 2 is '2', expected missing"),
        ("float", b"1.0\n2.5", b"1\n2", "line 2 is '2.5', expected '2'"),
        ("exact", b"5", b"5\n", "the lines are the same"),
        ("lines", b"\xff" + b"a" * 99, b"a", r"'\\xffaaa"),
    ],
)
def test_people_are_told_where_the_difference_is(name, output, expected, words_of_it):
    assert words_of_it in difference(output, expected, COMPARATORS[name])
