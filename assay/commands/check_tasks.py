"""`assay check-tasks FILE`: the reference solution of every task must pass, and an empty answer must fail."""

from __future__ import annotations

import argparse

from assay.errors import ConfigError
from assay.progress import progress
from rewards.check_tasks import check_tasks
from rewards.config import RewardsConfig
from rewards.scorer import Scorer
from rollouts.config import TaskFile
from rollouts.tasks import FORMATS, read_tasks


def main(arguments: argparse.Namespace) -> int:
    """0: every task judges as it should; 1: some do not, and are listed with the cause."""
    if arguments.format not in FORMATS:
        raise ConfigError(f"--format {arguments.format}: no such format; there are {', '.join(FORMATS)}")
    tasks = read_tasks(TaskFile(path=arguments.file, format=arguments.format, limit=arguments.limit))
    scorer = Scorer(RewardsConfig())
    try:
        report = check_tasks(progress(tasks, "check-tasks"), scorer)
    finally:
        scorer.close()
    print(report)
    print(f"isolation: {report.isolation}")
    return 0 if report.ok else 1
