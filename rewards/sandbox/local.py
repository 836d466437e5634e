"""The sandbox of this machine: Linux namespaces made by a small supervisor process, no daemon and no root needed.

Stops: seeing or changing anything of the machine but read-only tool-chains; the network; other processes; more
processor time, memory, processes, output or disk than the limits; privileges (no set-uid, no capabilities, no new
user namespace); anything that would outlive the run.
Does not stop: an exploit of the kernel itself (the system-call filter is a deny-list); learning the machine's CPU
model, kernel version and time; signals through caches that boxes share. Where no control group can be made (see
`cgroups`), memory is limited per process, and for the whole box by the watcher, which looks every 50 ms.

Tier `weak` uses the same supervisor without namespaces, where a container forbids them: limits, another user id when
started as root, and killing descendants are all that is left. It must be asked for by name, and every result says so.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any, Literal

from assay.errors import EnvironmentProblem, InfraFailure
from rewards.sandbox import boot, cgroups, frames
from rewards.sandbox.base import Isolation, Job, KilledBy, Limits, RunResult, interpreter

Tier = Literal["local", "weak"]

START_S = 20.0
REPLY_GRACE_S = 15.0  #: beyond the wall limit and the supervisor's own grace, for a machine that is very busy


class LocalSandbox:
    """Boxes on this machine. The supervisor starts with the first job, and again after it died."""

    def __init__(self, tier: Tier = "local") -> None:
        self.tier = tier
        self.python = interpreter()
        self.precompiled = _cache() if tier == "local" else None
        self._lock = threading.Lock()
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._cgroups: cgroups.Cgroups | None = None
        self._isolation: Isolation | None = None
        self._closed = False

    @property
    def isolation(self) -> Isolation:
        """What a run gets here. Raises EnvironmentProblem where the tier cannot be had."""
        with self._lock:
            self._start()
            assert self._isolation is not None
            return self._isolation

    def run(self, job: Job) -> RunResult:
        """Run `job` in a fresh box. Raises InfraFailure if the supervisor dies, hangs or cannot make the box."""
        with self._lock:
            supervisor = self._start()
            # A real box has a working folder of its own; the weak tier needs one of this machine's.
            weak = self.tier == "weak"
            try:
                with _folder() if weak else nullcontext("") as workdir:
                    header, blobs = self._exchange(supervisor, job, workdir)
            except (OSError, EOFError, frames.BadFrame) as error:
                self._stop()
                raise InfraFailure(f"the sandbox supervisor failed: {error or type(error).__name__}") from None
            if "failure" in header:
                raise InfraFailure(f"sandbox: {header['failure']}")
            return result_of(header, blobs, self._isolation or Isolation(tier=self.tier))

    def has(self, tool: str) -> bool:
        """Whether boxes see the program `tool`, an absolute path."""
        return os.access(tool, os.X_OK)

    def close(self) -> None:
        """End the supervisor and whatever runs under it. Idempotent; may be called while another thread runs."""
        self._closed = True
        self._stop()

    def __enter__(self) -> LocalSandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise InfraFailure("the sandbox is closed")
        if self._supervisor is not None and self._supervisor.poll() is None:
            return self._supervisor
        self._stop()
        self._cgroups = cgroups.Cgroups.here() if self.tier == "local" else None
        with self._cgroups.opened() if self._cgroups else nullcontext(()) as inherited:
            self._supervisor = subprocess.Popen(
                boot.command(self.python),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=boot.ENVIRONMENT,
                cwd="/",
                bufsize=0,
                pass_fds=inherited,
            )
        message = boot.message(self.tier, os.getpid(), sys.base_prefix, str(self.precompiled or ""))
        try:
            assert self._supervisor.stdin is not None
            frames.write_all(self._supervisor.stdin.fileno(), message)
            hello, _ = frames.unpack(_reader(self._supervisor.stdout, time.monotonic() + START_S))
        except (OSError, EOFError, frames.BadFrame) as error:
            self._stop()
            raise InfraFailure(f"the sandbox supervisor did not start: {error or type(error).__name__}") from None
        if "refused" in hello:
            self._stop()
            raise EnvironmentProblem(_remedy(self.tier, hello["refused"]))
        groups = [self._cgroups.feature] if self._cgroups else []
        self._isolation = Isolation(
            tier=hello["tier"], features=(*hello["features"], *groups), remarks=tuple(hello["remarks"])
        )
        return self._supervisor

    def _exchange(self, supervisor: subprocess.Popen[bytes], job: Job, workdir: str) -> tuple[dict[str, Any], list]:
        """Send the job and take the reply. The group is made while the watcher is, and removed while it goes."""
        assert supervisor.stdin is not None
        group = self._cgroups.plan() if self._cgroups else None
        header, blobs = {**header_of(job, workdir), "cgroup": group}, [job.stdin, *job.files.values()]
        to = supervisor.stdin.fileno()
        read = _reader(supervisor.stdout, time.monotonic() + job.limits.wall_s + REPLY_GRACE_S)
        frames.write_all(to, frames.job(job.limits.wall_s, header, blobs))
        with self._group(job.limits, group):
            try:
                frames.write_all(to, frames.READY)
                header, blobs = frames.unpack(read)
            except (OSError, EOFError, frames.BadFrame):
                self._stop()  # before its group is removed
                raise
        frames.await_end(read)
        return header, blobs

    def _group(self, limits: Limits, plan: dict[str, Any] | None) -> AbstractContextManager[Any]:
        if self._cgroups is None or plan is None:
            return nullcontext()
        return self._cgroups.box(limits.memory_bytes, limits.processes, plan)

    def _stop(self) -> None:
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is None:
            return
        supervisor.kill()  # its boxes die with it: each watcher asked the kernel for that
        supervisor.wait()
        for stream in (supervisor.stdin, supervisor.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


@contextmanager
def _folder() -> Iterator[str]:
    """A new folder, deleted in the end however deep a program made it, which is too deep for `shutil.rmtree`."""
    path = tempfile.mkdtemp(prefix="assay-box-")
    try:
        yield path
    finally:
        for command in (["rm", "-rf"], ["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            if not subprocess.run([*command, path], stderr=subprocess.DEVNULL).returncode and command[0] == "rm":
                break


def _reader(stream: IO[bytes] | None, deadline: float):
    assert stream is not None
    fd = stream.fileno()

    def read(count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise OSError(0, "no answer in time")
            part = os.read(fd, min(count - len(parts), 1 << 20))
            if not part:
                raise EOFError("it died")
            parts += part
        return bytes(parts)

    return read


def _cache() -> Path | None:
    """The folder of precompiled headers; None where the user's cache cannot be written."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "assay", "precompiled")
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # programs may run as another user, and a compiler stops at a folder it may not enter
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return None
    return folder if os.access(folder, os.W_OK) else None


