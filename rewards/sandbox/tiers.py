"""The tiers by name. What the configuration asks for is what runs get, or an error that says what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rewards.sandbox.base import Sandbox
from rewards.sandbox.docker import DockerSandbox
from rewards.sandbox.local import LocalSandbox

if TYPE_CHECKING:
    from rewards.config import SandboxConfig


def open_sandbox(config: SandboxConfig) -> Sandbox:
    """A sandbox of the tier the configuration names; it starts with its first job."""
    if config.tier == "docker":
        return DockerSandbox(config.image, runtime=config.runtime, memory_bytes=config.container_memory_bytes)
    return LocalSandbox(config.tier)
