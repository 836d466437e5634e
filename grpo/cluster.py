"""Ray, in one place: where the actors of a run (`grpo/actors.py`) are started and placed, and proxies that call them.

A proxy looks like the plain object inside an actor, waits for the answer, says who waits for what when none comes, and
turns a dead or silent actor into `InfraFailure`. Actors run in an empty working directory: Ray would otherwise put the
driver's directory first on their path, where a user's own `rewards.py` would shadow ours.

`grpo.placement` says which node each actor goes to. Engines take bundles of a placement group, pinned there: they hold
weights, and one that dies is replaced in its bundle, or in one of its own elsewhere where its node is lost too. Reward
workers only lean to their node, so that Ray starts one whose node dies anew on another.
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # read at import: a late thread must not start a cluster of its own

import grpc
import ray
from ray._private.grpc_utils import init_grpc_channel
from ray.exceptions import (
    AuthenticationError,
    GetTimeoutError,
    ObjectStoreFullError,
    OutOfDiskError,
    RayError,
    RayTaskError,
)
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from assay.errors import AssayError, EnvironmentProblem, InfraFailure
from assay.types import RolloutGroup, Task
from grpo import versions
from grpo.actors import EngineActor, RewardActor, RewardModelActor
from grpo.config import ClusterConfig
from grpo.daemons import Watch, spared
from grpo.footprint import gib
from grpo.placement import SLOTS, Kind, Node, kinds, not_yet, others_than_ranks, place, resolved, written
from grpo.surroundings import about, engine_env, first_line, home_remedy, last_line, python_path, say, token_here
from rewards.config import RewardsConfig
from rewards.pool import RewardPool
from rollouts.config import RolloutConfig
from rollouts.engine import Sampling
from rollouts.pool import RolloutPool
from rollouts.routing import LANES
from rollouts.weights import WeightBundle

DEAD = "(dead)"  #: and not to come back
EARLY = "stopped while Ray started"
NODE_LABEL = "ray.io/node-id"
BYTES = ("memory", "object_store_memory")  #: no bundle asks for them
FULL = (ObjectStoreFullError, OutOfDiskError)
ELSEWHERE_S = 10.0  #: for Ray to find room for a bundle whose node is gone
KNOCK_S = 10.0  #: for the head of a cluster to say that it is there
ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"  #: asked of it
STRANGERS = {
    grpc.StatusCode.DEADLINE_EXCEEDED: f"it takes the connection and says nothing for {KNOCK_S:.0f} s",
    grpc.StatusCode.UNIMPLEMENTED: "it speaks gRPC and does not know what Ray's head knows; name the head's port",
    grpc.StatusCode.UNAVAILABLE: "",
}


class Proxy:
    """Calls `method(*args)` of the object inside an actor and waits, aloud and not for ever."""

    def __init__(self, name: str, actor: Any, cluster: Cluster, pinned: str) -> None:
        """`pinned`: id of the node it is bound to; empty where Ray starts it anew, on whichever has room."""
        self._name, self._actor, self._cluster = name, actor, cluster
        self._pinned, self._restarts = pinned, not pinned
        self._then = "another takes its place" if pinned else "started anew"
        self._tasks: Mapping[tuple[int, ...], str] = {}

    def __getattr__(self, method: str) -> Any:
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda *args: self._ask(method, *args)

    def _ask(self, method: str, *args: Any) -> Any:
        if not ray.is_initialized():
            raise InfraFailure(f"{self._name}: Ray was shut down before {method}")
        what = f"{method}{about(args, self._tasks)}"
        for again in (self._restarts, False):  # what starts anew answers by the question alone: it is asked again
            try:
                return self._wait(self._actor.call.remote(method, *args), what)
            except InfraFailure as failure:
                self._revive()
                # raised inside the actor it is an error of Ray too, whose words are a whole traceback
                raise (self._meaning(failure, what) if isinstance(failure, RayTaskError) else failure) from None
            except RayError as error:
                failure = self._meaning(error, what)
                if failure is None:
                    raise
                if isinstance(error, (RayTaskError, *FULL)):  # it lives
                    raise failure from None
                self._revive()
                if not again:
                    raise failure from None
        raise AssertionError("unreachable: the second try answers or raises")

    def stream(self, *args: Any) -> Iterator[Any]:
        """The parts of an engine's answer, each as it comes."""
        if not ray.is_initialized():
            raise InfraFailure(f"{self._name}: Ray was shut down before generate")
        what = f"generate{about(args, self._tasks)}"
        try:
            parts = self._actor.parts.remote("stream", *args)
            while (part := self._wait(parts, what)) is not None:
                yield part
        except RayError as error:
            failure = self._meaning(error, what)
            if failure is None:
                raise
            raise failure from None

    def _meaning(self, error: RayError, what: str) -> AssayError | None:
        """What an error of Ray says about the call, in our words; None for a defect in what was called."""
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, InfraFailure):
            return InfraFailure(f"{self._name}: {cause}")
        if isinstance(cause, AssayError):
            return cause
        if isinstance(cause, FULL):  # nobody died, and another engine would find no room either
            return self._cluster.full(f"{self._name}: no room for {what}", cause)
        if isinstance(error, RayTaskError):
            return None
        gone = self._cluster.gone(self._pinned)
        why = f"its node {gone} is gone" if gone else first_line(error)  # also: its memory or its answer was lost
        return InfraFailure(f"{self._name} died during {what}: {why}")

    def _revive(self) -> None:
        """Wait, where Ray starts the actor anew, until it is there again: whoever tries next shall not find it dead."""
        started = time.monotonic()
        while self._restarts and time.monotonic() - started < self._cluster.config.call_timeout_s:
            try:
                self._wait(self._actor.versions.remote(), "its new start")
                return
            except RayError:  # at once, while it is being restarted
                if self._settled() == DEAD:
                    return
                time.sleep(1.0)

    def _settled(self) -> str:
        """Where the actor is, or what it waits for. Raises InfraFailure where no node is left for it."""
        alive, where = self._cluster.whereabouts(self._actor)
        if alive or where == DEAD:
            return where
        if gone := self._cluster.gone(self._pinned):
            raise InfraFailure(f"{self._name}: its node {gone} is gone")
        if missing := self._cluster.missing():
            raise InfraFailure(f"{self._name} has no node left to run on: {missing}")
        return where

    def _wait(self, reference: Any, what: str) -> Any:
        """The answer. Raises InfraFailure after `call_timeout_s`, or where the actor has no node left to live on."""
        config = self._cluster.config
        started = time.monotonic()
        while True:
            left = config.call_timeout_s - (time.monotonic() - started)
            try:
                return _get(reference, max(0.0, min(config.stall_report_s, left)))
            except GetTimeoutError:
                waited = time.monotonic() - started
            where = self._settled()
            if waited >= config.call_timeout_s:
                ray.kill(self._actor, no_restart=not self._restarts)
                raise InfraFailure(
                    f"{self._name} {where}: no answer to {what} within cluster.call_timeout_s="
                    f"{config.call_timeout_s:g}; killed, and {self._then}"
                )
            say(
                f"still waiting for {self._name} {where}: {what}, {waited:.0f} s; "
                f"after {config.call_timeout_s:g} s it is killed, and {self._then}"
            )

    def wait_ready(self) -> None:
        """Wait until the object inside is made, of our own versions. Raises EnvironmentProblem with the cause."""
        try:
            theirs = self._wait(self._actor.versions.remote(), "its start")
        except RayError as error:
            raise EnvironmentProblem(f"{self._name} could not start: {last_line(error)}") from None
        except InfraFailure as failure:
            raise EnvironmentProblem(f"{failure}") from None
        different = versions.differences(versions.installed(), theirs)
        if different:
            raise EnvironmentProblem(
                f"{self._name} {self._cluster.whereabouts(self._actor)[1]} runs other versions: "
                f"{'; '.join(different)}; install the same on every node"
            )

    def close(self) -> None:
        if ray.is_initialized():  # after SIGTERM Ray may be gone already, and a call would start a new one
            ray.kill(self._actor, no_restart=True)


