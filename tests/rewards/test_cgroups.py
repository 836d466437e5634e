"""Control groups of boxes: what they limit and count, and that none is left; version 2 on folders that stand for it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.errors import InfraFailure
from rewards.sandbox.base import MIB, PYTHON_FLAGS, Job, KilledBy, Limits
from rewards.sandbox.cgroups import CONTROLLERS, FILES, PREFIX, Cgroups, Group, Places, find, namespace
from rewards.sandbox.local import LocalSandbox

pytestmark = pytest.mark.sandbox
CHECKOUT = Path(__file__).resolve().parents[2]
HERE = Cgroups.here()
needs_groups = pytest.mark.skipif(HERE is None, reason="no control groups can be made here, and the isolation says so")


def python(code: str, **limits) -> Job:
    wanted = Limits(**{"cpu_s": 5.0, "wall_s": 15.0, "processes": 24, **limits})
    return Job(argv=("/usr/bin/python3", *PYTHON_FLAGS, "m.py"), files={"m.py": code.encode()}, limits=wanted)


def ours(pid: int) -> list[Path]:
    assert HERE is not None
    return [path for folder in HERE.places.distinct for path in folder.glob(f"{PREFIX}{namespace()}-{pid}-*")]


@pytest.fixture
def no_group_left() -> Iterator[None]:
    yield
    assert ours(os.getpid()) == []


# What a box is refused, and what is counted


@needs_groups
def test_the_isolation_says_which_version_there_was(sandbox):
    assert sandbox.isolation.features[-1] == HERE.feature == f"cgroup{HERE.places.version}"
    assert sandbox.run(Job(argv=("/bin/true",))).isolation == sandbox.isolation


@needs_groups
def test_memory_of_many_children_together_is_limited(sandbox, no_group_left):
    """Eight times 25 MiB, each far below the limit of 64 MiB; the kernel lets the sum come no higher than that."""
    code = (
        "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n        x = bytearray(25 << 20)\n"
        "        time.sleep(5)\n        os._exit(0)\nfor _ in range(8): os.wait()"
    )
    run = sandbox.run(python(code, memory_bytes=64 * MIB))
    assert run.killed_by is KilledBy.MEMORY
    assert 40 * MIB < run.memory_bytes <= 64 * MIB
    assert run.wall_s < 4


@needs_groups
def test_a_program_that_outlives_its_greedy_child_has_used_too_much(sandbox, no_group_left):
    code = (
        "import os\nif os.fork() == 0:\n    x = bytearray(200 << 20)\n    os._exit(0)\n"
        "status = os.wait()[1]\nprint('went on', status)"
    )
    run = sandbox.run(python(code, memory_bytes=64 * MIB, address_space=False))
    assert run.killed_by is KilledBy.MEMORY
    assert run.memory_bytes < 80 * MIB  # with pages of shared libraries that were there before it


@needs_groups
def test_files_in_memory_count(sandbox, no_group_left):
    code = "with open('/dev/shm/x', 'wb') as out:\n    for _ in range(100): out.write(b'x' * (1 << 20))"
    run = sandbox.run(python(code, memory_bytes=64 * MIB, file_bytes=128 * MIB))
    assert run.killed_by is KilledBy.MEMORY


@needs_groups
def test_memory_below_the_limit_is_measured(sandbox, no_group_left):
    run = sandbox.run(python("x = bytearray(40 << 20)", memory_bytes=64 * MIB, address_space=False))
    assert run.ok and 40 * MIB < run.memory_bytes < 64 * MIB


IGNORING = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
source, sink = os.pipe()
for _ in range(8):
    if os.fork() == 0:
        end = time.process_time() + 0.15
        while time.process_time() < end: pass
        os.write(sink, b".")
        os._exit(0)
    os.read(source, 1)
time.sleep(0.1)
"""
ORPHANS = """
import os, time
source, sink = os.pipe()
for _ in range(8):
    if os.fork() == 0:
        if os.fork() == 0:
            end = time.process_time() + 0.15
            while time.process_time() < end: pass
            os.write(sink, b".")
        os._exit(0)
    os.wait()
    os.read(source, 1)
"""


