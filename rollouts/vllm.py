"""The vLLM engine: in this process, one version of the policy at a time.

With `tensor_parallel` N the model lies in N processes beside this one, each of which takes every bucket, keeps its
slice, and proves it (`rollouts/loading.py`); they end together (`rollouts/together.py`). Tried on CPUs; on no GPU so
far.

Two defects of vLLM 0.32 on a CPU are worked around here, both silent and both found by the proof:

- its rotary kernel takes DeepSeek-V2's three-dimensional queries and keys for two-dimensional ones and rotates
  other tokens' memory, so every position but the first is wrong (log-probs off by up to 0.6). The kernel is
  switched off (`custom_ops: -rotary_embedding`) and vLLM's own PyTorch form is used;
- reloading leaves routed experts un-packed after the first update, because the kernel object exists already. The
  kernel objects are dropped before each load (`rollouts/loading.py`), so they are built and packed anew.

With both, log-probs agree with transformers to about 2e-6 in fp32, before and after syncs.

`return_experts` asks for the experts of every position that was computed: prompt and completion without its last
token, which nothing was predicted from. On CUDA vLLM returns them itself (so far tried on no device); its way there
needs Triton, so on a CPU `RouterWatch` listens to the routers while `generate` runs. Scoring is not listened to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from assay.errors import ConfigError, InfraFailure, WeightMismatch, boundary
from assay.types import Completion, FinishReason, RoutedExperts
from rollouts.config import EngineConfig, ProofConfig
from rollouts.engine import SLEPT, Sampling
from rollouts.stepping import Stepper, spans, streamed
from rollouts.together import Together
from rollouts.weights import PROBE_TOKENS, SyncReport, WeightBundle, named
from rollouts.wide import check_routers, wide_routers

FINISH = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}
PROBES = 4  #: sequences of `rollouts.weights.probe_sequences`
TENSOR_RTOL = {"float32": 1e-5, "bfloat16": 3e-2, "float16": 5e-3}


class VLLMEngine:
    """A `rollouts.engine.Engine`. Construct it in the process that shall hold the model (a Ray actor, or a test)."""

    def __init__(
        self, model: str, config: EngineConfig, proof: ProofConfig, *, max_model_len: int, eos_token_id: int
    ) -> None:
        _environment(config)
        import torch
        from vllm import LLM

        self.version = -1  # nothing synced yet: what was read from disk is not a trained version
        self._parallel = (config.tensor_parallel or 1) > 1
        self._unfit = ""  #: why it may not generate or score now
        self._kept = ""  #: name of the frozen weights kept beside the model
        self._config, self._proof, self._eos = config, proof, eos_token_id
        self._rtol = proof.tensor_rtol or TENSOR_RTOL[config.dtype]
        self._on_cpu = not torch.cuda.is_available()
        self._together: Together | None = None
        if self._parallel and self._on_cpu and config.enforce_eager:
            os.environ["TORCH_COMPILE_DISABLE"] = "1"  # else each process compiles its masks in C++ at the first pass
        if self._parallel and not self._on_cpu and torch.cuda.device_count() < (config.tensor_parallel or 1):
            raise ConfigError(
                f"rollouts.engine.tensor_parallel={config.tensor_parallel}: this process may use "
                f"{torch.cuda.device_count()} devices; set cluster.engine_gpus={config.tensor_parallel}"
            )
        max_model_len = max(max_model_len, PROBE_TOKENS + 1)  # to score is to ask for one token more
        options: dict[str, Any] = {}
        sequences = config.max_num_seqs
        if config.update_in_flight:  # the probe has places beside the rest, and no step is under way between two
            sequences += PROBES
            options |= {"scheduling_policy": "priority", "async_scheduling": False}
        if config.return_experts and self._on_cpu and self._parallel:
            raise ConfigError(
                "rollouts.engine.return_experts: on a CPU it needs tensor_parallel=1; the routers of other processes "
                "are not listened to"
            )
        if config.return_experts and self._on_cpu and not config.enforce_eager:
            raise ConfigError(
                "rollouts.engine.return_experts: on a CPU it needs enforce_eager=true; a compiled forward pass has no "
                "router to listen to"
            )
        if config.return_experts and self._on_cpu and config.routing == "queue":
            raise ConfigError(
                "rollouts.engine.return_experts: on a CPU it needs routing=fixed; routers are listened to call by call"
            )
        if config.return_experts and not self._on_cpu:
            options["enable_return_routed_experts"] = True
        if self._on_cpu:
            options["compilation_config"] = {"custom_ops": ["-rotary_embedding"]}
            options["num_gpu_blocks_override"] = _blocks(model, sequences, max_model_len)
        else:
            options["enable_sleep_mode"] = bool(config.sleeps)
            options["gpu_memory_utilization"] = config.gpu_memory_utilization
        if config.fp32_router_and_head:
            check_routers(model)
        with boundary(f"starting vLLM on {model}"), wide_routers(config.fp32_router_and_head) as wide:
            self._llm: Any = LLM(
                model=model,
                skip_tokenizer_init=True,  # tokens in, tokens out: the tokenizer is the driver's alone
                dtype=config.dtype,
                tensor_parallel_size=config.tensor_parallel or 1,
                distributed_executor_backend="mp" if self._parallel else None,  # inside an actor it would choose Ray
                enforce_eager=config.enforce_eager,
                max_model_len=max_model_len,
                max_num_seqs=sequences,
                max_num_batched_tokens=max(8192, max_model_len),
                logprobs_mode="processed_logprobs",  # at the sampling temperature, as the trainer computes them
                enable_prefix_caching=False,  # cached keys and values would outlive the weights they came from
                disable_log_stats=True,
                seed=0,
                **options,
                **wide,
            )
        if self._parallel:
            with boundary("vLLM's processes"):
                self._together = Together(self._llm)
        self._routed_layers = self._llm.apply_model(_routed_layers)[0] if config.return_experts else []
        if config.return_experts and not self._routed_layers:
            raise ConfigError(f"rollouts.engine.return_experts: {model} has no routers; leave it out")
        listens = config.return_experts and self._on_cpu
        self._watch: RouterWatch | None = self._llm.collective_rpc(RouterWatch)[0] if listens else None
        self._stepper = Stepper(self._llm) if config.routing == "queue" else None
        self._probe_first = -1 if config.update_in_flight else 0

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        groups = dict(self.stream(prompts, sampling))
        return [groups[i] for i in range(len(prompts))]

    def stream(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> Iterator[tuple[int, list[Completion]]]:
        with self._answering():
            for index, output in self._outputs(prompts, self._params(len(prompts), sampling)):
                yield index, [self._completion(sample, self._experts(output, sample)) for sample in output.outputs]

    def _answering(self) -> AbstractContextManager[None]:
        """Failures inside say which process died, where one did."""
        return self._together.answering() if self._together is not None else nullcontext()

    def _outputs(self, prompts: Sequence[Sequence[int]], params: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        if self._stepper is not None:
            return self._stepper.stream(prompts, params, fit=self._ready)
        self._ready()
        if self._watch is None:
            return streamed(self._llm, prompts, params)
        with self._watch:  # which says what it heard only at its end
            return iter([*streamed(self._llm, prompts, params)])

    def _params(self, count: int, sampling: Sampling) -> list[Any]:
        from vllm import SamplingParams

        return [
            SamplingParams(
                n=sampling.samples,
                temperature=sampling.temperature,
                max_tokens=sampling.max_tokens,
                seed=(sampling.seed * 1_000_003 + sampling.number(index) * 7919) % 2**31,
                logprobs=0,
                detokenize=False,
                stop_token_ids=[self._eos],
            )
            for index in range(count)
        ]

    def _experts(self, output: Any, sample: Any) -> RoutedExperts | None:
        """Of the positions something was predicted from: prompt and completion, without the last token."""
        if not self._routed_layers:
            return None
        if self._watch is not None:
            rows = self._watch.rows(output.request_id, sample.index)
        else:
            rows = sample.routed_experts[:, self._routed_layers]  # vLLM has a row for every layer, dense ones too
        used = len(output.prompt_token_ids) + len(sample.token_ids) - 1
        if len(rows) < used and sample.finish_reason not in FINISH:
            return None  # given up, and never trained on
        if len(rows) < used:
            raise InfraFailure(f"vLLM told the experts of {len(rows)} of {used} positions of a completion")
        return RoutedExperts(shape=(used, *rows.shape[1:]), ids=rows[:used].tobytes())

    def _completion(self, sample: Any, experts: RoutedExperts | None) -> Completion:
        held = spans(sample.weight_versions) or ((self.version, len(sample.token_ids)),)
        return Completion(
            token_ids=tuple(sample.token_ids),
            logprobs=tuple(
                entry[token].logprob for token, entry in zip(sample.token_ids, sample.logprobs, strict=True)
            ),
            text="",
            finish_reason=FINISH.get(sample.finish_reason, FinishReason.ABORT),
            policy_version=(held[0][0], held[-1][0]),
            experts=experts,
            spans=held if len(held) > 1 else (),
        )

    def load_weights(self, bundle: WeightBundle) -> SyncReport | None:
        if self._stepper is None:
            return self._take(bundle)
        with self._answering(), self._stepper.held(until=bundle.published is not None):
            return self._stepper.between(lambda: self._take(bundle))

    def _take(self, bundle: WeightBundle) -> SyncReport | None:
        from rollouts.loading import take

        if bundle.places is not None:  # kept, and not loaded
            self._kept = ""
            self._of_all(bundle.version, take, bundle, self._config)
            self._kept = named(bundle.published, bundle.places) if bundle.published is not None else ""
            return None
        self._unfit = f"the engine was left in the midst of weights version {bundle.version}: it may not answer"
        self._of_all(bundle.version, take, bundle, self._config)
        return self._prove(bundle.version) if bundle.published is not None else None

    def keeps(self) -> str:
        return self._kept

    def _prove(self, version: int) -> SyncReport:
        from rollouts.loading import prove

        reports = self._of_all(version, prove, self._rtol)
        self.version, self._unfit = version, ""
        self._llm.llm_engine.set_weight_version(str(version))
        return SyncReport(
            version=version,
            modules_checked=sum(report.modules for report in reports),
            max_relative_error=max(report.worst for report in reports),
            load_s=max(report.load_s for report in reports),
            proof_s=max(report.proof_s for report in reports),
        )

    def _of_all(self, version: int, work: Any, *args: Any) -> list[Any]:
        """`work` in every process that holds a part of the model. Raises WeightMismatch with the first complaint."""
        from rollouts.loading import Refused

        with self._answering(), boundary(f"vLLM {work.__name__}, weights version {version}"):
            answers = self._llm.collective_rpc(work, args=args)
        for rank, answer in enumerate(answers):
            if isinstance(answer, Refused):
                where = f"worker {rank} of {len(answers)}: " if len(answers) > 1 else ""
                raise WeightMismatch(f"weights version {version}: {where}{answer.why}")
        return list(answers)

    def _ready(self) -> None:
        if self._unfit:
            raise WeightMismatch(self._unfit)

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        self._ready()
        from vllm import SamplingParams

        params = SamplingParams(max_tokens=1, temperature=1.0, prompt_logprobs=0, detokenize=False)
        run = partial(streamed, self._llm)
        if self._stepper is not None:
            run = partial(self._stepper.stream, priority=self._probe_first)
        with self._answering():
            outputs = dict(run(sequences, [params] * len(sequences)))
        return [
            [entry[token].logprob for token, entry in zip(s[1:], outputs[i].prompt_logprobs[1:], strict=True)]
            for i, s in enumerate(sequences)
        ]

    def sleep(self) -> None:
        """On CUDA vLLM's level 2: weights and KV cache are dropped. It has no sleep on a CPU: there the KV cache is
        dropped, and the weights stay where they are, for vLLM's packed copies cannot be let go of."""
        from rollouts.loading import drop_cache

        self.version, self._unfit = -1, SLEPT
        if self._stepper is not None:
            self._stepper.drop(InfraFailure("the engine was sent to sleep"))
        with self._answering(), boundary("vLLM sleep"):
            if self._on_cpu:
                self._llm.collective_rpc(drop_cache)
            else:
                self._llm.sleep(level=2)

    def wake_up(self) -> None:
        from rollouts.loading import take_cache

        with self._answering(), boundary("vLLM wake_up"):
            if self._on_cpu:
                self._llm.collective_rpc(take_cache)
            else:
                self._llm.wake_up()

    def close(self) -> None:
        if self._stepper is not None:
            self._stepper.close()
        if self._together is not None:
            self._together.end()
            self._llm.llm_engine.engine_core.shutdown()
        self._llm = self._watch = self._stepper = self._together = None


