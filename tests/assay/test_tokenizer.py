"""The trained tokenizer: lossless, with single digits, and the same after a trip to the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.errors import ConfigError
from assay.policy import load_tokenizer
from assay.tokenizer import BOS, EOS, FIM_TOKENS, PAD, save_tokenizer, train_tokenizer

TEXTS = ["def add(x, y):\n    return x + y\n", "User: sum 10 and 23\n\nAssistant: 33"] * 30


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, vocab_size=400)


def test_special_tokens_have_their_own_ids(tokenizer) -> None:
    assert tokenizer.convert_tokens_to_ids([BOS, EOS, PAD, *FIM_TOKENS]) == [0, 1, 2, 3, 4, 5]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (BOS, EOS, PAD)
    assert len(tokenizer) <= 400


def test_digits_stay_single(tokenizer) -> None:
    assert [tokenizer.decode([i]) for i in tokenizer("1023", add_special_tokens=False)["input_ids"]] == list("1023")


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=("Cs",))))
def test_every_text_round_trips(tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_the_folder_loads_as_the_same_tokenizer(tokenizer, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.chat_template == tokenizer.chat_template
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again(TEXTS[0])["input_ids"] == tokenizer(TEXTS[0])["input_ids"]
    assert (again.bos_token_id, again.eos_token_id, again.pad_token_id) == (0, 1, 2)


def test_training_is_deterministic(tokenizer) -> None:
    assert train_tokenizer(TEXTS, vocab_size=400).get_vocab() == tokenizer.get_vocab()


def test_a_vocabulary_below_the_bytes_is_refused() -> None:
    with pytest.raises(ConfigError, match="vocab_size=100"):
        train_tokenizer(TEXTS, vocab_size=100)
