"""A system-call filter for boxes: what no honest answer needs and what would step around the other limits.

It is a list of refusals, not of permissions, so it breaks no language run-time: calls that reach into other processes,
into the kernel, or into memory that no other limit counts (files in memory and System V segments are nobody's
resident memory until they are mapped). A refused call fails with EPERM; a foreign call convention kills the program.
"""

from __future__ import annotations

import os
import struct
from typing import Any

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4  # offsets in struct seccomp_data
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000  # refuse: errno 1, EPERM
_X32 = 0x40000000

_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

#: name -> numbers on (x86_64, aarch64)
_REFUSED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "fanotify_init": (300, 262),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
}


def program() -> bytes:
    """The filter for this machine, as an array of struct sock_filter. Raises OSError for an unknown machine."""
    machine = os.uname().machine
    if machine not in _AUDIT:
        raise OSError(0, f"no system-call filter for {machine}")
    column = list(_AUDIT).index(machine)
    numbers = sorted({row[column] for row in _REFUSED.values()})
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 1, 0, _AUDIT[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
    ]
    # Each comparison jumps over those still to come and over the permission, to the refusal at the end.
    steps += [(_JUMP_EQUAL, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


#: Our supervisor makes its namespaces with these; each box refuses them to its program.
_FOR_BOXES = frozenset(
    {"mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "mount_setattr", "memfd_create", "open_tree",
     "move_mount"}
)  # fmt: skip
_FOREIGN = {"x86_64": ("SCMP_ARCH_X86_64",), "aarch64": ("SCMP_ARCH_AARCH64",)}


def docker_profile() -> dict[str, Any]:
    """The outer filter of the docker tier, in Docker's own form: the refusals that do not hinder making boxes.

    Docker's default profile cannot be used, for it forbids the namespaces that every box gets.
    """
    machine = os.uname().machine
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": list(_FOREIGN.get(machine, ())),
        "syscalls": [{"names": sorted(set(_REFUSED) - _FOR_BOXES), "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    }