class RouterWatch:
    """Listens to the routers of a worker's model, inside `with`: which experts, for which request, at which position.

    A forward pass computes consecutive positions of several requests, laid flat. The routers name the experts of all
    of them, layer after layer; the model runner knows whose they are.
    """

    def __init__(self, worker: Any) -> None:
        self._runner = worker.model_runner
        self._layers: list[Any] = []  # of the pass under way: [tokens, K] each
        self._passes: list[tuple[list[str], Any, Any, Any]] = []  # requests, first positions, bounds, [tokens, M, K]
        self._tables: dict[tuple[str, int], Any] = {}
        self._hook: Any = None

    def __enter__(self) -> None:
        self._passes.clear()
        self._tables.clear()
        for router in _routers(self._runner.model):
            router.set_capture_fn(self._layers.append)
        self._hook = self._runner.model.register_forward_hook(self._after_pass)

    def __exit__(self, *exc: object) -> None:
        self._hook.remove()
        for router in _routers(self._runner.model):
            router.set_capture_fn(None)
        self._tables = self._by_request()
        self._passes.clear()

    def _after_pass(self, *call: Any) -> None:
        import torch

        batch = self._runner.input_batch
        count = len(batch.req_ids)
        ids = torch.stack(self._layers, dim=1).to(torch.uint8 if self._narrow() else torch.int16).numpy()
        self._layers.clear()
        bounds = self._runner.query_start_loc.np[: count + 1].copy()
        self._passes.append((list(batch.req_ids), batch.num_computed_tokens_cpu[:count].copy(), bounds, ids))

    def _narrow(self) -> bool:
        return next(iter(_routers(self._runner.model))).global_num_experts <= 256

    def _by_request(self) -> dict[tuple[str, int], Any]:
        """{(request, sample): [positions, M, K]}. A position that was computed again after a preemption counts last."""
        import numpy as np

        parts: dict[str, list[tuple[int, Any]]] = {}
        for requests, starts, bounds, ids in self._passes:
            for i, request in enumerate(requests):
                parts.setdefault(request, []).append((int(starts[i]), ids[bounds[i] : bounds[i + 1]]))
        tables = {}
        for request, pieces in parts.items():
            shape = (max(start + len(rows) for start, rows in pieces), *pieces[0][1].shape[1:])
            table = np.zeros(shape, pieces[0][1].dtype)
            for start, rows in pieces:
                table[start : start + len(rows)] = rows
            tables[_sample_of(request)] = table
        return tables

    def rows(self, request: str, sample: int) -> Any:
        """Ids [positions, M, K] of one sample of a request, handed out once; empty where nothing was heard."""
        return self._tables.pop((request, sample), ())


