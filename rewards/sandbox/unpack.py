"""Fetches upstream archives of tool-chains into an image that is being built: unpack.py ROOT URL PLACE [URL PLACE ...]

A URL may end with "#sha256=..."; an archive with another sum is left out. Every sum is said, for the next build.

Standard library only, since it runs in a bare image or on the machine that makes one. What cannot be had is left out
and said; the self-test after the build then finds the language missing, and nothing half unpacked.
"""

from __future__ import annotations

import hashlib
import http.client
import lzma
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from pathlib import Path

TIMEOUT_S = 600.0
_FAILURES = (
    *(OSError, ValueError, EOFError, http.client.HTTPException, subprocess.CalledProcessError),
    *(tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error),
)


def unpack(url: str, place: Path) -> str:
    """What the archive holds, without the one folder around it if it has one, becomes `place`; its sha256.

    Raises OSError, ValueError, tarfile.TarError or zipfile.BadZipFile; `place` is then absent.
    """
    url, _, wanted = url.partition("#sha256=")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        packed, whole = Path(folder, "packed"), Path(folder, "whole")
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as source, packed.open("wb") as out:
            shutil.copyfileobj(source, out)
        with packed.open("rb") as data:
            found = hashlib.file_digest(data, "sha256").hexdigest()
        if wanted and found != wanted:
            raise ValueError(f"its sha256 is {found}, not {wanted}")
        whole.mkdir()
        _extract(url, packed, whole)
        inside = list(whole.iterdir())
        top = inside[0] if len(inside) == 1 and inside[0].is_dir() else whole
        top.chmod(0o755)
        shutil.rmtree(place, ignore_errors=True)
        top.rename(place)
    return found


def _extract(url: str, packed: Path, to: Path) -> None:
    if url.endswith(".zip"):
        with zipfile.ZipFile(packed) as archive:
            for entry in archive.infolist():
                made = Path(archive.extract(entry, to))
                if bits := stat.S_IMODE(entry.external_attr >> 16):  # which extract forgets
                    made.chmod(bits)
        return
    if url.endswith(".zst"):
        plain = packed.with_suffix(".tar")
        subprocess.run(["zstd", "-d", "-q", "-o", plain, packed], check=True)
        packed = plain
    with tarfile.open(packed) as archive:
        archive.extractall(to, filter="tar")


def main(arguments: list[str]) -> int:
    """0 in any case: an image without one language is still an image."""
    root, *pairs = arguments
    for url, place in zip(pairs[::2], pairs[1::2], strict=True):
        try:
            found = unpack(url, Path(root, place.lstrip("/")))
            print(f"{place}: unpacked {url.partition('#')[0]} sha256={found}", flush=True)
        except _FAILURES as error:
            print(f"{place}: left out, {url}: {' '.join(str(error).split())}", flush=True)
    return 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main(sys.argv[1:]))
