"""The small process that makes boxes. Started with `python -I -S`, one per `LocalSandbox`, and dies with its parent.

    host --job frame--> supervisor --clone(pid, mnt, ipc, uts)--> watcher (process 1 of the box) --exec--> program
    host <--result frame-- supervisor <--------pipe-------------- watcher

On starting it leaves the machine once: new user, mount and network namespaces, and a root assembled from read-only
binds. A box then only needs new pid, mount, ipc and uts namespaces and one fresh tmpfs, which is why it costs
milliseconds. Boxes of one supervisor run one after another, so sharing its (empty, downed) network is no channel.

Only the standard library, single-threaded, and nothing of the host's in its memory: no task, no expected value.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress
from typing import Any, NoReturn

from rewards.sandbox import box, frames, kernel, root

#: How long after its wall limit a box may take to hand in its report before the harness counts as failed.
GRACE_S = 5.0
_BOX_NAMESPACES = kernel.CLONE_NEWPID | kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS


def main(tier: str, parent: int, prefix: str) -> None:
    """Serve jobs on descriptors 0 and 1 until the host closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is the host's business; it then closes the pipe
    try:
        parent_fd = os.pidfd_open(parent)
        drop, features, remarks = root.enter(prefix) if tier == "local" else root.stay(prefix)
    except OSError as error:
        frames.write_all(1, frames.pack({"refused": str(error.strerror or error)}))
        return
    frames.write_all(1, frames.pack({"tier": tier, "features": features, "remarks": remarks}))
    if os.getppid() != parent:
        return  # it died before we watched it
    while _wait_for_job(parent_fd):
        try:
            header, blobs = frames.unpack(lambda count: frames.read_exactly(0, count))
        except EOFError:
            return
        reply = _run(tier, drop, header, blobs, parent_fd)
        if reply is None:
            return
        frames.write_all(1, reply)


def _wait_for_job(parent_fd: int) -> bool:
    poller = select.poll()
    poller.register(0, select.POLLIN)
    poller.register(parent_fd, select.POLLIN)
    events = dict(poller.poll())
    return parent_fd not in events and bool(events.get(0, 0) & select.POLLIN)


def _run(tier: str, drop: root.Drop, header: dict[str, Any], blobs: list[bytes], parent_fd: int) -> bytes | None:
    """The reply frame for one job, or None when the host went away meanwhile."""
    from_box, to_us = os.pipe()
    pid = kernel.clone(_BOX_NAMESPACES) if tier == "local" else os.fork()
    if pid == 0:
        _become_watcher(tier, drop, header, blobs, from_box, to_us, parent_fd)
    os.close(to_us)
    try:
        reply = _collect(from_box, parent_fd, time.monotonic() + header["limits"]["wall_s"] + GRACE_S)
    finally:
        os.close(from_box)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # process 1 takes its whole namespace along
        os.waitpid(pid, 0)
    if reply == b"":
        return frames.pack({"failure": "the watcher of a box ended without a report"})
    return reply


def _become_watcher(
    tier: str, drop: root.Drop, header: dict[str, Any], blobs: list[bytes], from_box: int, to_us: int, parent_fd: int
) -> NoReturn:
    for fd in (from_box, parent_fd, 0, 1):
        os.close(fd)
    try:
        reply = box.run(tier, drop, header, blobs)
    except OSError as error:
        reply = frames.pack({"failure": f"box: {error}"})
    finally:
        # Whatever happens, this fork must never get back into the supervisor's loop.
        with suppress(NameError, OSError):
            frames.write_all(to_us, reply)
        os._exit(0)


def _collect(fd: int, parent_fd: int, deadline: float) -> bytes | None:
    """All the watcher writes; b"" when it wrote nothing or is overdue, None when the host is gone."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    poller.register(parent_fd, select.POLLIN)
    poller.register(0, 0)  # only a hang-up is reported: the host closed the pipe
    parts: list[bytes] = []
    while True:
        events = dict(poller.poll(max(0, int((deadline - time.monotonic()) * 1000))))
        if parent_fd in events or 0 in events:
            return None
        if fd not in events:
            return b""
        part = os.read(fd, 1 << 20)
        if not part:
            return b"".join(parts)
        parts.append(part)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