def _sample_of(internal: str) -> tuple[str, int]:
    """vLLM's name of a request inside the engine is [sample_]request-suffix: ("7", 2) of "2_7-0a1b2c3d"."""
    name = internal.rpartition("-")[0]
    sample, found, request = name.partition("_")
    return (request, int(sample)) if found else (name, 0)


def _routers(model: Any) -> Iterator[Any]:
    """The routers of a vLLM model, in the order of its layers."""
    from vllm.model_executor.layers.fused_moe.runner.moe_runner import MoERunner

    return (module.router for module in model.modules() if isinstance(module, MoERunner))


def _routed_layers(model: Any) -> list[int]:
    """The numbers of the layers that have routers."""
    from vllm.model_executor.layers.fused_moe.runner.moe_runner import MoERunner

    return [module.layer_id for module in model.modules() if isinstance(module, MoERunner)]


def _environment(config: EngineConfig) -> None:
    """What vLLM reads while it is imported. In-process: a second process costs 30 s of start and most of the speed."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(config.kv_cache_gib)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    if (config.tensor_parallel or 1) > 1 and os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "auto") == "auto":
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"  # else it wants a NUMA node for each process
    if config.threads is not None or (config.tensor_parallel or 1) > 1:
        os.environ["OMP_NUM_THREADS"] = str(config.threads_each)


def _blocks(model: str, max_num_seqs: int, max_model_len: int) -> int | None:
    """KV-cache blocks that hold every sequence at full length, where that is less than `kv_cache_gib` would take.

    Known for latent attention alone, whose CPU kernel fixes blocks of 16 tokens; None leaves it to `kv_cache_gib`.
    """
    from transformers import AutoConfig

    latent = getattr(AutoConfig.from_pretrained(model), "kv_lora_rank", None)
    return max_num_seqs * (-(-max_model_len // 16) + 1) if latent else None
