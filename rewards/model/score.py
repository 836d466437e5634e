"""The trained reward model as a function: completions to probabilities of passing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from assay.errors import InfraFailure, boundary
from assay.packing import pack_completions
from assay.policy import Dtype, load_tokenizer
from rewards.model.network import RewardModel
from rewards.model.train import pad_id, probabilities


class RewardModelScorer:
    """Holds a reward model and scores the completions of one prompt at a time, batched.

    Raises CheckpointError where the folder holds none.
    """

    def __init__(
        self, folder: str | Path, *, dtype: Dtype = "float32", device: str | None = None, micro_batch_tokens: int = 8192
    ) -> None:
        self._network = RewardModel.load(folder, dtype).eval()
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._network.to(self._device)
        self._pad_id = pad_id(load_tokenizer(folder))
        self._micro_batch_tokens = micro_batch_tokens

    def score(self, prompt_ids: Sequence[int], completions: Sequence[Sequence[int]]) -> list[float]:
        """Probability in [0, 1] that each completion passes its tests, in order.

        Raises InfraFailure where the model fails or answers with something that is no number: a completion that
        could not be scored has no score, and never the score zero.
        """
        if not completions:
            return []
        with boundary("reward model"):
            packed = pack_completions([prompt_ids] * len(completions), completions, pad_id=self._pad_id)
            micros = packed.to(self._device).micro_batches(self._micro_batch_tokens)
            found = probabilities(self._network, micros)
            scores = [found[i] for i in sorted(found)]
        if not all(map(math.isfinite, scores)):
            raise InfraFailure(
                "reward model: a score is not a finite number; the checkpoint is damaged, train it again"
            )
        return scores
