"""`assay sandbox build|test`: the image of the docker tier, and a self-test of every language in a tier."""

from __future__ import annotations

import argparse

from assay.commands.context import say
from assay.errors import ConfigError, EnvironmentProblem
from assay.progress import progress
from rewards.config import SandboxConfig
from rewards.languages import LANGUAGES, Language, find
from rewards.precompiled import shell_line
from rewards.sandbox import image as images
from rewards.sandbox.docker import connect
from rewards.sandbox.tiers import open_sandbox
from rewards.selftest import LanguageReport, self_test


def main(arguments: argparse.Namespace) -> int:
    """0: done and every language that is there works; 1: one does not, and its checks are listed."""
    config = SandboxConfig(tier=arguments.tier, image=arguments.image, runtime=arguments.runtime)
    languages = chosen(arguments.languages)
    if arguments.action == "build":
        if config.tier != "docker":
            raise ConfigError(f"only the docker tier has an image to build, not {config.tier}")
        build(config.image, languages, arguments.source)
    return test(config, languages)


def chosen(names: str) -> list[Language]:
    """The rows of a comma-separated list of names, or all of them."""
    if names == "all":
        return list(LANGUAGES.values())
    return [find(name) for name in names.split(",")]


def build(image: str, languages: list[Language], source: str) -> None:
    """Make the image: from the Dockerfile, from packages, or (auto) from packages where the first cannot be had."""
    packages = list(dict.fromkeys(name for row in languages for name in row.package.split()))
    archives = tuple(part for row in languages for part in row.download)
    checked = images.with_sums(archives, images.sums_file())
    extra = images.Extra(checked, " && ".join(shell_line(row) for row in languages if row.precompiled))
    packages += images.FOR_ARCHIVES if archives else ()
    client = connect()
    methods = ["dockerfile", "packages"] if source == "auto" else [source]
    for method in methods:
        say(
            f"image {image}: from the {method}, {len(packages)} Debian packages and {len(archives) // 2} archives for "
            f"{len(languages)} languages"
        )
        try:
            said = images.METHODS[method](client, image, packages, extra, say)
        except EnvironmentProblem as problem:
            if method == methods[-1]:
                raise
            say(f"{problem}")
        else:
            _record(said, checked)
            return


def _record(said: list[str], archives: tuple[str, ...]) -> None:
    """Say what became of the archives, and keep the sums of those that nobody had one of."""
    file = images.sums_file()
    for line in said:
        say(line)
    if any("its sha256 is" in line for line in said):
        say(f"another archive than before: if its maker replaced it, take its line out of {file} and build again")
    try:
        for address in images.record_sums(said, archives, file):
            say(f"no sum of {address} was known: recorded in {file}, and checked from now on")
    except OSError as error:
        say(f"the sums of the archives cannot be kept: {error}")


def test(config: SandboxConfig, languages: list[Language]) -> int:
    """Run five small programs of every language in a box of the tier, and print what came of them."""
    reports: list[LanguageReport] = []
    sandbox = open_sandbox(config)
    try:
        print(f"isolation: {sandbox.isolation}")
        for remark in sandbox.isolation.remarks:
            print(f"           {remark}")
        for row in progress(languages, "languages"):
            reports.append(self_test(sandbox, row))
    finally:
        sandbox.close()
    for report in reports:
        print(report)
    works = sum(report.ok for report in reports)
    missing = sum(report.missing is not None for report in reports)
    print(
        f"{works} of {len(reports)} languages work, {missing} are not installed, {len(reports) - works - missing} fail"
    )
    return 0 if works + missing == len(reports) and works else 1
