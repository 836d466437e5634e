"""Files of the tool-chains are the same in all boxes; what the kernel keeps by inode is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewards.sandbox.base import PYTHON_FLAGS, Job
from rewards.sandbox.local import LocalSandbox

pytestmark = pytest.mark.sandbox
CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def others(sandbox) -> Iterator[LocalSandbox]:
    """A second sandbox of this machine."""
    with LocalSandbox() as second:
        yield second


def said(sandbox: LocalSandbox, code: str) -> str:
    argv = (sandbox.python, *PYTHON_FLAGS, "main.py")
    run = sandbox.run(Job(argv=argv, files={"main.py": code.encode()}, warm=True))
    assert run.ok, run.stderr.decode()
    return run.stdout.decode().strip()


def feature_or_skip(sandbox: LocalSandbox, name: str) -> None:
    if name not in sandbox.isolation.features:
        pytest.skip(f"no {name} here, and the isolation does not say so")


def test_a_file_has_its_content_and_an_inode_of_the_sandbox_s_own(sandbox, others):
    feature_or_skip(sandbox, "overlay")
    code = "import os\nprint(os.stat('/usr/bin/env').st_dev, os.stat(os.__file__).st_dev)\n"
    code += "print(len(open('/usr/bin/env', 'rb').read()), oct(os.stat('/usr/bin/env').st_mode))"
    (here, content), (there, same) = said(sandbox, code).splitlines(), said(others, code).splitlines()
    assert content == same == f"{Path('/usr/bin/env').stat().st_size} {oct(Path('/usr/bin/env').stat().st_mode)}"
    assert not set(here.split()) & set(there.split())
    assert str(Path("/usr/bin/env").stat().st_dev) not in here.split()


def test_nothing_of_the_tool_chains_may_be_written(sandbox):
    code = """
import os
for path in ("/usr", "/usr/bin", os.path.dirname(os.__file__), "/etc"):
    try:
        open(path + "/mine", "w")
    except OSError as error:
        print(error.errno in (13, 30))
for path in ("/usr/bin/env", "/etc/ld.so.cache"):
    try:
        open(path, "r+")
    except OSError as error:
        print(error.errno in (13, 30))
"""
    assert said(sandbox, code).split() == ["True"] * 6


@pytest.mark.parametrize("name", ["null", "zero", "full", "random", "urandom"])
def test_a_lock_on_a_device_is_this_sandbox_s_alone(sandbox, others, name):
    """Held here on this machine's device, which a sandbox that was not started by root has to share."""
    import fcntl

    feature_or_skip(sandbox, "devices")
    lock = f"import fcntl\nfcntl.flock(open('/dev/{name}', 'rb'), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
    lock += f"print(len(open('/dev/{name}', 'rb').read(4)), open('/dev/null', 'wb').write(b'123'))"
    with open(f"/dev/{name}", "rb") as held:  # noqa: PTH123 - no path of a file
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert said(sandbox, lock) == said(others, lock) == ("0 3" if name == "null" else "4 3")


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="root alone may mount over /usr")
def test_what_is_mounted_below_a_tool_chain_is_there_too(sandbox):
    """In a mount namespace with another file system at /usr/local and a third below it, as containers have."""
    feature_or_skip(sandbox, "overlay")
    code = """
import subprocess
from pathlib import Path
from rewards.sandbox.base import PYTHON_FLAGS, Job
from rewards.sandbox.local import LocalSandbox
for place in ("/usr/local", "/usr/local/a b"):
    Path(place).mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    Path(place, "mine").write_text(place)
with LocalSandbox() as box:
    look = "print(*(open(f'/usr/{name}').read() for name in ('local/mine', 'local/a b/mine')))"
    look += "; print(len(open('/usr/bin/env', 'rb').read()))"
    print(box.run(Job(argv=(box.python, *PYTHON_FLAGS, "a.py"), files={"a.py": look.encode()})).stdout.decode())
"""
    python = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    run = subprocess.run(["unshare", "-m", *python], capture_output=True, text=True, env=environment, check=False)
    if "unshare:" in run.stderr or "mount:" in run.stderr:
        pytest.skip(f"no mounts here: {run.stderr[-200:]}")
    assert run.stdout.split() == ["/usr/local", "/usr/local/a", "b", str(Path("/usr/bin/env").stat().st_size)], (
        run.stderr
    )


@pytest.mark.parametrize("name", ["null", "zero", "full", "random", "urandom"])
def test_the_times_of_a_device_tell_one_box_nothing_of_another(sandbox, name):
    code = f"import os\ntry: os.utime('/dev/{name}', (1, 1)); print('set')\nexcept OSError as e: print(e.strerror)\n"
    code += "open('/dev/null', 'wb').write(b'x'); print(len(open('/dev/zero', 'rb').read(3)))"
    refused, length = said(sandbox, code).splitlines()
    assert refused in ("Read-only file system", "Operation not permitted", "Permission denied") and length == "3"
