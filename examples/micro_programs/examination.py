"""Arguments and tests: which compositions are worth asking for, and which six calls tell right from wrong."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from examples.micro_programs.compose import Composition, Overflow

ALPHABET = "aaaeemmzzAMZZ059  "
PROBES = 24  #: fixed arguments on which every two specifications of one signature must differ
CANDIDATES = 40  #: random arguments from which the tests of one specification are picked


def arguments(composition: Composition, rng: random.Random, edge: bool = False) -> dict[str, Any]:
    """Random arguments within what the words define; `edge` makes the sequence empty or the number least."""
    source, values = composition.source, {}
    for name in composition.parameters:
        if name == "k":
            values[name] = rng.randint(1, 6 if "xs" in composition.parameters else 9)
        elif name == "n" and "eats_n" in source.traits:
            values[name] = 1 if edge else rng.randint(1, 10 ** rng.randint(1, 5) if source.name == "digits" else 120)
        elif name == "n":
            values[name] = 0 if edge else rng.randint(1, 18)
        elif name == "xs":
            values[name] = [] if edge else [rng.randint(-9, 12) for _ in range(rng.randint(1, 7))]
        else:
            values[name] = "" if edge else "".join(rng.choice(ALPHABET) for _ in range(rng.randint(1, 8)))
    return values


def signature(composition: Composition) -> tuple[Any, ...] | None:
    """What the function does on fixed probes, or None if that is too dull, or too large, to ask for.

    Two compositions with one signature are one specification in different words; the second is not used.
    """
    rng = random.Random(f"probes of {composition.parameters} {'eats_n' in composition.source.traits}")
    probes = [arguments(composition, rng, edge=number == 0) for number in range(PROBES)]
    try:
        outcomes = tuple(composition.outcome(probe) for probe in probes)
    except Overflow:
        return None
    commonest = max(outcomes.count(value) for value in set(outcomes))
    if commonest > PROBES * (0.75 if composition.returns == "bool" else 0.6):
        return None
    return (composition.parameters, "eats_n" in composition.source.traits, composition.returns, outcomes)


def choose_tests(composition: Composition, rng: random.Random, count: int) -> list[dict[str, Any]] | None:
    """`count` tests of which at least one fails for each single mistake and for each step left out.

    None where no such tests turn up: then some step hardly matters to the outcome, and the composition is not used.
    The first test is the edge case.
    """
    candidates = [arguments(composition, rng, edge=True)]
    for _ in range(CANDIDATES):
        candidate = arguments(composition, rng)
        if candidate not in candidates:
            candidates.append(candidate)
    try:
        expected = [composition.outcome(candidate) for candidate in candidates]
        caught = _catches(composition, candidates, expected)
    except Overflow:
        return None
    picked, missed = [0], frozenset().union(*caught) - caught[0]
    if frozenset().union(*caught) != _flaws(composition):
        return None
    while len(picked) < count:
        seen = [expected[number] for number in picked]
        rest = [number for number in range(len(candidates)) if number not in picked]
        # Most flaws first; among equals, an outcome that the tests so far do not have.
        best = max(rest, key=lambda number: (len(caught[number] & missed), -seen.count(expected[number])))
        picked.append(best)
        missed -= caught[best]
    if missed:
        return None
    return [{"args": list(candidates[number].values()), "expected": expected[number]} for number in picked]


def passes(composition: Composition, tests: Sequence[dict[str, Any]], wrong: frozenset[str]) -> bool:
    """Whether the program with these mistakes would pass every test."""
    names = composition.parameters
    try:
        return all(
            composition.outcome(dict(zip(names, test["args"], strict=True)), wrong) == test["expected"]
            for test in tests
        )
    except Overflow:
        return False


def _flaws(composition: Composition) -> frozenset[tuple[str, str]]:
    left_out = {("without", step.name) for step in _removable(composition)}
    return frozenset({("wrong", name) for name in composition.can_go_wrong} | left_out)


def _removable(composition: Composition) -> list[Any]:
    """The steps that can be left out with something still to run."""
    steps = [composition.filter]
    if composition.map and composition.map.element == "int":
        steps.append(composition.map)
    if composition.returns == "int":
        steps.append(composition.adjustment)
    return [step for step in steps if step]


def _catches(
    composition: Composition, candidates: Sequence[dict[str, Any]], expected: Sequence[Any]
) -> list[frozenset[tuple[str, str]]]:
    """For each candidate, the flaws under which the outcome is another one."""
    found = []
    for candidate, right in zip(candidates, expected, strict=True):
        flaws = set()
        for how, name in _flaws(composition):
            wrong, without = (frozenset({name}), "") if how == "wrong" else (frozenset(), name)
            if composition.outcome(candidate, wrong, without) != right:
                flaws.add((how, name))
        found.append(frozenset(flaws))
    return found
