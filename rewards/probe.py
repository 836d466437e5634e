"""What isolation programs get on this machine, for `assay doctor`."""

from __future__ import annotations

from rewards.sandbox.base import Isolation
from rewards.sandbox.local import LocalSandbox, Tier


def probe(tier: Tier = "local") -> Isolation:
    """Start the tier's sandbox once and tell what it gives. Raises EnvironmentProblem, with the remedy, if nothing."""
    with LocalSandbox(tier) as sandbox:
        return sandbox.isolation
