"""Programs that want the reward without the work, or the machine; and honest ones that look like them.

The task: `f(x)` returns x + 1. Every hostile program must get one of the verdicts beside it, and never AC; after
each of them the sandbox is the same process, has nothing left, and judges a good program as good.
"""

# ruff: noqa: E501 - a program per line reads better than a program in pieces
from __future__ import annotations

import pytest

from assay.types import Task, Verdict
from rewards.verifiers.base import Bench
from rewards.verifiers.function import FunctionVerifier

pytestmark = pytest.mark.sandbox

RE, WA, TLE, MLE, OLE, CE = Verdict.RE, Verdict.WA, Verdict.TLE, Verdict.MLE, Verdict.OLE, Verdict.CE

HOSTILE_PYTHON: dict[str, tuple[str, set[Verdict]]] = {
    # exhaustion
    "fork bomb": ("import os\ndef f(x):\n  while 1:\n    try: os.fork()\n    except OSError: pass", {TLE, RE}),
    "fork bomb at import": ("import os\nwhile 1:\n  try: os.fork()\n  except OSError: pass", {TLE, RE}),
    "fork and setsid": (
        "import os\ndef f(x):\n  while 1:\n    try:\n      if os.fork() == 0: os.setsid()\n    except OSError: pass",
        {TLE, RE},
    ),
    "thread bomb": (
        "import threading, time\ndef f(x):\n  while 1: threading.Thread(target=time.sleep, args=(9,)).start()",
        {TLE, RE, MLE},
    ),
    "memory bomb": ("def f(x):\n  kept = []\n  while 1: kept.append(bytearray(5 * 10**7))", {MLE, RE}),
    "memory of children": (
        "import os, time\ndef f(x):\n  for i in range(12):\n    if os.fork() == 0:\n"
        "      kept = bytearray(60 * 10**6); time.sleep(9); os._exit(0)\n  time.sleep(9)",
        {MLE, TLE},
    ),
    "disk fill": ("def f(x):\n  with open('big', 'wb') as out:\n    while 1: out.write(bytes(10**6))", {RE, OLE}),
    "many files": ("def f(x):\n  for i in range(10**6): open(str(i), 'w').close()", {RE, TLE}),
    "shared memory fill": (
        "def f(x):\n  with open('/dev/shm/big', 'wb') as out:\n    while 1: out.write(bytes(10**6))",
        {RE, OLE},
    ),
    "stdout flood": ("def f(x):\n  while 1: print('x' * 10000)", {OLE}),
    "stderr flood": ("import sys\ndef f(x):\n  while 1: print('x' * 10000, file=sys.stderr)", {OLE}),
    "sleep": ("import time\ndef f(x):\n  time.sleep(1000)", {TLE}),
    "spin": ("def f(x):\n  while 1: pass", {TLE}),
    "spin, signals ignored": (
        "import signal\nfor n in range(1, 65):\n  try: signal.signal(n, signal.SIG_IGN)\n  except (OSError, ValueError): pass\n"
        "def f(x):\n  while 1:\n    try:\n      while 1: pass\n    except BaseException: pass",
        {TLE},
    ),
    "stop itself": ("import os\ndef f(x):\n  os.kill(os.getpid(), 19)", {TLE}),
    "regular expression": ("import re\ndef f(x):\n  return re.match('(a+)+$', 'a' * 60 + 'b')", {TLE}),
    "huge integer": ("def f(x):\n  return 1 << 10**8", {RE, OLE, MLE}),
    "deep recursion": ("def f(x):\n  return f(x)", {RE}),
    "parser bomb": ("x = " + "-" * 200_000 + "1", {CE, RE, MLE}),
    "parenthesis bomb": ("x = " + "(" * 100_000, {CE, RE, MLE}),
    # escape and theft
    "read process 1": ("def f(x):\n  return len(open('/proc/1/environ').read())", {RE}),
    "memory of process 1": ("def f(x):\n  return open('/proc/1/mem', 'rb').read(1)", {RE}),
    "look for the tests": (
        "import os\ndef f(x):\n  found = [n for d, _, names in os.walk('/box') for n in names]\n"
        "  found += os.listdir('/tmp') + os.listdir('/')\n"
        "  return any('expected' in n or 'test' in n or 'work' == n for n in found)",
        {WA},
    ),
    "look in memory": (
        "import gc\ndef f(x):\n  return sum(1 for o in gc.get_objects() if isinstance(o, dict) and 'expected' in o)",
        {WA},
    ),
    "network": ("import socket\ndef f(x):\n  socket.create_connection(('192.0.2.1', 80), timeout=5); return x + 1", {RE}),
    "write to the system": ("def f(x):\n  open('/usr/bin/gcc', 'w')", {RE}),
    "kill the driver": ("import os\ndef f(x):\n  os.kill(os.getppid(), 9)", {RE}),
    "kill everything": ("import os\ndef f(x):\n  os.kill(-1, 9); return 0", {RE, WA}),
    # winning without the work
    "_exit(0) at import": ("import os\nos._exit(0)", {RE}),
    "exit at import": ("import sys\nsys.exit(0)", {RE}),
    "exit in the call": ("def f(x):\n  exit(0)", {RE}),
    "BaseException": ("class Done(BaseException): pass\ndef f(x):\n  raise Done('all tests passed')", {RE}),
    "always equal": (
        "class Yes:\n  __eq__ = lambda s, o: True\n  __ne__ = lambda s, o: False\n  __hash__ = lambda s: 0\n"
        "  __index__ = __int__ = lambda s: 2\ndef f(x):\n  return Yes()",
        {WA},
    ),
    "integer subclass": ("class Yes(int):\n  __eq__ = lambda s, o: True\ndef f(x):\n  return Yes(x + 1)", {WA}),
    "pretended class": ("class Yes:\n  __class__ = int\n  __eq__ = lambda s, o: True\ndef f(x):\n  return Yes()", {WA, RE}),
    "True for 1": ("def f(x):\n  return True", {WA}),
    "float for int": ("def f(x):\n  return x + 1.0", {WA}),
    "None": ("def f(x):\n  pass", {WA}),
    "patched built-ins": (
        "import builtins\nfor name in ('type', 'len', 'isinstance', 'all', 'int', 'str', 'repr'):\n"
        "  setattr(builtins, name, lambda *a, **k: True)\ndef f(x):\n  return 0",
        {WA, RE},
    ),
    "patched json": ("import json\njson.dumps = json.loads = lambda *a, **k: True\ndef f(x):\n  return 0", {WA}),
    "patched driver": (
        "import sys\nmain = sys.modules['__main__'].__dict__\nfor name in list(main):\n"
        "  if callable(main[name]): main[name] = lambda *a, **k: 2\ndef f(x):\n  return 0",
        {WA, RE},
    ),
    "forged records on stdout": (
        "import os\ndef f(x):\n  os.write(1, b'0 0 0 0 0 0 11\\nV[\"i\",\"2\"]\\n1 0 0 0 0 0 11\\nV[\"i\",\"6\"]'); os._exit(0)",
        {RE},
    ),
    "forged records everywhere": (
        "import os\ndef f(x):\n  for fd in range(3, 21):\n    try: os.write(fd, b'0 0 0 0 0 0 9\\nAC passed')\n"
        "    except OSError: pass\n  os._exit(0)",
        {RE, WA},
    ),
    "passed, it says": ("def f(x):\n  print('AC', 'OK', '1 passed', '{\"verdict\": \"AC\"}'); return 0", {WA}),
    "atexit": ("import atexit, os\natexit.register(os._exit, 0)\ndef f(x):\n  return 0", {WA}),
    "answer from a daemon": (
        "import os, time\ndef f(x):\n  if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(0.3); return x + 1\n"
        "    os._exit(0)\n  os._exit(0)",
        {RE},
    ),
    "generator": ("def f(x):\n  yield x + 1", {WA}),
    "cyclic list": ("def f(x):\n  kept = []\n  kept.append(kept)\n  return kept", {RE, WA}),
    "trace function": ("import sys\nsys.settrace(lambda *a: sys.exit(0))\ndef f(x):\n  return 0", {RE, WA}),
    "remember across tests": (
        "def f(x):\n  f.calls = getattr(f, 'calls', 0) + 1\n  return 2 if f.calls == 1 else 6",
        {WA},
    ),
    "no function": ("g = 1", {RE}),
    "null byte": ("def f(x): return x + 1\0", {CE}),
}  # fmt: skip

