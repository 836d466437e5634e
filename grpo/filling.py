"""Dynamic sampling, DAPO (arXiv 2503.14476) section 3.2: groups with nothing to learn from are replaced by others."""

from __future__ import annotations

from collections.abc import Callable

from assay.types import ScoredGroup
from grpo.batch import is_flat
from grpo.config import GRPOConfig


def fill(scored: list[ScoredGroup], draw: Callable[[int, int], list[ScoredGroup]], config: GRPOConfig) -> int:
    """Append to `scored` what `draw(prompts, again)` gives until enough groups of it teach something.

    Each further batch asks for as many prompts as are missing, at most `max_generation_batches` times in all; after
    that the step makes do with what there is. Flat groups stay in `scored`, to be counted and recorded. Returns the
    number of batches drawn.
    """
    missing, batches = config.prompts_per_step, 0
    while missing and batches < config.max_generation_batches:
        new = draw(missing, batches)
        scored += new
        missing -= sum(not is_flat(group) for group in new)
        batches += 1
    return batches
