"""Our losses against those of TRL's GRPOTrainer: the same model, tokens, advantages and bounds, loss and gradient.

TRL's own `_compute_loss` runs on its padded batch; ours runs on packed rows cut into micro-batches. Shown as a table by
`python -m tests.grpo.test_against_trl`, or by pytest with -s. What the two define differently is set to one meaning:

- TRL's cispo bound is the cap itself, ours (as in the paper) the cap less 1;
- TRL adds 1e-4 to the deviation of an advantage; both get ours here;
- TRL multiplies the KL by the ratio unless told otherwise (its default is V3.2's estimator, not DeepSeekMath's Eq. 4);
- TRL's bnpo and dr_grpo depend on the micro-batch or count every one alike; it gets the batch whole.
"""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from assay.logprobs import completion_logprobs
from assay.packing import pack_completions
from assay.tokenizer import train_tokenizer
from grpo.batch import TrainBatch, build_batch, estimate_advantages
from grpo.config import GRPOConfig
from grpo.objective import Tokens, objective
from tests.groups import make_scored

LONGEST, TEMPERATURE, VOCABULARY = 9, 0.8, 300
LENGTHS = ([5, 9, 2], [1, 7, 4])
REWARDS = ([1.0, 0.0, 0.25], [0.0, 1.0, 1.0])

#: name: (ours, TRL's)
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grpo": ({}, {"loss_type": "grpo", "beta": 0.04}),
    "grpo, KL 0": ({"kl": {"estimator": "none"}}, {"loss_type": "grpo"}),
    "dapo": ({"algorithm": "dapo"}, {"loss_type": "dapo", "epsilon_high": 0.28}),
    "dr_grpo": ({"algorithm": "dr_grpo"}, {"loss_type": "dr_grpo"}),
    "bnpo": ({"algorithm": "bnpo"}, {"loss_type": "bnpo", "beta": 0.04}),
    "gspo": (
        {"algorithm": "gspo", "mini_batches": 1},
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
    ),
    "gspo, wide": (
        {"loss": "gspo", "kl": {"estimator": "none"}},
        {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    ),
    "cispo": ({"algorithm": "cispo"}, {"loss_type": "cispo", "epsilon_high": 5.0}),
    "cispo, low cap": ({"algorithm": "cispo", "clip": [0.0, 0.1]}, {"loss_type": "cispo", "epsilon_high": 1.1}),
    "unbiased KL": (
        {"kl": {"estimator": "unbiased"}},
        {"loss_type": "grpo", "beta": 0.04, "use_bias_correction_kl": True},
    ),
    "V3.2 mask": (
        {"correction": {"off_policy_threshold": 0.095}},
        {"loss_type": "grpo", "beta": 0.04, "off_policy_mask_threshold": 0.095},
    ),
    "entropy bonus": (
        {"loss_normalisation": "token", "entropy": {"coef": 0.05}},
        {"loss_type": "bnpo", "beta": 0.04, "entropy_coef": 0.05},
    ),
}


