"""Leaving the machine: the supervisor's own namespaces, and the file tree its boxes see.

The tree holds the tool-chains read-only (/usr and its links, the interpreter's prefix), the few files of /etc they
read, five harmless devices, and empty places where each box mounts its own working folder and /proc. Nothing else of
the machine has a name in it.

The kernel keeps locks, leases and watches by inode. So the tool-chains are shown through an overlay of this supervisor,
which has inodes of its own over the same pages of memory, and devices are made anew where root may: boxes of other
supervisors notice nothing of them, and those of this one run one after another.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rewards.sandbox import kernel, landlock, seccomp

BOX_ID = 1000  #: user and group of programs, as the box sees them
PRECOMPILED = "/precompiled"  #: where boxes see precompiled headers, where there are any
WORK = "/box"  #: working folder, home and, by a bind, /tmp of a run
WRITABLE = (WORK, "/tmp", "/dev/shm")  #: what programs may write: the tmpfs of `mount_box`, by its three names
#: of a box' tmpfs: folder, its mode, where it is seen
_FOLDERS = ((f"{WORK}/tmp", 0o1777, "/tmp"), (f"{WORK}/shm", 0o1777, "/dev/shm"), (f"{WORK}/work", 0o755, WORK))

_TREES = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d")
#: what run-times read outside of /usr: their own configuration, and GHC's table of packages; no service's
_SETTINGS = (
    *("etc/java-*-openjdk", "etc/mono", "etc/php/*/cli", "etc/php/*/mods-available", "etc/R", "etc/racket"),
    *("etc/fpc*.cfg", "etc/nim", "etc/octave.conf", "etc/gnucobol", "etc/groovy", "var/lib/ghc"),
)
_DEVICES = ("null", "zero", "full", "random", "urandom")
_MADE = "/sys"  #: where this machine's name for its devices is covered by a folder of devices made here; no box has it
_DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
_PLACES = ("dev", "etc", "proc", "old", WORK[1:], "tmp", "dev/shm")
_PASSWD = f"root:x:0:0:root:/:/bin/sh\nbox:x:{BOX_ID}:{BOX_ID}:box:{WORK}:/bin/sh\n"
_GROUP = f"root:x:0:\nbox:x:{BOX_ID}:\n"


class Drop(NamedTuple):
    """What a watcher gives up before it runs anything."""

    uid: int | None  #: the user and group to become; None where it is that user already
    filter: bytes  #: the system-call filter to install; empty where there is none
    landlock: int = 0  #: the version of Landlock that programs are put behind; 0 for none


def stay(prefix: str) -> tuple[Drop, list[str], list[str]]:
    """The weak tier: no namespaces. Root still gives programs another user id, and refuses where that user cannot
    reach the Python under `prefix`: running unknown programs as root is not a fallback.
    """
    features = ["rlimits", "nnp", "session"]
    remarks = ["no namespaces: programs see this machine's files, processes and network"]
    call_filter = _usable_filter(features, remarks)
    if os.geteuid() != 0:
        return Drop(None, call_filter), features, [*remarks, "programs run as the user who runs assay"]
    uid = _spare_id()
    if not _succeeds(lambda: _reaches(uid, prefix)):
        raise OSError(13, f"started as root, programs run as another user, who cannot reach {prefix}")
    return Drop(uid, call_filter), ["uid", *features], remarks


def enter(prefix: str, precompiled: str) -> tuple[Drop, list[str], list[str]]:
    """Move this process into new user, mount and network namespaces and build the tree of the boxes.

    `prefix` is the Python installation programs run with, `precompiled` a folder or "". Returns what a watcher drops,
    the features boxes will have and remarks. Raises OSError where the kernel or a security module refuses.
    """
    remarks: list[str] = []
    devices = _make_devices()
    uid = _new_user_namespace()
    features = ["user", "mnt", "pid", "net", "ipc", "uts", "rlimits", "nnp"]
    if _forbid_nested_namespaces():
        features.append("nouserns")
    else:
        remarks.append("programs may create user namespaces of their own")
    call_filter = _usable_filter(features, remarks)
    landlocked = _usable_landlock(features, remarks)
    layered = _usable_overlay(features, remarks)
    if devices == _MADE:
        features.append("devices")
    else:
        remarks.append("not root: a lock on /dev/null or its like is seen by all who have this machine's devices")
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWUTS)
    _build_tree(prefix, precompiled, layered, devices)
    kernel.set_hostname(b"box")  # which each box gets a copy of
    kernel.drop_bounding_set()
    return Drop(uid, call_filter, landlocked), features, remarks


def _usable_filter(features: list[str], remarks: list[str]) -> bytes:
    """The system-call filter if this kernel takes it, tried in a child; else a remark and none."""
    call_filter = seccomp.program()

    def install() -> bool:
        kernel.no_new_privileges()
        kernel.filter_calls(call_filter)
        return True

    if _succeeds(install):
        features.append("seccomp")
        return call_filter
    remarks.append("no system-call filter: memory of in-memory files is not limited")
    return b""


def _usable_landlock(features: list[str], remarks: list[str]) -> int:
    """The version of Landlock if this kernel has it and lets programs behind it, tried in a child; else a remark."""
    abi = landlock.version()

    def install() -> bool:
        kernel.no_new_privileges()
        landlock.restrict(abi, [])
        return True

    if abi and _succeeds(install):
        features.append(f"landlock{abi}")
        return abi
    remarks.append("no Landlock: the mounts of a box alone keep programs from writing elsewhere")
    return 0


def _usable_overlay(features: list[str], remarks: list[str]) -> bool:
    """Whether this kernel lets a user namespace mount an overlay (since 5.11), tried in a child; else a remark."""

    def mount() -> bool:
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.mount("tmpfs", "/tmp", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755,size=64k")
        kernel.mount("overlay", "/tmp", "overlay", 0, "lowerdir=/usr:/tmp")
        return True

    if _succeeds(mount):
        features.append("overlay")
        return True
    remarks.append("no overlay: a lock on a file of the tool-chains is seen by other boxes of this machine")
    return False


def _make_devices() -> str:
    """The folder with the devices of the boxes: root makes them, in a mount namespace of its own; others have /dev."""
    if os.geteuid() != 0:
        return "/dev"
    try:
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.mount("tmpfs", _MADE, "tmpfs", kernel.MS_NOSUID | kernel.MS_NOEXEC, "mode=755,size=64k")
        for name in _DEVICES:
            os.mknod(f"{_MADE}/{name}", stat.S_IFCHR, Path("/dev", name).stat().st_rdev)
            Path(_MADE, name).chmod(0o666)
            Path(_MADE, name).open("rb").close()
    except OSError:  # a container may be refused them
        return "/dev"
    return _MADE


def _reaches(uid: int, prefix: str) -> bool:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    return os.access(f"{prefix}/bin", os.X_OK)


def _succeeds(attempt: Callable[[], bool]) -> bool:
    """Whether `attempt` returns True in a child of this process; it changes nothing here."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if attempt() else 1
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def _new_user_namespace() -> int | None:
    """Root maps itself and a spare id for programs; anybody else may map only themselves.

    The map for root has two lines, which only a process outside the new namespace may write: a short-lived child.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0:
        kernel.unshare(kernel.CLONE_NEWUSER)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{BOX_ID} {uid} 1")
        _write("/proc/self/gid_map", f"{BOX_ID} {gid} 1")
        return None
    ready_in, ready_out = os.pipe()
    me, spare = os.getpid(), _spare_id()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(ready_out)
            os.read(ready_in, 1)
            for which in ("gid_map", "uid_map"):
                _write(f"/proc/{me}/{which}", f"0 0 1\n{BOX_ID} {spare} 1\n")
            status = 0
        finally:
            os._exit(status)
    os.close(ready_in)
    kernel.unshare(kernel.CLONE_NEWUSER)
    os.close(ready_out)
    if os.waitpid(child, 0)[1] != 0:
        raise OSError(1, f"mapping user id {spare} into a namespace was refused")
    return BOX_ID


def _spare_id() -> int:
    """An id of this machine that owns nothing, different for supervisors that live at the same time."""
    return 61_184 + os.getpid() % 4_000


def _forbid_nested_namespaces() -> bool:
    try:
        _write("/proc/sys/user/max_user_namespaces", "0")
    except OSError:
        return False
    return True


def _build_tree(prefix: str, precompiled: str, layered: bool, devices: str) -> None:
    """A tmpfs takes the place of /, the old root stays at /old until everything is bound, then goes."""
    kernel.mount("", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", "/tmp", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755,size=4m")
    Path("/tmp/old").mkdir()
    kernel.pivot_root("/tmp", "/tmp/old")
    os.chdir("/")
    for place in _PLACES:
        Path("/", place).mkdir(exist_ok=True)
    for tree in _TREES:
        _graft(tree, layered)
    for name in _ETC:
        _graft(f"/etc/{name}", layered)
    for pattern in _SETTINGS:
        for found in sorted(Path("/old").glob(pattern)):
            _graft(str(found).removeprefix("/old"), layered)
    _graft(prefix, layered)
    if precompiled:
        _graft(precompiled, False, PRECOMPILED)  # which is still being filled, and an overlay's folders must not change
    Path("/etc/passwd").write_text(_PASSWD)
    Path("/etc/group").write_text(_GROUP)
    Path("/etc/hosts").write_text("127.0.0.1 localhost\n")
    for name in _DEVICES:
        Path("/dev", name).touch()
        kernel.mount(f"/old{devices}/{name}", f"/dev/{name}", flags=kernel.MS_BIND)
        kernel.lock_writes(f"/dev/{name}")  # what it does stays; the times of its inode would tell one box of another
    for name, target in _DEVICE_LINKS.items():
        Path("/dev", name).symlink_to(target)
    # A fresh /proc may only be mounted where an unhidden one is mounted already; boxes cover this one.
    kernel.mount("/old/proc", "/proc", flags=kernel.MS_BIND | kernel.MS_REC)
    kernel.umount("/old")
    Path("/old").rmdir()
    kernel.lock_writes("/")  # an ordinary user owns this tree, inside as outside


def _graft(path: str, layered: bool, name: str = "") -> None:
    """Show `path` of the machine read-only, as `name`; links stay links, what is absent stays absent."""
    old, here = Path("/old" + path), Path(name or path)
    if here.is_symlink() or here.exists() or not (old.is_symlink() or old.exists()):
        return  # the interpreter of the system lives in /usr, which is there already
    here.parent.mkdir(parents=True, exist_ok=True)
    if old.is_symlink():
        here.symlink_to(old.readlink())
    elif old.is_file():
        here.write_bytes(old.read_bytes())  # a few of /etc
    else:
        here.mkdir()
        (_layer if layered else _bind)(str(old), str(here))
        kernel.seal(str(here))


def _bind(old: str, here: str) -> None:
    kernel.mount(old, here, flags=kernel.MS_BIND | kernel.MS_REC)


def _layer(old: str, here: str) -> None:
    """Show a folder through an overlay without an upper layer, and by binds what is mounted below it."""
    escaped = re.sub(r"[\\:,]", r"\\\g<0>", old)
    kernel.mount("overlay", here, "overlay", 0, f"lowerdir={escaped}:{WORK}")  # which wants two layers: WORK is empty
    done: list[str] = []
    for line in Path("/old/proc/self/mountinfo").read_text().splitlines():
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), line.split()[4])
        if point.startswith(f"{old}/") and not point.startswith(tuple(f"{other}/" for other in done)):
            _bind(point, here + point.removeprefix(old))
            done.append(point)


def mount_box(size_bytes: int) -> None:
    """In a new mount namespace: one tmpfs for everything the run may write, and its own /proc."""
    tmpfs = f"mode=755,size={size_bytes},nr_inodes=8192"
    kernel.mount("box", WORK, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, tmpfs)
    for folder, mode, place in _FOLDERS:
        os.mkdir(folder)  # noqa: PTH102 - of a fork, every object that is touched costs a page
        os.chown(folder, BOX_ID, BOX_ID)
        os.chmod(folder, mode)  # noqa: PTH101
        kernel.mount(folder, place, flags=kernel.MS_BIND)  # the last one covers the others
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)


def _write(path: str, text: str) -> None:
    with suppress(FileNotFoundError):  # setgroups does not exist on very old kernels, where it is not needed
        Path(path).write_text(text)
