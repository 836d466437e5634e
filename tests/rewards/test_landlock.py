"""The second wall: what mounts and permissions alone would let a program do, and Landlock does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rewards.sandbox import landlock
from rewards.sandbox.base import PYTHON_FLAGS, Job

pytestmark = pytest.mark.sandbox
CHECKOUT = Path(__file__).resolve().parents[2]
ABI = landlock.version()
needs_landlock = pytest.mark.skipif(not ABI, reason="this kernel has no Landlock, and the isolation says so")


def said(sandbox, code: str, *, warm: bool = False, stdin: bytes = b"") -> str:
    argv = (sandbox.python, *PYTHON_FLAGS, "main.py")
    run = sandbox.run(Job(argv=argv, files={"main.py": code.encode()}, warm=warm, stdin=stdin))
    assert run.ok, run.stderr.decode()
    return run.stdout.decode().strip()


#: Prints the errno of an attempt, 0 where it went through.
TRY = "def attempt(act):\n    try: act()\n    except OSError as e: return e.errno\n    return 0\n"
OPEN = TRY + "import os, socket\nwrite = lambda path: open(path, 'w').close()\n"
COMM = OPEN + "print(attempt(lambda: write('/proc/self/comm')))"  # a place that is mounted for writing, and ours
EACCES, EPERM = 13, 1


@pytest.mark.parametrize(
    ("abi", "files", "network", "scopes"),
    [(2, 0x3FFF, 0, 0), (3, 0x7FFF, 0, 0), (4, 0x7FFF, 3, 0), (5, 0x7FFF, 3, 0), (6, 0x7FFF, 3, 3), (7, 0x7FFF, 3, 3)],
)
def test_what_is_handled_by_version(abi, files, network, scopes):
    """All bits of linux/landlock.h that the version knows, but device controls (bit 15, version 5)."""
    assert landlock.ruleset(abi) == (files, network, scopes)


def test_the_isolation_says_which_version_there_was(sandbox):
    found = [feature for feature in sandbox.isolation.features if feature.startswith("landlock")]
    assert found == ([f"landlock{ABI}"] if ABI else [])
    assert any("Landlock" in remark for remark in sandbox.isolation.remarks) == (not ABI)


@needs_landlock
@pytest.mark.parametrize("warm", [False, True])
def test_what_the_mounts_allow_outside_of_the_work_area_is_refused(sandbox, warm):
    assert said(sandbox, COMM, warm=warm) == str(EACCES)


@needs_landlock
def test_the_same_folder_of_the_same_user_is_closed_outside_of_the_places_given(tmp_path):
    """No box: a process that owns both folders, on one mount, puts the wall around itself."""
    code = OPEN + (
        "from rewards.sandbox import kernel, landlock\nos.mkdir('mine'); os.mkdir('other'); write('other/old')\n"
        "kernel.no_new_privileges()\nlandlock.restrict(landlock.version(), ['mine'])\n"
        "print([attempt(act) for act in (lambda: write('mine/x'), lambda: write('other/x'), lambda: write('other/old'),"
        " lambda: os.unlink('other/old'), lambda: os.mkdir('other/d'), lambda: open('other/old').close(),"
        " lambda: os.truncate('other/old', 0) if landlock.version() >= 3 else open('/none/x', 'w'),"
        " lambda: os.rename('mine/x', 'mine/y'))])"
    )
    out = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path.insert(0, {str(CHECKOUT)!r})\n{code}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert out.stdout.strip() == str([0, EACCES, EACCES, EACCES, EACCES, 0, EACCES if ABI >= 3 else 2, 0]), out.stderr


@needs_landlock
@pytest.mark.parametrize("place", ["/box", "/tmp", "/dev/shm"])
def test_everything_but_devices_can_be_made_moved_and_removed_in_the_work_areas(sandbox, place):
    code = OPEN + (
        f"os.chdir({place!r})\nos.makedirs('a/b')\nwrite('x')\nos.rename('x', 'a/b/x')\nos.link('a/b/x', 'y')\n"
        "os.truncate('y', 10)\nos.symlink('y', 'z')\nos.mkfifo('p')\nsocket.socket(socket.AF_UNIX).bind('s')\n"
        "os.chmod('y', 0o700)\n"
        "device = attempt(lambda: os.mknod('n', 0o20600, os.makedev(1, 3)))\n"
        "print(sorted(os.listdir()), os.stat('z').st_size, device)\n"
        "for name in ('y', 'z', 'p', 's', 'a/b/x'): os.unlink(name)\nos.removedirs('a/b')"
    )
    held = ["a", *(["main.py"] if place == "/box" else []), "p", "s", "y", "z"]
    out = said(sandbox, code)
    assert out in (f"{held} 10 {EACCES}", f"{held} 10 {EPERM}")


@needs_landlock
def test_standard_streams_and_devices_have_names(sandbox):
    code = (
        "print(open('/dev/stdin').read(), open('/proc/self/fd/0').read(), flush=True)\n"
        "print('x', file=open('/dev/stdout', 'w'))\nprint('y', file=open('/dev/null', 'w'))\n"
        "print(len(open('/dev/urandom', 'rb').read(5)))"
    )
    assert said(sandbox, code, stdin=b"in") == "in in\nx\n5"


@needs_landlock
@pytest.mark.skipif(ABI < 4, reason="TCP is known to version 4")
def test_no_port_can_be_bound_or_reached(sandbox):
    code = OPEN + (
        "new = socket.socket\nat = ('127.0.0.1', 8000)\n"
        "print(attempt(lambda: new().bind(at)), attempt(lambda: new().connect(at)))"
    )
    assert said(sandbox, code) == f"{EACCES} {EACCES}"


@needs_landlock
@pytest.mark.skipif(ABI < 6, reason="scopes are known to version 6")
def test_signals_and_abstract_addresses_stay_among_what_the_program_started(sandbox):
    code = OPEN + (
        "import signal\nchild = os.fork()\nif child == 0:\n    signal.pause()\n"
        "os.kill(child, signal.SIGTERM)\nprint(os.waitpid(child, 0)[1], attempt(lambda: os.kill(1, 0)))\n"
        "server, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)\n"
        "server.bind('\\0mine')\nserver.listen()\nprint(attempt(lambda: client.connect('\\0mine')))"
    )
    assert said(sandbox, code) == f"15 {EPERM}\n0"


@needs_landlock
def test_a_lock_on_a_shared_file_needs_no_write_and_is_not_stopped(sandbox):
    code = TRY + "import fcntl\nprint(attempt(lambda: fcntl.flock(open('/usr/bin/env', 'rb'), fcntl.LOCK_SH)))"
    assert said(sandbox, code) == "0"


def test_without_landlock_runs_go_on_and_the_isolation_says_so():
    """A kernel that refuses the call, here because a filter does: only the mounts are left, and they allow more."""
    code = (
        "import sys\nsys.path.insert(0, '.')\nfrom rewards.sandbox import kernel, seccomp\n"
        "seccomp._REFUSED = {'landlock_create_ruleset': (444, 444)}\n"
        "kernel.no_new_privileges()\nkernel.filter_calls(seccomp.program())\n"
        "from rewards.sandbox.local import LocalSandbox\nfrom rewards.sandbox.base import Job\n"
        "with LocalSandbox() as box:\n"
        f"    run = box.run(Job(argv=(box.python, '-I', '-S', 'm.py'), files={{'m.py': {COMM.encode()!r}}}))\n"
        "    print(run.stdout.decode().strip(), run.isolation, *run.isolation.remarks, sep='|')"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    errno, isolation, remark = out.stdout.strip().split("|")
    assert errno == "0" and "landlock" not in isolation and "seccomp" in isolation, out.stderr
    assert remark == "no Landlock: the mounts of a box alone keep programs from writing elsewhere"
