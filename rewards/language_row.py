"""What one row of the language table says, and the commands it stands for.

`compile` and `run` are argument lists with placeholders: {source} the answer's file, {artefact} what compiling
makes, {python} the interpreter assay itself runs on (its standard library only). Where several commands make one
artefact, the list is ("/bin/sh", "-c", line): exactly one file crosses from the box that compiles to those that run.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from rewards.sandbox.base import MIB, Limits, interpreter

COMPILE_LIMITS = Limits(
    cpu_s=15.0, wall_s=40.0, memory_bytes=1536 * MIB, output_bytes=MIB // 16, processes=64, file_bytes=128 * MIB
)
#: for compilers that run on a virtual machine themselves, or reserve far more address space than they use
MANAGED_COMPILE_LIMITS = replace(COMPILE_LIMITS, address_space=False, processes=128)
#: for those that need a minute of a slow machine for ten lines
PATIENT_COMPILE_LIMITS = replace(MANAGED_COMPILE_LIMITS, cpu_s=60.0, wall_s=150.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """How to compile and run one language."""

    name: str
    aliases: tuple[str, ...]  #: other labels of a fenced block, lower case
    suffix: str
    comment: str  #: a text without any effect: what asks tests whether they ask for anything
    idle: str = ""  #: a whole program that does nothing, where a comment alone is none
    run: tuple[str, ...]
    compile: tuple[str, ...] = ()  #: empty where nothing is compiled
    compile_limits: Limits = field(default=COMPILE_LIMITS)
    file: str = ""  #: the source file's name, where the language or its compiler fixes it
    artefact: str = "program"  #: the one file that compiling makes and running needs
    package: str = ""  #: what a person installs to have it (Debian's names)
    archive: str = ""  #: where Debian has none: the upstream archive an image build unpacks, and where to
    sha256: str = ""  #: of the archive; where nobody says it, `rewards.sandbox.image` holds later builds to the first
    needs: tuple[str, ...] = ()  #: tools that no command starts with, absolute paths
    environment: tuple[str, ...] = ()  #: "NAME=value" for both commands, besides what a box sets
    start_cpu_s: float = 0.0  #: what the runtime needs before the program's first line; added to a test's limits
    address_space: bool = True  #: False for runtimes that reserve far more than they use (JVM, Node, Go, Mono)
    threads: int = 0  #: how many the runtime starts by itself; added to a test's limit of processes
    precompiled: str = ""  #: a header that `rewards.precompiled` keeps compiled
    reads_input: bool = True  #: False where a program has no way to read its standard input
    status_tells: bool = True  #: False where a program that failed may leave with status 0: see `quirk`
    quirk: str = ""  #: a sentence on what an answer or a verifier must know

    @property
    def label(self) -> str:
        """A label of fenced blocks: the name or an alias, in one word."""
        return next(label for label in (self.name, *self.aliases) if " " not in label)

    @property
    def source(self) -> str:
        """The file an answer is put in."""
        return self.file or f"answer{self.suffix}"

    @property
    def tools(self) -> tuple[str, ...]:
        """The programs of the machine it needs, absolute paths."""
        started = (argv[0] for argv in (self.compile, self.run) if argv and argv[0].startswith("/"))
        return tuple(dict.fromkeys((*started, *self.needs)))

    @property
    def download(self) -> tuple[str, ...]:
        """(address of the archive, where it is unpacked), or () where packages are all it takes.

        The address ends with "#sha256=..." where that is known.
        """
        if not self.archive:
            return ()
        address, place = self.archive.split(" unpacked to ")
        return f"{address}#sha256={self.sha256}" if self.sha256 else address, place

    @property
    def install(self) -> str:
        """What to do to have it, or "" where it is always there."""
        package = f"apt-get install {self.package}" if self.package else ""
        return " and ".join(filter(None, (package, self.archive)))

    def limits(self, limits: Limits) -> Limits:
        """What one run of a program may use: the test's limits and what the runtime itself takes."""
        return replace(
            limits,
            cpu_s=limits.cpu_s + self.start_cpu_s,
            wall_s=limits.wall_s + 2 * self.start_cpu_s,
            processes=limits.processes + self.threads,
            address_space=limits.address_space and self.address_space,
        )

    def compile_argv(self, *, flags: tuple[str, ...] = (), objects: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The compile command; `flags` go before the source file, `objects` after it.

        Raises ValueError for either where the row has no place for them: its command is a line for the shell.
        """
        if not flags and not objects:
            return self._filled(self.compile)
        if "{source}" not in self.compile:
            raise ValueError(f"the compile command of {self.name} takes no further flags or objects")
        at = self.compile.index("{source}")
        return self._filled((*self.compile[:at], *flags, "{source}", *objects, *self.compile[at + 1 :]))

    def run_argv(self, *, python: str = "") -> tuple[str, ...]:
        """The run command; `python` is a box's interpreter where that is not the one running here."""
        return self._filled(self.run, python)

    def _filled(self, argv: tuple[str, ...], python: str = "") -> tuple[str, ...]:
        names = {"source": self.source, "artefact": self.artefact, "python": python or interpreter()}
        filled = tuple(argument.format(**names) for argument in argv)
        return ("/usr/bin/env", *self.environment, *filled) if self.environment else filled
