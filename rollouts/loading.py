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
from rollouts.holding import Holding
from rollouts.weights import Arrival, WeightBundle


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
    """The weights on their way into one process's model."""

    def __init__(self, worker: Any) -> None:
        self._worker, self._runner = worker, worker.model_runner
        self._arrival, self._open = Arrival(), False
        self._holding: Holding | None = None
        self._proof_s = self._load_s = 0.0

    def take(self, bundle: WeightBundle) -> None:
        started = time.perf_counter()
        received = self._arrival.take(bundle)
        if bundle.part == 0:
            self._begin(bundle.version)
        assert self._holding is not None
        for name, tensor in received.look():
            self._holding.hear(name, tensor, bundle.digests[name])
        heard = time.perf_counter()
        self._proof_s += heard - started
        with self._configured():
            self._runner.get_model().load_weights(deliver(received))
            if bundle.published is not None:
                self._end()
        self._load_s += time.perf_counter() - heard

    def prove(self, rtol: float) -> Proved:
        started = time.perf_counter()
        assert self._holding is not None
        modules, worst = self._holding.check(rtol)
        return Proved(modules, worst, self._load_s, self._proof_s + time.perf_counter() - started)

    def _begin(self, version: int) -> None:
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        model = self._runner.get_model()
        with self._configured():
            if self._open:  # a version that came in part: its modules go back to their places first
                self._end()
            self._holding, self._load_s, self._proof_s = Holding(model, seed=version), 0.0, 0.0
            if self._runner.device.type == "cpu":
                forget_moe_kernels(model)
            initialize_layerwise_reload(model)
        self._open = True

    def _end(self) -> None:
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self._runner.get_model(), self._runner.model_config)
        self._runner.reset_lora_state()
        self._runner.reset_encoder_cache()
        self._runner.reset_mm_cache()
        self._open = False

    def _configured(self) -> Any:
        from vllm.config import set_current_vllm_config

        return set_current_vllm_config(self._worker.vllm_config)


def take(worker: Any, bundle: WeightBundle) -> Refused | None:
    """Load a bucket into this worker's model, after checking that it arrived as it was sent."""
    if not hasattr(worker.model_runner, "assay_load"):
        worker.model_runner.assay_load = Load(worker)
    try:
        worker.model_runner.assay_load.take(bundle)
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


def deliver(bucket: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What is handed to vLLM. A seam: the mutation tests break delivery here and must be caught by the proof."""
    return iter(bucket.items())


def forget_moe_kernels(model: Any) -> None:
    """Drop the MoE kernel objects, so that the next load packs the experts again (see `rollouts/vllm.py`)."""
    for module in model.modules():
        method = getattr(module, "quant_method", None)
        if getattr(method, "moe_kernel", None) is not None:
            method.moe_kernel = None
