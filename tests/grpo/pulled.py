"""`assay grpo` in a process that pulls cables of its machines in the midst of phases, and plugs them in again.

`main(CONFIG, PULLS, CABLES)`: PULLS is a list of {victim, phase, turn, back_s}, CABLES is host name -> link, both JSON.
A cable without `back_s` is in again 2 s after Ray took the machine for lost. The last line of stdout, JSON, says when
that was, in seconds after each pull.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
import torch

import grpo.cluster
from tests.chaos.engine import HoldingEngineActor
from tests.chaos.saboteur import Order, Saboteur

SLOW_S = 0.3  #: an engine's call lasts so long, and a pull falls into its midst
AFTER_S = 2.0  #: Ray took the machine for lost


class SlowEngineActor(HoldingEngineActor):
    def call(self, method: str, *args: Any) -> Any:
        time.sleep(SLOW_S)
        return super().call(method, *args)


CLASSES = {"engine": SlowEngineActor.__name__, "reward": "RewardActor"}


class Puller(Saboteur):
    """Cables in place of kills."""

    def __init__(self, pulls: Sequence[Mapping[str, Any]], cables: Mapping[str, str]) -> None:
        self.back_s = {Order(p["victim"], p["phase"], p["turn"]): p.get("back_s") for p in pulls}
        super().__init__([*self.back_s], seed=1)
        self.cables, self.seen = cables, list[dict[str, Any]]()

    def _kill(self, order: Order) -> None:
        node, host = hosting(order.victim)
        self._link(host, "down")
        started = time.monotonic()
        self.killed.append((order, time.time()))
        self.seen.append(seen := {"phase": order.phase, "host": host})
        say(f"cable of {host} out in {order.phase} {order.turn}")
        watch = (seen, node, started, self.back_s[order])
        threading.Thread(target=self._watch, args=watch, daemon=True).start()

    def _watch(self, seen: dict[str, Any], node: str, started: float, back_s: float | None) -> None:
        while ray.is_initialized() and "in_s" not in seen:
            waited = time.monotonic() - started
            if "lost_s" not in seen and any(n["NodeID"] == node and not n["Alive"] for n in ray.nodes()):
                seen["lost_s"] = waited
                say(f"Ray took {seen['host']} for lost after {waited:.1f} s")
            if waited >= (seen.get("lost_s", 1e9) + AFTER_S if back_s is None else back_s):
                self._link(seen["host"], "up")
                seen["in_s"] = waited
                say(f"cable of {seen['host']} in after {waited:.1f} s")
            time.sleep(0.1)

    def _link(self, host: str, way: str) -> None:
        subprocess.run(["ip", "link", "set", self.cables[host], way], check=True)


def hosting(victim: str) -> tuple[str, str]:
    """Node and host name of the engine; or, for `reward`, of a reward worker apart from it."""
    rows = [row for row in ray._private.state.actors().values() if row["State"] == "ALIVE"]
    of = {key: {r["Address"]["NodeID"] for r in rows if r["ActorClassName"] == name} for key, name in CLASSES.items()}
    node = min(of["engine"] if victim == "engine" else of["reward"] - of["engine"])
    return node, next(row["NodeManagerHostname"] for row in ray.nodes() if row["NodeID"] == node)


def say(line: str) -> None:
    print(f"chaos: {line}", file=sys.stderr, flush=True)


def main(config: str, pulls: str, cables: str) -> int:
    from assay.cli import main as assay

    torch.set_num_threads(1)
    grpo.cluster.EngineActor = SlowEngineActor  # type: ignore[misc]
    puller = Puller(json.loads(pulls), json.loads(cables))
    with puller.at_work():
        code = assay(["grpo", config])
    print(json.dumps(puller.seen), flush=True)
    return code