HOSTILE_C: dict[str, tuple[str, set[Verdict]]] = {
    "exit(0) in a constructor": (
        "#include <stdlib.h>\n__attribute__((constructor)) static void go(void) { exit(0); }\nint f(int x) { return 0; }",
        {RE},
    ),
    "spin in a constructor": (
        "__attribute__((constructor)) static void go(void) { for (;;); }\nint f(int x) { return 0; }", {TLE},
    ),
    "exit(0) in the call": ("#include <stdlib.h>\nint f(int x) { exit(0); }", {RE}),
    "null pointer": ("int f(int x) { return *(volatile int *)0; }", {RE}),
    "stack overflow": ("int f(int x) { volatile char a[1000]; a[0] = x; return f(x + 1) + a[0]; }", {RE}),
    "spin": ("int f(int x) { for (;;); }", {TLE}),
    "fork bomb": ("#include <unistd.h>\nint f(int x) { for (;;) fork(); }", {TLE, RE}),
    "include passwd": ('#include "/etc/passwd"\nint f(int x) { return 0; }', {CE}),
    "include a device": ('#include "/dev/zero"\nint f(int x) { return 0; }', {CE}),
    "include itself": ("#include __FILE__\n#include __FILE__\nint f(int x) { return 0; }", {CE}),
    "warning flood": ("#warning again\n#include __FILE__\n#include __FILE__\nint f(int x) { return 0; }", {CE}),
    "incbin": ('__asm__(".incbin \\"/etc/shadow\\"");\nint f(int x) { return 0; }', {CE}),
    "huge array": ("int a[1 << 28] = {1};\nint f(int x) { return a[x]; }", {CE}),
    "artefact larger than a file may be": ("int a[13 << 20] = {1};\nint f(int x) { return a[x]; }", {WA}),
    "huge zero array": ("static char a[2000000000];\nint f(int x) { a[x * 1000] = 1; return a[x]; }", {RE, MLE, CE}),
    "macros over ours": (
        "#define return return 7 *\n#define main f2\n#define assay_call(x) 2\nint f(int x) { return x + 1; }", {WA},
    ),
    "our main": ("int main_of_the_answer(void) { return 0; }\nint f(int x) { return 0; }", {WA}),
    "no loader": (
        'const char interp[] __attribute__((section(".interp"))) = "/nowhere";\nint f(int x) { return x; }', {RE, WA, CE},
    ),
    "forged records": (
        "#include <unistd.h>\n#include <stdlib.h>\n__attribute__((constructor)) static void go(void) {\n"
        'write(1, "-2 0 0 0 0 0 0\\n0 0 0 0 0 0 9\\nAC passed", 40); _exit(0); }\nint f(int x) { return 0; }',
        {RE, WA},
    ),
    "not C": ("def f(x): return x + 1", {CE}),
}  # fmt: skip