def make_model(folder: Path) -> Any:
    """A random Qwen2 in fp64, read from a folder: TRL wants to read its own reference from there."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
    Qwen2ForCausalLM(Qwen2Config(vocab_size=VOCABULARY, **shape, **heads)).double().save_pretrained(folder)
    return Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float64).train()


def make_batch(config: GRPOConfig) -> TrainBatch:
    """Random tokens in two groups of three, with the advantages and weights of `config`."""
    draw = torch.Generator().manual_seed(1)
    scored = [make_scored(r, n, str(i)) for i, (r, n) in enumerate(zip(REWARDS, LENGTHS, strict=True))]
    batch = build_batch(scored, estimate_advantages(scored, config, LONGEST), config, LONGEST)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(6, VOCABULARY, (count,), generator=draw).tolist())

    prompts = [tokens(2)] * 3 + [tokens(4)] * 3
    return TrainBatch(
        prompts=tuple(prompts),
        completions=tuple(tokens(n) for group in LENGTHS for n in group),
        **{f: getattr(batch, f) for f in ("engine_logprobs", "advantages", "weights", "oldest_version", "counts")},
    )


def references(model: Any, batch: TrainBatch) -> dict[str, list[list[float]]]:
    """Log-probabilities of an old, an engine's and a reference policy: the model's own and noise, in fp32 numbers."""
    packed = pack_completions(batch.prompts, batch.completions, pad_id=0)
    with torch.no_grad():
        own = packed.split_targets(completion_logprobs(model, packed, TEMPERATURE)[0])
    draw = torch.Generator().manual_seed(2)

    def near(scale: float) -> list[list[float]]:
        noisy = [v + scale * torch.randn(v.shape, generator=draw, dtype=v.dtype) for _, v in sorted(own.items())]
        return [v.float().tolist() for v in noisy]

    return {"old": near(0.25), "engine": near(-0.6), "reference": near(0.3)}


def ours(model: Any, config: GRPOConfig, batch: TrainBatch, known: dict[str, list[list[float]]]) -> Any:
    """Loss, gradient and sums, in packed rows and several micro-batches."""
    model.zero_grad()
    total, sums = 0.0, Counter[str]()
    for m in pack_completions(batch.prompts, batch.completions, pad_id=0).micro_batches(20):
        segments = m.target_segments()
        logprobs, entropy = completion_logprobs(model, m, TEMPERATURE, "gradient")
        old, engine, reference = (m.gather_targets(known[k]).double() for k in ("old", "engine", "reference"))
        tokens = Tokens(
            logprobs=logprobs,
            old=old,
            engine=engine,
            reference=None if config.kl.estimator == "none" else reference,
            entropy=entropy,
            advantages=torch.tensor(batch.advantages, dtype=torch.float64)[segments],
            weights=torch.tensor(batch.weights, dtype=torch.float64)[segments],
            segments=segments,
        )
        part, added = objective(tokens, config, config.entropy.coef, batch.num_tokens)
        part.backward()
        total += part.item()
        sums.update({name: float(value) for name, value in added.items()})
    return total, {n: p.grad.clone() for n, p in model.named_parameters()}, sums


def padded(rows: Any, left: bool = False, value: float = 0) -> torch.Tensor:
    width = max(map(len, rows))
    filled = [[value] * (width - len(r)) + [*r] if left else [*r] + [value] * (width - len(r)) for r in rows]
    return torch.tensor(filled, dtype=torch.int64 if isinstance(rows[0][0], int) else torch.float64)


def theirs(model: Any, folder: Path, settings: dict[str, Any], batch: TrainBatch, known: Any) -> Any:
    """Loss and gradient of GRPOTrainer._compute_loss."""
    from datasets import Dataset
    from trl import GRPOConfig as Settings
    from trl import GRPOTrainer

    common = {"beta": 0.0, "use_bias_correction_kl": False, "temperature": TEMPERATURE}
    arguments = Settings(
        str(folder), use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False, num_generations=3,
        per_device_train_batch_size=6, gradient_accumulation_steps=1, steps_per_generation=1,
        max_completion_length=LONGEST, **{**common, **settings},
    )  # fmt: skip
    trainer = GRPOTrainer(
        model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": "a"}]),
        processing_class=train_tokenizer(["a b"], vocab_size=VOCABULARY),
    )
    trainer.current_gradient_accumulation_steps = 1
    inputs = {
        "prompt_ids": padded(batch.prompts, left=True),
        "prompt_mask": padded([[1] * len(p) for p in batch.prompts], left=True),
        "completion_ids": padded(batch.completions),
        "completion_mask": padded([[1] * len(c) for c in batch.completions]),
        "advantages": torch.tensor(batch.advantages, dtype=torch.float64),
        "old_per_token_logps": padded(known["old"]),
        "sampling_per_token_logps": padded(known["engine"]),
        "ref_per_token_logps": padded(known["reference"]),
        "num_items_in_batch": torch.tensor(float(batch.num_tokens)),
    }
    model.zero_grad()
    loss = trainer._compute_loss(model, inputs)
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters()}


def compare(name: str, folder: Path) -> tuple[float, float, float, float]:
    """TRL's loss, ours, the largest difference of any gradient entry, and the largest entry."""
    settings, trl = CASES[name]
    config = GRPOConfig(**settings)
    model, batch = make_model(folder / "model"), make_batch(config)
    known = references(model, batch)
    mine, gradient, _ = ours(copy.deepcopy(model), config, batch, known)
    other, expected = theirs(model, folder, trl, batch, known)
    worst = max((gradient[n] - expected[n]).abs().max().item() for n in expected)
    return other, mine, worst, max(g.abs().max().item() for g in expected.values())


def line(name: str, other: float, mine: float, gradient: float, largest: float) -> str:
    return f"{name:16} {other:+.9f} {mine:+.9f} {mine - other:+.1e} {gradient:.1e} {largest:.1e}"


HEAD = f"{'':16} {'TRL loss':>12} {'our loss':>12} {'loss -':>8} {'grad -':>7} {'grad':>7}"


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_are_those_of_trl(name: str, tmp_path: Path):
    pytest.importorskip("datasets", reason="datasets is not installed; pip install trl==1.16.0")
    pytest.importorskip("trl", reason="TRL is not installed; pip install trl==1.16.0")
    other, mine, gradient, largest = compare(name, tmp_path)
    print(f"\n{HEAD}\n{line(name, other, mine, gradient, largest)}")
    assert mine == pytest.approx(other, abs=1e-6)
    assert gradient < 1e-6 < 1e-3 < largest
    assert abs(other) > 1e-4


def test_the_cases_clip_cap_and_mask_some_tokens_and_not_all(tmp_path: Path):
    """Else two wrong bounds would agree."""
    model = make_model(tmp_path)
    shares = {}
    for name, (settings, _) in CASES.items():
        config = GRPOConfig(**settings)
        batch = make_batch(config)
        _, _, sums = ours(model, config, batch, references(model, batch))
        shares[name] = (sums["clipped"] / batch.num_tokens, sums["off_policy"])
    unclipped = {"gspo, wide", "cispo"}
    assert all(0 < shares[name][0] < 1 for name in CASES.keys() - unclipped)
    assert {name for name in CASES if shares[name][1]} == {"V3.2 mask"}
    assert 0 < shares["V3.2 mask"][1] < sum(a < 0 for a in batch.advantages)


if __name__ == "__main__":
    print(HEAD)
    for case in CASES:
        with tempfile.TemporaryDirectory() as scratch:
            print(line(case, *compare(case, Path(scratch))), flush=True)
