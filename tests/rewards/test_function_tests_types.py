"""The types of signatures: read, checked, written for a driver, and compared."""

from __future__ import annotations

import json
import math

import pytest

from assay.errors import DataError
from assay.types import Verdict
from rewards.drivers_types import Fewer, as_written, fits, fitted, kind_of, same, tokens_of
from rewards.sandbox.base import Limits
from rewards.sandbox.fake import FakeSandbox, ended
from rewards.values import BadValue, decode
from rewards.verifiers.base import Bench
from rewards.verifiers.function import FunctionVerifier


@pytest.mark.parametrize(
    ("text", "shortest"),
    [
        ("int", "int"),
        ("str", "string"),
        ("int[]", "int[]"),
        ("list[int]", "int[]"),
        ("list[list[str]]", "string[][]"),
        ("map[str, list[int]]", "map[int[]]"),
        ("map[float]?", "map[float]?"),
        ("bool?[]", "bool?[]"),
    ],
)
def test_types_are_read_in_either_spelling(text, shortest):
    assert str(kind_of(text)) == shortest == str(kind_of(shortest))


@pytest.mark.parametrize(
    "text", ["", "integer", "int[", "int]", "list[]", "list", "map[int,int]", "list[int", "int int", "[]", None, 3]
)
def test_what_is_no_type_is_none(text):
    assert kind_of(text) is None


@pytest.mark.parametrize(
    ("text", "value", "answer"),
    [
        ("int", True, False),
        ("int", 1.0, False),
        ("float", 1, False),
        ("int[]", (1,), False),
        ("int[]", [1, True], False),
        ("int?", None, True),
        ("int?[]", [1, None], True),
        ("map[int]", {"a": 1}, True),
        ("map[int]", {1: 1}, False),
        ("map[int]", {"a": None}, False),
    ],
)
def test_a_value_is_of_exactly_its_type(text, value, answer):
    assert fits(kind_of(text), value) is answer


def test_json_writes_whole_floats_as_integers():
    assert as_written(kind_of("map[float[]]"), {"a": (1, 2.5)}) == {"a": [1.0, 2.5]}
    assert type(as_written(kind_of("float"), 2)) is float
    assert type(as_written(kind_of("float"), 2**53 + 1)) is int  # no float is this number


def test_the_tokens_of_a_value():
    value = {"a": [1, -2], "": [True, None, 1.5, "\u20ac"]}
    assert list(tokens_of(value)) == [
        *("d2", "s61", "l2", "i1", "i-2", "s", "l4", "b1", "n", "f3ff8000000000000", "se282ac")
    ]


def test_values_are_compared_exactly_and_no_number_equals_itself():
    assert same(math.nan, math.nan) and same([math.nan], [math.nan]) and same({"a": math.nan}, {"a": math.nan})
    assert not same(0.1 + 0.2, 0.3) and not same([1], [1, 1]) and not same({"a": 1}, {"b": 1})


def test_floats_are_near_within_a_tolerance_and_nothing_else_is():
    assert same([0.1 + 0.2], [0.3], rel_tol=1e-9) and not same(0.31, 0.3, rel_tol=1e-9)
    assert same(1e-9, 0.0, abs_tol=1e-8) and not same(1e-9, 0.0, rel_tol=0.5)
    assert not same(1, 2, abs_tol=5.0) and not same(math.inf, 1e308, rel_tol=0.5)


@pytest.mark.parametrize(
    ("returns", "change", "complaint"),
    [
        ("int", {"abs_tol": 1}, "goes with floats"),
        ("float", {"abs_tol": -1}, "not negative"),
        ("float", {"abs_tol": math.nan}, "not negative"),
        ("float?", {"rel_tol": 1}, "would let 0 pass"),
    ],
)
def test_tolerances_that_mean_nothing_are_refused_at_load(returns, change, complaint, function_task):
    with pytest.raises(DataError, match=complaint):
        FunctionVerifier().check(function_task("ruby", {}, returns, [([], 1)], **change))


def test_a_task_s_tolerance_holds_for_what_is_returned(function_task):
    claim = ended(b'-2 0 0 0 0 0 0\n0 0 0 5 6 7 25\nV["D","3fd3333333333334"]')  # 0.1 + 0.2
    for rest, verdict in (({}, "WA"), ({"rel_tol": 1e-9}, "AC")):
        task = function_task("ruby", {}, "float", [([], 0.3)], **rest)
        bench = Bench(sandbox=FakeSandbox([claim]), limits=Limits())
        assert FunctionVerifier().judge(task, "f", bench).verdict is Verdict(verdict)


