import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from assay.config import Section
from assay.errors import DataError
from assay.lineage import Lineage, data_entry, loaded_from, mark_of, sha256_of, versions, write_atomically


class Settings(Section):
    steps: int = 3


@pytest.fixture
def run(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.jsonl").write_text('{"id": 1}\n{"id": 2}\n\n')
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy/model.safetensors").write_bytes(b"weights")
    return tmp_path


def test_each_checkpoint_links_to_its_data_parents_config_and_versions(run):
    train = data_entry(run / "data/train.jsonl")
    lineage = Lineage(run)
    lineage.record("base", kind="policy", path=run / "policy", digest=True)
    lineage.record("sft", kind="policy", path=run / "sft/model", parents=["base"], data=[train],
                   config_section=Settings(), seed=7, started=0.0,
                   finished=datetime(2026, 1, 2, tzinfo=UTC))  # fmt: skip
    lineage.record("rm", kind="reward model", path="reward_model", parents=["sft"], data=[train], config_section={})
    lineage.record("grpo/step-00002", kind="policy", path="grpo/checkpoints/step-00002", parents=["sft", "rm"],
                   data=[train], config_section=Settings(steps=9), seed=7)  # fmt: skip

    read_back = Lineage(run)
    assert read_back.ancestors("grpo/step-00002") == ["sft", "rm", "base"]
    rows = {row["name"]: row for row in json.loads((run / "lineage.json").read_text())["artifacts"]}
    for name in ("sft", "rm", "grpo/step-00002"):
        assert rows[name]["parents"] and rows[name]["config"] is not None and rows[name]["versions"]["python"]
        assert rows[name]["data"] == [{"path": "data/train.jsonl", "sha256": train["sha256"], "rows": 2}]
    assert rows["sft"]["path"] == "sft/model" and rows["sft"]["config"] == {"steps": 3} and rows["sft"]["seed"] == 7
    assert rows["sft"]["started"] == "1970-01-01T00:00:00+00:00"
    assert rows["sft"]["finished"] == "2026-01-02T00:00:00+00:00"
    assert rows["base"]["sha256"] == sha256_of(run / "policy") and rows["sft"]["sha256"] is None


def test_a_parent_must_be_recorded_and_no_artifact_descends_from_itself(run):
    lineage = Lineage(run)
    with pytest.raises(DataError, match="record its parent 'sft' first"):
        lineage.record("grpo", kind="policy", path="grpo", parents=["sft"])
    assert not (run / "lineage.json").exists()
    lineage.record("a", kind="policy", path="a")
    lineage.record("b", kind="policy", path="b", parents=["a"])
    with pytest.raises(DataError, match="made from 'a' itself"):
        lineage.record("a", kind="policy", path="a", parents=["b"])
    lineage.record("b", kind="policy", path="b2", parents=["a"])  # a stage run again replaces its entry
    assert [row["path"] for row in Lineage(run).artifacts.values()] == ["a", "b2"]


def test_verify_names_what_changed_and_what_is_gone(run):
    lineage = Lineage(run)
    lineage.record("base", kind="policy", path=run / "policy", digest=True, data=[data_entry(run / "data/train.jsonl")])
    assert lineage.verify() == []
    (run / "data/train.jsonl").write_text("changed\n")
    (run / "policy/model.safetensors").unlink()
    (run / "policy").rmdir()
    assert lineage.verify() == [
        "base: data/train.jsonl has changed since it was recorded",
        "base: policy is gone",
    ]


def test_the_hash_of_a_folder_depends_on_names_and_content_only(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
    for name, order in (("a", ("x", "sub/y")), ("b", ("sub/y", "x"))):
        for file in order:
            (tmp_path / name / file).write_text(file)
    assert sha256_of(tmp_path / "a") == sha256_of(tmp_path / "b")
    (tmp_path / "b/x").rename(tmp_path / "b/z")
    assert sha256_of(tmp_path / "a") != sha256_of(tmp_path / "b")
    (tmp_path / "e").write_bytes(b"")
    assert sha256_of(tmp_path / "e") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    with pytest.raises(DataError, match="neither a file nor a folder"):
        sha256_of(tmp_path / "missing")


def test_versions_name_python_and_packages():
    found = versions()
    assert found["python"].startswith("3.") and "pydantic" in found["packages"]
    assert found["git"] is None or len(found["git"].removesuffix("+changes")) == 40


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_no_lineage_is_refused_in_one_line(tmp_path):
    (tmp_path / "lineage.json").write_text("[]")
    with pytest.raises(DataError, match="not a lineage file"):
        Lineage(tmp_path)


def test_a_hub_s_model_is_marked_by_the_weights_that_were_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of two commits with the same weights neither is another model; without a cache its name has to do."""
    marks = []
    for commit, weights in (("one", b"w"), ("two", b"w"), ("three", b"v")):
        folder = tmp_path / commit
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(weights)
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, at=folder: str(at / "config.json"))
        marks.append(mark_of(loaded_from("org/name")))
    assert marks[0] == marks[1] != marks[2]
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    assert (loaded_from("org/name"), loaded_from(tmp_path), loaded_from("not a name/at/all")) == (
        "org/name", tmp_path, "not a name/at/all")  # fmt: skip
