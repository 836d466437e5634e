"""A control group for every box, where this process may make them: memory, processes and processor time of a whole box.

    host: Cgroups.box(...) makes it  ->  watcher: Group  ->  program: Group.join()  ->  host removes it

The kernel then refuses a box more memory (with swap, and with the files a box keeps in memory) and more processes than
its limits, and counts the time of everything that ran in it: nothing else counts children whose parent ignored their
end. Where no group can be made, the limits per process remain and the watcher's look every 50 ms, and the isolation of
a run says neither `cgroup1` nor `cgroup2`.

Version 1 needs the hierarchies memory, cpuacct and pids, with this process' own groups in all three writable (for
root, as a rule). Boxes are made below those groups, so what limits them limits boxes too. A program joins through the
file `tasks`, which takes 0.05 ms; through `cgroup.procs` it waits for a grace period of the kernel, about 9 ms.

Version 2 has one hierarchy, where a group with processes in it, the root aside, may pass no controllers on. Boxes are
made in the nearest group at or above this process' own that passes on memory and pids already and is writable, as a
systemd user's slices are; what limits the groups between does not limit boxes. There `cgroup.procs` is the only way
in. Version 2 follows Documentation/admin-guide/cgroup-v2.rst and is tested on folders that stand for it.

A group is named after its owner, when that started and the namespace that number belongs to, so that the groups of a
killed owner are found and removed. Containers may share these folders: what another namespace made is left to it, for
nobody here can see whether its owner lives, and between its making and its first process a group is empty.
"""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

PREFIX = "assay-"
GONE_S = 2.0  #: how long the last process of a box may take to leave its group
_serial = itertools.count()


class Files(NamedTuple):
    """What a version calls its files, each with its controller in front."""

    join: str
    cpu: str
    full: str  #: has a line "oom_kill N"
    peak: str  #: absent in version 2 before Linux 5.19
    memory: str
    swap: str  #: absent where the kernel does not count swap
    processes: str


FILES = {
    1: Files(
        join="tasks",
        cpu="cpuacct.usage",
        full="memory.oom_control",
        peak="memory.max_usage_in_bytes",
        memory="memory.limit_in_bytes",
        swap="memory.memsw.limit_in_bytes",
        processes="pids.max",
    ),
    2: Files(
        join="cgroup.procs",
        cpu="cpu.stat",
        full="memory.events",
        peak="memory.peak",
        memory="memory.max",
        swap="memory.swap.max",
        processes="pids.max",
    ),
}
CONTROLLERS = ("cpuacct", "memory", "pids")


@dataclass(frozen=True)
class Places:
    """Where boxes' groups are made: a folder per controller, in version 2 the same one for all."""

    version: int
    folders: dict[str, Path]

    def of(self, file: str) -> Path:
        """The folder for a file; those of version 2 without a controller of ours are in the only one there is."""
        return self.folders.get(file.partition(".")[0]) or self.folders["memory"]

    @property
    def distinct(self) -> list[Path]:
        """Each folder once: hierarchies may be mounted together."""
        return list(dict.fromkeys(self.folders.values()))


def find(mountinfo: str, own: str) -> Places | None:
    """Where groups might be made, from /proc/self/mountinfo and /proc/self/cgroup; None where nowhere."""
    mounts = [_mount(line) for line in mountinfo.splitlines()]
    groups: dict[str, str] = {}
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        groups |= dict.fromkeys(controllers.split(","), path)  # "" stands for version 2
    folders: dict[str, Path | None] = {}
    for kind, options, root, point in mounts:
        for name in CONTROLLERS:
            if kind == "cgroup" and name in options and name in groups and name not in folders:
                folders[name] = _below(point, root, groups[name])
    if len(folders) == len(CONTROLLERS) and all(folders.values()):
        return Places(1, {name: folder for name, folder in folders.items() if folder})
    for kind, _, root, point in mounts:
        if kind == "cgroup2" and "" in groups and (start := _below(point, root, groups[""])):
            passing = next((f for f in (start, *start.parents) if f.is_relative_to(point) and _passes_on(f)), None)
            return Places(2, dict.fromkeys(CONTROLLERS, passing)) if passing else None
    return None


