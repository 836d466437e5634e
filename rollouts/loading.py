"""Weights into a vLLM model, bucket by bucket: what runs in every process that holds a part of it.

These functions are called by vLLM's `collective_rpc` with the worker. What they complain of they return: an exception
would come back from another process as words without its class, and leave the answers of further ones unread.

vLLM's own steps of `reload_weights` are taken one by one, as its weight-transfer engines take them. A module keeps the
tensors it was given until it has all of them, then fills, packs and lets go of them. So beyond the weights a process
holds at most a bucket and, of the module at hand, the tensors, the filled module and the packed one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from assay.errors import WeightMismatch
from rollouts.config import EngineConfig
from rollouts.holding import Holding
from rollouts.merging import Base
from rollouts.weights import Arrival, Publication, Received, WeightBundle
from rollouts.wide import as_held


@dataclass(frozen=True, slots=True)
class Proved:
    """One process's part of a SyncReport."""

    modules: int
    worst: float
    load_s: float
    proof_s: float


@dataclass(frozen=True, slots=True)
class Refused:
    """What a WeightMismatch said."""

    why: str


class Load:
    """The weights on their way into one process's model. It holds no worker: the worker holds it."""

    def __init__(self) -> None:
        self._arrival, self._open = Arrival(), False
        self._holding: Holding | None = None
        self._proof_s = self._load_s = 0.0
        self._base, self._factors = Base(), dict[str, Any]()

    def take(self, worker: Any, bundle: WeightBundle, config: EngineConfig) -> None:
        if bundle.places is not None:
            self._base.take(bundle)
        elif bundle.adapter is not None:
            self._add(worker, bundle, config)
        else:
            started = time.perf_counter()
            self._load(worker, bundle, self._arrival.take(bundle), started)

    def _add(self, worker: Any, bundle: WeightBundle, config: EngineConfig) -> None:
        """Keep a version's factors; with the last of them, load the frozen weights with all of them added."""
        self._base.check(bundle)
        received = self._arrival.take(bundle)
        self._factors = dict(received) if bundle.part == 0 else self._factors | dict(received)
        if bundle.published is None:
            return
        factors, self._factors = self._factors, {}

        def items() -> Iterator[tuple[str, Any]]:
            return as_held(self._base.merged(factors, bundle), config)

        started = time.perf_counter()
        for part in Publication(items, bundle.version, config.sync_bucket_mib << 20):  # as a trainer would have sent it
            merged = time.perf_counter()
            self._load(worker, part, Received(part), merged)
            self._load_s += merged - started
            started = time.perf_counter()

    def _load(self, worker: Any, bundle: WeightBundle, received: Received, started: float) -> None:
        if bundle.part == 0:
            self._begin(worker, bundle.version)
        assert self._holding is not None
        for name, tensor in received.look():
            self._holding.hear(name, tensor, bundle.digests[name])
        heard = time.perf_counter()
        self._proof_s += heard - started
        with _configured(worker):
            worker.model_runner.get_model().load_weights(deliver(received))
            if bundle.published is not None:
                self._end(worker)
        self._load_s += time.perf_counter() - heard

    def prove(self, rtol: float) -> Proved:
        started = time.perf_counter()
        assert self._holding is not None
        modules, worst = self._holding.check(rtol)
        return Proved(modules, worst, self._load_s, self._proof_s + time.perf_counter() - started)

    def _begin(self, worker: Any, version: int) -> None:
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        model = worker.model_runner.get_model()
        with _configured(worker):
            if self._open:  # a version that came in part: its modules go back to their places first
                self._end(worker)
            self._holding, self._load_s, self._proof_s = Holding(model, seed=version), 0.0, 0.0
            if worker.model_runner.device.type == "cpu":
                forget_moe_kernels(model)
            initialize_layerwise_reload(model)
        self._open = True

    def _end(self, worker: Any) -> None:
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        runner = worker.model_runner
        finalize_layerwise_reload(runner.get_model(), runner.model_config)
        runner.reset_lora_state()
        runner.reset_encoder_cache()
        runner.reset_mm_cache()
        self._open = False


def _configured(worker: Any) -> Any:
    from vllm.config import set_current_vllm_config

    return set_current_vllm_config(worker.vllm_config)


def take(worker: Any, bundle: WeightBundle, config: EngineConfig) -> Refused | None:
    """Load a bucket into this worker's model, or keep it, after checking that it arrived as it was sent."""
    if not hasattr(worker.model_runner, "assay_load"):
        worker.model_runner.assay_load = Load()
    try:
        worker.model_runner.assay_load.take(worker, bundle, config)
    except WeightMismatch as mismatch:
        return Refused(str(mismatch))
    return None


def prove(worker: Any, rtol: float) -> Proved | Refused:
    """Ask every module of this worker's model whether it holds what was taken."""
    try:
        proved: Proved = worker.model_runner.assay_load.prove(rtol)
    except WeightMismatch as mismatch:
        return Refused(str(mismatch))
    return proved


def drop_cache(worker: Any) -> int:
    """Give back the memory of a CPU worker's KV cache: bytes freed. The tensors stay, and are empty."""
    storages = [tensor.untyped_storage() for tensor in worker.model_runner.kv_caches]
    dropped = getattr(worker.model_runner, "assay_dropped", [])
    for storage in storages:
        if size := storage.nbytes():  # or it was dropped before
            dropped.append((storage, size))
            storage.resize_(0)
    worker.model_runner.assay_dropped = dropped
    return sum(size for _, size in dropped)


def take_cache(worker: Any) -> None:
    """Memory for the KV cache again, of whatever content: nothing in it is read before it is written."""
    for storage, size in getattr(worker.model_runner, "assay_dropped", []):
        storage.resize_(size)
    worker.model_runner.assay_dropped = []


def deliver(bucket: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What is handed to vLLM. A seam: the mutation tests break delivery here and must be caught by the proof."""
    return iter(bucket.items())


def forget_moe_kernels(model: Any) -> None:
    """Drop the MoE kernel objects, so that the next load packs the experts again (see `rollouts/vllm.py`)."""
    for module in model.modules():
        method = getattr(module, "quant_method", None)
        if getattr(method, "moe_kernel", None) is not None:
            method.moe_kernel = None
