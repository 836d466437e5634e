"""The notation of values: what a driver writes, the host reads back, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import math
from collections import Counter, OrderedDict, defaultdict, namedtuple
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.values import BadValue, decode, parse, parts

DRIVER = Path(__file__).resolve().parents[2] / "rewards" / "sandbox" / "driver_python.py"


def load_driver() -> ModuleType:
    spec = importlib.util.spec_from_file_location("driver_under_test", DRIVER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


encode = load_driver()._make_encoder(1 << 20)

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers(allow_nan=False)
    | st.text() | st.sampled_from(["\ud800x", "\0", "\x7f\u2028"]) | st.binary()
)  # fmt: skip
hashable = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple)
        | st.sets(hashable, max_size=4) | st.dictionaries(hashable, inner, max_size=4)
    ),
)  # fmt: skip


def same(a, b) -> bool:
    """Equal, of the same types all the way down, and NaN like NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return math.copysign(1, a) == math.copysign(1, b) and a == b if a == a else b != b
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(map(same, a.items(), b.items()))
    if isinstance(a, set | frozenset):
        return len(a) == len(b)  # order and NaN make members hard to pair; equality is checked where there is no NaN
    return a == b


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@settings(max_examples=200, deadline=None)
@given(values)
def test_every_value_comes_back_as_itself(value):
    tree = parse(encode(value))
    assert same(decode(tree, exact=True, expected_parts=parts(value)), value)


@pytest.mark.parametrize(
    ("value", "base"),
    [
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(x=1), {"x": 1}),
        (defaultdict(int, x=1), {"x": 1}),
        (namedtuple("P", "x y")(1, 2), (1, 2)),
        ([type("I", (int,), {"__eq__": lambda a, b: True, "__hash__": None})(7)], [7]),
        ({1: 2}.keys(), {1}),
        ([OrderedDict(x=1).items()], [{("x", 1)}]),
    ],
)
def test_subclasses_count_as_their_base_only_where_that_is_allowed(value, base):
    tree = parse(encode(value))
    assert decode(tree, exact=False, expected_parts=parts(base)) == base
    with pytest.raises(BadValue, match="subclass"):
        decode(tree, exact=True)


@given(st.fractions() | st.decimals(allow_nan=False))
def test_fractions_and_decimals_are_themselves_and_no_built_in_values(value):
    tree = parse(encode([value]))
    (found,) = decode(tree, exact=False, expected_parts=2)
    assert type(found) is type(value) and found == value
    with pytest.raises(BadValue, match="not a built-in value"):
        decode(tree, exact=True)


@pytest.mark.parametrize(
    "claim",
    [
        ["q", "1"], ["q", ["1"]], ["q", ["1", "0"]], ["q", [1, 2]], ["q", ["1", "x"]], ["q", ["f" * 5000, "1"]],
        ["m", 1], ["m", ""], ["m", "1_0"], ["m", " 1"], ["m", "\u0661"], ["m", "sNaN"], ["m", "9" * 5000],
        ["m", "1e9999999999999999999"], ["m", ["1", "2"]],
    ],
)  # fmt: skip
def test_fractions_and_decimals_that_are_none_are_refused(claim):
    with pytest.raises(BadValue, match=r"a (Fraction|Decimal)|pair"):
        decode(claim, exact=False)


@pytest.mark.parametrize("value", [range(3), {}.values(), iter([]), object(), int])
def test_other_objects_are_named_not_described(value):
    with pytest.raises(BadValue, match="not a built-in value"):
        decode(parse(encode(value)), exact=False)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"1", b"[]", b'["i"]', b'["i",5]', b'["i","0x5"]', b'["i","5 "]', b'["i",""]', b'["b",true]',
        b'["b",2]', b'["f","x"]', b'["f",1.5]', b'["s",1]', b'["y","0"]', b'["l",{}]', b'["l","abc"]', b'["d",[[1]]]',
        b'["d",[[["l",[]],["N"]]]]', b'["S",[["l",[]]]]', b'["N",1]', b'["q",1]', b'["i","5"]]', b'["i","5"] x',
        b'["c",["1"]]', b'["f","0x1p99999"]', b'{"i":"5"}', b"[" * 5000, b'["l",[' * 400 + b"]]" * 400, b"\xff", b"NaN",
    ],
)  # fmt: skip
def test_anything_malformed_is_refused(data):
    with pytest.raises(BadValue):
        decode(parse(data), exact=False)


def test_a_claim_of_another_size_is_refused_before_it_is_built():
    """A set of integers with one hash takes quadratic time to build: 20,000 of them would take seconds."""
    step = (1 << 61) - 1
    claim = json.dumps(["S", [["i", f"{n * step:x}"] for n in range(20_000)]]).encode()
    with pytest.raises(BadValue, match="20001 parts where one of 2"):
        decode(parse(claim), exact=False, expected_parts=parts({1}))


def test_equality_is_python_s():
    assert decode(parse(encode([1, 2.0, True])), exact=False) == [1.0, 2, 1]
    assert decode(parse(encode([1])), exact=False) != (1,)


def test_the_encoder_is_bounded():
    driver = load_driver()
    small = driver._make_encoder(1000)
    cyclic: list = []
    cyclic.append(cyclic)
    for value in (cyclic, "x" * 2000, list(range(1000)), 1 << 10_000):
        with pytest.raises(driver._TooLarge):
            small(value)
