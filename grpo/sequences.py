"""Values per token to values per sequence, where tokens lie flat [N] and `segments_N` says whose each one is."""

from __future__ import annotations

from torch import Tensor


def sequence_sum(values_N: Tensor, segments_N: Tensor) -> Tensor:
    """[N] the sum of the values over each token's own sequence, in the place of every token. Differentiable."""
    _, place, _ = segments_N.unique(return_inverse=True, return_counts=True)
    return _sums(values_N, place)[place]


def sequence_mean(values_N: Tensor, segments_N: Tensor) -> Tensor:
    """[N] the mean of the values over each token's own sequence, in the place of every token. Differentiable."""
    _, place, counts = segments_N.unique(return_inverse=True, return_counts=True)
    return (_sums(values_N, place) / counts)[place]


def count_sequences(chosen_N: Tensor, segments_N: Tensor) -> int:
    """How many sequences the chosen tokens [N] belong to."""
    return int(segments_N[chosen_N].unique().numel())


def _sums(values_N: Tensor, place_N: Tensor) -> Tensor:
    sequences = int(place_N.max()) + 1 if place_N.numel() else 0
    return values_N.new_zeros(sequences).index_add(0, place_N, values_N)
