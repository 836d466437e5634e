"""Names of papers and the settings each stands for: `grpo.algorithm: dapo` is these keys, below your own.

Only what makes the algorithm is here. Group sizes, learning rates and lengths belong to a run: configs/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ALGORITHMS: dict[str, Mapping[str, Any]] = {
    # DeepSeekMath (arXiv 2402.03300) Eq. 3 and 4: the defaults of grpo.config
    "grpo": {},
    # arXiv 2503.20783 section 3.2: no division by the deviation or by a length of its own; KL 0 in its repository
    "dr_grpo": {"advantage": "mean", "loss_normalisation": "constant", "kl": {"estimator": "none"}},
    # arXiv 2503.14476 section 4.1: clip-higher, token-level loss, dynamic sampling (10 batches: verl), no KL.
    # Its soft overlong punishment depends on the length: overlong_buffer_tokens, there a fifth of 20,480
    "dapo": {
        "loss_normalisation": "token",
        "clip": [0.2, 0.28],
        "kl": {"estimator": "none"},
        "drop_zero_variance_groups": True,
        "max_generation_batches": 10,
    },
    # as TRL has the name; see grpo.aggregation for what it calls the local batch
    "bnpo": {"loss_normalisation": "token"},
    # arXiv 2507.18071 section 5: one ratio per completion, four updates on a quarter of the batch each, no KL
    "gspo": {"loss": "gspo", "clip": [3e-4, 4e-4], "mini_batches": 4, "kl": {"estimator": "none"}},
    # MiniMax-M1, arXiv 2506.13585 section 3.1; the cap 1 + 4 is ScaleRL's (arXiv 2510.13786), M1 publishes none
    "cispo": {"loss": "cispo", "loss_normalisation": "token", "clip": [0.0, 4.0], "kl": {"estimator": "none"}},
    # arXiv 2512.02556 section 3.1; its threshold is unpublished, 0.5 is TRL's example
    "deepseek_v3_2": {
        "advantage": "mean",
        "kl": {"estimator": "unbiased"},
        "correction": {"off_policy_threshold": 0.5},
    },
}
