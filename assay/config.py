"""Configuration: YAML files, typed sections, dotted overrides; an unknown key is refused with a suggestion.

Schemas live with their owners (`rollouts/config.py`, `grpo/config.py`, ...); this module only reads, merges,
validates and writes. Files named by `extends:` are merged first, left to right, then the file itself, then the
overrides of the command line.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from assay.errors import ConfigError
from assay.lineage import write_atomically

S = TypeVar("S", bound="Section")


class Section(BaseModel):
    """A part of a configuration: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def load(schema: type[S], path: str | Path, overrides: Sequence[str] = ()) -> S:
    """Read `path`, apply `key.sub=value` overrides and validate. Raises ConfigError with one line."""
    tree = read_tree(Path(path))
    for override in overrides:
        _override(tree, override)
    return validate(schema, tree, where=str(path))


def validate(schema: type[S], tree: Mapping[str, Any], where: str) -> S:
    """Build `schema` from a plain mapping; every complaint names the key and, where there is one, the remedy."""
    try:
        return schema.model_validate(dict(tree))
    except ValidationError as error:
        raise ConfigError(f"{where}: " + "; ".join(_complaint(schema, e) for e in error.errors())) from None


def read_tree(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The mapping in a YAML file, with the files it extends merged below it."""
    if path.resolve() in seen:
        raise ConfigError(f"{path}: extends itself through {' -> '.join(map(str, seen))}")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    try:
        own = yaml.load(text, _Loader) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(own, dict):
        raise ConfigError(f"{path}: holds a {type(own).__name__}, expected a mapping of sections")
    parents = own.pop("extends", [])
    if not isinstance(parents, str | list) or not all(isinstance(name, str) for name in parents):
        raise ConfigError(f"{path}: extends must be a file name or a list of them, not {parents!r}")
    merged: dict[str, Any] = {}
    for parent in [parents] if isinstance(parents, str) else parents:
        merged = merge(merged, read_tree(path.parent / parent, (*seen, path.resolve())))
    return merge(merged, own)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, where YAML would keep the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(problem=f"{twice!r} stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`, key by key; a mapping merges, anything else replaces."""
    out = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merge(out[key], value) if both else value
    return out


def dump(config: Section, path: Path) -> None:
    """Write the resolved configuration, defaults included, so that a run can be repeated from it.

    Atomically, and not at all where it stands there already: a full disk must not cost a run its settings.
    """
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    if not path.is_file() or path.read_text("utf-8") != text:
        write_atomically(path, text)


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r}: expected key.sub=value")
    *parents, leaf = key.split(".")
    node = tree
    for part in parents:
        below = node.setdefault(part, {})
        if not isinstance(below, dict):
            raise ConfigError(f"override {override!r}: {part!r} is a value, not a section")
        node = below
    try:
        node[leaf] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"override {override!r}: the value is not valid YAML") from None


def _complaint(schema: type[BaseModel], error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    key = ".".join(location) or "(top level)"
    if error["type"] == "extra_forbidden":
        known = _fields_at(schema, location[:-1])
        close = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys here: {', '.join(sorted(known)) or 'none'}"
        return f"unknown key {key!r}; {hint}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{key}: required and not set"
    given = error.get("input")
    return f"{key}={given!r}: {message}" if isinstance(given, str | int | float | bool) else f"{key}: {message}"


def _fields_at(schema: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Field names of the section reached by `path`; empty where the path leads through a union or a list."""
    current: Any = schema
    for part in path:
        field = current.model_fields.get(part)
        if field is None:
            return []
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        current = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if current is None:
            return []
    return list(current.model_fields)