@needs_groups
@pytest.mark.parametrize("code", [IGNORING, ORPHANS], ids=["children whose end is ignored", "orphans"])
def test_processor_time_counts_whoever_spent_it(sandbox, no_group_left, code):
    """8 times 0.15 s. Children that nobody waits for are in no parent's time: wait4 alone says 0.03 s."""
    run = sandbox.run(python(code))
    assert run.ok and 1.2 <= run.cpu_s < 1.8
    assert sandbox.run(python(code, cpu_s=0.5)).killed_by is KilledBy.CPU


@needs_groups
def test_a_fork_bomb_ends_at_the_limit_of_processes(sandbox, no_group_left):
    code = (
        "import os, time\nmade = 0\ntry:\n    while True:\n"
        "        if os.fork() == 0: time.sleep(9)\n        made += 1\n"
        "except OSError as e: print(made, e.errno)"
    )
    assert sandbox.run(python(code, processes=24)).stdout == b"23 11\n"


@needs_groups
def test_the_group_alone_holds_a_fork_bomb():
    """Without any limit of another kind: a group of 8 processes, joined by a process of root's."""
    with HERE.opened(), HERE.box(memory_bytes=64 * MIB, processes=8) as header:
        group = Group(**header)
        source, sink = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(source)
            _bomb(group, sink)
        os.close(sink)
        made = os.read(source, 10)
        os.read(source, 1)  # closed by the last of them
        os.waitpid(child, 0)
        assert made == b"7"
        assert 0 < group.cpu_s() < 1 and not group.was_full() and 0 < group.peak_bytes() < 64 * MIB
    assert not any((folder / header["name"]).exists() for folder in HERE.places.distinct)


def _bomb(group: Group, sink: int) -> None:
    made = 0
    try:
        group.join()
        while made < 50:
            if os.fork() == 0:
                time.sleep(0.3)
                os._exit(0)
            made += 1
    except OSError:
        os.write(sink, str(made).encode())
    finally:
        os._exit(0)


# Nothing is left


@needs_groups
def test_runs_leave_no_group(sandbox, no_group_left):
    for _ in range(5):
        sandbox.run(python("import os, time\nif os.fork() == 0: time.sleep(9)"))
        assert ours(os.getpid()) == []


@needs_groups
def test_a_killed_supervisor_leaves_no_group(no_group_left):
    seen: list[Path] = []

    def kill(pid: int) -> None:
        while not _joined(os.getpid()):
            time.sleep(0.01)
        seen.extend(ours(os.getpid()))
        os.kill(pid, signal.SIGKILL)

    with LocalSandbox() as box:
        assert box.isolation and box._supervisor is not None
        killer = threading.Thread(target=kill, args=(box._supervisor.pid,), daemon=True)
        killer.start()
        with pytest.raises(InfraFailure, match="supervisor failed"):
            box.run(Job(argv=("/bin/sleep", "20")))
        assert len(seen) == len(HERE.places.distinct) and ours(os.getpid()) == []
        assert box.run(Job(argv=("/bin/echo", "again"))).stdout == b"again\n"


