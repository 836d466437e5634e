"""Runs hostile cases against a sandbox and says what did not hold.

    cases/*.toml --cases.load--> Run --Laboratory.check--> Outcome (verdict, reward, time, problems)

Beside the verdict, every run is held to the same: no reward that was not earned; no box over its wall limit by more
than a second; the supervisor lives; nothing is left on this machine; the very next job finds its box as it was before
and is judged right and soon; nothing secret came out of a box, no expected value went into one.

`python -m tests.hostile.suite [TIER...] [CASE...]` prints how many runs each tier held, and what was not run and why.
"""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from assay.errors import AssayError, DataError, EnvironmentProblem, InfraFailure, boundary
from assay.types import Message, RewardResult, Task, Verdict
from rewards import languages
from rewards.config import RewardsConfig, SandboxConfig
from rewards.sandbox.base import MIB, PYTHON_FLAGS, Isolation, Job, KilledBy, Limits, RunResult, Sandbox
from rewards.sandbox.local import LocalSandbox
from rewards.scorer import Scorer
from rewards.verifiers import VERIFIERS
from tests.hostile.cases import Case, Run, filled, load

TIERS = ("local", "weak", "docker")
GRACE_S = 1.0  #: a box may outlive its wall limit by this much
NEXT_S = 3.0  #: the next jobs take milliseconds; this is for a machine that is busy with something else
LIMITS = Limits(cpu_s=0.5, wall_s=1.2, memory_bytes=384 * MIB, output_bytes=2 * MIB, processes=24, file_bytes=8 * MIB)
ANSWERS: dict[str, dict[str, Any]] = {
    "function": {
        "entry_point": "f",
        "parameters": [{"name": "x", "type": "int"}],
        "returns": "int",
        "tests": [{"args": [1], "expected": 2}, {"args": [5], "expected": 6}],
    },
    "asserts": {"tests": ["assert f(1) == 2", "assert f(5) == 6"]},
    "unit_tests": {"tests": ["assert f(1) == 2\nassert f(5) == 6\n"]},
    "stdio": {"tests": [{"input": "1\n", "output": "2\n"}, {"input": "5\n", "output": "6\n"}]},
}
_KILLED = {KilledBy.CPU: "TLE", KilledBy.WALL: "TLE", KilledBy.MEMORY: "MLE", KilledBy.OUTPUT: "OLE"}
#: what would make a compiler, an interpreter or a loader obey somebody else; boxes must not inherit it
_POISON = {"GCC_EXEC_PREFIX": "/nowhere/", "COMPILER_PATH": "/nowhere", "CPATH": "/nowhere", "PYTHONOPTIMIZE": "2"}
_HEARD_BYTES = 200_000

#: What a program of ours sees in its box: the same before and after every hostile run.
_INSPECTION = """
import os, resource, signal
me, alone = os.getuid(), os.getpid() == 2
def mine(folder):
    found = []
    for name in os.listdir(folder) if alone or folder == "." or me >= 61184 else ():
        try:
            path = os.path.join(folder, name)
            if os.lstat(path).st_uid != me or path == os.environ["HOME"]:
                continue
            if folder != "/proc" or name.isdigit() and open(path + "/stat").read().rpartition(")")[2].split()[0] != "Z":
                found.append(name)
        except OSError:
            pass
    return sorted(found)
print([mine(folder) for folder in (".", "/tmp", "/dev/shm")], sorted(os.environ), os.getcwd() == os.environ["HOME"])
print(len(mine("/proc")))
for kind in ("shm", "sem", "msg"):
    lines = [line.split() for line in open("/proc/sysvipc/" + kind)]
    print(kind, sum(1 for line in lines[1:] if line[lines[0].index("uid")] == str(me)))
print([resource.getrlimit(n) for n in range(16)], os.umask(0), os.getuid(), os.getgid(), os.getgroups())
print([n for n in range(1, 32) if signal.getsignal(n) == signal.SIG_IGN], signal.pthread_sigmask(0, []), os.nice(0))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one run on one tier. `problems` is empty exactly when everything held."""

    run: str
    tier: str
    isolation: str
    verdict: str
    reward: float | None
    seconds: float
    detail: str = ""
    problems: tuple[str, ...] = ()
    next_is_clean: bool = True

    def __str__(self) -> str:
        what = "; ".join(self.problems) or "held"
        return f"{self.tier} {self.run}: {self.verdict} in {self.seconds:.2f} s: {what} [{self.detail[:300]!r}]"


