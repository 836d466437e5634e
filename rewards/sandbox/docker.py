"""The production tier: one hardened container per worker, with the supervisor of the local tier inside it.

    host --frames over the container's stdin and stdout--> supervisor (process 1 there) --> boxes, as on a machine

The container is the outer wall: no network, no capabilities, no new privileges, a read-only root, limits on memory,
processes and processor time, an ordinary user. Inside it every run gets namespaces and limits of its own, as in the
local tier, so a box costs milliseconds; nothing is ever started with `docker exec`, which costs tens of them, and whose
processes outlive their client. `runtime: runsc` puts gVisor's kernel in between.

The supervisor's source travels with the connection: an image holds tool-chains alone, and cannot be a version behind.
Its stdin is closed by the daemon when this process ends in any way, so that the container ends and is removed.
"""

from __future__ import annotations

import json
import os
import select
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from assay.errors import EnvironmentProblem, InfraFailure
from rewards.sandbox import boot, cgroups, frames, seccomp
from rewards.sandbox.base import MIB, Isolation, Job, RunResult
from rewards.sandbox.local import REPLY_GRACE_S, START_S, header_of, result_of
from rewards.sandbox.root import PRECOMPILED

IMAGE = "assay-sandbox"
OWNER = "assay.owner"  #: the label that says which process a container belongs to
PYTHON = "/usr/bin/python3"
CONTAINER_MEMORY = 4096 * MIB
USER = "61000:61000"


class DockerSandbox:
    """Boxes inside a container. The container starts with the first job, and again after it died."""

    def __init__(self, image: str = IMAGE, *, runtime: str | None = None, memory_bytes: int = CONTAINER_MEMORY) -> None:
        self.image, self.runtime, self.memory_bytes = image, runtime, memory_bytes
        self.python = PYTHON
        self.precompiled = None  # the image brings its own
        self._lock = threading.Lock()
        self._stream: _Stream | None = None
        self._container: str | None = None
        self._isolation: Isolation | None = None
        self._closed = False
        self._has: dict[str, bool] = {}

    @property
    def isolation(self) -> Isolation:
        """What a run gets here. Raises EnvironmentProblem where the tier cannot be had."""
        with self._lock:
            self._start()
            assert self._isolation is not None
            return self._isolation

    def run(self, job: Job) -> RunResult:
        """Run `job` in a fresh box. Raises InfraFailure if the container, the daemon or the supervisor fails."""
        with self._lock:
            stream = self._start()
            try:
                blobs = [job.stdin, *job.files.values()]
                stream.write(frames.job(job.limits.wall_s, header_of(job, ""), blobs) + frames.READY)
                read = stream.reader(time.monotonic() + job.limits.wall_s + REPLY_GRACE_S)
                header, blobs = frames.unpack(read)
                frames.await_end(read)
            except (OSError, EOFError, frames.BadFrame) as error:
                self._stop()
                raise InfraFailure(f"the sandbox container failed: {error or type(error).__name__}") from None
            if "failure" in header:
                raise InfraFailure(f"sandbox: {header['failure']}")
            return result_of(header, blobs, self._isolation or Isolation(tier="docker"))

    def has(self, tool: str) -> bool:
        """Whether the image holds the program `tool`, an absolute path."""
        if tool not in self._has:
            self._has[tool] = self.run(Job(argv=("/usr/bin/test", "-x", tool))).ok
        return self._has[tool]

    def close(self) -> None:
        """End the container and whatever runs in it. Idempotent."""
        self._closed = True
        self._stop()

    def __enter__(self) -> DockerSandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> _Stream:
        if self._closed:
            raise InfraFailure("the sandbox is closed")
        if self._stream is not None:
            return self._stream
        client = connect()
        remove_orphans(client)
        try:
            stream = self._launch(client)
            stream.write(boot.message("local", 0, "/usr", PRECOMPILED))
            hello, _ = frames.unpack(stream.reader(time.monotonic() + START_S))
        except (OSError, EOFError, frames.BadFrame) as error:
            said = self._last_words(client)
            self._stop()
            why = said or error or type(error).__name__
            raise InfraFailure(f"the sandbox container did not start: {why}") from None
        if "refused" in hello:
            self._stop()
            raise EnvironmentProblem(
                f"the container may not make the namespaces of a box ({hello['refused']}); allow unprivileged user "
                "namespaces on the Docker host (sysctl user.max_user_namespaces > 0)"
            )
        walls = ("container", *([self.runtime] if self.runtime else []), "nocaps", "readonly", "cgroup")
        self._isolation = Isolation(
            tier="docker", features=(*walls, *hello["features"]), remarks=tuple(hello["remarks"])
        )
        self._stream = stream
        return stream

    def _launch(self, client: Any) -> _Stream:
        import docker.errors

        try:
            made = client.create_container(
                self.image,
                boot.command(PYTHON),
                stdin_open=True,
                user=USER,
                environment=boot.ENVIRONMENT,
                labels={OWNER: owner()},
                network_disabled=True,
                host_config=self._host_config(client),
            )
            self._container = made["Id"]
            socket = client.attach_socket(self._container, {"stdin": 1, "stdout": 1, "stream": 1})
            client.start(self._container)
        except docker.errors.ImageNotFound:
            raise EnvironmentProblem(f"the Docker host has no image {self.image!r}: assay sandbox build") from None
        except docker.errors.APIError as error:
            self._stop()
            raise EnvironmentProblem(f"Docker refuses the sandbox container: {error.explanation or error}") from None
        return _Stream(socket)

    def _host_config(self, client: Any) -> dict[str, Any]:
        config: dict[str, Any] = client.create_host_config(
            auto_remove=True,
            network_mode="none",
            cap_drop=["ALL"],
            security_opt=_security(client),
            read_only=True,
            tmpfs={"/tmp": "rw,nosuid,nodev,size=16m,mode=1777"},
            mem_limit=self.memory_bytes,
            memswap_limit=self.memory_bytes,  # as much with swap as without: none
            pids_limit=1024,
            ipc_mode="private",
            log_config={"Type": "none", "Config": {}},
            runtime=self.runtime,
            init=False,
        )
        # A box mounts a /proc of its own, which the kernel allows only where none of the one around it is hidden.
        return {**config, "MaskedPaths": [], "ReadonlyPaths": []}

    def _last_words(self, client: Any) -> str:
        """How the container ended, while the daemon still knows."""
        from docker.errors import APIError

        with suppress(APIError, OSError):
            state = client.inspect_container(self._container)["State"]
            if state.get("OOMKilled"):
                return "out of memory"
            return str(state.get("Error") or "")
        return ""

    def _stop(self) -> None:
        stream, self._stream = self._stream, None
        container, self._container = self._container, None
        if stream is not None:
            stream.close()
        if container is not None:
            from docker.errors import APIError

            with suppress(APIError, OSError, EnvironmentProblem):
                connect().remove_container(container, force=True)


