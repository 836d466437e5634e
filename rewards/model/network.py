"""The reward model: the SFT policy's backbone and a scalar head read at the last token.

On disk it is what transformers calls a sequence classifier with one label, so `AutoModelForSequenceClassification`
loads it; here it runs over packed rows.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from assay.errors import CheckpointError
from assay.packing import PackedBatch
from assay.policy import Dtype, check_folder, without_bars

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HEAD = "score.weight"


class RewardModel(nn.Module):
    """`score.weight` starts at zero, so an untrained model says 0.5 to everything."""

    def __init__(self, classifier: PreTrainedModel) -> None:
        super().__init__()
        self.classifier = classifier
        self._no_split_modules = classifier._no_split_modules  # where ranks may cut the model into shards

    @classmethod
    def from_policy(cls, path: str | Path, dtype: Dtype = "float32") -> RewardModel:
        """A fresh head on the backbone of a causal language model. Raises CheckpointError."""
        check_folder(path)
        classifier = _load(path, dtype, fresh_head=True)
        nn.init.zeros_(classifier.score.weight)
        return cls(classifier)

    @classmethod
    def load(cls, path: str | Path, dtype: Dtype = "float32") -> RewardModel:
        """A trained reward model. Raises CheckpointError, also where the folder holds a policy."""
        check_folder(path, "ForSequenceClassification")
        return cls(_load(path, dtype, fresh_head=False))

    def save(self, tokenizer: PreTrainedTokenizerBase, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Write model and tokenizer into `folder`; wrap it in `checkpoint.writing`. `state`: made whole."""
        try:
            with without_bars():
                self.classifier.save_pretrained(str(folder), state_dict=None if state is None else dict(state))
                tokenizer.save_pretrained(str(folder))
        except SafetensorError as error:
            raise OSError(errno.EIO, " ".join(str(error).split())) from None

    def forward(self, packed: PackedBatch) -> Tensor:
        """Scores [S] before the logistic function, in ascending order of the sequences in `packed`."""
        backbone = getattr(self.classifier, self.classifier.base_model_prefix)
        hidden_BLH = backbone(
            input_ids=packed.token_ids, position_ids=packed.position_ids, use_cache=False
        ).last_hidden_state
        rows, columns = packed.last_positions()
        order = packed.segment_ids[rows, columns].argsort()
        return self.classifier.score(hidden_BLH[rows[order], columns[order]]).squeeze(-1).float()


def _load(path: str | Path, dtype: Dtype, *, fresh_head: bool) -> PreTrainedModel:
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    shown = logging.get_verbosity()
    logging.set_verbosity_error()  # it would list the language head as unused and the score as new: both meant
    try:
        with without_bars():
            model, info = AutoModelForSequenceClassification.from_pretrained(
                str(path),
                num_labels=1,
                dtype=getattr(torch, dtype),
                attn_implementation="sdpa",
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: no reward model can be made of it: {' '.join(str(error).split())[:300]}"
        ) from None
    finally:
        logging.set_verbosity(shown)
    missing = sorted(set(info["missing_keys"]) - ({HEAD} if fresh_head else set()))
    if missing or info["mismatched_keys"]:
        raise CheckpointError(f"{path}: missing or mismatched weights: {', '.join(map(str, missing[:2])) or 'shapes'}")
    return model