class NotRun(Exception):
    """A run that this machine or this tier cannot do; the message says why."""


@dataclass
class Watched:
    """A sandbox that keeps what went in and out. It may give compilers less time than their row does."""

    inner: Sandbox
    cpu_s: float = float("inf")
    seen: list[tuple[Job, RunResult | None, float]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:  # python, has and what else a sandbox may tell of itself
        return getattr(self.inner, name)

    @property
    def isolation(self) -> Isolation:
        return self.inner.isolation

    def run(self, job: Job) -> RunResult:
        """Run the job in the sandbox behind this one."""
        if job.limits.cpu_s > self.cpu_s:
            job = replace(job, limits=replace(job.limits, cpu_s=self.cpu_s, wall_s=4 * self.cpu_s))
        started, result = time.monotonic(), None
        try:
            result = self.inner.run(job)
        finally:
            self.seen.append((job, result, time.monotonic() - started))
        return result

    def close(self) -> None:
        self.inner.close()


class Laboratory:
    """One tier, with everything to run cases on it. Raises EnvironmentProblem where the tier cannot be had."""

    def __init__(self, tier: str) -> None:
        self.tier = tier
        self._open = ExitStack()
        self._numbers = itertools.count()
        self._second: Sandbox | None = None
        self.secret = secrets.token_hex(12)
        try:
            self._open.enter_context(_environment({**_POISON, "ASSAY_HOSTILE_SECRET": self.secret}))
            self._open.enter_context(_secret_file(self.secret))
            self._open.enter_context(_python_for(tier))
            self.sandbox = Watched(inner=self._open.enter_context(closing(open_sandbox(tier))))
            self.isolation = str(self.sandbox.isolation)
            self._look = self._inspect()
        except AssayError:
            self._open.close()
            raise
        config = SandboxConfig(
            cpu_s=LIMITS.cpu_s,
            wall_s=LIMITS.wall_s,
            memory_bytes=LIMITS.memory_bytes,
            output_bytes=LIMITS.output_bytes,
            processes=LIMITS.processes,
            file_bytes=LIMITS.file_bytes,
        )
        self.scorer = Scorer(RewardsConfig(sandbox=config), self.sandbox)

    def __enter__(self) -> Laboratory:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def require(self, run: Run) -> None:
        """Raises NotRun where this machine lacks the language, or the tier would let the run do harm."""
        if self.tier == "weak" and run.weak_not_run:
            raise NotRun(run.weak_not_run)
        if run.judge in VERIFIERS or run.judge in ("box", "names"):
            try:
                row = languages.find(run.language)
            except DataError:
                raise NotRun(f"no language {run.language!r} in rewards.languages") from None
            missing = [tool for tool in row.tools if not self.sandbox.has(tool)]
            if missing:
                raise NotRun(f"{missing[0]} is not installed")
        else:
            raise NotRun(f"no verifier {run.judge!r} in rewards.verifiers")

    def check(self, run: Run) -> Outcome:
        """Run it and everything that is held against it. Raises NotRun."""
        self.require(run)
        before = traces(self.sandbox.inner)
        self.sandbox.cpu_s, self.sandbox.seen = run.compile_cpu_s or float("inf"), []
        started = time.monotonic()
        with self._around(run) as run:
            verdict, result = self._judge(run)
        seconds, seen = time.monotonic() - started, self.sandbox.seen
        self.sandbox.cpu_s, self.sandbox.seen = float("inf"), []
        left = _differences(before, traces(self.sandbox.inner))
        if excused := self.tier == "weak" and bool(run.weak):
            clean_up(self.sandbox.inner)
        dirty = self._next_job()
        problems = [*_judged_wrong(run, verdict, result), *_overran(run, seen, seconds), *left, *dirty]
        problems += self._leaked(run, seen, result)
        if self.tier == "weak":
            clean_up(self.sandbox.inner)
        return Outcome(
            run=run.id,
            tier=self.tier,
            isolation=self.isolation,
            verdict=verdict,
            reward=result.reward,
            seconds=seconds,
            detail=result.detail,
            problems=tuple(dirty if excused else problems),
            next_is_clean=not dirty,
        )

    def _judge(self, run: Run) -> tuple[str, RewardResult]:
        nothing = RewardResult(verdict=Verdict.WA, reward=0.0)
        if run.judge == "names":
            return _names(run), nothing
        if run.judge == "box":
            return _box(run, self.sandbox), nothing
        program = filled(run.program, run.fill)
        text = filled(run.completion, run.fill) or f"``````{run.language}\n{program}\n``````\n"
        try:
            with boundary("the harness"):
                result = self.scorer.score_text(_task(run, next(self._numbers)), text)
        except DataError as error:
            return "REFUSED", replace(nothing, detail=str(error))
        except InfraFailure as failure:  # the scorer gives none away: it makes them a result
            return "CRASH", RewardResult(verdict=Verdict.INFRA, reward=None, detail=str(failure))
        return str(result.verdict), result

    @contextmanager
    def _around(self, run: Run) -> Iterator[Run]:
        """What is there while a run runs: a server to be found, a program in another box."""
        run = replace(run, program=run.program.replace("@CHECKOUT@", str(Path(__file__).resolve().parents[2])))
        with ExitStack() as stack:
            if run.listen:
                port = stack.enter_context(_server())
                run = replace(run, program=run.program.replace("@PORT@", str(port)))
            if run.beside:
                if self._second is None:
                    self._second = self._open.enter_context(closing(open_sandbox(self.tier)))
                stack.enter_context(_beside(self._second, run))
            yield run

    def _inspect(self) -> bytes:
        job = _python_job(self.sandbox, _INSPECTION, limits=Limits(cpu_s=2.0, wall_s=5.0))
        return self.sandbox.run(job).stdout

    def _next_job(self) -> list[str]:
        """What is wrong with the two jobs after a run: one that looks around, one that is right."""
        started = time.monotonic()
        good = f"```python\n{_GOOD.program}\n```"
        try:
            found, result = self._inspect(), self.scorer.score_text(_task(_GOOD, next(self._numbers)), good)
        except InfraFailure as failure:
            return [f"the next job failed: {failure}"]
        pairs = itertools.zip_longest(found.splitlines(), self._look.splitlines())
        wrong = [f"the next box has {now!r} instead of {was!r}" for now, was in pairs if now != was]
        if result.reward != 1.0:
            wrong.append(f"the next program, a good one, got {result.verdict}: {result.detail}")
        if (took := time.monotonic() - started) > NEXT_S:
            wrong.append(f"the next jobs took {took:.1f} s")
        return wrong

    def _leaked(self, run: Run, seen: Sequence[tuple[Job, RunResult | None, float]], result: RewardResult) -> list[str]:
        heard = _heard(seen, result)
        problems = []
        if self.secret in heard:
            problems.append("a secret of this machine came out")
        if run.says and not re_search(run.says, heard):
            problems.append(f"nothing said {run.says!r}, but: {heard[-500:]!r}")
        if run.never and re_search(run.never, heard):
            problems.append(f"something said {run.never!r}")
        for job, _, _ in seen if run.secret else ():
            entered = b"\n".join((job.stdin, *job.files.values(), *map(str.encode, job.argv)))
            if run.secret.encode() in entered:
                problems.append("an expected value entered a box")
        return problems


def re_search(pattern: str, text: str) -> bool:
    """Whether the pattern is somewhere in the text; a dot stands for line ends too."""
    import re

    return re.search(pattern, text, re.DOTALL) is not None


def open_sandbox(tier: str) -> Sandbox:
    """A sandbox of the tier. Raises EnvironmentProblem where there is no such tier (yet)."""
    if tier != "docker":
        return LocalSandbox("weak" if tier == "weak" else "local")
    try:
        from rewards.sandbox.docker import DockerSandbox
    except ImportError:
        raise EnvironmentProblem("there is no docker tier in this checkout") from None
    return DockerSandbox()


def tiers() -> dict[str, str]:
    """Every tier: "" where it can be had here, else what is missing."""
    found = {}
    for tier in TIERS:
        try:
            Laboratory(tier).__exit__()
            found[tier] = ""
        except AssayError as problem:
            found[tier] = str(problem)
    return found


_GOOD = Run(case="", name="", expect=("AC",), earned=True, judge="function", program="def f(x): return x + 1")


def _task(run: Run, number: int) -> Task:
    """The task of a run; its number makes it another one, since a scorer judges equal programs only once."""
    answer = {"language": run.language, **ANSWERS[run.judge], **filled(run.answer, run.fill)}
    if run.limits:
        answer["limits"] = dict(run.limits)
    message = Message(role="user", content="The number after x.")
    return Task(id=f"{run.id} {number}", messages=(message,), verifier=run.judge, answer=answer)


def _names(run: Run) -> str:
    for name in filled(list(run.file_names), run.fill):
        with suppress(ValueError):
            Job(argv=("/bin/true",), files={name: b""})
            return "OTHER"
        with suppress(ValueError):
            Job(argv=("/bin/true",), collect=(name,))
            return "OTHER"
    return "REFUSED"


def _python_job(sandbox: Any, program: str, **rest: Any) -> Job:
    python = getattr(sandbox, "python", None) or languages.interpreter()
    return Job(argv=(python, *PYTHON_FLAGS, "main.py"), files={"main.py": program.encode()}, **rest)


def _box(run: Run, sandbox: Watched) -> str:
    limits = replace(LIMITS, **run.limits)
    program = filled(run.program, run.fill)
    job = _python_job(sandbox, program, limits=limits, collect=run.collect, stdin=b"x" * run.stdin_bytes)
    result = sandbox.run(job)
    if result.killed_by is not None:
        return _KILLED[result.killed_by]
    if result.exit_code != 0:
        return "RE"
    same = run.stdout is None or result.stdout.decode("utf-8", "replace") == run.stdout
    return "SAME" if same and set(result.files) == set(run.plain) else "OTHER"


def _judged_wrong(run: Run, verdict: str, result: RewardResult) -> Iterator[str]:
    if verdict not in run.expect:
        yield f"verdict {verdict}, expected {' or '.join(run.expect)}"
    if result.reward != (1.0 if verdict == "AC" and run.earned else 0.0):
        yield f"reward {result.reward}"


def _overran(run: Run, seen: Sequence[tuple[Job, RunResult | None, float]], seconds: float) -> Iterator[str]:
    for job, _, took in seen:
        if took > job.limits.wall_s + GRACE_S:
            yield f"a box with a wall limit of {job.limits.wall_s} s took {took:.1f} s"
    if run.within_s and seconds > run.within_s:
        yield f"judging took {seconds:.1f} s, expected at most {run.within_s}"
    if run.boxes and len(seen) != run.boxes:
        yield f"judging took {len(seen)} boxes, expected {run.boxes}"
    for _, result, _ in seen:
        if result and max(len(result.stdout), len(result.stderr)) > 64 * MIB:
            yield "more output was kept than any limit allows"


def _heard(seen: Sequence[tuple[Job, RunResult | None, float]], result: RewardResult) -> str:
    """Everything a run said, to people or to the harness."""
    parts = [result.detail, *(test.detail for test in result.tests)]
    for _, one, _ in seen:
        if one is not None:
            parts += [out[:_HEARD_BYTES].decode("utf-8", "replace") for out in (one.stdout, one.stderr)]
    return "\n".join(parts)


# What is left on this machine


def programs_owner(sandbox: Sandbox) -> int | None:
    """The user id that belongs to this sandbox's programs alone; None where they run as somebody else too."""
    supervisor = getattr(sandbox, "_supervisor", None)
    if os.geteuid() != 0 or supervisor is None:
        return None
    return 61_184 + supervisor.pid % 4_000  # as rewards.sandbox.root gives it


def traces(sandbox: Sandbox) -> dict[str, Any]:
    """What a run could leave behind on this machine."""
    found: dict[str, Any] = {
        "our mounts": _mounts("self"),
        "folders": {p.name for p in Path("/tmp").glob("assay-box-*") if _owner(p) == os.geteuid()},
    }
    supervisor = getattr(sandbox, "_supervisor", None)
    if supervisor is not None:
        pid = supervisor.pid
        found |= {
            "supervisor": pid,
            "children": set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()),
            "its mounts": _mounts(str(pid)),
            "its descriptors": set(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208
        }
    if (owner := programs_owner(sandbox)) is not None:
        found |= {"processes": _processes_of(owner), "files": _files_of(owner), "SysV objects": _sysv_of(owner)}
    return found


def _differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [f"{name}: {after.get(name)} instead of {was}" for name, was in before.items() if after.get(name) != was]


def _mounts(pid: str) -> list[str]:
    """What a process sees mounted by boxes; other mounts come and go on a machine that others use too."""
    lines = Path(f"/proc/{pid}/mounts").read_text().splitlines()
    return sorted(line for line in lines if line.startswith("box ") or " /box" in line or "assay-box" in line)


def _owner(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except OSError:
        return None


def _processes_of(owner: int) -> set[int]:
    """Those that still run; the dead that wait for this machine's process 1 are its business."""
    mine = [path for path in Path("/proc").iterdir() if path.name.isdigit() and _owner(path) == owner]
    return {int(path.name) for path in mine if _runs(path)}


def _runs(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _files_of(owner: int) -> set[str]:
    places = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path("/dev/mqueue"))
    return {str(p) for place in places if place.is_dir() for p in place.iterdir() if _owner(p) == owner}


def _sysv_of(owner: int) -> set[tuple[str, str]]:
    """(kind, id) of every System V object; the id is the second column of each of these tables."""
    found = set()
    for kind in ("shm", "sem", "msg"):
        head, *rows = (line.split() for line in Path("/proc/sysvipc", kind).read_text().splitlines())
        found |= {(kind, row[1]) for row in rows if row[head.index("uid")] == str(owner)}
    return found


def clean_up(sandbox: Sandbox) -> None:
    """Remove what programs of the weak tier left, by the user id that is theirs alone."""
    owner = programs_owner(sandbox)
    if owner is None:
        return
    for pid in _processes_of(owner):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for path in _files_of(owner):
        subprocess.run(["/bin/rm", "-rf", path], check=False)
    options = {"shm": "-m", "sem": "-s", "msg": "-q"}
    objects = [word for kind, number in _sysv_of(owner) for word in (options[kind], number)]
    for at in range(0, len(objects), 2000):  # a command line has a longest length
        subprocess.run(["/usr/bin/ipcrm", *objects[at : at + 2000]], check=False)


# What is there for a run to find


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _secret_file(secret: str) -> Iterator[None]:
    """A file that everybody on this machine may read, and no box may."""
    with tempfile.NamedTemporaryFile("w", prefix="assay-expected-", suffix=".txt") as out:
        out.write(f"expected: {secret}\n")
        out.flush()
        Path(out.name).chmod(0o644)
        yield


@contextmanager
def _python_for(tier: str) -> Iterator[None]:
    """As root, the weak tier needs a Python that others can reach; the system's, if ours lies in root's home."""
    system = Path("/usr/bin/python{}.{}".format(*sys.version_info))
    others = (Path(sys.base_prefix, "bin"), *Path(sys.base_prefix, "bin").parents)
    reachable = all(path.stat().st_mode & 0o005 == 0o005 for path in others)
    if tier != "weak" or os.geteuid() != 0 or reachable or not system.exists():
        yield
        return
    before = sys.executable, sys.base_prefix
    sys.executable, sys.base_prefix = str(system), "/usr"
    try:
        yield
    finally:
        sys.executable, sys.base_prefix = before


@contextmanager
def _server() -> Iterator[int]:
    """Something of this machine to connect to: a port of the loopback, and an abstract address named after it."""
    with socket.create_server(("127.0.0.1", 0)) as by_port, socket.socket(socket.AF_UNIX) as by_name:
        port = by_port.getsockname()[1]
        by_name.bind(f"\0assay-hostile-{port}")
        by_name.listen()
        yield port


@contextmanager
def _beside(sandbox: Sandbox, run: Run) -> Iterator[None]:
    """Another box of the same tier, running for about as long as the program under test."""
    job = _python_job(sandbox, run.beside, limits=replace(LIMITS, wall_s=3.0))
    thread = threading.Thread(target=sandbox.run, args=(job,))
    thread.start()
    time.sleep(0.5)  # until it has done what it does; a signal that comes late would be missed, not invented
    try:
        yield
    finally:
        thread.join()


# The whole list on a tier


@dataclass
class Counts:
    """How a tier did."""

    held: int = 0
    failed: list[str] = field(default_factory=list)
    holes: list[str] = field(default_factory=list)
    excused: dict[str, str] = field(default_factory=dict)  #: run on the weak tier, without being held to a verdict
    not_run: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def table(
    names: Sequence[str] = TIERS, cases: dict[str, Case] | None = None, *, verbose: bool = False
) -> dict[str, Counts]:
    """Run everything on the tiers, printing what fails (or everything) at once and the counts at the end."""
    cases = load() if cases is None else cases
    counts = {}
    for tier in names:
        try:
            with Laboratory(tier) as laboratory:
                counts[tier] = _count(laboratory, cases, verbose)
        except EnvironmentProblem as problem:
            print(f"{tier}: not available: {problem}")
    for tier, count in counts.items():
        _print(tier, count)
    return counts


def _count(laboratory: Laboratory, cases: dict[str, Case], verbose: bool) -> Counts:
    count, started = Counts(), time.monotonic()
    count.not_run = {case.id: case.not_run for case in cases.values() if case.not_run}
    for run in (run for case in cases.values() for run in case.runs):
        try:
            outcome = laboratory.check(run)
        except NotRun as reason:
            count.not_run[run.id] = str(reason)
            continue
        if outcome.problems or verbose:
            print(outcome, flush=True)
        if outcome.problems:
            (count.holes if run.hole and laboratory.tier in run.hole_tiers else count.failed).append(run.id)
        elif laboratory.tier == "weak" and run.weak:
            count.excused[run.id] = run.weak
        else:
            count.held += 1
    count.seconds = time.monotonic() - started
    return count


def _print(tier: str, count: Counts) -> None:
    print(
        f"\n{tier}: {count.held} runs held, {len(count.failed)} failed, {len(count.holes)} known holes, "
        f"{len(count.excused)} excused, {len(count.not_run)} not run, in {count.seconds:.0f} s"
    )
    for title, ids in (("failed", count.failed), ("known holes", count.holes)):
        if ids:
            print(f"  {title}: {', '.join(ids)}")
    for title, reasons in (("excused", count.excused), ("not run", count.not_run)):
        for reason, group in itertools.groupby(sorted(reasons.items(), key=lambda item: item[1]), lambda item: item[1]):
            print(f"  {title}: {', '.join(sorted(name for name, _ in group))}: {reason}")


def main(arguments: Sequence[str]) -> int:
    """The table for the tiers named (all), and the runs whose ids begin with another word (all); -v shows each."""
    wanted = tuple(word for word in arguments if word not in TIERS and word != "-v")
    cases = {
        case.id: replace(case, runs=tuple(run for run in case.runs if run.id.startswith(wanted or case.id)))
        for case in load().values()
        if not wanted or any(run.id.startswith(wanted) for run in case.runs)
    }
    counts = table([word for word in arguments if word in TIERS] or TIERS, cases, verbose="-v" in arguments)
    return int(any(count.failed for count in counts.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
