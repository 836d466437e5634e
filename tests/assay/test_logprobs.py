"""Closed forms, and packed = unpacked on the mixture of experts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import assay.logprobs
from assay.errors import ConfigError
from assay.logprobs import Reading, completion_logprobs, head_logprobs, token_entropies, token_logprobs
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


def test_entropy_carries_a_gradient_where_it_is_asked_for(model) -> None:
    prompts, answers = completions(2)
    packed = pack_completions(prompts, answers, pad_id=2)
    model.zero_grad()
    _, entropies = completion_logprobs(model, packed, 0.8, with_entropy="gradient")
    entropies.sum().backward()
    ours = model.lm_head.weight.grad.clone()
    model.zero_grad()
    hidden = model.model(input_ids=packed.token_ids, position_ids=packed.position_ids).last_hidden_state
    token_entropies(model.lm_head(hidden[:, :-1][packed.target_mask[:, 1:]]), 0.8).sum().backward()
    torch.testing.assert_close(ours, model.lm_head.weight.grad, atol=1e-5, rtol=1e-4)


def test_a_head_that_is_no_linear_layer_is_refused_in_one_line(model, monkeypatch: pytest.MonkeyPatch) -> None:
    class Scaled(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 2

    monkeypatch.setattr(model, "lm_head", Scaled(32, 300))
    with pytest.raises(ConfigError, match="head is a Scaled"):
        completion_logprobs(model, pack_completions([[1, 2]], [[3]], pad_id=2))


# -- the head alone: hidden states [N, H], a vocabulary of V ------------------------------------------------------


def draw_head(n: int = 11, v: int = 23, h: int = 6, dtype: torch.dtype = torch.float64, bias: bool = False):
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(n, h, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(v, h, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    offsets = torch.randn(v, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() if bias else None
    return hidden, weight, offsets, torch.randint(0, v, (n,), generator=generator)


def naive(hidden, weight, bias, targets, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.nn.functional.linear(hidden, weight, bias)
    return token_logprobs(logits, targets, temperature), token_entropies(logits, temperature)


def gradients_of(values: torch.Tensor, inputs) -> list[torch.Tensor]:
    return list(torch.autograd.grad(values, [t for t in inputs if t is not None]))


#: positions in a chunk of the 11: one, some with a rest, some without, all, more than there are
CHUNKS = (1, 4, 10, 11, 50)


@pytest.mark.parametrize("rows", CHUNKS)
@pytest.mark.parametrize("bias", [False, True])
def test_the_written_gradient_is_the_numerical_one(rows: int, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assay.logprobs, "CHUNK_LOGITS", 7 * rows)
    hidden, weight, offsets, targets = draw_head(5, 7, 3, bias=bias)
    reading = Reading(0.7, with_entropy="gradient")
    inputs = [hidden, weight, *([offsets] if bias else [])]

    def values(hidden, weight, offsets=None):
        return head_logprobs(hidden, weight, offsets, targets, reading)

    assert torch.autograd.gradcheck(values, inputs)


@pytest.mark.parametrize("rows", CHUNKS)
@pytest.mark.parametrize("announced", [False, True])
@pytest.mark.parametrize("dtype, close", [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_values_and_gradients_are_those_of_whole_logits(
    rows: int, announced: bool, dtype: torch.dtype, close: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assay.logprobs, "CHUNK_LOGITS", 23 * rows)
    hidden, weight, bias, targets = draw_head(dtype=dtype, bias=True)
    weights = torch.linspace(-1, 2, 11, dtype=dtype)

    def loss(logprobs, entropies, at: slice = slice(None)):
        return (weights[at] * (logprobs.square() - 0.3 * entropies)).sum()

    reading = Reading(0.7, "gradient", loss if announced else None)
    ours = head_logprobs(hidden, weight, bias, targets, reading)
    plain = naive(hidden, weight, bias, targets, 0.7)
    mine = gradients_of(3 * loss(*ours), (hidden, weight, bias))
    theirs = gradients_of(3 * loss(*plain), (hidden, weight, bias))
    for a, b in zip([*ours, *mine], [*plain, *theirs], strict=True):
        assert (a - b).abs().max() <= close * b.abs().max()


@pytest.mark.parametrize("announced, products", [(None, 6), ("right", 3), ("wrong", 6)])
def test_logits_are_computed_once_where_the_loss_was_announced_and_never_wrongly(
    announced: str | None, products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assay.logprobs, "CHUNK_LOGITS", 23 * 4)  # three chunks
    calls = []
    monkeypatch.setattr(assay.logprobs, "linear", lambda *a: (calls.append(1), torch.nn.functional.linear(*a))[1])
    hidden, weight, _, targets = draw_head()
    weights = torch.linspace(-1, 2, 11, dtype=torch.float64)
    said = {"right": weights, "wrong": weights + torch.arange(11) * 1e-3}.get(announced or "")
    foreseen = None if said is None else lambda logprobs, entropies, at: (said[at] * logprobs).sum()
    (logprobs,) = head_logprobs(hidden, weight, None, targets, Reading(1.0, loss=foreseen))
    mine = gradients_of((weights * logprobs).sum() * 2, (hidden, weight))
    assert len(calls) == products
    theirs = gradients_of((weights * naive(hidden, weight, None, targets, 1.0)[0]).sum() * 2, (hidden, weight))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


def test_a_second_backward_pass_brings_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, _, targets = draw_head()
    for rows in (4, 50):
        monkeypatch.setattr(assay.logprobs, "CHUNK_LOGITS", 23 * rows)
        loss = head_logprobs(hidden, weight, None, targets, Reading(loss=lambda logprobs, _, at: logprobs.sum()))[
            0
        ].sum()
        first = torch.autograd.grad(loss, (hidden, weight), retain_graph=True)
        again = torch.autograd.grad(loss, (hidden, weight))
        for a, b in zip(first, again, strict=True):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("announced", [False, True])
def test_bfloat16_sums_the_weight_gradient_in_fp32(announced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assay.logprobs, "CHUNK_LOGITS", 23)  # one position a chunk: 200 terms in every sum
    hidden, weight, _, targets = draw_head(200, dtype=torch.bfloat16)
    loss = (lambda logprobs, _, at: logprobs.sum()) if announced else None
    (logprobs,) = head_logprobs(hidden, weight, None, targets, Reading(loss=loss))
    assert logprobs.dtype == torch.float32
    mine = gradients_of(logprobs.sum(), (hidden, weight))
    assert [t.dtype for t in mine] == [torch.bfloat16] * 2
    exact = gradients_of(
        naive(
            hidden.detach().double().requires_grad_(),
            (w := weight.detach().double().requires_grad_()),
            None,
            targets,
            1.0,
        )[0].sum(),
        (w,),
    )[0]
    assert (mine[1] - exact).abs().max() < 0.01 * exact.abs().max()


def test_no_positions_have_no_values_and_no_gradient() -> None:
    hidden, weight, bias, targets = draw_head(0, bias=True)
    for loss in (None, lambda logprobs, _, at: logprobs.sum()):
        logprobs, entropies = head_logprobs(hidden, weight, bias, targets, Reading(1.0, True, loss=loss))
        assert logprobs.shape == entropies.shape == (0,)
        assert all(not g.any() for g in gradients_of(logprobs.sum(), (hidden, weight, bias)))


def test_a_frozen_head_gets_no_gradient_and_passes_one_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assay.logprobs, "CHUNK_LOGITS", 23 * 4)
    hidden, weight, _, targets = draw_head()
    frozen = weight.detach()
    head_logprobs(hidden, frozen, None, targets, Reading(1.3))[0].sum().backward()
    expected = gradients_of(naive(hidden, frozen, None, targets, 1.3)[0].sum(), (hidden,))[0]
    torch.testing.assert_close(hidden.grad, expected)
    with torch.no_grad():
        assert not head_logprobs(hidden, weight, None, targets, Reading(1.3))[0].requires_grad


def test_very_large_logits_stay_finite() -> None:
    hidden = torch.tensor([[300.0], [-300.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.5]], requires_grad=True)
    logprobs, entropies = head_logprobs(hidden, weight, None, torch.tensor([1, 1]), Reading(1.0, True))
    assert logprobs.tolist() == [-600.0, 0.0] and entropies.tolist() == [0.0, 0.0]
    assert all(g.isfinite().all() for g in gradients_of(logprobs.sum(), (hidden, weight)))
