"""How much one token of each completion counts. Weights are over the whole global batch and add up as named.

    per_sequence_mean   1 / (S |o_i|)        DeepSeekMath (arXiv 2402.03300) Eq. 3: 1/G sum_i 1/|o_i| sum_t
    token               1 / sum_j |o_j|      DAPO (arXiv 2503.14476) Eq. 8
    constant            1 / (S L)            Dr. GRPO (arXiv 2503.20783): L is the longest completion allowed
    prompt_mean         1 / (P sum_g |o|)    ScaleRL (arXiv 2510.13786): mean over prompts of the group's token mean

S is the number of completions in the batch, P of prompts, |o_i| the length of completion i, sum_g |o| the tokens of
its group. With prompts of equal group size the mean over groups of means over completions is the mean over
completions, so S = prompts x G.

BNPO, as TRL has the word, is `token` over the local batch. Here a local batch is the whole optimizer step: its value
in TRL depends on how the batch was cut, and no weight of ours may.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

Weigh = Callable[[Sequence[int], int, Sequence[int]], list[float]]


def per_sequence_mean(
    lengths_S: Sequence[int], max_completion_tokens: int, groups_S: Sequence[int] = ()
) -> list[float]:
    return [1 / (len(lengths_S) * n) for n in lengths_S]


def token(lengths_S: Sequence[int], max_completion_tokens: int, groups_S: Sequence[int] = ()) -> list[float]:
    total = sum(lengths_S)
    return [1 / total for _ in lengths_S]


def constant(lengths_S: Sequence[int], max_completion_tokens: int, groups_S: Sequence[int] = ()) -> list[float]:
    return [1 / (len(lengths_S) * max_completion_tokens) for _ in lengths_S]


def prompt_mean(lengths_S: Sequence[int], max_completion_tokens: int, groups_S: Sequence[int]) -> list[float]:
    tokens = Counter[int]()
    for group, length in zip(groups_S, lengths_S, strict=True):
        tokens[group] += length
    return [1 / (len(tokens) * tokens[group]) for group in groups_S]


AGGREGATIONS: dict[str, Weigh] = {
    "per_sequence_mean": per_sequence_mean,
    "token": token,
    "constant": constant,
    "prompt_mean": prompt_mean,
}