class NamedRollouts(RolloutPool):
    """Tells its proxies which task a prompt belongs to: an engine sees tokens alone, the watchdog should say more."""

    def stream(self, tasks: Sequence[Task], sampling: Sampling) -> Iterator[tuple[int, RolloutGroup]]:
        names = {self.prompt_ids(task): task.id for task in tasks}
        for engine in self._engines:
            engine._tasks = names  # type: ignore[attr-defined]
        return super().stream(tasks, sampling)

    def _one(self, n: int, task: Task, sampling: Sampling) -> RolloutGroup:
        engine: Any = self._engines[n]
        engine._tasks = {**engine._tasks, self.prompt_ids(task): task.id}
        return super()._one(n, task, sampling)

    def _shared(self, bucket: WeightBundle) -> Any:
        """Once in Ray's memory, however many engines read it there. Raises EnvironmentProblem where that is full."""
        try:
            return ray.put(bucket)
        except FULL as error:
            engine: Any = self._engines[0]
            what = f"rollouts: no room for {gib(bucket.size_bytes)} of weights version {bucket.version}"
            raise engine._cluster.full(what, error) from None


class Cluster:
    """The actors of one run. Use it as a context manager: whatever happens, nothing is left running."""

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config
        self._proxies: list[Proxy] = []
        self._groups: list[Any] = []
        self._kinds: list[Kind] = []
        self._own = config.address is None
        self._empty = tempfile.TemporaryDirectory(prefix="assay-actors-")

    def __enter__(self) -> Cluster:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        local = {
            "num_cpus": SLOTS,
            "object_store_memory": int(self.config.object_store_gib * 2**30),
            "include_dashboard": False,
        }
        before = signal.getsignal(signal.SIGTERM)
        with spared() as asked:
            self._join(local, before)
            self._watch = Watch(ray._private.worker._global_node if self._own else None)
            if asked():
                with self._watch.closing():
                    ray.shutdown()
                raise KeyboardInterrupt(EARLY)
        return self

    def _join(self, local: Mapping[str, Any], before: Any) -> None:
        """Raises EnvironmentProblem. `before`: the handler of SIGTERM to put back."""
        try:
            _knock(self.config.address)
            ray.init(
                address=self.config.address or "local",  # without a word Ray would join whatever runs on this machine
                log_to_driver=True,
                logging_level="ERROR",
                runtime_env={"working_dir": self._empty.name, "env_vars": python_path()},
                **(local if self._own else {}),
            )
        except EnvironmentProblem:
            raise
        except (ConnectionError, RayError, OSError, ValueError, RuntimeError) as error:
            to = home_remedy(error)
            if not self._own:
                to = f"; cluster.address={self.config.address}: is a cluster of our version there?"
            raise EnvironmentProblem(f"Ray did not start: {first_line(error)}{to}") from None
        except SystemExit:  # Ray's own handler: it leaves in the midst of whatever runs
            raise KeyboardInterrupt(EARLY) from None
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)

    def __exit__(self, *exc: object) -> None:
        for proxy in self._proxies:
            proxy.close()
        for group in self._groups if ray.is_initialized() else ():
            remove_placement_group(group)
        self._proxies.clear()
        self._groups.clear()
        with self._watch.closing():
            ray.shutdown()
        self._empty.cleanup()

    def rollouts(self, model: str | Path, config: RolloutConfig, tokenizer: Any, *, max_model_len: int) -> RolloutPool:
        """Engines on `model`'s architecture; the weights that count come by `sync`."""
        unsupported = not_yet(self.config, config)
        if unsupported:
            raise EnvironmentProblem("; ".join(unsupported))
        config = resolved(self.config, config)
        *before, kind = kinds(self.config, config)
        for trainer in before:
            self._set_aside(trainer)
        places = self._place(kind)
        group = self._group(kind, places)
        bundles = [(group, i, node) for i, node in enumerate(places)]
        options: dict[str, Any] = {"runtime_env": {"env_vars": {**python_path(), **engine_env(config)}}}
        room = config.engine.max_num_seqs if config.engine.routing == "queue" else 0
        if room:
            options["max_concurrency"] = room + LANES + 2  # a flow, an evaluation, and a sync beside them
        where = str(Path(model).resolve()) if Path(model).exists() else str(model)
        arguments = (where, config, max_model_len, tokenizer.eos_token_id)

        def start(i: int) -> Proxy:
            group, index, node = bundles[i]
            bundle = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
            return self._start(EngineActor, kind.actor(i), kind, bundle, node, *arguments, **options)

        def restart(i: int) -> Proxy:
            if gone := self.gone(bundles[i][2]):
                bundles[i] = self._elsewhere(kind, i, gone)
            engine = start(i)
            try:
                engine.wait_ready()
            except EnvironmentProblem as problem:  # one such engine did start: this is no missing package
                engine.close()  # it holds the place the next one wants
                raise InfraFailure(str(problem)) from None
            return engine

        engines = [start(i) for i in range(kind.count)]
        for engine in engines:
            engine.wait_ready()
        return NamedRollouts(engines, tokenizer, config.proof, restart, room, config.engine.update_in_flight)

    def rewards(self, config: RewardsConfig, reward_model: str | Path | None = None) -> RewardPool:
        """Reward workers, and the learned reward model beside them where there is one."""
        kind = kinds(self.config, rewards=config)[-1]
        workers = [
            self._restarting(RewardActor, kind.actor(i), kind, node, config) for i, node in enumerate(self._place(kind))
        ]
        for worker in workers:
            worker.wait_ready()
        return RewardPool(workers, config, self.reward_model(reward_model) if reward_model else None)

    def reward_model(self, folder: str | Path) -> Any:
        kind = kinds(self.config, reward_model=True)[-1]
        (node,) = self._place(kind)
        device = "cuda" if self.config.reward_model_gpus else "cpu"
        proxy = self._restarting(RewardModelActor, kind.name, kind, node, str(Path(folder).resolve()), device)
        proxy.wait_ready()
        return proxy

    def full(self, what: str, error: BaseException) -> EnvironmentProblem:
        """What to do where Ray's memory and the disk behind it are full."""
        grow = "" if self.config.address else ", or raise cluster.object_store_gib"
        return EnvironmentProblem(
            f"{what}: Ray's object store is full, and so is the disk below its temporary folder ({first_line(error)}); "
            f"free space there{grow}"
        )

    # -- who is where -------------------------------------------------------------------------------------------

    def nodes(self) -> list[Node]:
        """What each living node offers in all."""
        here = ray.get_runtime_context().get_node_id()
        return [
            Node(
                name=f"{row['NodeManagerHostname']}:{row['NodeID'][:8]}",
                id=row["NodeID"],
                resources={k: v for k, v in row["Resources"].items() if k not in BYTES and not k.startswith("node:")},
                driver=row["NodeID"] == here,
                ram_bytes=int(row["Resources"].get("memory", 0)),
            )
            for row in ray.nodes()
            if row["Alive"]
        ]

    def missing(self) -> str:
        """What of this run has no place on the nodes that live; empty where all have."""
        return "; ".join(place(self._kinds, self.nodes()).missing)

    def gone(self, node: str) -> str:
        """`HOST:NODE` of a node that was there and lives no more, which it never does again; else empty."""
        dead = [row for row in ray.nodes() if row["NodeID"] == node and not row["Alive"]]
        return f"{dead[0]['NodeManagerHostname']}:{node[:8]}" if dead else ""

    def whereabouts(self, actor: Any) -> tuple[bool, str]:
        """Whether an actor lives, and `on HOST:NODE, pid 7` or what it waits for."""
        row = ray._private.state.actors(actor._actor_id.hex()) or {}
        state, address = row.get("State", "unknown"), row.get("Address", {})
        if state != "ALIVE":
            return False, f"({state.lower().replace('_', ' ')})"
        names = {n["NodeID"]: n["NodeManagerHostname"] for n in ray.nodes()}
        node = address.get("NodeID", "")
        return True, f"on {names.get(node, 'a lost node')}:{node[:8]}, pid {row.get('Pid')}"

    def _place(self, kind: Kind) -> list[str]:
        """Node ids for the bundles of a kind, beside those placed before. Raises EnvironmentProblem."""
        nodes = self.nodes()
        placement = place([*self._kinds, kind], nodes)
        if placement.missing:
            raise EnvironmentProblem("the cluster is too small: " + "; ".join(placement.missing))
        self._kinds.append(kind)
        ids = {node.name: node.id for node in nodes}
        return [ids[placement.nodes[kind.actor(i)]] for i in range(kind.count)]

    def _group(self, kind: Kind, places: Sequence[str]) -> Any:
        """A placement group, each bundle on its node. Raises EnvironmentProblem where others hold what it wants."""
        labels = [{NODE_LABEL: node} for node in places]
        group = placement_group([dict(kind.bundle)] * kind.count, strategy=kind.strategy, bundle_label_selector=labels)
        self._groups.append(group)
        started = time.monotonic()
        while not group.wait(min(self.config.stall_report_s, self.config.call_timeout_s)):
            waited = time.monotonic() - started
            line = f"{kind.count} {kind.name} of {written(kind.bundle)}, which others hold: {_free(kind)}"
            if waited >= self.config.call_timeout_s:
                raise EnvironmentProblem(f"no room within cluster.call_timeout_s={waited:.0f} for {line}")
            say(f"still waiting for room for {line}, {waited:.0f} s")
        return group

    def _elsewhere(self, kind: Kind, i: int, gone: str) -> tuple[Any, int, str]:
        """A group of one bundle, its index there and its node, for an actor whose node is gone, wherever there is room.

        Not for a kind that lies beside the driver: with that node the driver is gone too. Raises InfraFailure.
        """
        missing = self.missing()
        if not missing:
            group = placement_group([dict(kind.bundle)], strategy="PACK")
            if group.wait(ELSEWHERE_S):
                self._groups.append(group)
                return group, 0, placement_group_table(group)["bundles_to_node_id"][0]
            remove_placement_group(group)
            missing = f"it wants {written(kind.bundle)}, {_free(kind)}"
        raise InfraFailure(f"{kind.actor(i)}: its node {gone} is gone, and no other has room for it: {missing}")

    def _set_aside(self, trainer: Kind) -> None:
        """Keep the trainer's devices from everybody else, and show this process no others."""
        group = self._group(trainer, self._place(trainer))
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        ask = ray.remote(_devices).options(num_cpus=0, num_gpus=trainer.bundle["GPU"], scheduling_strategy=strategy)
        devices = ray.get(ask.remote())
        if other := others_than_ranks(devices, os.environ):
            raise EnvironmentProblem(other)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)

    def _restarting(self, cls: type, name: str, kind: Kind, node: str, *args: Any) -> Proxy:
        strategy = NodeAffinitySchedulingStrategy(node, soft=True)
        return self._start(cls, name, kind, strategy, "", *args, max_restarts=-1)

    def _start(self, cls: type, name: str, kind: Kind, strategy: Any, pinned: str, *args: Any, **options: Any) -> Proxy:
        if not ray.is_initialized():  # or Ray would start a cluster for it
            raise InfraFailure(f"{name}: Ray was shut down before it could start")
        others = dict(kind.bundle)
        taken = {"num_cpus": others.pop("CPU", 0.0), "num_gpus": others.pop("GPU", 0.0), "resources": others}
        actor = ray.remote(cls).options(scheduling_strategy=strategy, **taken, **options).remote(*args)
        proxy = Proxy(name, actor, self, pinned)
        self._proxies.append(proxy)
        return proxy


