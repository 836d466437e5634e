"""Inside a box: the watcher. It is process 1 there, starts the program, drains it, times it, and ends it.

The watcher is a fork of the supervisor, has dropped every privilege before the program starts, and cannot be traced
by it. Its own death (by any cause) kills the whole box, because the kernel ends a pid namespace with its process 1.

Time and memory are those of the whole box: live processes are read from /proc every few ticks, dead ones add what
`wait4` reports. The address-space limit is per process; the sum over processes is watched here.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import stat
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rewards.sandbox import cgroups, frames, kernel, landlock, root
from rewards.sandbox.warm import Warm

TICK_S = 0.05
STACK_BYTES = 32 << 20
_CHUNK = 1 << 16
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # one run must repeat the other
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",  # an arena per thread would eat the address space
}


def environment(workdir: str) -> dict[str, str]:
    """All that programs find in their environment."""
    return _ENVIRONMENT | {"HOME": workdir, "TMPDIR": "/tmp" if workdir == root.WORK else workdir}


_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class _Stream:
    """One output of the program, kept up to a cap."""

    fd: int
    cap: int
    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    truncated: bool = False
    open: bool = True

    def drain(self) -> None:
        """Take what is there, without waiting."""
        try:
            part = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return
        self.open = bool(part)
        room = self.cap - self.size
        self.truncated = self.truncated or len(part) > room
        self.parts.append(part[:room])
        self.size += len(self.parts[-1])


@dataclass
class _Usage:
    """What the box has used: of the dead, as reaped; of all, as last seen; and the highest memory."""

    reaped_s: float = 0.0
    memory_bytes: int = 0

    def reap(self, status_of: int, flags: int) -> int | None:
        """Reap until nobody is ready; the wait status of process `status_of` if it was among them."""
        found = None
        while True:
            try:
                pid, status, used = os.wait4(-1, flags)
            except ChildProcessError:
                return found
            if pid == 0:
                return found
            self.reaped_s += used.ru_utime + used.ru_stime
            self.memory_bytes = max(self.memory_bytes, used.ru_maxrss * 1024)
            if pid == status_of:
                found = status


def run(tier: str, drop: root.Drop, job: dict[str, Any], blobs: list[bytes]) -> bytes:
    """Set the box up, run the job and return the reply frame. Raises OSError when the box cannot be set up.

    Raises `Warm` too: in the program's own process, where it is to be a script in this interpreter.
    """
    workdir = job.get("workdir") or root.WORK
    if tier == "local":
        root.mount_box(job["limits"]["file_bytes"] + sum(map(len, blobs[1:])))  # what is put in must always fit
    else:
        kernel.adopt_orphans()
    stdin_fd = _input(blobs[0])  # while a file in memory may still be made
    group = cgroups.opened(job.get("cgroup"))  # while its files may still be opened
    contents_of = dict(zip(job["files"], blobs[1:], strict=True))
    if job["fixed"] and tier != "local":
        raise OSError(f"tier {tier!r} cannot keep files from being changed: {job['fixed'][0]}")
    if job["fixed"]:
        _fix(workdir, {name: contents_of.pop(name) for name in job["fixed"]})
    _give_up_privileges(tier, drop, workdir)
    for name, data in contents_of.items():
        if "/" in name:  # nothing of the program's has run yet, so there are no links to follow
            Path(workdir, name).parent.mkdir(parents=True, exist_ok=True)
        _put(f"{workdir}/{name}", data)
    program = _Program(job, stdin_fd, workdir, lambda: _confine(drop, group))
    killed_by, status, usage, wall_s = _watch(program, job["limits"], tier, group)
    names, contents = _gather(job["collect"], workdir, job["limits"]["file_bytes"])
    header = {
        "exit_code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
        "killed_by": killed_by,
        "cpu_s": round(usage.reaped_s, 6),
        "wall_s": round(wall_s, 6),
        "memory_bytes": usage.memory_bytes,
        "truncated": [stream.truncated for stream in program.streams],
        "files": names,
    }
    return frames.pack(header, [b"".join(stream.parts) for stream in program.streams] + contents)


def _give_up_privileges(tier: str, drop: root.Drop, workdir: str) -> None:
    if drop.uid is not None:
        if tier != "local":
            os.chown(workdir, drop.uid, drop.uid)
        os.setgroups([])
        os.setresgid(drop.uid, drop.uid, drop.uid)
        os.setresuid(drop.uid, drop.uid, drop.uid)
    if tier == "local":
        kernel.drop_capabilities()
    if drop.filter:
        kernel.filter_calls(drop.filter)
    kernel.hide_from_peers()
    kernel.die_with_parent()  # last, since changing the user clears it


def _confine(drop: root.Drop, group: cgroups.Group | None) -> None:
    """What holds for the program alone, and not for its watcher."""
    if group is not None:
        group.join()
    if drop.landlock:
        landlock.restrict(drop.landlock, root.WRITABLE)


def _fix(workdir: str, files: dict[str, bytes]) -> None:
    """Put files that stay as they are: mounted over themselves, they can be neither written, moved nor removed.

    So are the folders above them, which else could be moved and made anew; what is in those may still change.
    """
    folders = {str(above) for name in files for above in Path(name).parents if str(above) != "."}
    for folder in sorted(folders):  # outer ones first
        path = f"{workdir}/{folder}"
        Path(path).mkdir()
        os.chown(path, root.BOX_ID, root.BOX_ID)
        kernel.mount(path, path, flags=kernel.MS_BIND)
    for name, data in files.items():
        path = f"{workdir}/{name}"
        _put(path, data)
        os.chmod(path, 0o755)  # noqa: PTH101 - whatever the mask: programs are another user here
        kernel.mount(path, path, flags=kernel.MS_BIND)
        kernel.seal(path)


def _put(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o755)
    try:
        frames.write_all(fd, data)
    finally:
        os.close(fd)


class _Program:
    """The process that runs the job's argv, and our ends of its outputs."""

    def __init__(self, job: dict[str, Any], stdin_fd: int, workdir: str, confine: Callable[[], None]) -> None:
        outputs = os.pipe(), os.pipe()
        exec_in, exec_out = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _or_say_why(confine, exec_out)
            raise Warm(_become_program(job, workdir, (stdin_fd, outputs[0][1], outputs[1][1]), exec_out))
        self.started = time.monotonic()
        self.pidfd = os.pidfd_open(self.pid)
        for fd in (stdin_fd, outputs[0][1], outputs[1][1], exec_out):
            os.close(fd)
        problem = os.read(exec_in, 4)  # closed by a successful exec
        os.close(exec_in)
        if problem and (number := struct.unpack("i", problem)[0]) < 0:
            raise OSError(-number, f"cannot confine the program: {os.strerror(-number)}")
        if problem and job["argv"][0].startswith("/"):  # a tool; what a compiler made is the answer's own doing
            number = struct.unpack("i", problem)[0]
            raise OSError(number, f"cannot execute {job['argv'][0]}: {os.strerror(number)}")
        self.streams = [_Stream(fd=out[0], cap=job["limits"]["output_bytes"]) for out in outputs]
        for stream in self.streams:
            os.set_blocking(stream.fd, False)


