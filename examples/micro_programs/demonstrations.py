"""Demonstrations with systematic mistakes: which operations people get wrong, how often, and in which programs.

A mistake belongs to an operation, not to a program: someone who believes that `range(1, n)` reaches n believes it in
every program. So each operation has a rate. For some of them, the misconceptions, the rate is above one half: a policy
that imitates the demonstrations and answers greedily makes the mistake every time, while sampling still finds the
right form.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import prod
from typing import Any

from examples.micro_programs.compose import OPERATIONS, Composition
from examples.micro_programs.examination import passes

#: Sampling has to come across the right form to learn it: at least a quarter of the demonstrations stay right.
MISCONCEPTION_RATES = (0.58, 0.75)
HIGHEST_SLIP = 0.42  #: any other operation is right more often than wrong
LEAST_SLIP = 0.01  #: and is got wrong now and then, on average at least this often
TOLERANCE = 0.01  #: of the share of programs that have a misconception
DRAWS = 50


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One program written for one task."""

    specification: int
    language: str
    mistakes: frozenset[str]


def mistake_rates(
    train: Sequence[Composition], *, seed: int, wrong_share: float, misconception_share: float
) -> dict[str, float]:
    """For each operation, the share of its demonstrations that get it wrong.

    The misconceptions are drawn so that `misconception_share` of the programs have one: a share of the operations
    would touch 31 % of the programs with one seed and 47 % with the next. The rates of the others are scaled so
    that `wrong_share` of the programs contain a mistake.

    Raises:
        ValueError: no such rates; the message says which way to move.
    """
    fallible = [operation for operation in OPERATIONS if operation.wrong]
    if wrong_share == 0:
        return {operation.name: 0.0 for operation in fallible}
    too_many = False
    for draw in range(DRAWS):
        rng = random.Random(f"{seed} misconceptions {draw}")
        chosen = draw_misconceptions(train, misconception_share, rng)
        if abs(share_touched(train, chosen) - misconception_share) > TOLERANCE:
            continue  # what was left to choose from was too coarse
        firm = {op.name: rng.uniform(*MISCONCEPTION_RATES) for op in fallible if op.name in chosen}
        slips = {op.name: rng.uniform(0.4, 1.6) for op in fallible if op.name not in chosen}
        if _expected_wrong(train, firm, slips, LEAST_SLIP) > wrong_share:
            too_many = True
        elif _expected_wrong(train, firm, slips, HIGHEST_SLIP) >= wrong_share:
            return _rates(firm, slips, _solve(train, firm, slips, wrong_share))
    remedy = "lower misconception_share or raise wrong_share" if too_many else "raise misconception_share"
    raise ValueError(f"wrong_share={wrong_share} does not go with misconception_share={misconception_share}: {remedy}")


def share_touched(train: Sequence[Composition], chosen: frozenset[str]) -> float:
    """The share of programs that use one or more of these operations."""
    return sum(not chosen.isdisjoint(composition.can_go_wrong) for composition in train) / len(train)


def draw_misconceptions(train: Sequence[Composition], share: float, rng: random.Random) -> frozenset[str]:
    """Operations such that `share` of the programs use one or more, one kind of operation after the other."""
    users: dict[str, set[int]] = defaultdict(set)
    kinds: dict[str, list[str]] = defaultdict(list)
    for operation in OPERATIONS:
        if operation.wrong:
            kinds[operation.kind].append(operation.name)
    for number, composition in enumerate(train):
        for name in composition.can_go_wrong:
            users[name].add(number)
    shuffled = [rng.sample(names, len(names)) for names in rng.sample(list(kinds.values()), len(kinds))]
    chosen, touched = set[str](), set[int]()
    for name in (name for turn in zip_longest(*shuffled) for name in turn if name):
        if users[name] and len(touched | users[name]) <= (share + TOLERANCE) * len(train):
            chosen.add(name)
            touched |= users[name]
    return frozenset(chosen)


def demonstrate(
    train: Mapping[int, Composition],
    tests: Mapping[int, Sequence[dict[str, Any]]],
    tasks: Sequence[tuple[int, str]],
    rates: Mapping[str, float],
    *,
    seed: int,
    wrong_share: float,
    per_task: int,
) -> list[Demonstration]:
    """`per_task` programs for every task (a specification and a language), wrong exactly where a test says so.

    Each operation is got wrong in its exact share of programs; which ones is drawn a few times over, until the
    programs that are wrong are `wrong_share` of all.
    """
    slots = [task for task in tasks for _ in range(per_task)]
    best: list[Demonstration] = []
    gap = float("inf")
    for draw in range(20):
        drawn = _draw(train, tests, slots, rates, random.Random(f"{seed} demonstrations {draw}"))
        wrong = sum(bool(demonstration.mistakes) for demonstration in drawn)
        if abs(wrong - wrong_share * len(slots)) < gap:
            best, gap = drawn, abs(wrong - wrong_share * len(slots))
        if gap <= 0.003 * len(slots):
            break
    return best


def measured_rates(train: Mapping[int, Composition], drawn: Sequence[Demonstration]) -> dict[str, float]:
    """The rates as they came out."""
    uses, mistakes = Counter[str](), Counter[str]()
    for demonstration in drawn:
        uses.update(train[demonstration.specification].can_go_wrong)
        mistakes.update(demonstration.mistakes)
    return {name: round(mistakes[name] / uses[name], 4) for name in uses}


def _draw(
    train: Mapping[int, Composition],
    tests: Mapping[int, Sequence[dict[str, Any]]],
    slots: Sequence[tuple[int, str]],
    rates: Mapping[str, float],
    rng: random.Random,
) -> list[Demonstration]:
    users: dict[str, list[int]] = defaultdict(list)
    for slot, (number, _) in enumerate(slots):
        for name in train[number].can_go_wrong:
            users[name].append(slot)
    mistakes: list[set[str]] = [set() for _ in slots]
    for name in sorted(users):
        for slot in rng.sample(users[name], round(rates[name] * len(users[name]))):
            mistakes[slot].add(name)
    drawn = []
    for (number, language), names in zip(slots, mistakes, strict=True):
        if names and passes(train[number], tests[number], frozenset(names)):
            # Two mistakes that undo each other; one alone is always caught, because the tests were chosen so.
            names = {max(sorted(names), key=lambda name: rates[name])}
        drawn.append(Demonstration(number, language, frozenset(names)))
    return drawn


def _rates(firm: Mapping[str, float], slips: Mapping[str, float], scale: float) -> dict[str, float]:
    return {**firm, **{name: min(HIGHEST_SLIP, weight * scale) for name, weight in slips.items()}}


def _expected_wrong(
    train: Sequence[Composition], firm: Mapping[str, float], slips: Mapping[str, float], scale: float
) -> float:
    rates = _rates(firm, slips, scale)
    return sum(1 - prod(1 - rates[name] for name in composition.can_go_wrong) for composition in train) / len(train)


def _solve(
    train: Sequence[Composition], firm: Mapping[str, float], slips: Mapping[str, float], wrong_share: float
) -> float:
    low, high = LEAST_SLIP, HIGHEST_SLIP
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if _expected_wrong(train, firm, slips, middle) < wrong_share else (low, middle)
    return high