def _mount(line: str) -> tuple[str, list[str], str, Path]:
    """(type, super options, root, mount point) of a line of mountinfo, see proc(5)."""
    fields, _, rest = line.partition(" - ")
    kind, _, options = rest.split(" ", 2)
    _, _, _, root, point, *_ = fields.split()
    return kind, options.split(","), root, Path(point.replace("\\040", " "))


def _below(point: Path, root: str, group: str) -> Path | None:
    """The folder of `group` in a mount that shows the hierarchy from `root` on; None if it does not show it."""
    path, top = Path(group), Path(root)
    shown = path.is_relative_to(top) and ".." not in path.parts  # which leads out of a namespace
    return point / path.relative_to(top) if shown else None


def _passes_on(folder: Path) -> bool:
    """Whether groups made in this one of version 2 have the controllers, and this user may make some and enter."""
    try:
        passed_on = (folder / "cgroup.subtree_control").read_text().split()
    except OSError:
        return False
    writable = all(os.access(path, os.W_OK) for path in (folder, folder / "cgroup.procs"))
    return writable and {"memory", "pids"} <= set(passed_on)


class Cgroups:
    """The groups of one sandbox, made and removed by its host."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self._files = FILES[places.version]
        self._folders = [str(folder) for folder in places.distinct]
        self._fds: dict[str, int] = {}
        self._owner = f"{PREFIX}{namespace()}-{os.getpid()}-{started('self')}"

    @classmethod
    def here(cls) -> Cgroups | None:
        """Groups for this process' boxes, tried by making one and removing it; None where that fails."""
        try:
            places = find(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
            if places is None:
                return None
            groups = cls(places)
            groups.sweep()
            with groups.box(memory_bytes=1 << 30, processes=64) as header:
                for file in (groups._files.join, groups._files.cpu, groups._files.full):
                    (places.of(file) / header["name"] / file).read_bytes()
        except OSError:
            return None
        return groups

    @property
    def feature(self) -> str:
        """How the isolation of a run calls it."""
        return f"cgroup{self.places.version}"

    @contextmanager
    def opened(self) -> Iterator[tuple[int, ...]]:
        """Descriptors of the folders, for a supervisor to inherit: it will not see the paths."""
        with ExitStack() as stack:
            fds = {}
            for folder in self.places.distinct:
                fds[folder] = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, fds[folder])
            self._fds = {name: fds[folder] for name, folder in self.places.folders.items()}
            yield tuple(fds.values())

    def plan(self) -> dict[str, Any]:
        """What a watcher must know of the next group, which is still to be made."""
        name = f"{self._owner}-{next(_serial)}"
        return {"version": self.places.version, "name": name, "folders": self._fds}

    @contextmanager
    def box(self, memory_bytes: int, processes: int, plan: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """A group with these limits, as planned; yields the plan. Raises OSError if it cannot be made.

        Whatever runs in it must have been ended before the end of the context.
        """
        plan = plan or self.plan()
        name = plan["name"]
        try:
            for folder in self._folders:
                os.mkdir(f"{folder}/{name}")  # noqa: PTH102 - a Path takes as long as the call, and this is every run's
            self._limit(name, memory_bytes, processes)
            yield plan
        finally:
            for folder in self._folders:
                _remove(f"{folder}/{name}", time.monotonic() + GONE_S)

    def _limit(self, name: str, memory_bytes: int, processes: int) -> None:
        files, memory, pids = self._files, self.places.folders["memory"], self.places.folders["pids"]
        _write(f"{memory}/{name}/{files.memory}", memory_bytes)
        with suppress(FileNotFoundError):  # version 1 counts memory and swap together, 2 swap alone
            _write(f"{memory}/{name}/{files.swap}", memory_bytes if self.places.version == 1 else 0)
        _write(f"{pids}/{name}/{files.processes}", processes)

    def sweep(self) -> int:
        """Remove groups whose owner is gone; how many folders that were. One with a process left in it stays.

        Only those of this PID namespace, and none where /proc is that of another: it does not show who lives here.
        """
        removed, own = 0, f"{PREFIX}{namespace()}-"
        for folder in self.places.distinct if proc_is_ours() else ():
            for entry in folder.glob(f"{own}*-*-*"):
                pid, since, _ = entry.name.removeprefix(own).split("-", 2)
                if pid.isdigit() and started(pid) != since:
                    with suppress(OSError):
                        entry.rmdir()
                        removed += 1
        return removed


def namespace() -> str:
    """The PID namespace of this process, as a number that no other one alive has."""
    return str(Path("/proc/self/ns/pid").stat().st_ino)


def proc_is_ours() -> bool:
    """Whether /proc shows the processes of this PID namespace."""
    return Path("/proc/self").readlink().name == str(os.getpid())


def started(pid: str) -> str:
    """When a process started, in clock ticks since the machine did; "gone" if there is none of that number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return "gone"


def _write(path: str, value: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)


def _remove(folder: str, deadline: float) -> None:
    """Remove a group, waiting for the last process in it to be gone; one that stays is left to the next sweep."""
    while True:
        try:
            return os.rmdir(folder)  # noqa: PTH106
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                return None
        time.sleep(0.001)


def opened(header: dict[str, Any] | None) -> Group | None:
    """The group of a box for its watcher, from what `Cgroups.box` said; None where boxes have none."""
    return None if header is None else Group(header["version"], header["name"], header["folders"])


class Group:
    """The group of one box, as descriptors: its paths have no name in a box, and privileges are given up soon."""

    def __init__(self, version: int, name: str, folders: dict[str, int]) -> None:
        self._files = files = FILES[version]
        self._doors = [
            os.open(f"{name}/{files.join}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=fd) for fd in set(folders.values())
        ]
        cpu, memory = folders["cpuacct"], folders["memory"]
        self._cpu = os.open(f"{name}/{files.cpu}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=cpu)
        self._full = os.open(f"{name}/{files.full}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=memory)
        self._peak = None
        with suppress(FileNotFoundError):
            self._peak = os.open(f"{name}/{files.peak}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=memory)

    def join(self) -> None:
        """Move this process in, with all it will start. It must have one thread only."""
        for door in self._doors:
            os.write(door, b"0")  # 0 stands for who writes

    def cpu_s(self) -> float:
        """Processor time of everything that was ever in it, in seconds."""
        text = os.pread(self._cpu, 4096, 0)
        return int(text) / 1e9 if self._files.cpu == "cpuacct.usage" else _entry(text, b"usage_usec") / 1e6

    def was_full(self) -> bool:
        """Whether the kernel ended a process of it because the memory limit was reached."""
        return _entry(os.pread(self._full, 4096, 0), b"oom_kill") > 0

    def peak_bytes(self) -> int:
        """The highest memory, with what files and the kernel itself took for it; 0 where the kernel does not say."""
        return int(os.pread(self._peak, 64, 0)) if self._peak is not None else 0

    def exceeded(self, limits: dict[str, Any]) -> str | None:
        """Which limit the box broke: the kernel watches over memory, we over time."""
        if self.was_full():
            return "memory"
        return "cpu" if self.cpu_s() > limits["cpu_s"] else None


def _entry(table: bytes, name: bytes) -> int:
    """The number in the line "name number"; 0 where there is none."""
    for line in table.splitlines():
        key, _, value = line.partition(b" ")
        if key == name:
            return int(value)
    return 0
