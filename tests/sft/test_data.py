"""Reading dialogues: what is accepted, and one line with file and line number for what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assay.errors import DataError
from assay.tokenizer import EOS, train_tokenizer
from sft.data import encode_examples, read_dialogues

GOOD = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "id": 1})


def test_rows_become_dialogues_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(f"{GOOD}\n\n{GOOD}\n", "utf-8")
    dialogues = read_dialogues(path)
    assert [d.messages[-1].content for d in dialogues] == ["b", "b"]
    assert dialogues[1].where == f"{path}:3"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "not valid JSON"),
        ("[1]", "a list, expected an object"),
        ('{"messages": []}', "at least one message"),
        ('{"messages": [{"role": "robot", "content": "x"}]}', r"messages\[0\]: role 'robot'"),
        ('{"messages": [{"role": "user", "content": null}]}', r"content is a NoneType"),
        ('{"messages": ["hi"]}', r"messages\[0\]: role None"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "the last message is from the user"),
    ],
)
def test_a_malformed_row_names_file_and_line(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(f"{GOOD}\n{line}\n", "utf-8")
    with pytest.raises(DataError, match=complaint) as caught:
        read_dialogues(path)
    assert str(caught.value).startswith(f"{path}:2: ") and "\n" not in str(caught.value)


def test_a_missing_an_empty_and_a_binary_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.jsonl: cannot be read \(No such file"):
        read_dialogues(tmp_path / "nowhere.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no dialogues"):
        read_dialogues(tmp_path / "empty.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        read_dialogues(tmp_path / "binary.jsonl")


def test_dialogues_that_are_too_long_are_left_out_and_counted(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["hello there"] * 5, vocab_size=300)
    path = tmp_path / "d.jsonl"
    path.write_text(f"{GOOD}\n{GOOD.replace('b', 'b' * 500)}\n", "utf-8")
    examples, left_out = encode_examples(tokenizer, read_dialogues(path), max_length=100)
    assert (len(examples), left_out) == (1, 1)
    with pytest.raises(DataError, match="none of 2 dialogues fits in max_length=5"):
        encode_examples(tokenizer, read_dialogues(path), max_length=5)


def test_a_special_token_in_the_text_is_refused_with_its_line(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["hello there"] * 5, vocab_size=300)
    path = tmp_path / "d.jsonl"
    path.write_text(GOOD.replace('"a"', f'"a{EOS}"') + "\n", "utf-8")
    with pytest.raises(DataError, match=r"d.jsonl:1: message 0 \(user\): holds the special token"):
        encode_examples(tokenizer, read_dialogues(path), max_length=100)
