"""Closed forms, and packed = unpacked on the mixture of experts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import assay.logprobs
from assay.logprobs import completion_logprobs, token_entropies, token_logprobs
from assay.packing import pack_completions
from assay.policy import InitConfig, PolicyConfig, create_policy, load_policy
from assay.tokenizer import train_tokenizer

SMALL = InitConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, initializer_range=0.1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    folder: Path = tmp_path_factory.mktemp("policy") / "p"
    tokenizer = train_tokenizer(["hello there"] * 5, vocab_size=300)
    return load_policy(create_policy(PolicyConfig(init=SMALL), tokenizer, 0, folder)).eval()


def completions(n: int) -> tuple[list[list[int]], list[list[int]]]:
    generator = torch.Generator().manual_seed(5)

    def draw(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high, (), generator=generator))
        return torch.randint(6, 260, (length,), generator=generator).tolist()

    return [draw(2, 12) for _ in range(n)], [draw(1, 20) for _ in range(n)]


def test_two_way_distribution_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]], dtype=torch.float64)  # p = 1/4, 3/4
    assert token_logprobs(logits, torch.tensor([1]), 1.0).item() == pytest.approx(math.log(0.75), abs=1e-12)
    assert token_entropies(logits, 1.0).item() == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))
    # at temperature 1/2 the odds are squared: 1 to 9
    assert token_logprobs(logits, torch.tensor([0]), 0.5).item() == pytest.approx(math.log(0.1), abs=1e-12)


def test_against_log_softmax_in_fp64() -> None:
    logits = torch.randn(7, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4
    targets = torch.arange(7)
    reference = torch.log_softmax(logits / 0.7, dim=-1)
    torch.testing.assert_close(token_logprobs(logits, targets, 0.7), reference[range(7), targets])
    torch.testing.assert_close(token_entropies(logits, 0.7), -(reference.exp() * reference).sum(-1))


def test_entropy_of_the_uniform_distribution_is_log_v() -> None:
    assert token_entropies(torch.zeros(1, 50), 0.3).item() == pytest.approx(math.log(50), rel=1e-6)


@pytest.mark.parametrize("row_tokens", [None, 40, 100])
def test_packed_equals_unpacked(model, row_tokens: int | None) -> None:
    prompts, answers = completions(9)
    packed = pack_completions(prompts, answers, pad_id=2, row_tokens=row_tokens)
    logprobs, entropies = completion_logprobs(model, packed, 0.8, with_entropy=True)
    by_sequence, entropy_of = packed.split_targets(logprobs), packed.split_targets(entropies)
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1] / 0.8
        reference = torch.log_softmax(logits, dim=-1)
        expected = reference[range(len(answer)), answer]
        torch.testing.assert_close(by_sequence[i], expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(entropy_of[i], -(reference.exp() * reference).sum(-1), atol=1e-5, rtol=0)


def test_sequences_in_a_row_do_not_see_each_other(model) -> None:
    prompts, answers = completions(4)
    packed = pack_completions(prompts, answers, pad_id=2, row_tokens=200)
    assert packed.token_ids.shape[0] == 1
    before = packed.split_targets(completion_logprobs(model, packed)[0])
    answers[2] = [t + 1 for t in answers[2]]
    after = packed.split_targets(
        completion_logprobs(model, pack_completions(prompts, answers, pad_id=2, row_tokens=200))[0]
    )
    for i in (0, 1, 3):
        torch.testing.assert_close(before[i], after[i], atol=1e-6, rtol=0)
    assert not torch.allclose(before[2], after[2])


def test_chunks_change_neither_value_nor_gradient(model, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, answers = completions(6)
    packed = pack_completions(prompts, answers, pad_id=2)

    def value_and_gradient() -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        logprobs, _ = completion_logprobs(model, packed, 1.3)
        logprobs.sum().backward()
        return logprobs.detach(), model.lm_head.weight.grad.clone()

    whole = value_and_gradient()
    monkeypatch.setattr(assay.logprobs, "CHUNK_LOGITS", 300 * 5)  # five positions at a time
    for a, b in zip(whole, value_and_gradient(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_entropy_carries_no_gradient(model) -> None:
    prompts, answers = completions(2)
    _, entropies = completion_logprobs(model, pack_completions(prompts, answers, pad_id=2), with_entropy=True)
    assert entropies is not None and not entropies.requires_grad