def _get(reference: Any, timeout_s: float) -> Any:
    """The value of a reference, or the next one of a generator, None after its last. Raises GetTimeoutError."""
    if not isinstance(reference, ray.ObjectRefGenerator):
        return ray.get(reference, timeout=timeout_s)
    ready, _ = ray.wait([reference], timeout=timeout_s)
    if not ready:
        raise GetTimeoutError
    value = next(reference, None)
    return None if value is None else ray.get(value)


def _knock(address: str | None) -> None:
    """Raises OSError where nobody, or somebody else, listens at HOST:PORT: Ray would try for minutes, or for ever.

    Raises EnvironmentProblem where the cluster there does not take our token.
    """
    if address == "auto":
        address = ray._private.services.get_ray_address_from_environment(address, None)
    host, _, port = (address or "").rpartition(":")
    if not (host and port.isdigit() and "/" not in host):
        return
    socket.create_connection((host, int(port)), timeout=KNOCK_S).close()
    with init_grpc_channel(f"{host}:{port}") as channel:
        try:
            channel.unary_unary(ALIVE)(b"", timeout=KNOCK_S)
        except AuthenticationError:
            raise EnvironmentProblem(token_here(f"{host}:{port}", found=False)) from None
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:  # Ray itself would try again for twenty seconds
                raise EnvironmentProblem(token_here(f"{host}:{port}", found=True)) from None
            if error.code() in STRANGERS:  # else it is a Ray, which says itself what it does not like
                what = STRANGERS[error.code()] or " ".join(error.details().split()).rpartition("last error: ")[2]
                raise ConnectionError(f"what listens at {address} is no Ray cluster: {what[:200]}") from None


def _devices() -> list[str]:
    return [str(device) for device in ray.get_runtime_context().get_accelerator_ids().get("GPU", [])]


def _free(kind: Kind) -> str:
    free = ray.available_resources()
    return f"{written({name: free.get(name, 0.0) for name in kind.bundle})} free in the whole cluster"
