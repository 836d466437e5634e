"""What a sandbox is asked and what it answers.

    Job (argv, files, stdin, limits)  --Sandbox.run-->  RunResult (bytes, how it ended, what it cost)

Every run gets a fresh box: an empty working folder with exactly the job's files, and nothing left of the run
before. A program is compiled in one box and its artefact, collected as bytes, runs in others.

A `RunResult` only reports. Whether the program was right is decided elsewhere, from values it claimed. When the
harness itself fails, `run` raises `assay.errors.InfraFailure`; it never invents a result.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

MIB = 1024 * 1024

#: How boxes start Python: nothing of the environment's or the user's own, no site-packages.
PYTHON_FLAGS = ("-P", "-s", "-S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run may use. Processor time decides a time-out; wall time is the backstop for sleepers."""

    cpu_s: float = 10.0  #: user + system time, summed over every process of the run
    wall_s: float = 20.0  #: counted from the start of the process, not from the request
    memory_bytes: int = 1024 * MIB  #: resident memory of all processes, and (see `address_space`) of one reserved
    address_space: bool = True  #: the kernel refuses one process more; not for runtimes that reserve and never use
    output_bytes: int = 16 * MIB  #: of standard output, and again of standard error
    processes: int = 64  #: processes and threads, the run's own included
    file_bytes: int = 64 * MIB  #: one file, and the whole working folder

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if name != "address_space" and not getattr(self, name) > 0:
                raise ValueError(f"limit {name}={getattr(self, name)} must be positive")


class KilledBy(StrEnum):
    """Why the box ended a run that had not ended by itself (or had used more than it was allowed)."""

    CPU = "cpu"
    WALL = "wall"
    MEMORY = "memory"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What really stood between a run and the machine; `str()` gives "local:user,mnt,pid,net,ipc,uts,..."."""

    tier: str
    features: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()  #: what is missing or weaker than usual, one sentence each

    def __str__(self) -> str:
        return f"{self.tier}:{','.join(self.features)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One program to run. `argv[0]` is absolute, or relative to the working folder, where `files` are put."""

    argv: tuple[str, ...]
    #: names, or paths below the working folder ("data/a.txt"), whose folders are made; all are executable
    files: Mapping[str, bytes] = field(default_factory=dict)
    stdin: bytes = b""
    limits: Limits = field(default_factory=Limits)
    collect: tuple[str, ...] = ()  #: plain names of regular files to bring back, each at most `limits.file_bytes`
    #: those of `files` that nothing in the box can change, move or remove; tier "local" only, others refuse the job
    fixed: tuple[str, ...] = ()
    #: argv is (sandbox.python, *PYTHON_FLAGS, script): a fork of an interpreter that waits may run the script
    warm: bool = False

    def __post_init__(self) -> None:
        if not self.argv:
            raise ValueError("a job needs an argv")
        for path in (*self.files, *self.collect):
            if path.startswith(("-", "@")):
                raise ValueError(f"{path!r}: a compiler would take it for an option or a file of options")
        for path in self.files:
            if "\0" in path or len(path) > 200 or any(part in ("", ".", "..") for part in path.split("/")):
                raise ValueError(f"{path!r} is neither a plain file name nor a path of such")
        if missing := [name for name in self.fixed if name not in self.files]:
            raise ValueError(f"{missing} are fixed and not among the files")
        for name in self.collect:
            if not name or "/" in name or "\0" in name or name in (".", "..") or len(name) > 200:
                raise ValueError(f"{name!r} is not a plain file name")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended. Exactly one of `exit_code` and `signal` is set."""

    exit_code: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    cpu_s: float
    wall_s: float
    memory_bytes: int  #: highest resident memory seen
    killed_by: KilledBy | None = None
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    files: Mapping[str, bytes] = field(default_factory=dict)  #: those of `Job.collect` that exist, are plain and fit
    isolation: Isolation = field(default_factory=lambda: Isolation(tier="none"))

    @property
    def ok(self) -> bool:
        """Ended by itself with status 0. Says nothing about the answer being right."""
        return self.exit_code == 0 and self.killed_by is None


class Sandbox(Protocol):
    """Runs one job at a time; safe to call from several threads, which then take turns."""

    python: str  #: the interpreter that programs in Python run with, as a box sees it
    precompiled: Path | None  #: the folder of this machine that boxes see as `root.PRECOMPILED`; None: not of this one

    @property
    def isolation(self) -> Isolation:
        """What runs get. Starts the sandbox if need be; raises EnvironmentProblem where it cannot be had."""
        ...

    def run(self, job: Job) -> RunResult:
        """Run `job` in a fresh box. Raises InfraFailure when the harness, not the program, failed."""
        ...

    def has(self, tool: str) -> bool:
        """Whether a box can execute `tool`, an absolute path."""
        ...

    def close(self) -> None:
        """Free everything, at once, killing what runs; a second call does nothing."""
        ...


def interpreter() -> str:
    """The Python programs run with here: the installation behind this one, without its site-packages."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return str(Path(sys.base_prefix, "bin", name))