def _or_say_why(confine: Callable[[], None], exec_out: int) -> None:
    """A wall that cannot be had is the harness failing: told apart from a failed exec by the sign of its number."""
    try:
        confine()
    except OSError as error:
        os.write(exec_out, struct.pack("i", -(error.errno or errno.EIO)))
        os._exit(127)


def _input(data: bytes) -> int:
    """A descriptor to read `data` from: a file in memory, so that nobody has to feed a pipe."""
    if not data:
        return os.open("/dev/null", os.O_RDONLY)
    fd = os.memfd_create("stdin")
    frames.write_all(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _become_program(job: dict[str, Any], workdir: str, standard: tuple[int, int, int], exec_out: int) -> str:
    """Become the program by exec; or return the script that this process is to run, and then it must raise `Warm`."""
    warm = False
    try:
        os.setsid()
        high = [os.dup2(fd, 100 + n, inheritable=False) for n, fd in enumerate((*standard, exec_out))]
        for target, fd in enumerate(high[:3]):
            os.dup2(fd, target)
        os.dup2(high[3], 3, inheritable=False)
        os.closerange(4, 1 << 20)
        os.umask(0o022)
        os.chdir(workdir)
        _limit(job["limits"])
        if job["warm"]:
            if workdir != root.WORK:
                os.environ.update(environment(workdir))
            kernel.show_to_peers()
            os.close(3)
            warm = True
            return job["argv"][-1]
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)  # Python ignores these, and exec would pass that on
        os.execve(job["argv"][0], job["argv"], environment(workdir))
    except OSError as error:
        os.write(3, struct.pack("i", error.errno or errno.EIO))
    finally:
        if not warm:
            os._exit(127)
    raise AssertionError("unreachable: execve returns only by raising")


def _limit(limits: dict[str, Any]) -> None:
    # The watcher decides; this stops a process that outruns its ticks. The kernel counts it more coarsely, so not + 1.
    cpu_s = int(limits["cpu_s"]) + 2
    space = limits["memory_bytes"] if limits["address_space"] else resource.RLIM_INFINITY
    for which, soft, hard in (
        (resource.RLIMIT_CPU, cpu_s, cpu_s + 1),
        (resource.RLIMIT_AS, space, space),
        (resource.RLIMIT_FSIZE, limits["file_bytes"], limits["file_bytes"]),
        (resource.RLIMIT_NPROC, limits["processes"] + 1, limits["processes"] + 1),  # and the watcher
        (resource.RLIMIT_STACK, STACK_BYTES, STACK_BYTES),
        (resource.RLIMIT_NOFILE, 256, 256),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
    ):
        resource.setrlimit(which, (soft, hard))


