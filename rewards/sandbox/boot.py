"""Starting a supervisor: its source travels over its stdin, to a Python on this machine or in a container.

So an image holds tool-chains alone and cannot be a version behind, and no command line, which every process of a
machine may read, names a folder of this machine.
"""

from __future__ import annotations

import marshal
from pathlib import Path

from rewards.sandbox.base import PYTHON_FLAGS

#: Boxes repeat each other only if hashes do; a fork of the supervisor takes them from the supervisor. What the linker
#: has bound before a fork, it need not bind in every one.
ENVIRONMENT = {"LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "LD_BIND_NOW": "1"}
_PACKAGE = Path(__file__).resolve().parent
#: each after those that it imports
_SENT = ("frames", "kernel", "cgroups", "landlock", "seccomp", "root", "warm", "box", "supervisor")
#: read once: a supervisor that starts again in a running process must speak as this process does, whatever was
#: installed meanwhile
_SOURCES = [(name, (_PACKAGE / f"{name}.py").read_bytes()) for name in _SENT]
_BOOT = """
import marshal, os, sys, types
def take(count):
    data = b""
    while len(data) < count:
        part = os.read(0, count - len(data))
        if not part: os._exit(0)
        data += part
    return data
def module(name):
    made = sys.modules[name] = types.ModuleType(name)
    above, _, last = name.rpartition(".")
    if above: setattr(sys.modules[above], last, made)
    return made
sources, arguments = marshal.loads(take(int.from_bytes(take(8), "big")))
for name in ("rewards", "rewards.sandbox"): module(name).__path__ = []
for name, source in sources:
    exec(compile(source, name + ".py", "exec", dont_inherit=True), module("rewards.sandbox." + name).__dict__)
sys.modules["rewards.sandbox.supervisor"].main(*arguments)
"""


def command(python: str) -> list[str]:
    """What starts a supervisor that waits for `message` on its stdin."""
    return [python, *PYTHON_FLAGS, "-c", _BOOT]


def message(tier: str, parent: int, prefix: str, precompiled: str) -> bytes:
    """The supervisor's source and the arguments of its `main`, their length in front."""
    data = marshal.dumps((_SOURCES, (tier, parent, prefix, precompiled)), 4)
    return len(data).to_bytes(8, "big") + data
