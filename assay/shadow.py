"""Refuse to run if another module answers to one of our package names.

`rollouts`, `rewards`, `grpo`, `sft` and `evals` are short names, also taken on PyPI and in users' own scripts. A
namesake earlier on the path would be imported instead of ours without a word, above all in a Ray worker.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from assay.errors import EnvironmentProblem

PACKAGES = ("assay", "rollouts", "rewards", "grpo", "sft", "evals")


def check_shadowing() -> None:
    """Raises EnvironmentProblem naming the intruding file."""
    root = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != root / name:
            raise EnvironmentProblem(
                f"`import {name}` finds {spec.origin if spec else 'nothing'}, not {root / name}; rename or uninstall "
                f"that module, or start from another directory"
            )
