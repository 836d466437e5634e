"""Machines on one machine: each a network, a host name, processes, a /dev/shm and a home of its own, on one bridge.

The head stands on the host's side, at an address of the bridge. Ray is started as a user would start it, by
`examples/ray_cluster/two_machines.sh`. A cable that is out is silence: no FIN, no RST. Leaving the block ends and
removes everything; `left` says what is there in spite of that.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "ray_cluster" / "two_machines.sh"
MARK = "ASSAY_TEST_MACHINES"  #: in the environment of every process of ours, by which they are found at the end
INIT = """set -e
hostname "$1"; ip link set lo up
mount -t tmpfs tmpfs /dev/shm; mount -t tmpfs tmpfs "$2"; mkdir -m 700 "$2/home" "$2/tmp"
echo ready; trap 'exit 0' TERM; while :; do sleep 1000 & wait $! || :; done"""


def lacking() -> str:
    """Why no such machine can be made here; empty where they can."""
    if os.geteuid() != 0:
        return "network namespaces want root"
    absent = [tool for tool in ("ip", "unshare", "nsenter") if not shutil.which(tool)]
    if absent:
        return f"{', '.join(absent)} not found (iproute2, util-linux)"
    name = f"asx{os.getpid()}"
    made = _run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p"], check=False)
    _run(["ip", "link", "del", name], check=False)
    if made.returncode:
        return f"no veth here: {made.stderr.strip()}"
    made = _run(["ip", "netns", "add", name], check=False)
    _run(["ip", "netns", "del", name], check=False)
    return "" if made.returncode == 0 else f"no network namespaces here: {made.stderr.strip()}"


class Machine:
    """`run` starts programs there; `cable` is the link that ends at the bridge."""

    def __init__(self, name: str, space: str, cable: str, address: str, own: Path) -> None:
        self.name, self.space, self.cable, self.address = name, space, cable, address
        self._init = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{space}", "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child",
             "--mount-proc", "--propagation", "private", "bash", "-c", INIT, "init", name, str(own)],
            stdout=subprocess.PIPE, text=True, env={**os.environ, MARK: space.rpartition("-")[0]},
        )  # fmt: skip
        assert self._init.stdout is not None
        assert self._init.stdout.readline() == "ready\n", f"{name} could not be made"
        (self.pid,) = [child.pid for child in psutil.Process(self._init.pid).children()]

    def run(self, command: Sequence[str], env: Mapping[str, str], timeout_s: float = 200) -> str:
        inside = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--net", "--pid", *command]
        done = _run(inside, env=env, timeout_s=timeout_s, check=False)
        if done.returncode:
            raise RuntimeError(f"{self.name}: {command[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def processes(self) -> list[psutil.Process]:
        """Those of Ray and ours there, without the first one's own."""
        try:
            return [p for p in psutil.Process(self.pid).children(recursive=True) if p.name() != "sleep"]
        except psutil.NoSuchProcess:
            return []

    def off(self) -> None:
        """Power: every process there ends at once."""
        self._init.kill()
        self._init.wait(30)
        assert self._init.stdout is not None
        self._init.stdout.close()


