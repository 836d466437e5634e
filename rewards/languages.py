"""The languages answers are written in: one row each, and nothing about a language anywhere else but its driver.

`compile` and `run` are argument lists with placeholders: {source} the answer's file, {artefact} what compiling
makes, {python} the interpreter assay itself runs on (its standard library only).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from assay.errors import DataError
from rewards.sandbox.base import MIB, Limits

_COMPILE_LIMITS = Limits(
    cpu_s=15.0, wall_s=40.0, memory_bytes=1536 * MIB, output_bytes=MIB // 16, processes=64, file_bytes=128 * MIB
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """How to compile and run one language."""

    name: str
    aliases: tuple[str, ...]  #: other labels of a fenced block, lower case
    suffix: str
    run: tuple[str, ...]
    compile: tuple[str, ...] = ()  #: empty where nothing is compiled
    compile_limits: Limits = field(default=_COMPILE_LIMITS)

    @property
    def source(self) -> str:
        """The file an answer is put in."""
        return f"answer{self.suffix}"

    def compile_argv(self, *, flags: tuple[str, ...] = (), objects: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The compile command; `flags` go before the source file, `objects` after it."""
        at = self.compile.index("{source}")
        return _filled((*self.compile[:at], *flags, "{source}", *objects, *self.compile[at + 1 :]), self)

    def run_argv(self) -> tuple[str, ...]:
        """The run command."""
        return _filled(self.run, self)


ARTEFACT = "program"

LANGUAGES: dict[str, Language] = {
    row.name: row
    for row in (
        Language(
            name="python",
            aliases=("py", "python3", "py3"),
            suffix=".py",
            run=("{python}", "-I", "-S", "{source}"),
        ),
        Language(
            name="c",
            aliases=("c17", "c11", "c99"),
            suffix=".c",
            compile=(
                "/usr/bin/gcc", "-O1", "-std=gnu17", "-fmax-errors=10", "-o", "{artefact}", "{source}", "-lm",
            ),
            run=("./{artefact}",),
        ),
    )
}  # fmt: skip


def find(name: str) -> Language:
    """The row called `name`, by its name or an alias. Raises DataError listing what there is."""
    wanted = name.strip().lower()
    for row in LANGUAGES.values():
        if wanted == row.name or wanted in row.aliases:
            return row
    raise DataError(f"no language {name!r}; there are {', '.join(sorted(LANGUAGES))}")


def interpreter() -> str:
    """The Python programs run with: the installation behind this one, without its site-packages."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return str(Path(sys.base_prefix, "bin", name))


def _filled(argv: tuple[str, ...], row: Language) -> tuple[str, ...]:
    names = {"source": row.source, "artefact": ARTEFACT, "python": interpreter()}
    return tuple(argument.format(**names) for argument in argv)
