"""One specification: a composition of operations, its wording, its program in two languages, what it returns."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from examples.micro_programs.operations import FILTERS, LIST_SOURCES, NUMBER_SOURCES, STRING_SOURCES, Form, Operation
from examples.micro_programs.results import ADJUSTMENTS, MAPS, REDUCTIONS

LANGUAGES = ("python", "c")
TYPES = {"n": "int", "k": "int", "xs": "int[]", "s": "string"}
C_PARAMETERS = {"n": "int n", "k": "int k", "xs": "const int *xs, int xs_len", "s": "const char *s"}
C_NAMES = {"n": "n", "k": "k", "xs": "xs, xs_len", "s": "s"}
OPERATIONS = (*NUMBER_SOURCES, *LIST_SOURCES, *STRING_SOURCES, *FILTERS, *MAPS, *REDUCTIONS, *ADJUSTMENTS)
INT32_MAX = 2**31 - 1

#: How often a specification is about a number, a list, a string.
SOURCE_SHARES = ((NUMBER_SOURCES, 0.35), (LIST_SOURCES, 0.4), (STRING_SOURCES, 0.25))
#: Which optional steps stand beside source and reduction, and how often: two to four operations on a source.
SHAPES = {
    ("filter",): 0.08,
    ("map",): 0.08,
    ("adjustment",): 0.06,
    ("filter", "map"): 0.18,
    ("filter", "adjustment"): 0.18,
    ("map", "adjustment"): 0.14,
    ("filter", "map", "adjustment"): 0.28,
}


class Overflow(ValueError):
    """The composition leaves int32 on these arguments."""


@dataclass(frozen=True, slots=True)
class Composition:
    """What a specification is, apart from its wording."""

    source: Operation
    filter: Operation | None
    map: Operation | None
    reduction: Operation
    adjustment: Operation | None

    @property
    def operations(self) -> tuple[Operation, ...]:
        steps = (self.source, self.filter, self.map, self.reduction, self.adjustment)
        return tuple(step for step in steps if step is not None)

    @property
    def key(self) -> str:
        return ".".join(operation.name for operation in self.operations)

    @property
    def parameters(self) -> tuple[str, ...]:
        used = frozenset[str]().union(*(operation.uses for operation in self.operations))
        return tuple(name for name in ("n", "xs", "s", "k") if name in used)

    @property
    def returns(self) -> str:
        return "bool" if self.adjustment and "bool" in self.adjustment.traits else "int"

    @property
    def can_go_wrong(self) -> tuple[str, ...]:
        return tuple(operation.name for operation in self.operations if operation.wrong)

    def outcome(self, arguments: Mapping[str, Any], wrong: frozenset[str] = frozenset(), without: str = "") -> Any:
        """What the program returns, with the mistakes of the operations in `wrong`, or lacking one step.

        Raises:
            Overflow: the result leaves int32 on the way.
        """

        def meaning(operation: Operation | None) -> Callable[..., Any] | None:
            return None if operation is None or operation.name == without else chosen(operation, wrong).means

        keep, change, adjust = meaning(self.filter), meaning(self.map), meaning(self.adjustment)
        collect = chosen(self.reduction, wrong)
        result = collect.start
        for element in chosen(self.source, wrong).means(arguments):
            if keep is None or keep(element, arguments):
                result = collect.means(result, change(element, arguments) if change else element)
                in_int32(result)
        return in_int32(adjust(result, arguments)) if adjust else result

    def wording(self, rng: random.Random, phrasings: int = 2) -> str:
        """The specification in words: one of the first `phrasings` phrases of each step."""

        def say(step: Operation) -> str:
            return rng.choice(step.phrases[:phrasings])

        kept, noun = (say(self.filter) if self.filter else ""), say(self.source)
        noun = noun.format("") + f" {kept}" if kept.startswith("that") else noun.format(f"{kept} " if kept else "")
        if self.map:
            noun = say(self.map).format(noun)
        text = say(self.reduction).format(noun, bare=noun.removeprefix("the "))
        return say(self.adjustment).format(text) if self.adjustment else text

    def prompt(self, language: str, wording: str) -> str:
        """The user's message: language, signature, wording."""
        names = ", ".join((C_NAMES[name] if language == "c" else name) for name in self.parameters)
        stop = "" if wording.endswith("?") else "."
        return f"{'C' if language == 'c' else 'Python'} f({names}): {wording}{stop}"

    def program(self, language: str, wrong: frozenset[str] = frozenset()) -> str:
        """The function f, with the mistakes of the operations in `wrong`."""
        return self._c(wrong) if language == "c" else self._python(wrong)

    def answer(self, language: str, wrong: frozenset[str] = frozenset()) -> str:
        """The program as an assistant writes it: a fenced block."""
        return f"```{language}\n{self.program(language, wrong)}\n```"

    def _python(self, wrong: frozenset[str]) -> str:
        reduction = chosen(self.reduction, wrong)
        head, *rest = chosen(self.source, wrong).python.split("\n")
        body = [line.strip() for line in rest]
        step = insert(reduction.python, chosen(self.map, wrong).python if self.map else "x")
        body += [f"if {chosen(self.filter, wrong).python}:", f" {step}"] if self.filter else [step]
        tail = chosen(self.adjustment, wrong).python if self.adjustment else "return r"
        lines = [f"r = {reduction.start}", head, *(f" {line}" for line in body), *tail.split("\n")]
        return "\n".join([f"def f({', '.join(self.parameters)}):", *(f" {line}" for line in lines)])

    def _c(self, wrong: frozenset[str]) -> str:
        reduction = chosen(self.reduction, wrong)
        head, *rest = chosen(self.source, wrong).c.split("\n")
        body = [line.strip() for line in rest]
        step = insert(reduction.c, chosen(self.map, wrong).c if self.map else "x") + ";"
        body += [f"if ({chosen(self.filter, wrong).c})", f" {step}"] if self.filter else [step]
        tail = chosen(self.adjustment, wrong).c if self.adjustment else "return r;"
        close = ["}"] if head.endswith("{") else []
        lines = [f"int r = {reduction.start};", head, *(f" {line}" for line in body), *close, *tail.split("\n")]
        parameters = ", ".join(C_PARAMETERS[name] for name in self.parameters)
        return "\n".join([f"int f({parameters}) {{", *(f" {line}" for line in lines), "}"])