@needs_groups
def test_groups_of_a_killed_owner_are_swept():
    code = (
        "from rewards.sandbox.local import LocalSandbox\nfrom rewards.sandbox.base import Job\n"
        "LocalSandbox().run(Job(argv=('/bin/sleep', '30')))"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT)
    deadline = time.monotonic() + 15
    while not _joined(owner.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(ours(owner.pid)) == len(HERE.places.distinct)
    HERE.sweep()
    assert len(ours(owner.pid)) == len(HERE.places.distinct), "it lives"
    owner.kill()
    owner.wait()
    while ours(owner.pid) and time.monotonic() < deadline:
        HERE.sweep()
        time.sleep(0.02)
    assert ours(owner.pid) == []


def _joined(pid: int) -> bool:
    try:
        return any((path / HERE._files.join).read_text() for path in ours(pid))
    except OSError:
        return False


def test_the_sweep_takes_only_what_is_named_after_the_gone(tmp_path):
    groups = Cgroups(Places(2, dict.fromkeys(CONTROLLERS, tmp_path)))
    here = f"assay-{namespace()}"
    gone = {f"{here}-1-0-0", f"{here}-999999999-5-0"}  # process 1 did not start at 0
    stay = {f"{groups._owner}-7", "assay-7-1-0-0", "assay-7-999999999-5-0", "assay-x", "assay-a-b-c-d", "user.slice"}
    for name in (*gone, *stay, f"{here}-x-0-0"):
        (tmp_path / name).mkdir()
    assert groups.sweep() == 2
    assert {p.name for p in tmp_path.iterdir()} == {*stay, f"{here}-x-0-0"}


@needs_groups
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="root alone may leave its PID namespace")
@pytest.mark.parametrize("proc", [["--mount-proc"], []], ids=["its own proc", "the proc of this one"])
def test_what_another_pid_namespace_sweeps_is_not_ours(proc):
    """A group just made is empty, so the kernel would let anybody remove it; its owner's number is not seen there."""
    code = "import os\nfrom rewards.sandbox.cgroups import Cgroups\nprint(os.getpid(), Cgroups.here().sweep())"
    with HERE.box(memory_bytes=1 << 30, processes=64) as header:
        there = ["unshare", "--pid", "--fork", *proc, sys.executable, "-c", code]
        said = subprocess.run(there, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
        assert said.stdout == "1 0\n", said.stderr
        assert all((folder / header["name"]).is_dir() for folder in HERE.places.distinct)
    assert ours(os.getpid()) == []


# Where there are none


NO_GROUPS = (
    "import sys\nsys.path.insert(0, '.')\nfrom rewards.sandbox import kernel\n"
    "{before}"
    "from rewards.sandbox.local import LocalSandbox\nfrom rewards.sandbox.base import *\n"
    "code = b'''import os, time\\nfor _ in range(8):\\n    if os.fork() == 0: x = bytearray(25 << 20); time.sleep(5)\\n"
    "time.sleep(5)'''\n"
    "job = Job(argv=('/usr/bin/python3', '-I', '-S', 'm.py'), files=dict([('m.py', code)]),"
    " limits=Limits(memory_bytes=64 * MIB))\n"
    "with LocalSandbox() as box: print(box.run(job).killed_by, box.isolation)"
)
UNMOUNTED = (
    "kernel.unshare(kernel.CLONE_NEWNS)\nkernel.mount('', '/', flags=kernel.MS_REC | kernel.MS_PRIVATE)\n"
    "kernel.umount('/sys')\n"
)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to take a hierarchy away")
@pytest.mark.parametrize("who", ["root without hierarchies", "an ordinary user"])
def test_without_groups_the_other_ways_remain_and_the_isolation_claims_none(who):
    """In mounts of its own, where /sys is taken off; and as somebody whose groups are root's."""
    user = {"user": 4242, "group": 4242, "extra_groups": []} if who == "an ordinary user" else {}
    out = subprocess.run(
        ["/usr/bin/python3", "-B", "-c", NO_GROUPS.format(before="" if user else UNMOUNTED)],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=60, **user,
    )  # fmt: skip
    killed_by, isolation = out.stdout.split() or [out.stderr, ""]
    assert killed_by == "memory" and isolation.startswith("local:user,mnt,pid") and "cgroup" not in isolation


# Where they would be made

V1 = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 - tmpfs tmpfs rw,mode=755
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 {root} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
OWN = "8:pids:/\n4:memory:/docker/ab\n2:cpu,cpuacct:/jobs\n1:name=systemd:/\n0::/\n"


@pytest.mark.parametrize(
    ("root", "memory"),
    [("/", "/sys/fs/cgroup/memory/docker/ab"), ("/docker/ab", "/sys/fs/cgroup/memory"), ("/docker/other", None)],
)
def test_version_1_is_below_our_own_groups(root, memory):
    found = find(V1.format(root=root), OWN)
    if memory is None:
        assert found is None
    else:
        wanted = {"memory": memory, "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/jobs", "pids": "/sys/fs/cgroup/pids"}
        assert found == Places(1, {name: Path(path) for name, path in wanted.items()})


@pytest.mark.parametrize("without", ["memory", "pids", "cpuacct"])
def test_version_1_needs_all_three(without):
    lines = [line for line in V1.format(root="/").splitlines() if without not in line]
    assert find("\n".join(lines), OWN) is None


def test_a_group_outside_of_our_namespace_is_nowhere():
    assert find(V1.format(root="/"), OWN.replace("/docker/ab", "/../../ab")) is None
    assert find("", OWN) is None


@pytest.fixture
def slices(tmp_path) -> Path:
    """user.slice/app.slice/term.scope, of which app.slice passes memory and pids on, and its parent pids alone."""
    for folder, passed_on in (
        ("", "cpu memory pids"),
        ("user", "pids"),
        ("user/app", "memory pids"),
        ("user/app/x", ""),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "cgroup.subtree_control").write_text(passed_on)
        (tmp_path / folder / "cgroup.procs").write_text("")
    return tmp_path


def v2(point: Path) -> str:
    return f"30 23 0:27 / {point} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"


@pytest.mark.parametrize(
    ("own", "place"), [("/user/app/x", "user/app"), ("/user/app", "user/app"), ("/user", ""), ("/", "")]
)
def test_version_2_is_in_the_nearest_group_that_passes_the_controllers_on(slices, own, place):
    found = find(v2(slices), f"0::{own}\n")
    assert found == Places(2, dict.fromkeys(CONTROLLERS, slices / place))
    assert found.distinct == [slices / place]


def test_version_2_without_controllers_is_nowhere(slices):
    for path in slices.rglob("cgroup.subtree_control"):
        path.write_text("hugetlb")
    (slices / "cgroup.subtree_control").write_text("")
    assert find(v2(slices), "0::/user/app/x\n") is None


def test_what_version_2_is_told_and_what_it_says(tmp_path):
    """A folder with the kernel's files in it, as it makes them."""
    groups = Cgroups(Places(2, dict.fromkeys(CONTROLLERS, tmp_path)))
    box, files = tmp_path / "box", FILES[2]
    box.mkdir()
    for name in (files.join, files.memory, files.swap, files.processes):
        (box / name).write_text("")
    (box / files.cpu).write_text("usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n")
    (box / files.full).write_text("low 0\nhigh 0\nmax 12\noom 0\noom_kill 0\n")
    groups._limit("box", 64 * MIB, 24)
    written = {name: (box / name).read_text() for name in (files.memory, files.swap, files.processes)}
    assert written == {"memory.max": "67108864", "memory.swap.max": "0", "pids.max": "24"}
    with groups.opened() as fds:
        assert len(fds) == 1
        group = Group(2, "box", groups._fds)
    assert (group.cpu_s(), group.was_full(), group.peak_bytes()) == (2.5, False, 0)  # memory.peak came with Linux 5.19
    assert group.exceeded({"cpu_s": 3}) is None and group.exceeded({"cpu_s": 2}) == "cpu"
    (box / files.full).write_text("oom 1\noom_kill 1\noom_group_kill 0\n")
    assert group.exceeded({"cpu_s": 3}) == "memory"
    group.join()
    assert (box / "cgroup.procs").read_text() == "0"
    (box / files.peak).write_text("123456\n")
    with groups.opened():
        assert Group(2, "box", groups._fds).peak_bytes() == 123456
