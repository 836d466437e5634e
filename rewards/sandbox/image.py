"""Images of tool-chains for the docker tier: from the Dockerfile beside this file, or from Debian packages alone."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from assay.errors import EnvironmentProblem

DOCKERFILE = Path(__file__).with_name("Dockerfile")
ALWAYS = ("python3",)  #: the supervisor runs on it
SUITE = "bookworm"
_TAIL = 15
_UNPACK = Path(__file__).with_name("unpack.py")
FOR_ARCHIVES = ("ca-certificates", "zstd")  #: what fetching and unpacking them takes inside an image


class Extra(NamedTuple):
    """What an image gets beside packages."""

    archives: tuple[str, ...] = ()  #: address and place, in turns; one that cannot be had is left out, and said
    finish: str = ""  #: a shell line for the end


def from_dockerfile(client: Any, image: str, packages: Sequence[str], extra: Extra, say: Callable[[str], None]) -> None:
    """Build `image` with the Dockerfile; `extra` comes on top of the packages.

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


def from_packages(client: Any, image: str, packages: Sequence[str], extra: Extra, say: Callable[[str], None]) -> None:
    """Import `image` made of Debian packages, where no registry of images can be reached. Needs mmdebstrap.

    Raises EnvironmentProblem with the end of its output.
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
        if failed:
            log.seek(0)
            tail = log.read().decode("utf-8", "replace").strip().splitlines()[-_TAIL:]
            client.remove_image(image, force=True)
            raise EnvironmentProblem(f"building {image} from packages: {' / '.join(tail)}")


METHODS: dict[str, Callable[[Any, str, Sequence[str], Extra, Callable[[str], None]], None]] = {
    "dockerfile": from_dockerfile,
    "packages": from_packages,
}