def chosen(operation: Operation, wrong: frozenset[str]) -> Form:
    return operation.wrong if operation.wrong and operation.name in wrong else operation.right


def in_int32(value: int) -> int:
    if not -INT32_MAX <= value <= INT32_MAX:
        raise Overflow(f"{value} is outside int32")
    return value


def insert(step: str, element: str) -> str:
    """Put the mapped element in place of E, in parentheses only where the step asks and the element needs them."""
    atom = re.fullmatch(r"\w+|\w+\([^()]*\)|\([^()]*\)", element)
    return step.replace("(E)", element if atom else f"({element})").replace("E", element)


def fits(composition: Composition) -> bool:
    """Whether the steps go together: types, parameters still readable, and one meaning of % and / in both languages."""
    source, keep, change = composition.source, composition.filter, composition.map
    reduction, adjustment = composition.reduction, composition.adjustment
    if source.element == "char" and not change and "counts" not in reduction.traits:
        return False
    if change and "counts" in reduction.traits:
        return False
    if keep and "needs_positive" in keep.traits and "positive" not in source.traits:
        return False
    if "eats_n" in source.traits and any("n" in step.traits for step in composition.operations[1:]):
        return False
    if "n" in frozenset().union(*(step.uses for step in composition.operations)) and "n" not in source.uses:
        return False
    if source.name == "digits" and "ordered" in reduction.traits:
        return False  # the loop meets the digits from the right, which the words do not say
    not_negative = "keeps" in source.traits
    for step in (keep, change, reduction, adjustment):
        if step is None:
            continue
        if "needs" in step.traits and not not_negative:
            return False
        if step.kind != "filter":
            not_negative = "makes" in step.traits or (not_negative and "keeps" in step.traits)
        else:
            not_negative = not_negative or "makes" in step.traits
    return True


def part_of(table: Sequence[Operation], catalogue: float) -> list[Operation]:
    """The first share of a table's operations, for each kind of element apart."""
    kept = []
    for element in dict.fromkeys(op.element for op in table):
        rows = [op for op in table if op.element == element]
        kept += rows[: max(1, round(catalogue * len(rows)))]
    return kept


def compositions(rng: random.Random, used: Counter[str], catalogue: float = 1.0) -> Iterator[Composition]:
    """Endless random compositions that fit, of the first `catalogue` share of each table's operations.

    Operations that `used` counts seldom come more often, to even them out.
    """
    reductions, adjustments = part_of(REDUCTIONS, catalogue), part_of(ADJUSTMENTS, catalogue)
    filters, maps = part_of(FILTERS, catalogue), part_of(MAPS, catalogue)

    def pick(table: Sequence[Operation]) -> Operation:
        return rng.choices(table, [1 / (3 + used[operation.name]) for operation in table])[0]

    families, family_weights = zip(*SOURCE_SHARES, strict=True)
    shapes, shape_weights = zip(*SHAPES.items(), strict=True)
    while True:
        source = pick(part_of(rng.choices(families, family_weights)[0], catalogue))
        shape = rng.choices(shapes, shape_weights)[0]
        kept, mapped = ([op for op in table if op.element == source.element] for table in (filters, maps))
        composition = Composition(
            source,
            pick(kept) if "filter" in shape else None,
            pick(mapped) if "map" in shape else None,
            pick(reductions),
            pick(adjustments) if "adjustment" in shape else None,
        )
        if fits(composition):
            yield composition
