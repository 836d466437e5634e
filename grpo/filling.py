"""Dynamic sampling, DAPO (arXiv 2503.14476) section 3.2: groups with nothing to learn from are replaced by others."""

from __future__ import annotations

from collections.abc import Callable

from assay.errors import TrainingDiverged
from assay.types import ScoredGroup
from grpo.batch import is_flat, rewards_of
from grpo.config import GRPOConfig


def fill(scored: list[ScoredGroup], draw: Callable[[int, int], list[ScoredGroup]], config: GRPOConfig) -> int:
    """Append to `scored` what `draw(prompts, again)` gives until enough groups of it teach something.

    Each further batch asks for as many prompts as are missing, at most `max_generation_batches` times in all; after
    that the step makes do with what there is. Flat and failed groups stay in `scored`, to be counted and recorded.
    Returns the number of batches drawn. What `draw` raises is raised.
    """
    missing, batches = config.prompts_per_step, 0
    while missing and batches < config.max_generation_batches:
        batches += 1
        new = draw(missing, batches - 1)
        scored += new
        try:
            missing -= sum(teaches(group, config) for group in new)
        except TrainingDiverged:  # a reward that is no number: the step will say so, with the batch
            break
    return batches


def teaches(group: ScoredGroup, config: GRPOConfig) -> bool:
    """Whether there is something to learn from a group's rewards. Raises TrainingDiverged where one is no number."""
    return not is_flat(group, config.advantage == "process") and any(r is not None for r in rewards_of(group))