class Machines:
    """`count` machines on a bridge. Use it as a context manager."""

    def __init__(self, count: int, slow: Mapping[int, float] | None = None) -> None:
        """`slow`: seconds that every frame takes to and from machine 1, 2, ..."""
        pid = os.getpid()
        self.name, self._net = f"as{pid}", f"198.18.{pid % 250}"  # RFC 2544's range: nobody's
        self.bridge, self.count, self.slow = f"asb{pid}", count, dict(slow or {})
        self.address = f"{self._net}.1"
        self.folder = Path(tempfile.mkdtemp(prefix="as"))
        self.own = self.folder / "own"  #: its contents are each machine's own; on the host's side the head's
        self.machines: list[Machine] = []
        self._shm = _names("/dev/shm")
        with socket.socket() as free:
            free.bind(("", 0))
            self.port = free.getsockname()[1]

    @property
    def head(self) -> str:
        return f"{self.address}:{self.port}"

    def env(self, **others: str) -> dict[str, str]:
        """For programs of the test: a home and a temporary folder of their own, nothing of Ray's from outside."""
        plain = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        return {
            **plain,
            MARK: self.name,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.own / "home"),
            "TMPDIR": str(self.own / "tmp"),
            "PYTHONPATH": str(ROOT),
            "PORT": str(self.port),
            "OMP_NUM_THREADS": "1",
            **others,
        }

    def __enter__(self) -> Machines:
        try:
            for part in ("home", "tmp"):
                (self.own / part).mkdir(parents=True)
            _run(["ip", "link", "add", self.bridge, "type", "bridge"])
            _run(["ip", "address", "add", f"{self.address}/24", "dev", self.bridge])
            _run(["ip", "link", "set", self.bridge, "up"])
            for i in range(1, self.count + 1):
                self.machines.append(self._machine(i))
        except BaseException:
            self.__exit__()
            raise
        return self

    def _machine(self, i: int) -> Machine:
        space, cable, address = f"{self.name}-{i}", f"asv{i}x{os.getpid()}", f"{self._net}.{i + 1}"
        _run(["ip", "netns", "add", space])
        _run(["ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space])
        if i in self.slow:
            self._slowly(cable, f"asq{i}x{os.getpid()}", f"asr{i}x{os.getpid()}", self.slow[i])
        else:
            _run(["ip", "link", "set", cable, "master", self.bridge, "up"])
        _run(["ip", "-n", space, "address", "add", f"{address}/24", "dev", "eth0"])
        _run(["ip", "-n", space, "link", "set", "eth0", "up"])
        return Machine(f"machine{i}", space, cable, address, self.own)

    def _slowly(self, cable: str, near: str, far: str, seconds: float) -> None:
        _run(["ip", "link", "add", near, "type", "veth", "peer", "name", far])
        for name in (cable, near):
            _run(["ip", "link", "set", name, "up"])
        _run(["ip", "link", "set", far, "master", self.bridge, "up"])
        command = [sys.executable, str(Path(__file__).with_name("slow_link.py")), cable, near, str(seconds)]
        relay = subprocess.Popen(command, env=self.env(), stdout=subprocess.PIPE, text=True)
        assert relay.stdout is not None
        assert relay.stdout.readline() == "ready\n"
        relay.stdout.close()

    def start_head(self, *options: str, **env: str) -> str:
        """`two_machines.sh head`, on the host's side."""
        told = [f"--node-ip-address={self.address}", "--include-dashboard=false", *self._small(), *options]
        written = self.folder / "head.log"
        with written.open("w") as log:  # not a pipe: what it starts would hold it open
            done = subprocess.run(
                ["sh", str(SCRIPT), "head", *told], env=self.env(**env), timeout=200, check=False,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        said = written.read_text()
        assert done.returncode == 0, said
        return said

    def join(self, machine: Machine, *options: str, token: bool = True, **env: str) -> str:
        """The head's token copied there, and `two_machines.sh rewards HEAD`."""
        if token:
            text = (self.own / "home" / ".ray" / "auth_token").read_text()
            put = 'umask 077; mkdir -p "$HOME/.ray"; printf %s "$0" >"$HOME/.ray/auth_token"'
            machine.run(["sh", "-c", put, text], self.env())
        told = [f"--node-ip-address={machine.address}", *self._small(), *options]
        quiet = 'log=$(mktemp); sh "$@" </dev/null >"$log" 2>&1; code=$?; cat "$log"; exit $code'
        command = ["sh", "-c", quiet, "sh", str(SCRIPT), "rewards", self.address, *told]
        try:
            return machine.run(command, self.env(**env))
        except RuntimeError as error:
            if "timed out during startup" not in str(error):  # Ray's own limit of 30 s, on a busy machine
                raise
            return machine.run(command, self.env(**env))

    def _small(self) -> list[str]:
        memory = f"--object-store-memory={200 * 2**20}"
        return ["--num-cpus=1", memory, f"--temp-dir={self.own}/ray"]

    def __exit__(self, *_: object) -> None:
        for machine in self.machines:
            machine.off()
        for each in self.left()[0]:
            each.send_signal(signal.SIGKILL)
        psutil.wait_procs(self.left()[0], timeout=10)
        for i in range(1, self.count + 1):
            _run(["ip", "link", "del", f"asq{i}x{os.getpid()}"], check=False)
            _run(["ip", "link", "del", f"asv{i}x{os.getpid()}"], check=False)  # the space's own end follows it later
            _run(["ip", "netns", "del", f"{self.name}-{i}"], check=False)
        _run(["ip", "link", "del", self.bridge], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def left(self) -> tuple[list[psutil.Process], list[str]]:
        """Processes of ours, and what else is left of them."""
        alive, mark = [], f"{MARK}={self.name}".encode()
        for process in psutil.process_iter():
            try:
                # psutil stops where a process that gave itself another title has nothing, as Ray's agents do
                environ = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
                if mark in environ and process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
                pass
        others = [name for name in _names("/sys/class/net") if name.endswith(str(os.getpid()))]
        others += [name for name in _names("/run/netns") if name.startswith(f"{self.name}-")]
        others += [line for line in Path("/proc/mounts").read_text().splitlines() if self.name in line]
        others += [str(self.folder)] if self.folder.exists() else []
        others += [name for name in _names("/dev/shm") - self._shm if "plasma" in name or "ray" in name]
        return alive, others


def _names(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()} if Path(folder).exists() else set()


def _run(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, timeout_s: float = 30, check: bool = True
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float = 60) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.1)
