"""`assay reward check FILE`: gold, empty, wrong, constant and tampering answers, and what the reward says to each."""

from __future__ import annotations

import argparse

from assay.errors import ConfigError
from assay.progress import progress
from rewards.config import RewardsConfig, SandboxConfig
from rewards.reward_check import check_reward
from rewards.scorer import Scorer
from rollouts.config import TaskFile
from rollouts.tasks import FORMATS, read_tasks


def main(arguments: argparse.Namespace) -> int:
    """0: every answer is judged as its kind should be; 1: some are not, and are listed."""
    if arguments.format not in FORMATS:
        raise ConfigError(f"--format {arguments.format}: no such format; there are {', '.join(FORMATS)}")
    tasks = read_tasks(TaskFile(path=arguments.file, format=arguments.format, limit=arguments.limit))
    scorer = Scorer(RewardsConfig(sandbox=SandboxConfig(tier=arguments.tier)))
    try:
        report = check_reward(progress(tasks, "reward check"), scorer)
    finally:
        scorer.close()
    print(report)
    return 0 if report.ok else 1
