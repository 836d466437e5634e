"""What isolation programs get on this machine, and in which languages, for `assay doctor`."""

from __future__ import annotations

from assay.errors import EnvironmentProblem
from rewards.languages import LANGUAGES
from rewards.sandbox.base import Isolation
from rewards.sandbox.docker import IMAGE, connect
from rewards.sandbox.local import LocalSandbox, Tier


def probe(tier: Tier = "local") -> Isolation:
    """Start the tier's sandbox once and tell what it gives. Raises EnvironmentProblem, with the remedy, if nothing."""
    with LocalSandbox(tier) as sandbox:
        return sandbox.isolation


def docker_engine() -> str:
    """What the docker tier would find: the engine's version and whether the image is there; or what is missing."""
    try:
        client = connect()
    except EnvironmentProblem as problem:
        return f"none ({problem})"
    image = "image there" if client.images(IMAGE) else "no image yet: assay sandbox build"
    return f"engine {client.version()['Version']}, {image}"


def languages() -> list[str]:
    """Names of the languages whose tools are installed on this machine."""
    with LocalSandbox("weak") as sandbox:
        return [name for name, row in LANGUAGES.items() if all(sandbox.has(tool) for tool in row.tools)]
