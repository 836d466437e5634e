"""The small process that makes boxes. Started by `boot`, one per `LocalSandbox`, and dies with its parent.

    host --job--> supervisor --clone(pid, mnt, ipc, uts)--> watcher (process 1 of the box) --exec or fork--> program
    host <--reply, moved by the kernel-- pipe <------------ watcher

On starting it leaves the machine once: new user, mount and network namespaces, and a root assembled from read-only
binds. A box then only needs new pid, mount, ipc and uts namespaces and one fresh tmpfs, which is why it costs
milliseconds. Boxes of one supervisor run one after another, so sharing its (empty, downed) network is no channel.

Only the standard library, single-threaded, and nothing of the host's in its memory: no task, no expected value, and
of jobs not even the program. The watcher reads the job itself, and its reply is spliced to the host.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from typing import NoReturn

from rewards.sandbox import box, frames, kernel, root, warm

#: How long after its wall limit a box may take to hand in its report before the harness counts as failed.
GRACE_S = 5.0
_TAKEN = b"+"  #: the watcher has read its job: what comes next on descriptor 0 is the next one
_BOX_NAMESPACES = kernel.CLONE_NEWPID | kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS


def main(tier: str, parent: int, prefix: str, precompiled: str) -> None:
    """Serve jobs on descriptors 0 and 1 until the host closes the pipe or dies.

    `parent` is the host's process; 0 in a container, where the closing of the pipe is all that can be seen of it.
    """
    os.umask(0o022)  # whoever starts it: programs run as another user, who has to reach the tree
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is the host's business; it then closes the pipe
    try:
        parent_fd = os.pidfd_open(parent) if parent else _nobody()
        drop, features, remarks = root.enter(prefix, precompiled) if tier == "local" else root.stay(prefix)
        kernel.no_new_privileges()
    except OSError as error:
        frames.write_all(1, frames.pack({"refused": str(error.strerror or error)}))
        return
    os.environ.clear()
    os.environ.update(box.environment(root.WORK))  # for programs that become a fork of this
    warm.preload()
    frames.write_all(1, frames.pack({"tier": tier, "features": features, "remarks": remarks}))
    if parent and os.getppid() != parent:
        return  # it died before we watched it
    try:
        while _wait_for_job(parent_fd) and _serve(tier, drop, parent_fd):
            pass
        return
    except warm.Warm as order:
        script = order.script
    warm.run_script(script)


def _nobody() -> int:
    """A descriptor on which nothing ever happens."""
    never, _kept_open = os.pipe()
    return never


def _wait_for_job(parent_fd: int) -> bool:
    poller = select.poll()
    poller.register(0, select.POLLIN)
    poller.register(parent_fd, select.POLLIN)
    events = dict(poller.poll())
    return parent_fd not in events and bool(events.get(0, 0) & select.POLLIN)


def _serve(tier: str, drop: root.Drop, parent_fd: int) -> bool:
    """One job. False when the host went away, or when host and supervisor no longer agree where a message begins."""
    try:
        wall_s, size = frames.wall_of(0)
    except EOFError:
        return False
    from_box, to_us = os.pipe()
    pid = kernel.clone(_BOX_NAMESPACES) if tier == "local" else os.fork()
    if pid == 0:
        _become_watcher(tier, drop, size, (from_box, to_us, parent_fd))
    os.close(to_us)
    whole = False
    try:
        whole = _pass_on(from_box, parent_fd, time.monotonic() + wall_s + GRACE_S)
    finally:
        os.close(from_box)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # process 1 takes its whole namespace along
        os.waitpid(pid, 0)
    if whole:
        frames.write_all(1, frames.GONE)
    return whole


def _become_watcher(tier: str, drop: root.Drop, size: int, fds: tuple[int, int, int]) -> NoReturn:
    """`size` is that of the job's header, `fds` are the reply's two ends and what watches the host."""
    is_program = False
    from_box, to_us, parent_fd = fds
    try:
        header, blobs = frames.rest_of(0, size)
        os.write(to_us, _TAKEN)
        for fd in (from_box, parent_fd, 0, 1):
            os.close(fd)
        try:
            reply = box.run(tier, drop, header, blobs)
        except OSError as error:
            reply = frames.pack({"failure": f"box: {error}"})
        frames.write_all(to_us, reply)
    except warm.Warm:
        is_program = True  # and the watcher no more
        raise
    finally:
        if not is_program:  # whatever happens, this fork must never get back into the supervisor's loop
            os._exit(0)


def _pass_on(fd: int, parent_fd: int, deadline: float) -> bool:
    """Move the watcher's reply to the host, or say that there is none. False as `_serve` says."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    poller.register(parent_fd, select.POLLIN)
    poller.register(0, 0)  # only a hang-up is reported: the host closed the pipe
    taken, moved = False, 0
    while True:
        events = dict(poller.poll(max(0, int((deadline - time.monotonic()) * 1000))))
        if parent_fd in events or 0 in events:
            return False
        if fd not in events:
            break
        if not taken:
            taken = os.read(fd, 1) == _TAKEN
            if not taken:
                return False  # it died while it read the job
            continue
        count = os.splice(fd, 1, 1 << 20)
        if count == 0:
            break
        moved += count
    if moved:
        return fd in events  # a reply that stopped half way cannot be mended
    if taken:
        frames.write_all(1, frames.pack({"failure": "the watcher of a box ended without a report"}))
    return taken
