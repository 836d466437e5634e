"""Headers that are compiled once per machine instead of once per answer: C++ answers mostly begin with <bits/stdc++.h>.

GCC takes a precompiled header by itself where the plain one is included first and compiler, flags and macros fit, and
the plain one where they do not, so that no program compiles that would not have compiled without. It looks for the
plain one where it took the precompiled one from: a file there leads to the real one, for who includes it twice. Boxes
see the folder read-only as `PLACE`; a row of the language table names the header and gives `-I` PLACE to its compiler.
An image of the docker tier brings its own; on this machine the folder is in the user's cache (about 120 MB), filled in
a box.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from rewards.language_row import PATIENT_COMPILE_LIMITS, Language
from rewards.sandbox.base import MIB, Job, Sandbox
from rewards.sandbox.root import PRECOMPILED as PLACE

_LIMITS = replace(PATIENT_COMPILE_LIMITS, file_bytes=256 * MIB)
_SOURCE, _MADE = "header.hpp", "header.gch"


def command(language: Language, source: str, made: str) -> tuple[str, ...]:
    """Compiles `source`, which includes the row's header, into the precompiled `made`."""
    flags = language.compile_argv()[: language.compile_argv().index("-o")]
    return (*flags, "-x", "c++-header", "-o", made, source)


def shell_line(language: Language) -> str:
    """The same for the end of an image's build: makes what boxes of the image will see as `PLACE`."""
    made = f"{PLACE}/{language.precompiled}.gch"
    line = " ".join(command(language, f"/tmp/{_SOURCE}", made))
    text = f"#include <{language.precompiled}>"
    plain = f"echo '{_plain(language)}' > {PLACE}/{language.precompiled}"
    return f"mkdir -p {Path(made).parent} && echo '{text}' > /tmp/{_SOURCE} && {line} && rm /tmp/{_SOURCE} && {plain}"


def _plain(language: Language) -> str:
    return f"#include_next <{language.precompiled}>"


def ensure(sandbox: Sandbox, language: Language) -> bool:
    """Make the header of the row where it is missing on this machine. False where somebody else is at it just now.

    A header that cannot be made is left out: answers then compile as slowly as without. Raises InfraFailure.
    """
    folder = sandbox.precompiled
    if folder is None:
        return True
    try:
        return _ensure(sandbox, language, folder)
    except OSError:  # a full disk, a lock of another user's: answers compile without
        return True


def _ensure(sandbox: Sandbox, language: Language, folder: Path) -> bool:
    made = folder / _key(language) / f"{language.precompiled}.gch"
    seen = folder / f"{language.precompiled}.gch"
    with _alone(folder) as alone:
        if not alone:
            return False
        if not made.exists():
            files = {_SOURCE: f"#include <{language.precompiled}>\n".encode()}
            job = Job(argv=command(language, _SOURCE, _MADE), files=files, limits=_LIMITS, collect=(_MADE,))
            run = sandbox.run(job)
            if run.killed_by is not None:  # a machine in trouble: another time
                return True
            _keep(made, run.files.get(_MADE, b"") if run.ok else b"")
        if not seen.with_suffix("").exists():
            _keep(seen.with_suffix(""), f"{_plain(language)}\n".encode())
        if not seen.exists() or not seen.samefile(made):
            _link(made, seen)
    return True


def _key(language: Language) -> str:
    """What the header was made with: another compiler or other flags make another."""
    compiler = Path(language.compile[0]).resolve()
    about = compiler.stat()
    headers = Path("/usr/include").stat().st_mtime_ns  # GCC does not look whether what is included has changed
    facts = (language.compile_argv(), str(compiler), about.st_size, about.st_mtime_ns, headers)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    lock = os.open(
        folder.with_suffix(".lock"),  # not where boxes see it
        os.O_RDWR | os.O_CREAT | os.O_CLOEXEC,
        0o600,
    )
    try:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
            return
        yield False
    finally:
        os.close(lock)


def _keep(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            file.write(data)
            file.flush()
            Path(file.name).chmod(0o644)  # programs run as another user where assay runs as root
            Path(file.name).replace(path)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise


def _link(made: Path, seen: Path) -> None:
    """One file under two names: a symbolic link would not lead anywhere in a box."""
    seen.parent.mkdir(parents=True, exist_ok=True)
    seen.parent.chmod(0o755)
    new = seen.with_suffix(".new")
    new.unlink(missing_ok=True)
    os.link(made, new)
    new.replace(seen)
