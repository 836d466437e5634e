"""Running a script in a fork of the interpreter that waits, instead of starting one: 2 ms instead of 10.

The waiting interpreter is the supervisor. It never reads a job (the watcher, a fork of it, does) and never reads what
a run says (the kernel moves it from pipe to pipe), so a script that searches its own memory finds nothing of other
runs there. All walls are those of a started interpreter: namespaces, limits, filter and user are set before the script.
"""

from __future__ import annotations

import atexit
import builtins
import gc
import importlib
import io
import marshal
import os
import signal
import sys
import traceback
from _signal import signal as set_handler  # without the enumerations that `signal` looks its arguments up in
from types import ModuleType
from typing import NoReturn

#: What answers import most; loaded once, before the first job.
PRELOADED = (
    "math", "re", "collections", "itertools", "functools", "heapq", "bisect", "string", "operator", "typing",
    "dataclasses", "json", "random", "copy", "datetime", "decimal", "fractions", "statistics", "enum", "abc", "io",
)  # fmt: skip
_OURS = "rewards"


class Warm(BaseException):
    """Raised in the child that is to become the program: it unwinds everything of ours before the script runs."""

    def __init__(self, script: str) -> None:
        super().__init__(script)
        self.script = script


def preload() -> None:
    """Import what answers import, and keep the collector away from it, so that forks share its memory.

    What every fork would do once more is done here: each page that a fork writes to has to be copied first.
    """
    for name in PRELOADED:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == _OURS]:
        del sys.modules[name]  # scripts find nothing of ours; we hold what we need
    builtins.exit = builtins.quit = _exit  # programs use them; without -S, `site` makes them
    _prepare_streams()
    gc.collect()
    gc.freeze()


_STREAMS: list[io.TextIOWrapper] = []


def _prepare_streams() -> None:
    """Standard streams for a script, made over descriptors of the kinds that it will have."""
    kept = [os.dup(fd) for fd in range(3)]
    out, into = os.pipe()
    like = os.open("/dev/null", os.O_RDONLY), into, into
    for fd in range(3):
        os.dup2(like[fd], fd)
    _STREAMS.extend((_stream(0, "r"), _stream(1, "w"), _stream(2, "w", "backslashreplace")))
    for fd in range(3):
        os.dup2(kept[fd], fd)
    for fd in (*kept, out, *set(like)):
        os.close(fd)


def run_script(script: str) -> NoReturn:
    """Run the file as a Python with `PYTHON_FLAGS` would, and leave with its status."""
    module = ModuleType("__main__")
    module.__dict__.update(__file__=script, __builtins__=builtins)
    sys.modules["__main__"] = module
    sys.argv[:] = sys.orig_argv[:] = [script]
    set_handler(signal.SIGINT, signal.default_int_handler)
    sys.stdin, sys.stdout, sys.stderr = _STREAMS
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    _leave(module, _status_of(script, module))


def _exit(code: object = None) -> NoReturn:
    raise SystemExit(code)


def _status_of(script: str, module: ModuleType) -> int:
    try:
        code = _code(script)
    except SyntaxError as error:
        traceback.print_exception(type(error), error, None)
        return 1
    try:
        exec(code, module.__dict__)
    except SystemExit as leaving:
        if leaving.code is None or isinstance(leaving.code, int):
            return leaving.code or 0
        print(leaving.code, file=sys.stderr)
        return 1
    except BaseException as error:  # noqa: BLE001 - the top of the program: printed as an interpreter prints it
        below = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(type(error), error, below)
        if isinstance(error, KeyboardInterrupt):
            sys.stdout.flush()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        return 1
    return 0


def _leave(module: ModuleType, status: int) -> NoReturn:
    """What an interpreter does at its end, less the taking apart of the modules, which takes longer than most runs."""
    try:
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
        atexit._run_exitfuncs()
        module.__dict__.clear()
        gc.collect()
        for stream in (sys.stdout, sys.stderr, *_STREAMS[1:]):  # the first two may be the program's own, or none
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 - the program's own finalisers, or a stdout that nobody reads
        status = status or 120
    os._exit(status & 0xFF)


def _code(script: str):
    with open(script, "rb") as file:  # noqa: PTH123 - pathlib is not among what is loaded
        data = file.read()
    if script.endswith(".pyc"):
        return marshal.loads(data[16:])
    return compile(data, os.path.abspath(script), "exec", dont_inherit=True)  # noqa: PTH100


def _stream(fd: int, mode: str, errors: str = "surrogateescape"):
    raw = open(fd, f"{mode}b", closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(raw, encoding="utf-8", errors=errors, newline="\n", line_buffering=fd == 2)
