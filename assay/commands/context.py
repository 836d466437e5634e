"""One run on disk: its configuration, tasks, lineage, and which stages are done."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import monotonic, time
from typing import Any

from assay import config as configs
from assay.checkpoint import is_complete
from assay.claim import Claim
from assay.commands.schema import RunConfig
from assay.errors import AssayError, ConfigError, DataError, boundary
from assay.lineage import Lineage, data_entry
from assay.report import write_report
from assay.stopping import Limit
from assay.types import Task
from rollouts.config import TaskFile
from rollouts.tasks import read_tasks

OLDER = ("cluster.engine_cpus",)  #: whose default was another word for the same, and which changes no result
MAY_DIFFER = ("run_dir", "max_hours", "cluster.address")  #: where a run is, and where and how long it runs


def leave_report(folder: Path) -> None:
    """Write the report of a run that has ended, however it ended: no failure here may hide the one before."""
    try:
        with boundary("report"):
            say(f"report: {write_report(folder)}")
    except AssayError as error:
        say(f"no report was written: {error}")


def say(line: str) -> None:
    """Progress for people goes to stderr; stdout carries results."""
    print(line, file=sys.stderr, flush=True)


@dataclass
class Run:
    """The folder of a run and what is in it."""

    config: RunConfig

    def __post_init__(self) -> None:
        self.claim: Claim | None = None  #: on the folder, where something is made in it
        self.folder = Path(self.config.run_dir)
        self.limit = Limit(self.config.max_hours, monotonic())
        self.lineage = Lineage(self.folder)

    @classmethod
    def open(cls, config: RunConfig, *, alone: bool = True) -> Run:
        """Make the folder, or take up an existing one made from the same settings. Raises ConfigError otherwise, and
        where another process has it; not `alone`, it may, as evaluations only add files of their own."""
        config = config.anchored()
        run = cls(config)
        run.folder.mkdir(parents=True, exist_ok=True)
        if alone:
            run.claim = Claim(run.folder)
            run.lineage = Lineage(run.folder)  # as whoever had it before left it
        kept = run.folder / "config.yaml"
        given = {"replayed", *(["base"] if config.policy.path is not None else [])}
        made = [name for name in run.lineage.artifacts if name not in given]
        made += ["grpo"] if (run.folder / "grpo" / "metrics.jsonl").is_file() else []
        if kept.exists() and made:
            changed = _differences(configs.read_tree(kept), json.loads(config.model_dump_json()))
            changed = [key for key in changed if key not in OLDER]
            if changed:
                raise ConfigError(
                    f"{run.folder} was made with other settings ({', '.join(changed[:3])}); choose another run_dir, "
                    f"or remove that folder"
                )
        if alone or not kept.exists():
            configs.dump(config, kept)
        return run

    @classmethod
    def reopen(cls, folder: str | Path, overrides: Sequence[str] = ()) -> Run:
        """A run that exists. Raises ConfigError where the folder holds none, and for overrides but of MAY_DIFFER."""
        path = Path(folder) / "config.yaml"
        if not path.is_file():
            raise ConfigError(f"{folder}: no config.yaml, so not the folder of a run")
        if any(word.partition("=")[0] not in MAY_DIFFER[1:] for word in overrides):
            raise ConfigError(
                f"--resume takes the run's own settings, given {' '.join(overrides)}; only "
                f"{' and '.join(MAY_DIFFER[1:])} may be given anew"
            )
        claim = Claim(Path(folder))
        run = cls(configs.load(RunConfig, path, [f"run_dir={json.dumps(str(folder))}", *overrides]))
        run.claim = claim
        return run

    # -- tasks ------------------------------------------------------------------------------------------------

    @cached_property
    def data(self) -> Path:
        """The folder of generated tasks; generates them on first use."""
        tasks = self.config.tasks
        folder = self.folder / "data"
        if tasks.generator is None or (folder / "summary.json").is_file():
            return folder
        say(f"tasks: {tasks.generator}")
        with boundary(f"task generator {tasks.generator}"):
            _load_generator(tasks.generator)(folder, seed=self.config.seed, **tasks.options)
        return folder

    @cached_property
    def train_tasks(self) -> list[Task]:
        return read_tasks(self._file("train"))

    @cached_property
    def heldout_tasks(self) -> list[Task]:
        return read_tasks(self._file("heldout"))

    def has_heldout(self) -> bool:
        return self.config.tasks.heldout is not None or self.config.tasks.generator is not None

    def _file(self, split: str) -> TaskFile:
        named: TaskFile | None = getattr(self.config.tasks, split)
        if named is None and self.config.tasks.generator is None:
            raise ConfigError(f"tasks.{split}: required here and not set")
        if named is None:
            return TaskFile(path=str(self.data / f"{split}.jsonl"))
        path = os.path.expandvars(named.path)
        if "$" in path:
            raise ConfigError(f"tasks.{split}.path: {named.path} names an environment variable that is not set")
        return named.model_copy(update={"path": path})

    @property
    def demonstrations(self) -> Path:
        named = self.config.sft.data if self.config.sft else None
        if named is None and self.config.tasks.generator is None:
            raise ConfigError("sft.data: name a JSONL file of messages, or a task generator that writes one")
        return Path(named or self.data / "demonstrations.jsonl")

    def data_row(self, split: str) -> Mapping[str, Any]:
        return data_entry(self._file(split).path)

    def _still_holds(self, name: str, lineage: Mapping[str, Any]) -> None:
        """A finished stage counts only for the data and the parents it was made from. Raises ConfigError."""
        entry = self.lineage.artifacts[name]
        if _marks(entry["data"]) != _marks(lineage.get("data", ())):
            raise ConfigError(f"{self.folder}: the data of {name!r} changed since it was made; choose another run_dir")
        for parent in lineage.get("parents", ()):
            if parent not in self.lineage.artifacts or self.lineage.is_older(name, parent):
                raise ConfigError(
                    f"{self.folder}: {name!r} is older than the {parent!r} it should come from; choose another run_dir"
                )

    def made(self, name: str, folder: Path) -> bool:
        """Whether a stage has ended."""
        return is_complete(folder) and name in self.lineage.artifacts

    # -- stages -------------------------------------------------------------------------------------------------

    @contextmanager
    def stage(self, name: str, folder: Path, **lineage: Any) -> Iterator[bool]:
        """Run a stage unless its folder is complete; record its lineage afterwards. Yields whether to run it."""
        if self.made(name, folder):
            self._still_holds(name, lineage)
            say(f"{name}: done already, {folder}")
            yield False
            return
        started = time()
        say(f"{name}: started")
        yield True
        self.lineage.record(name, path=folder, started=started, seed=self.config.seed, **lineage)
        say(f"{name}: done in {time() - started:.0f} s")


def _marks(rows: Any) -> list[Any]:
    return sorted(row["sha256"] for row in rows)


def _load_generator(path: str) -> Any:
    """`generate` of a Python file, loaded by path and never by a bare module name."""
    file = Path(path)
    if not file.is_file():
        raise DataError(f"tasks.generator {path}: no such file (a relative path counts from the working directory)")
    spec = importlib.util.spec_from_file_location(f"assay_generator_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.parent))
    if not hasattr(module, "generate"):
        raise DataError(f"tasks.generator {path}: defines no function `generate(out_dir, *, seed, ...)`")
    return module.generate


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys whose values differ; MAY_DIFFER may."""
    out = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            out += _differences(a, b, f"{prefix}{key}.")
        elif a != b and f"{prefix}{key}" not in MAY_DIFFER:
            out.append(f"{prefix}{key}")
    return out