def test_a_language_with_fewer_types_is_forgiven_only_what_it_cannot_tell():
    numbers, truths = Fewer(one_number=True), Fewer(truth=True)
    assert list(map(type, fitted(kind_of("float[]"), [1, 2.5], numbers))) == [float, float]
    assert type(fitted(kind_of("int"), -0.0, numbers)) is int and type(fitted(kind_of("int"), 1.5, numbers)) is float
    assert fitted(kind_of("int"), True, numbers) is True and type(fitted(kind_of("float"), 1, Fewer())) is int
    assert fitted(kind_of("bool[]"), [1, 0, ""], truths) == [True, False, False]
    assert fitted(kind_of("bool"), 2, truths) == 2 and fitted(kind_of("int"), "", truths) == ""
    texts = Fewer(scalar_text=True, one_number=True)
    assert [fitted(kind_of("int"), v, texts) for v in ("12", "-3", "1e3", "12 ", "")] == [12, -3, "1e3", "12 ", ""]
    assert fitted(kind_of("float"), "2.50", texts) == 2.5 and fitted(kind_of("string"), 5, texts) == "5"
    assert fitted(kind_of("map[int]"), [5, 6], Fewer(one_container=True)) == {"0": 5, "1": 6}
    assert fitted(kind_of("map[int]"), [5, 6], Fewer()) == [5, 6]
    assert fitted(kind_of("int[][]"), [1, None, [2, 3]], Fewer(vectors=True)) == [[1], [], [2, 3]]
    assert fitted(kind_of("int[]"), 1, Fewer()) == 1 and fitted(kind_of("int"), [1], Fewer(vectors=True)) == [1]


def test_floats_by_their_bits_and_text_by_its_bytes():
    assert decode(["D", "3ff8000000000000"], exact=True) == 1.5
    assert decode(["D", "7ff0000000000000"], exact=True) == math.inf
    assert decode(["u", "e282ac"], exact=True) == "\u20ac"
    for tree in (["D", "3ff8"], ["D", "3FF8000000000000"], ["u", "ff"], ["u", "e2 82"], ["u", "6"], ["D"], ["u", 6]):
        with pytest.raises(BadValue):
            decode(tree, exact=True)


@pytest.mark.parametrize(
    ("language", "kind", "value", "complaint"),
    [
        ("javascript", "int", 2**53, "does not fit a javascript int"),
        ("java", "int[]", [2**63], "does not fit a java int"),
        ("lua", "string", "\ud800", "cannot be written as UTF-8"),
        ("go", "map[int]", {"a": "1"}, "is not of type"),
        ("c", "float", 1.0, "one of the types"),
        ("rust", "integer", 1, "one of the types"),
    ],
)
def test_values_a_language_cannot_be_given_are_refused_at_load(language, kind, value, complaint, function_task):
    with pytest.raises(DataError, match=complaint):
        FunctionVerifier().check(function_task(language, {"x": kind}, "int", [([value], 1)]))


@pytest.mark.parametrize(
    ("language", "returns", "expected", "claim", "verdict"),
    [
        ("php", "map[int]", {"0": 5}, ["l", [["i", "5"]]], "AC"),
        ("php", "map[int]", {}, ["l", []], "AC"),
        ("php", "int[]", [5], ["d", [[["s", "0"], ["i", "5"]]]], "WA"),
        ("ruby", "map[int]", {}, ["l", []], "WA"),
        ("ruby", "int?", None, ["N"], "AC"),
        ("ruby", "int?", 0, ["N"], "WA"),
        ("javascript", "float", 2.0, ["i", "2"], "AC"),
        ("ruby", "float", 2.0, ["i", "2"], "WA"),
        ("javascript", "int", 2, ["D", "4000000000000000"], "AC"),
        ("javascript", "int", 0, ["D", "8000000000000000"], "AC"),
        ("javascript", "int", 2, ["D", "4008000000000000"], "WA"),
        ("lua", "int", 2, ["D", "4000000000000000"], "AC"),
        ("r", "int[]", [2], ["D", "4000000000000000"], "AC"),
        ("r", "int", 2, ["l", [["i", "2"]]], "WA"),
        ("perl", "bool", False, ["u", ""], "AC"),
        ("perl", "bool", True, ["i", "2"], "WA"),
        ("javascript", "bool", True, ["i", "1"], "WA"),
    ],
)
def test_what_a_claim_is_worth_in_a_language(language, returns, expected, claim, verdict, function_task):
    data = b"V" + json.dumps(claim).encode()
    sandbox = FakeSandbox([ended(b"-2 0 0 0 0 0 0\n0 0 0 5 6 7 %d\n%s" % (len(data), data))])
    bench = Bench(sandbox=sandbox, limits=Limits())
    task = function_task(language, {}, returns, [([], expected)])
    assert FunctionVerifier().judge(task, "f", bench).verdict is Verdict(verdict)


@pytest.mark.parametrize("language", ["ruby", "python"])
def test_what_waited_too_long_is_run_once_more(language, function_task):
    waited = ended(b"-2 0 0 0 0 0 0\n0 9 2 5 6 7 0\n")
    right = ended(b'-2 0 0 0 0 0 0\n0 0 0 5 6 7 10\nV["i","1"]')
    task = function_task(language, {}, "int", [([], 1)])
    for answers, verdict in (([waited, right], "AC"), ([waited, waited], "TLE")):
        sandbox = FakeSandbox(answers)
        judged = FunctionVerifier().judge(task, "f", Bench(sandbox=sandbox, limits=Limits()))
        assert judged.verdict is Verdict(verdict) and len(sandbox.jobs) == 2 and "run twice" in judged.detail


def test_null_where_a_value_is_expected_is_wrong_and_no_more():
    for expected in (1.5, [1], {"a": 1}, "x", 1, True):
        assert not same(None, expected)
        assert not same(expected, None)
    assert same(None, None)
