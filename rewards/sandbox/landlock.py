"""Landlock: the kernel's own list of what a program may open, a second wall behind the mounts of a box.

A program may read and execute whatever its box shows it, and write, make and remove only below the places that are
its own; it may write to the harmless devices. Where the kernel knows how, it may use no TCP port, and reach by
signal or abstract address nobody outside of what it starts. It holds if a mount were writable by mistake, and it
cannot be taken off. It does not stop what needs no write: locks on files of /usr that other boxes see too, or
reading what is there to be read; and what was open before is not looked at again.

System calls and numbers are those of Documentation/userspace-api/landlock.rst of Linux. The version of the interface
("ABI") says what is known: 1 files, 2 moving between folders, 3 truncating, 4 TCP, 5 device controls, 6 signals and
abstract addresses. With 1 alone no file can be moved to another folder at all, which honest programs do: not used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from struct import pack

from rewards.sandbox import kernel

LEAST_ABI = 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # everywhere
_ASK_VERSION, _PATH_BENEATH = 1, 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_CHANGE = sum(1 << bit for bit in range(4, 13))  #: remove folders and files; make the seven kinds of them
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_BIND_TCP, _CONNECT_TCP = 1, 2
_ABSTRACT_ADDRESSES, _SIGNALS = 1, 2


def version() -> int:
    """The kernel's Landlock ABI; 0 where it has none, or too little of it."""
    try:
        found = kernel.call(_CREATE_RULESET, "landlock_create_ruleset", None, 0, _ASK_VERSION)
    except OSError:
        return 0
    return found if found >= LEAST_ABI else 0


def ruleset(abi: int) -> tuple[int, int, int]:
    """What is refused unless a rule allows it: bits of file rights, of network rights, and scopes."""
    files = _READ | _WRITE_FILE | _CHANGE | _REFER | (_TRUNCATE if abi >= 3 else 0)
    network = _BIND_TCP | _CONNECT_TCP if abi >= 4 else 0
    scopes = _ABSTRACT_ADDRESSES | _SIGNALS if abi >= 6 else 0
    return files, network, scopes


def restrict(abi: int, writable: Sequence[str]) -> None:
    """Wall in this process and all it will start: it may write below `writable` alone. Needs no_new_privileges.

    Raises OSError where the kernel refuses.
    """
    files, network, scopes = ruleset(abi)
    wanted = pack("=QQQ", files, network, scopes)[: 8 * (1 + (abi >= 4) + (abi >= 6))]  # older kernels know less of it
    rules = kernel.call(_CREATE_RULESET, "landlock_create_ruleset", wanted, len(wanted), 0)
    try:
        _allow(rules, "/", _READ)
        _allow(rules, "/dev", _WRITE_FILE)
        for place in writable:
            _allow(rules, place, files & ~(_MAKE_CHAR | _MAKE_BLOCK))
        kernel.call(_RESTRICT_SELF, "landlock_restrict_self", rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, place: str, rights: int) -> None:
    fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        kernel.call(_ADD_RULE, f"landlock_add_rule {place}", rules, _PATH_BENEATH, pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)
