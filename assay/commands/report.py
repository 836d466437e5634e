"""`assay report RUN`: draw the report from what a run left behind."""

from __future__ import annotations

import argparse
from pathlib import Path

from assay.errors import ConfigError
from assay.report import write_report


def main(arguments: argparse.Namespace) -> int:
    if not (Path(arguments.run) / "config.yaml").is_file():
        raise ConfigError(f"{arguments.run}: no config.yaml, so not the folder of a run")
    print(write_report(arguments.run))
    return 0
