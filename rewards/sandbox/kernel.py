"""The Linux calls a box needs and Python 3.11 does not have. Each raises OSError naming the call that failed.

Needs Linux 5.14: `mount_setattr` (5.12), process limits counted per user namespace (5.14), pidfds (5.3).
"""

from __future__ import annotations

import ctypes
import os
from typing import NoReturn

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2

_SIGCHLD = 17
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV = 1, 2, 4
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
_PR_SET_SECCOMP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 22, 36, 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 40

#: machine -> numbers of (clone, pivot_root); mount_setattr is 442 everywhere
_NUMBERS = {"x86_64": (56, 155), "aarch64": (220, 41)}
_MACHINE = os.uname().machine
_MOUNT_SETATTR = 442

# PyDLL keeps the interpreter lock over a call: the child of `clone` must not have to take it back.
_libc = ctypes.PyDLL(None, use_errno=True)
_ = _libc.syscall, _libc.prctl, _libc.mount, _libc.capset  # found once, and not in every fork
_NONE = ctypes.c_void_p(0)
_ZERO = ctypes.c_ulong(0)
_OURSELVES = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
_NO_CAPABILITY = (ctypes.c_uint32 * 6)()


def _checked(result: int, what: str) -> int:
    if result < 0:
        _fail(what)
    return result


def _fail(what: str) -> NoReturn:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")


def _number(which: int) -> int:
    if _MACHINE not in _NUMBERS:
        raise OSError(0, f"no system call numbers for {_MACHINE}; boxes know {', '.join(_NUMBERS)}")
    return _NUMBERS[_MACHINE][which]


def call(number: int, what: str, *arguments: int | bytes | None) -> int:
    """A system call by its number; integers are passed as longs, bytes as a pointer to them, None as no pointer."""
    given = [ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) for a in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *given), what)


def clone(namespaces: int) -> int:
    """fork() into new namespaces; only for a single-threaded process. Returns 0 in the child."""
    flags = ctypes.c_ulong(namespaces | _SIGCHLD)
    return _checked(_libc.syscall(ctypes.c_long(_number(0)), flags, _NONE, _NONE, _NONE, _NONE), "clone")


def unshare(namespaces: int) -> None:
    """Leave the given namespaces for new ones."""
    _checked(_libc.unshare(namespaces), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    named = kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None
    if _libc.mount(source.encode(), target.encode(), *named) < 0:
        _fail(f"mount {kind or source} on {target}")


def seal(target: str) -> None:
    """Make a mount and everything mounted below it read-only, without set-uid and devices."""
    _set_attributes(target, _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV, _AT_RECURSIVE)


def lock_writes(target: str) -> None:
    """Make one mount read-only, without what is mounted below it."""
    _set_attributes(target, _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID, 0)


def _set_attributes(target: str, attributes: int, flags: int) -> None:
    wanted = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    number, here = ctypes.c_long(_MOUNT_SETATTR), ctypes.c_int(-100)
    result = _libc.syscall(number, here, target.encode(), ctypes.c_uint(flags), wanted, size)
    _checked(result, f"mount_setattr {target}")


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    _checked(_libc.syscall(ctypes.c_long(_number(1)), new.encode(), old.encode()), f"pivot_root {new}")


def umount(target: str) -> None:
    """Detach a mount with all below it."""
    _checked(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def set_hostname(name: bytes) -> None:
    """sethostname(2)."""
    _checked(_libc.sethostname(name, ctypes.c_size_t(len(name))), "sethostname")


def _prctl(option: int, value: int, what: str) -> None:
    _checked(_libc.prctl(option, ctypes.c_ulong(value), _ZERO, _ZERO, _ZERO), what)


def die_with_parent() -> None:
    """SIGKILL me when my parent dies. A later change of user or group id undoes this."""
    _prctl(_PR_SET_PDEATHSIG, 9, "prctl PDEATHSIG")


def hide_from_peers() -> None:
    """Same-user processes may no longer trace me or read my /proc entries."""
    _prctl(_PR_SET_DUMPABLE, 0, "prctl DUMPABLE")


def show_to_peers() -> None:
    """Undo `hide_from_peers`, as starting a program does."""
    _prctl(_PR_SET_DUMPABLE, 1, "prctl DUMPABLE")


def adopt_orphans() -> None:
    """Descendants whose parent dies become my children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, "prctl CHILD_SUBREAPER")


def no_new_privileges() -> None:
    """exec grants nothing any more: set-uid bits and file capabilities are ignored from here on."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, "prctl NO_NEW_PRIVS")


def drop_bounding_set() -> None:
    """Take every capability out of the bounding set, here and in all forks; those held stay. Needs CAP_SETPCAP."""
    for capability in range(_LAST_CAPABILITY + 1):
        _prctl(_PR_CAPBSET_DROP, capability, "prctl CAPBSET_DROP")


def drop_capabilities() -> None:
    """Give up all capabilities: effective, permitted and inheritable."""
    _checked(_libc.capset(_OURSELVES, _NO_CAPABILITY), "capset")


class _Filter(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def filter_calls(program: bytes) -> None:
    """Install a system-call filter, an array of struct sock_filter, for this process and all it will start."""
    wanted = _Filter(len(program) // 8, program)
    mode = ctypes.c_ulong(_SECCOMP_MODE_FILTER)
    _checked(_libc.prctl(_PR_SET_SECCOMP, mode, ctypes.byref(wanted), _ZERO, _ZERO), "prctl SECCOMP")
