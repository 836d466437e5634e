"""Folders that are there entirely or not at all.

A checkpoint is written into a hidden sibling, flushed to the disk, given its marker `complete.json` last, and
renamed into place. Whatever kills the process, a folder with a marker is whole, and the one before it is intact.

    runs/x/checkpoints/step-00000040/      complete.json: {"step": 40, ...}
    runs/x/checkpoints/.step-00000050.partial/   a process died here; ignored, and removed by the next
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from assay.errors import CheckpointError

MARKER = "complete.json"
_STEP = re.compile(r"step-(\d+)")
_ASIDE = re.compile(r"step-\d+\.(partial|old)")
_FULL_BYTES = 1 << 20  #: with less than this left, a write that failed failed for want of room


@contextmanager
def writing(folder: Path, facts: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """Yield a temporary folder to write into; on a clean exit it becomes `folder`, with `facts` in its marker.

    A complete folder of that name is replaced; one that is neither empty nor a checkpoint is left alone. Raises
    CheckpointError where the disk is full or not writable; what was there before stays valid.
    """
    partial = folder.parent / f".{folder.name}.partial"
    try:
        _refuse_foreign(folder)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        _flush(partial)
        _write_marker(partial, facts or {})
        _swap(partial, folder)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot be written ({error.strerror or error}); free space or choose another folder, "
            "earlier checkpoints are intact"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def writing_step(root: Path, step: int, facts: Mapping[str, Any] | None = None, keep_last: int = 2) -> Iterator[Path]:
    """`writing` of `root/step-00000042`; afterwards all but the newest `keep_last` checkpoints are removed, and before
    what earlier writers left half done: a run that is stopped often would fill the disk with it."""
    sweep(root)
    with writing(step_folder(root, step), {"step": step, **(facts or {})}) as partial:
        yield partial
    prune(root, keep_last)


def step_folder(root: Path, step: int) -> Path:
    """Where the checkpoint of a step lives."""
    return root / f"step-{step:08d}"


def is_complete(folder: Path) -> bool:
    """Whether the marker, written last, is there."""
    return (folder / MARKER).is_file()


def read_marker(folder: Path) -> dict[str, Any]:
    """The facts in a folder's marker. Raises CheckpointError where it has none."""
    try:
        facts = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CheckpointError(f"{folder}: has no valid {MARKER}, so it was never finished; use another one") from None
    if not isinstance(facts, dict):
        raise CheckpointError(f"{folder}/{MARKER}: expected a mapping")
    return facts


def valid_checkpoints(root: Path) -> list[Path]:
    """Complete `step-*` folders below `root`, oldest first."""
    if not root.is_dir():
        return []
    found = [(int(m.group(1)), p) for p in root.iterdir() if (m := _STEP.fullmatch(p.name)) and is_complete(p)]
    return [path for _, path in sorted(found)]


def latest_valid(root: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    return next(reversed(valid_checkpoints(root)), None)


def prune(root: Path, keep_last: int) -> None:
    """Remove all but the newest `keep_last` complete checkpoints, each under a hidden name: none is half there."""
    valid = valid_checkpoints(root)
    for path in valid[: max(0, len(valid) - max(1, keep_last))]:
        gone = path.with_name(f".{path.name}.partial")
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def sweep(root: Path) -> None:
    """Remove what processes that died left below `root`: hidden folders, of partial checkpoints, replaced ones, and
    those whose removal had begun. One that stepped aside for another that never came steps back. Nobody else may be
    writing there."""
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        hidden, name = path.name.startswith("."), path.name.removeprefix(".")
        if hidden and name.endswith(".old") and is_complete(path) and not (root / name.removesuffix(".old")).exists():
            path.rename(root / name.removesuffix(".old"))
        elif hidden and _ASIDE.fullmatch(name):
            shutil.rmtree(path, ignore_errors=True)


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """torch.save of plain containers and tensors; a failed write is an OSError, as `writing` expects."""
    import torch

    try:
        torch.save(dict(state), path)
    except RuntimeError as error:
        raise write_failure(error, path.parent) from None


def write_failure(error: Exception, folder: Path) -> OSError:
    """What torch and safetensors raise when they cannot write, as the OSError it was: they drop its number."""
    if shutil.disk_usage(folder).free < _FULL_BYTES:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return OSError(errno.EIO, " ".join(str(error).split())[:200])


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, without unpickling anything but containers and tensors."""
    import pickle

    import torch

    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from None
    return state


def rng_state() -> dict[str, Any]:
    """The state of every generator a trainer draws from: Python's, NumPy's and torch's."""
    import random

    import numpy
    import torch

    name, keys, *rest = cast("tuple[Any, ...]", numpy.random.get_state(legacy=True))
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_rng(state: Mapping[str, Any]) -> None:
    """The inverse of `rng_state`."""
    import random

    import numpy
    import torch

    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and (is_complete(folder) or not any(folder.iterdir()))):
        raise CheckpointError(f"{folder}: exists and is not a checkpoint of assay; remove it or choose another folder")


def _write_marker(partial: Path, facts: Mapping[str, Any]) -> None:
    (partial / MARKER).write_text(json.dumps(dict(facts), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _flush(partial)


def _swap(partial: Path, folder: Path) -> None:
    """Rename into place. What was there steps aside first and is removed once the new one stands."""
    aside = folder.parent / f".{folder.name}.old"
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)
    partial.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