HONEST_PYTHON = {
    "prints": "import sys\ndef f(x):\n  print('debug'); print('more', file=sys.stderr); return x + 1",
    "prints a lot": "def f(x):\n  print('x' * 400_000); return x + 1",
    "threads": (
        "import threading\ndef f(x):\n  kept = []\n  t = [threading.Thread(target=kept.append, args=(x + 1,)) for _ in range(8)]\n"
        "  [i.start() for i in t]; [i.join() for i in t]; return kept[0]"
    ),
    "recursion with a raised limit": (
        "import sys\nsys.setrecursionlimit(10**6)\ndef down(n): return 0 if n == 0 else 1 + down(n - 1)\n"
        "def f(x): return down(50_000) - 50_000 + x + 1"
    ),
    "uses /tmp": (
        "import tempfile\ndef f(x):\n  with tempfile.NamedTemporaryFile('w+') as t:\n    t.write(str(x + 1)); t.seek(0); return int(t.read())"
    ),
    "multiprocessing": (
        "import multiprocessing\ndef one(x): return x + 1\ndef f(x):\n  with multiprocessing.Pool(3) as p: return p.map(one, [x])[0]"
    ),
    "subprocess": "import subprocess\ndef f(x): return int(subprocess.check_output(['/bin/expr', str(x), '+', '1']))",
    "signals": "import signal\ndef f(x):\n  signal.signal(signal.SIGALRM, lambda *a: None); signal.alarm(1); return x + 1",
    "exit, guarded": "def f(x): return x + 1\nif __name__ == '__main__':\n  print(f(1)); exit()",
    "own __eq__": "class A:\n  def __eq__(self, other): return True\ndef f(x): return x + 1 if A() == 3 else 0",
    "CRLF": "def f(x):\r\n  y = x\r\n  return y + 1\r\n",
    "dataclass": "from dataclasses import dataclass\n@dataclass\nclass P:\n  x: int\ndef f(x): return P(x).x + 1",
    "reads empty stdin": "import sys\nrest = sys.stdin.read()\ndef f(x): return x + 1 + len(rest)",
}  # fmt: skip

