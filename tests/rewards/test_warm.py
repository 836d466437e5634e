"""A script run in a fork of the waiting interpreter ends as one that an interpreter was started for."""

from __future__ import annotations

import pytest

from rewards.sandbox.base import PYTHON_FLAGS, Job, Limits, RunResult
from rewards.sandbox.local import LocalSandbox

pytestmark = pytest.mark.sandbox
LIMITS = Limits(cpu_s=4, wall_s=15)

SCRIPTS = {
    "prints": "print('a', 1, 'é', '\\udc80')",
    "leaves with a number": "import sys\nprint(1)\nsys.exit(3)",
    "leaves with a text": "raise SystemExit('why')",
    "leaves with None": "raise SystemExit",
    "leaves with a big number": "import sys\nsys.exit(513)",
    "raises": "def f():\n    raise ValueError('no')\nf()",
    "raises a chain": "try:\n    1/0\nexcept ZeroDivisionError as e:\n    raise KeyError('k') from e",
    "is no Python": "def f(:\n    pass",
    "leaves at once": "import os\nprint('lost')\nos._exit(4)",
    "kills itself": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)",
    "interrupts itself": "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('late')",
    "reads lines": "import sys\nprint([line for line in sys.stdin])",
    "reads too far": "input()\ninput()\ninput()",
    "reads bytes": "import sys\nprint(sys.stdin.buffer.read(), sys.stdin.read())",
    "writes much": "print('x' * 300_000)",
    "writes bytes": "import sys\nsys.stdout.buffer.write(bytes(range(256)))",
    "writes to stderr": "import sys\nprint('e', file=sys.stderr)\nprint('o')",
    "closes stdout": "import sys\nprint(1)\nsys.stdout.close()",
    "uses stdout up": "import sys\nwith sys.stdout as out: out.write('x')",
    "closes stderr": "import sys\nprint(1)\nsys.stderr.close()",
    "has no stdout": "import sys\nprint(1)\nsys.stdout = None",
    "writes to the first stdout": (
        "import io, sys\nsys.stdout = io.StringIO()\nprint(1)\nsys.__stdout__.write(sys.stdout.getvalue())"
    ),
    "registers an exit function": "import atexit\natexit.register(print, 'bye')\nprint('hi')",
    "finishes its threads": (
        "import threading, time\ndef late():\n    time.sleep(0.1)\n    print('late')\n"
        "threading.Thread(target=late).start()\nprint('soon')"
    ),
    "finalises its objects": "class A:\n    def __del__(self): print('gone')\na = A()\nprint('made')",
    "knows where it is": (
        "import os, sys\nprint(__name__, sys.argv, sys.path, sorted(os.environ.items()), os.getcwd(), os.getpid(),"
        " os.getuid(), sorted(sys.flags), sys.stdout.encoding, sys.stdout.errors, __builtins__.__name__)"
    ),
    "knows its interpreter": "import sys\nprint(sys.executable, sys.prefix, sys.flags, hash('as in every run'))",
    "starts another": "import subprocess, sys\nprint(subprocess.check_output([sys.executable, '-c', 'print(6 * 7)']))",
    "finds none of ours": (
        "import sys\nprint([n for n in sys.modules if n.startswith('rewards')])\n"
        "try:\n    import rewards\nexcept ImportError as e:\n    print(e)"
    ),
    "has only what it imports": "print('math' in globals(), 'json' in globals())\nmath",
    "defines a class to pickle": (
        "import pickle, __main__\nclass A:\n    pass\n"
        "print(type(pickle.loads(pickle.dumps(A()))) is A, __main__.A is A)"
    ),
    "recurses": "def f(n): return f(n + 1)\ntry:\n    f(0)\nexcept RecursionError as e:\n    print('deep')",
    "forks": "import os\nif os.fork() == 0:\n    print('child'); os._exit(0)\nos.wait()\nprint('parent')",
    "starts a pool": (
        "import multiprocessing as m\ndef f(x): return x * x\n"
        "if __name__ == '__main__':\n    with m.get_context('fork').Pool(2) as p: print(p.map(f, range(4)))"
    ),
    "reads its own descriptors": "import os\nprint(sorted(os.listdir('/proc/self/fd')), os.listdir('/proc'))",
    "closes its output": "import os\nprint('x')\nos.close(1)",
}


@pytest.fixture(scope="module")
def box():
    with LocalSandbox() as sandbox:
        yield sandbox


def run(box: LocalSandbox, script: str, *, warm: bool, stdin: bytes = b"one\ntwo\n") -> RunResult:
    argv = (box.python, *PYTHON_FLAGS, "main.py")
    return box.run(Job(argv=argv, files={"main.py": script.encode()}, stdin=stdin, limits=LIMITS, warm=warm))


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_ends_the_same_way(box: LocalSandbox, name: str):
    cold, warm = (run(box, SCRIPTS[name], warm=how) for how in (False, True))
    assert (warm.exit_code, warm.signal, warm.killed_by) == (cold.exit_code, cold.signal, cold.killed_by), warm.stderr
    assert warm.stdout == cold.stdout
    if name != "closes its output":  # where the complaint names a file object
        assert warm.stderr.decode() == cold.stderr.decode()


def test_exit_is_there_as_in_an_interpreter_that_loads_site(box: LocalSandbox):
    assert [run(box, f"{name}(3)", warm=True).exit_code for name in ("exit", "quit")] == [3, 3]


def test_random_numbers_differ_between_runs(box: LocalSandbox):
    said = {run(box, "import random\nprint(random.random())", warm=True).stdout for _ in range(5)}
    assert len(said) == 5


#: Counts places where the marker stands twice in a row; the searcher itself holds it once.
SEARCH = """
marker = bytes(reversed(b'RABIZNAZ'))
found = 0
with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb', 0) as memory:
    for line in maps:
        span, rights = line.split()[:2]
        start, end = (int(x, 16) for x in span.split('-'))
        if 'r' not in rights or end - start > 1 << 28:
            continue
        try:
            memory.seek(start)
            data = memory.read(end - start)
        except (OSError, ValueError, OverflowError):
            continue
        at = data.find(marker)
        while at >= 0:
            found += data[at + 8 : at + 16] == marker
            at = data.find(marker, at + 1)
print(found)
"""


def test_nothing_of_an_earlier_run_is_in_the_memory_of_a_later_one(box: LocalSandbox):
    secret = b"ZANZIBAR" * 4000
    for _ in range(3):
        echo = "import sys\ndata = sys.stdin.read()\nprint(data)\nraise ValueError(data[:100])"
        run(box, echo, warm=True, stdin=secret)
    run(box, f"x = {secret.decode()!r}", warm=True)
    assert run(box, SEARCH, warm=True).stdout == b"0\n"
    own = run(box, SEARCH.replace("found = 0", "found = 0\nkept = marker * 3"), warm=True)
    assert int(own.stdout) >= 2, "the search itself works"