def header_of(job: Job, workdir: str) -> dict[str, Any]:
    """What a supervisor is told of a job; its stdin and its files follow as blobs."""
    return {
        "argv": list(job.argv),
        "limits": {name: getattr(job.limits, name) for name in Limits.__slots__},
        "files": list(job.files),
        "fixed": list(job.fixed),
        "collect": list(job.collect),
        "workdir": workdir,
        "warm": job.warm,
    }


def result_of(header: dict[str, Any], blobs: list[bytes], isolation: Isolation) -> RunResult:
    """A supervisor's reply as a result."""
    return RunResult(
        exit_code=header["exit_code"],
        signal=header["signal"],
        stdout=blobs[0],
        stderr=blobs[1],
        cpu_s=header["cpu_s"],
        wall_s=header["wall_s"],
        memory_bytes=header["memory_bytes"],
        killed_by=KilledBy(header["killed_by"]) if header["killed_by"] else None,
        stdout_truncated=header["truncated"][0],
        stderr_truncated=header["truncated"][1],
        files=dict(zip(header["files"], blobs[2:], strict=True)),
        isolation=isolation,
    )


def _remedy(tier: Tier, reason: str) -> str:
    if tier == "weak":
        return f"sandbox.tier=weak: {reason}; run assay as an ordinary user, or with a Python that others can read"
    bubblewrap = " (bwrap being installed does not help: it needs the same)" if shutil.which("bwrap") else ""
    return (
        f"this machine refuses the namespaces a sandbox is made of ({reason}){bubblewrap}; enable unprivileged user "
        "namespaces (sysctl user.max_user_namespaces > 0, kernel.apparmor_restrict_unprivileged_userns=0; in Docker: "
        "--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined), "
        "or ask for limits without isolation by name: sandbox.tier=weak"
    )