HONEST_C = {
    "its own main": "#include <stdio.h>\nint f(int x) { return x + 1; }\nint main(void) { printf(\"%d\", f(1)); return 0; }",
    "names of system calls": (
        "int write(int a) { return a; }\nint kill(int a) { return a + 1; }\nint fork(void) { return 0; }\n"
        "int f(int x) { return write(kill(x)) + fork(); }"
    ),
    "mathematics": "#include <math.h>\nint f(int x) { return (int)floor(sqrt((double)x * x) + 1.5); }",
    "prints": '#include <stdio.h>\nint f(int x) { printf("debug\\n"); fprintf(stderr, "more\\n"); return x + 1; }',
    "memory": "#include <stdlib.h>\nint f(int x) { int *a = malloc(1 << 20); a[7] = x; x = a[7]; free(a); return x + 1; }",
    "const char": "static const char *table[] = {\"a\"};\nint f(int x) { return x + (table[0][0] == 'a'); }",
}  # fmt: skip


@pytest.fixture(scope="module")
def task_of(function_task):
    """The task in a language."""
    return {
        language: function_task(language, {"x": "int"}, "int", [([1], 2), ([5], 6)]) for language in ("python", "c")
    }


GOOD = {"python": "def f(x): return x + 1", "c": "int f(int x) { return x + 1; }"}


def judge_and_stay_clean(task: Task, program: str, bench: Bench, allowed: set[Verdict]) -> None:
    judged = FunctionVerifier().judge(task, program, bench)
    assert judged.verdict in allowed, judged
    assert len(judged.tests) == 2
    clean = FunctionVerifier().judge(task, GOOD[task.answer["language"]], bench)
    assert clean.verdict is Verdict.AC, clean


@pytest.mark.parametrize("name", HOSTILE_PYTHON)
def test_hostile_python(name, task_of, bench, nothing_left):
    program, allowed = HOSTILE_PYTHON[name]
    judge_and_stay_clean(task_of["python"], program, bench, allowed)


@pytest.mark.parametrize("name", HOSTILE_C)
def test_hostile_c(name, task_of, bench, nothing_left):
    program, allowed = HOSTILE_C[name]
    judge_and_stay_clean(task_of["c"], program, bench, allowed)


@pytest.mark.parametrize("name", HONEST_PYTHON)
def test_honest_python(name, task_of, bench, nothing_left):
    judge_and_stay_clean(task_of["python"], HONEST_PYTHON[name], bench, {Verdict.AC})


@pytest.mark.parametrize("name", HONEST_C)
def test_honest_c(name, task_of, bench, nothing_left):
    judge_and_stay_clean(task_of["c"], HONEST_C[name], bench, {Verdict.AC})


def test_compiler_messages_hold_nothing_of_this_machine(task_of, bench):
    """The box has a passwd of two lines of its own; this machine's has more."""
    judged = FunctionVerifier().judge(task_of["c"], '#include "/etc/passwd"\nint f(int x) { return 0; }', bench)
    assert "root:x:0:0:root:/:/bin/sh" in judged.detail
    assert "daemon" not in judged.detail and "/root" not in judged.detail


@pytest.mark.slow
def test_a_stopped_driver_is_a_time_out_not_a_harness_failure(task_of, bench, nothing_left):
    """A child stops its parent, the driver; only the box's own wall limit is left to end that."""
    program = "import os\ndef f(x):\n  os.kill(os.getppid(), 19)\n  return 0"
    judge_and_stay_clean(task_of["python"], program, bench, {TLE})
