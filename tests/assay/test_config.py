from pathlib import Path

import pytest
import yaml

from assay.commands.schema import RunConfig
from assay.config import dump, load, merge
from assay.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
MINIMAL = {"run_dir": "r", "policy": {"init": {}}, "tasks": {"train": {"path": "t.jsonl"}}}


def write(path: Path, tree: object) -> Path:
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_shipped_config_loads(path: Path):
    load(RunConfig, path)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("grpo.group_sise=4", r"unknown key 'grpo.group_sise'; did you mean 'group_size'\?"),
        ("grop.steps=4", r"unknown key 'grop'; did you mean 'grpo'\?"),
        ("grpo.group_size=1", r"grpo.group_size=1: a group of one has nothing to be compared with"),
        ("grpo.steps=many", r"grpo.steps='many'"),
        ("rewards.reward=compiller", r"rewards.reward='compiller'"),
        ("rewards.sandbox.tier=none", r"rewards.sandbox.tier='none'"),
        ("grpo.steps", r"expected key.sub=value"),
        ("run_dir.x=1", r"'run_dir' is a value, not a section"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(tmp_path: Path, override: str, complaint: str):
    with pytest.raises(ConfigError, match=complaint) as caught:
        load(RunConfig, write(tmp_path / "c.yaml", MINIMAL), [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [", "not valid YAML"),
        ("- 1", "expected a mapping"),
        ("extends: gone.yaml", "gone.yaml: cannot be read"),
        ("extends: 3", "must be a file name or a list of them, not 3"),
        ("extends: [3]", "must be a file name or a list of them"),
        ("grpo: {steps: 1}\nseed: 1\ngrpo: {steps: 2}", "'grpo' stands twice"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, complaint: str):
    with pytest.raises(ConfigError, match=complaint):
        load(RunConfig, write(tmp_path / "c.yaml", text))


def test_a_file_extends_another_and_overrides_come_last(tmp_path: Path):
    write(tmp_path / "base.yaml", {**MINIMAL, "seed": 1, "grpo": {"steps": 5, "group_size": 4}})
    child = write(tmp_path / "c.yaml", {"extends": "base.yaml", "grpo": {"steps": 7}})
    config = load(RunConfig, child, ["seed=9", "grpo.kl.coef=0.5"])
    assert config.seed == 9
    assert config.grpo is not None
    assert (config.grpo.steps, config.grpo.group_size, config.grpo.kl.coef) == (7, 4, 0.5)


def test_a_file_that_extends_itself_is_refused(tmp_path: Path):
    write(tmp_path / "a.yaml", {"extends": "b.yaml"})
    write(tmp_path / "b.yaml", {"extends": "a.yaml"})
    with pytest.raises(ConfigError, match="extends itself"):
        load(RunConfig, tmp_path / "a.yaml")


def test_the_resolved_config_loads_to_itself(tmp_path: Path):
    config = load(RunConfig, write(tmp_path / "c.yaml", MINIMAL))
    dump(config, tmp_path / "resolved.yaml")
    assert load(RunConfig, tmp_path / "resolved.yaml") == config


def test_merging_replaces_values_and_merges_sections():
    assert merge({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"c": 3}, "d": [2]}) == {"a": {"b": 1, "c": 3}, "d": [2]}
