"""Images of tool-chains for the docker tier: from the Dockerfile beside this file, or from Debian packages alone.

Packages are checked by apt. An archive is checked by the sha256 in its row of the language table; where there is none,
the first build records what it got in `sums_file`, and every later one on this machine must get the same.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from assay.errors import EnvironmentProblem

DOCKERFILE = Path(__file__).with_name("Dockerfile")
ALWAYS = ("python3",)  #: the supervisor runs on it
SUITE = "bookworm"
_TAIL = 15
_UNPACK = Path(__file__).with_name("unpack.py")
FOR_ARCHIVES = ("ca-certificates", "zstd")  #: what fetching and unpacking them takes inside an image


_UNPACKED = re.compile(r"\S+: unpacked (\S+) sha256=([0-9a-f]{64})")
_LEFT_OUT = re.compile(r"\S+: left out, ")


class Extra(NamedTuple):
    """What an image gets beside packages."""

    archives: tuple[str, ...] = ()  #: address and place, in turns; one that cannot be had is left out, and said
    finish: str = ""  #: a shell line for the end


def sums_file() -> Path:
    """Where sums of archives are recorded, in the form of sha256sum: "SUM  ADDRESS"."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share", "assay", "archives.sha256")


def with_sums(archives: Sequence[str], file: Path) -> tuple[str, ...]:
    """`archives` (address, place, ...) where an address without a sum has the one recorded of it, if there is one."""
    lines = (line.split() for line in file.read_text().splitlines()) if file.exists() else ()
    known = {address: found for found, address in lines}
    return tuple(f"{part}#sha256={known[part]}" if part in known else part for part in archives)


def record_sums(said: Iterable[str], archives: Sequence[str], file: Path) -> list[str]:
    """Record the sums of what a build unpacked without having one to check by; the addresses. Raises OSError."""
    found = [match.groups() for line in said if (match := _UNPACKED.fullmatch(line))]
    new = [(address, digest) for address, digest in found if address in archives]
    if new:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as out:
            out.writelines(f"{digest}  {address}\n" for address, digest in new)
    return [address for address, _ in new]


def _of_archives(said: Iterable[str]) -> list[str]:
    return [line for line in said if _UNPACKED.fullmatch(line) or _LEFT_OUT.match(line)]


def from_dockerfile(
    client: Any, image: str, packages: Sequence[str], extra: Extra, say: Callable[[str], None]
) -> list[str]:
    """Build `image` with the Dockerfile; `extra` comes on top of the packages. What became of each archive.

    Raises EnvironmentProblem with the end of the build's output.
    """
    from docker.errors import APIError

    said: list[str] = []
    try:
        for event in client.build(
            path=str(DOCKERFILE.parent),
            dockerfile=DOCKERFILE.name,
            tag=image,
            rm=True,
            decode=True,
            buildargs={
                "PACKAGES": " ".join(packages),
                "ARCHIVES": " ".join(extra.archives),
                "FINISH": extra.finish or "true",
            },
        ):
            said += [line for line in str(event.get("stream", "")).splitlines() if line.strip()]
            if "stream" in event and event["stream"].startswith("Step"):
                say(event["stream"].strip())
            if "error" in event:
                raise EnvironmentProblem(f"building {image}: {event['error']}; {' / '.join(said[-_TAIL:])}")
    except APIError as error:
        raise EnvironmentProblem(f"building {image}: {error.explanation or error}") from None
    return _of_archives(said)


def from_packages(
    client: Any, image: str, packages: Sequence[str], extra: Extra, say: Callable[[str], None]
) -> list[str]:
    """Import `image` made of Debian packages, where no registry of images can be reached. Needs mmdebstrap.

    Returns as `from_dockerfile` does. Raises EnvironmentProblem with the end of its output.
    """
    if shutil.which("mmdebstrap") is None:
        raise EnvironmentProblem("an image from packages needs mmdebstrap (apt-get install mmdebstrap)")
    hook = [f'--customize-hook=chroot "$1" sh -c {shlex.quote(extra.finish)}'] if extra.finish else []
    if extra.archives:  # on this machine, which has a resolver and certificates
        fetch, archives = shlex.join([sys.executable, str(_UNPACK)]), shlex.join(extra.archives)
        hook.insert(0, f'--customize-hook={fetch} "$1" {archives}')
    names = ",".join(dict.fromkeys((*ALWAYS, *packages)))
    say(f"mmdebstrap {SUITE}: {names}")
    with tempfile.TemporaryFile() as log:
        made = subprocess.Popen(
            ["mmdebstrap", "--variant=minbase", f"--include={names}", *hook, SUITE, "-"],
            stdout=subprocess.PIPE,
            stderr=log,
        )
        try:
            client.import_image_from_stream(made.stdout, repository=image)
        finally:
            made.stdout.close()  # type: ignore[union-attr]
            failed = made.wait() != 0
        log.seek(0)
        said = log.read().decode("utf-8", "replace").strip().splitlines()
        if failed:
            client.remove_image(image, force=True)
            raise EnvironmentProblem(f"building {image} from packages: {' / '.join(said[-_TAIL:])}")
    return _of_archives(said)


METHODS: dict[str, Callable[[Any, str, Sequence[str], Extra, Callable[[str], None]], list[str]]] = {
    "dockerfile": from_dockerfile,
    "packages": from_packages,
}