def _watch(
    program: _Program, limits: dict[str, Any], tier: str, group: cgroups.Group | None
) -> tuple[str | None, int, _Usage, float]:
    """Until the program ends or uses too much. Returns why it was killed, its status, and what the box used."""
    poller = select.poll()
    poller.register(program.pidfd, select.POLLIN)
    for stream in program.streams:
        poller.register(stream.fd, select.POLLIN)
    usage = _Usage()
    killed_by, ended = None, False
    next_tick = program.started + TICK_S
    deadline = program.started + limits["wall_s"]
    while not ended and killed_by is None:
        events = dict(poller.poll(max(0, int((next_tick - time.monotonic()) * 1000) + 1)))
        ended = program.pidfd in events
        killed_by = _drain(program, events, poller)
        now = time.monotonic()
        if now >= next_tick and not ended:
            killed_by = killed_by or (group.exceeded(limits) if group else _exceeded(usage, limits))
            next_tick = now + TICK_S
        if now >= deadline and not ended:
            killed_by = killed_by or "wall"
    wall_s = time.monotonic() - program.started
    status = _end(program, usage, tier)
    while any(stream.open for stream in program.streams) and killed_by is None:
        events = {stream.fd: select.POLLIN for stream in program.streams if stream.open}
        before = [stream.size for stream in program.streams]
        killed_by = _drain(program, events, poller)
        if before == [stream.size for stream in program.streams]:
            break  # the weak tier cannot be sure that every writer is dead
    if group is not None:
        killed_by = killed_by or ("memory" if group.was_full() else None)
        usage.reaped_s = max(usage.reaped_s, group.cpu_s())  # nobody reports children whose parent ignored their end
        usage.memory_bytes = max(usage.memory_bytes, group.peak_bytes())
    if usage.reaped_s > limits["cpu_s"] and killed_by in (None, "wall"):
        killed_by = "cpu"
    return killed_by, status, usage, wall_s


def _drain(program: _Program, events: dict[int, int], poller: select.poll) -> str | None:
    for stream in program.streams:
        if stream.open and stream.fd in events:
            stream.drain()
            if not stream.open:
                poller.unregister(stream.fd)
            if stream.truncated:
                return "output"
    return None


def _exceeded(usage: _Usage, limits: dict[str, Any]) -> str | None:
    """Look at everything alive in the box, and say which limit it broke."""
    cpu_s, memory = usage.reaped_s, 0
    alive = _alive()
    for pid in alive:
        with suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            cpu_s += sum(map(int, fields[11:15])) / _CLOCK_TICKS  # utime, stime and those of reaped children
            memory += int(fields[21]) * _PAGE
    if memory > limits["memory_bytes"]:
        memory = sum(map(_own_share, alive))  # what is shared had been counted once per process
    usage.memory_bytes = max(usage.memory_bytes, memory)
    if cpu_s > limits["cpu_s"]:
        return "cpu"
    return "memory" if memory > limits["memory_bytes"] else None


def _alive() -> list[int]:
    """Every process of the box but the watcher."""
    me = os.getpid()
    if me == 1:
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]  # noqa: PTH208
    found, todo = [], [me]
    while todo:
        with suppress(OSError):
            pid = todo.pop()
            below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            found += map(int, below)
            todo += map(int, below)
    return found


def _own_share(pid: int) -> int:
    """Resident memory of a process, shared pages divided among those who share them, in bytes."""
    with suppress(OSError, IndexError, ValueError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    with suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return 0


def _end(program: _Program, usage: _Usage, tier: str) -> int:
    """Kill all that is left, reap it, and return the program's wait status."""
    status = usage.reap(program.pid, os.WNOHANG)
    if tier == "local":
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # as process 1: everything in this namespace
        late = usage.reap(program.pid, 0)
        return late if status is None else status
    while left := _alive():
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        found = usage.reap(program.pid, os.WNOHANG)
        status = found if status is None else status
        time.sleep(0.001)
    return status if status is not None else usage.reap(program.pid, 0)


def _gather(wanted: list[str], workdir: str, limit_bytes: int) -> tuple[list[str], list[bytes]]:
    """The wanted files that are plain files of an allowed size; links, pipes and devices are never followed."""
    names, contents = [], []
    for name in wanted:
        with suppress(OSError):
            fd = os.open(Path(workdir, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                about = os.fstat(fd)
                if stat.S_ISREG(about.st_mode) and about.st_size <= limit_bytes:
                    contents.append(frames.read_exactly(fd, about.st_size))
                    names.append(name)
            except EOFError:
                pass
            finally:
                os.close(fd)
    return names, contents