class _Stream:
    """The container's stdin and stdout: Docker multiplexes what comes out, 8 bytes before each piece."""

    def __init__(self, socket: Any) -> None:
        self._io = socket
        self._socket = getattr(socket, "_sock", socket)
        self._socket.setblocking(True)
        self._ready = bytearray()

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def reader(self, deadline: float) -> Callable[[int], bytes]:
        """A `read` for `frames.unpack` that gives up at `deadline`."""

        def read(count: int) -> bytes:
            while len(self._ready) < count:
                kind, size = struct.unpack(">BxxxL", self._raw(8, deadline))
                piece = self._raw(size, deadline)
                if kind == 1:
                    self._ready += piece
            taken = bytes(self._ready[:count])
            del self._ready[:count]
            return taken

        return read

    def _raw(self, count: int, deadline: float) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            if not select.select([self._socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise OSError(0, "no answer in time")
            part = self._socket.recv(min(count - len(parts), 1 << 20))
            if not part:
                raise EOFError("it ended")
            parts += part
        return bytes(parts)

    def close(self) -> None:
        with suppress(OSError):
            self._socket.close()
        with suppress(OSError):
            self._io.close()


def connect() -> Any:
    """A client of the Docker engine. Raises EnvironmentProblem where there is none."""
    try:
        import docker
    except ImportError:
        raise EnvironmentProblem("sandbox.tier=docker needs the Docker SDK: pip install 'assay[docker]'") from None
    from docker.errors import DockerException

    try:
        client = docker.APIClient(**docker.utils.kwargs_from_env(), timeout=60)
        client.ping()
    except (DockerException, OSError) as error:
        raise EnvironmentProblem(
            f"sandbox.tier=docker: no Docker engine answers ({_first_line(error)}); start one, set DOCKER_HOST, or ask "
            "for another tier by name: sandbox.tier=local"
        ) from None
    return client


def owner() -> str:
    """This process, told apart from a later one with the same number by when it started, and from those elsewhere."""
    return f"{_here()}{os.getpid()}:{cgroups.started('self')}"


def remove_orphans(client: Any) -> int:
    """Remove containers whose owner on this machine is gone; what a kill of the daemon may leave behind.

    Only those of owners in this PID namespace: whether another one lives cannot be seen from here.
    """
    from docker.errors import APIError

    removed, here = 0, _here()
    for row in client.containers(all=True, filters={"label": OWNER}) if cgroups.proc_is_ours() else ():
        label = row["Labels"][OWNER]
        pid, _, started = label.removeprefix(here).partition(":")
        if label.startswith(here) and cgroups.started(pid) != started:
            with suppress(APIError):
                client.remove_container(row["Id"], force=True)
                removed += 1
    return removed


def _here() -> str:
    """What the labels of this boot and this PID namespace begin with."""
    return f"{_boot()}:{cgroups.namespace()}:"


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _security(client: Any) -> list[str]:
    options = ["no-new-privileges:true", f"seccomp={json.dumps(seccomp.docker_profile())}"]
    if any("apparmor" in option for option in client.info().get("SecurityOptions") or ()):
        options.append("apparmor=unconfined")  # its default profile forbids mounts, of which every box is made
    return options


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
