"""One process at a time works in the folder of a run: two would mix their checkpoints and lose each other's metrics.

    claim = Claim(folder)       # ConfigError, with who has it, where another process does
    claim.release()             # or the end of the process, however it ends

The kernel keeps the lock, and lets go of it with the process; on NFS it holds between machines too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
from pathlib import Path
from typing import TextIO

from assay.errors import ConfigError

FILE = ".lock"  #: it stays in the folder; that it is there says nothing


_FILES: dict[Path, TextIO] = {}
_HELD: dict[Path, int] = {}  #: claims of this process on a folder: closing the file for one would end them all


class Claim:
    """Held from its making until `release`, or as long as somebody refers to it. Children do not inherit it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        if self._folder not in _HELD:
            _FILES[self._folder] = _locked(folder)
        _HELD[self._folder] = _HELD.get(self._folder, 0) + 1
        self._mine = True

    def release(self) -> None:
        if self._mine:
            self._mine = False
            _HELD[self._folder] -= 1
            if not _HELD[self._folder]:
                del _HELD[self._folder]
                _FILES.pop(self._folder).close()

    def __del__(self) -> None:
        if getattr(self, "_mine", False):  # else it was refused
            self.release()


def _locked(folder: Path) -> TextIO:
    path = folder / FILE
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX leaves it to the system which of the two it is
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise ConfigError(
            f"{folder} is in use by {holder}: wait for its end, stop it, or choose another run_dir"
        ) from None
    except OSError as error:
        print(
            f"{path}: this file system has no locks ({error}); start no second process in {folder}",
            file=sys.stderr,
            flush=True,
        )
        return file
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
    return file
