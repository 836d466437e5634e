"""`assay report RUN`: draw the report from what a run left behind."""

from __future__ import annotations

import argparse

from assay.report import write_report


def main(arguments: argparse.Namespace) -> int:
    print(write_report(arguments.run))
    return 0
