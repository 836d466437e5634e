"""Ray, in one place: the actors that hold engines, reward workers and the reward model, and proxies that call them.

Every class here is a thin actor around a plain class that runs just as well in-process. A proxy looks like the
plain object, waits for the answer, says who waits for what when none comes, and turns a dead actor into
`InfraFailure`. Actors run in an empty working directory: Ray would otherwise put the driver's directory first on
their path, where a user's own `rewards.py` would shadow ours.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from assay.errors import AssayError, EnvironmentProblem, InfraFailure
from assay.shadow import check_shadowing
from grpo.config import ClusterConfig
from rewards.config import RewardsConfig
from rewards.pool import RewardPool
from rollouts.config import RolloutConfig
from rollouts.pool import RolloutPool

SLOTS = 1024
#: of actors whose answer depends on the question alone: Ray starts a dead one again and asks it again
STATELESS = {"num_cpus": 1, "max_restarts": -1, "max_task_retries": 2}


class EngineActor:
    """Holds one vLLM engine."""

    def __init__(self, model: str, config: RolloutConfig, max_model_len: int, eos_token_id: int) -> None:
        check_shadowing()
        from rollouts.vllm import VLLMEngine

        self.engine = VLLMEngine(
            model, config.engine, config.proof, max_model_len=max_model_len, eos_token_id=eos_token_id
        )

    def call(self, method: str, *args: Any) -> Any:
        return getattr(self.engine, method)(*args)


class RewardActor:
    """Holds one scorer and with it one sandbox."""

    def __init__(self, config: RewardsConfig) -> None:
        check_shadowing()
        from rewards.scorer import Scorer

        self.scorer = Scorer(config)

    def call(self, method: str, *args: Any) -> Any:
        return getattr(self.scorer, method)(*args)


class RewardModelActor:
    """Holds the learned reward model."""

    def __init__(self, folder: str) -> None:
        check_shadowing()
        from rewards.model.score import RewardModelScorer

        self.scorer = RewardModelScorer(folder)

    def call(self, method: str, *args: Any) -> Any:
        return getattr(self.scorer, method)(*args)


class Proxy:
    """Calls `method(*args)` of the object inside an actor and waits, aloud."""

    def __init__(self, name: str, actor: Any, stall_report_s: float) -> None:
        self._name, self._actor, self._stall_s = name, actor, stall_report_s

    def __getattr__(self, method: str) -> Any:
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda *args: self._ask(method, *args)

    def _ask(self, method: str, *args: Any) -> Any:
        if not ray.is_initialized():
            raise InfraFailure(f"{self._name}: Ray was shut down before {method}")
        reference = self._actor.call.remote(method, *args)
        waited = 0.0
        while True:
            try:
                return ray.get(reference, timeout=self._stall_s)
            except GetTimeoutError:
                waited += self._stall_s
                size = f" of {len(args[0])}" if args and hasattr(args[0], "__len__") else ""
                print(f"still waiting for {self._name}: {method}{size}, {waited:.0f} s", file=sys.stderr, flush=True)
            except RayTaskError as error:
                if isinstance(error.cause, AssayError):
                    raise error.cause from None
                raise
            except RayActorError as error:
                raise InfraFailure(f"{self._name} died during {method}: {_first_line(error)}") from None

    def wait_ready(self) -> None:
        """Wait until the object inside is made. Raises EnvironmentProblem with the cause where it could not be."""
        try:
            ray.get(self._actor.__ray_ready__.remote())
        except RayActorError as error:
            raise EnvironmentProblem(f"{self._name} could not start: {_last_line(error)}") from None

    def close(self) -> None:
        if ray.is_initialized():  # after SIGTERM Ray may be gone already, and a call would start a new one
            ray.kill(self._actor, no_restart=True)


class Cluster:
    """The actors of one run. Use it as a context manager: whatever happens, nothing is left running."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._proxies: list[Proxy] = []
        self._own = config.address is None
        self._empty = tempfile.TemporaryDirectory(prefix="assay-actors-")

    def __enter__(self) -> Cluster:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        local = {
            "num_cpus": SLOTS,  # not cores: on one machine the parts take turns, so none may wait for a slot
            "object_store_memory": int(self._config.object_store_gib * 2**30),
            "include_dashboard": False,
        }
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                address=self._config.address or "local",  # without a word Ray would join whatever runs on this machine
                log_to_driver=True,
                logging_level="ERROR",
                runtime_env={"working_dir": self._empty.name, "env_vars": _python_path()},
                **(local if self._own else {}),
            )
        except (ConnectionError, RayError, OSError, ValueError) as error:
            raise EnvironmentProblem(f"Ray did not start: {_first_line(error)}") from None
        finally:
            # Ray's own handler leaves by SystemExit in the midst of whatever runs: nothing could say how to go on.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)
        return self

    def __exit__(self, *exc: object) -> None:
        for proxy in self._proxies:
            proxy.close()
        self._proxies.clear()
        ray.shutdown()
        self._empty.cleanup()

    def rollouts(self, model: str | Path, config: RolloutConfig, tokenizer: Any, *, max_model_len: int) -> RolloutPool:
        """Engines on `model`'s architecture; the weights that count come by `sync`."""
        options = {
            "num_cpus": self._config.engine_cpus,
            "num_gpus": self._config.engine_gpus,
            "runtime_env": {"env_vars": {**_python_path(), **_engine_env(config)}},
        }
        where = str(Path(model).resolve()) if Path(model).exists() else str(model)
        arguments = (where, config, max_model_len, tokenizer.eos_token_id)

        def start(i: int) -> Proxy:
            return self._start(EngineActor, f"rollouts/{i}", options, *arguments)

        def restart(i: int) -> Proxy:
            engine = start(i)
            try:
                engine.wait_ready()
            except EnvironmentProblem as problem:  # one such engine did start: this is no missing package
                raise InfraFailure(str(problem)) from None
            return engine

        engines = [start(i) for i in range(config.engine.engines)]
        for engine in engines:
            engine.wait_ready()
        return RolloutPool(engines, tokenizer, config.proof, restart)

    def rewards(self, config: RewardsConfig, reward_model: str | Path | None = None) -> RewardPool:
        """Reward workers, and the learned reward model beside them where there is one."""
        workers = [self._start(RewardActor, f"rewards/{i}", STATELESS, config) for i in range(config.workers)]
        for worker in workers:
            worker.wait_ready()
        return RewardPool(workers, config, self.reward_model(reward_model) if reward_model else None)

    def reward_model(self, folder: str | Path) -> Any:
        proxy = self._start(RewardModelActor, "reward-model", STATELESS, str(Path(folder).resolve()))
        proxy.wait_ready()
        return proxy

    def _start(self, cls: type, name: str, options: dict[str, Any], *args: Any) -> Proxy:
        if not ray.is_initialized():  # or Ray would start a cluster for it
            raise InfraFailure(f"{name}: Ray was shut down before it could start")
        proxy = Proxy(name, ray.remote(cls).options(**options).remote(*args), self._config.stall_report_s)
        self._proxies.append(proxy)
        return proxy


def _python_path() -> dict[str, str]:
    """Our packages as the driver found them, so that an actor can find no other."""
    root = str(Path(__file__).resolve().parent.parent)
    inherited = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != root]
    return {"PYTHONPATH": os.pathsep.join([root, *inherited])}


def _engine_env(config: RolloutConfig) -> dict[str, str]:
    """Environment of an engine process. Allocator and OpenMP runtime must be loaded before Python starts."""
    threads = config.engine.threads or os.cpu_count() or 1
    env = {"OMP_NUM_THREADS": str(threads), "VLLM_LOGGING_LEVEL": "ERROR", "KMP_BLOCKTIME": "0"}
    preload = [
        *map(str, Path("/usr/lib").glob("*/libtcmalloc_minimal.so.4")),
        *map(str, (Path(sys.prefix) / "lib").glob("libiomp5.so")),
    ]
    if preload:
        env["LD_PRELOAD"] = ":".join(preload)
    return env


def _last_line(error: BaseException) -> str:
    """The cause at the end of a traceback that Ray hands over as text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
