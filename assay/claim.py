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

from assay.errors import ConfigError

FILE = ".lock"  #: it stays in the folder; that it is there says nothing


class Claim:
    """Held from its making until `release`, or as long as somebody refers to it. Children do not inherit it."""

    def __init__(self, folder: Path) -> None:
        path = folder / FILE
        self._file = path.open("a+", encoding="utf-8")
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX leaves it to the system which of the two it is
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise ConfigError(
                f"{folder} is in use by {holder}: wait for its end, stop it, or choose another run_dir"
            ) from None
        except OSError as error:
            self._file.close()
            print(f"{path}: this file system has no locks ({error}); start no second process in {folder}",
                  file=sys.stderr, flush=True)  # fmt: skip
            return
        with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
            self._file.truncate(0)
            self._file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
            self._file.flush()

    def release(self) -> None:
        self._file.close()
