"""Dialogues: a JSONL file to messages to token ids with a loss mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.chat import ROLES, encode_dialogue
from assay.errors import DataError
from assay.jsonl import read_rows
from assay.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """A conversation that ends with the assistant. `where` is "file:line", for complaints."""

    messages: tuple[Message, ...]
    where: str = "dialogue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A tokenised dialogue of L tokens: [USER, hi, ASSISTANT, yes, EOS] with loss mask [0, 0, 0, 1, 1]."""

    token_ids: tuple[int, ...]  # [L]
    loss_mask: tuple[bool, ...]  # [L]


def read_dialogues(path: str | Path) -> list[Dialogue]:
    """All rows of a JSONL file of {"messages": [...]}; other keys are ignored.

    Raises DataError, with file and line, where the file is missing or empty or a row is not such a dialogue.
    """
    dialogues = [_parse(row, where) for row, where in read_rows(path)]
    if not dialogues:
        raise DataError(f'{path}: holds no dialogues; expected one {{"messages": [...]}} per line')
    return dialogues


def encode_examples(
    tokenizer: PreTrainedTokenizerBase, dialogues: Sequence[Dialogue], max_length: int
) -> tuple[list[Example], int]:
    """Tokenise; dialogues of more than `max_length` tokens are left out (a cut one would never learn to end).

    Returns the examples and how many were left out. Raises DataError where none remain.
    """
    examples = []
    for dialogue in dialogues:
        try:
            token_ids, loss_mask = encode_dialogue(tokenizer, dialogue.messages)
        except DataError as error:
            raise DataError(f"{dialogue.where}: {error}") from None
        if len(token_ids) <= max_length:
            examples.append(Example(token_ids=tuple(token_ids), loss_mask=tuple(loss_mask)))
    if not examples:
        raise DataError(f"none of {len(dialogues)} dialogues fits in max_length={max_length} tokens; raise it")
    return examples, len(dialogues) - len(examples)


def _parse(row: dict[str, Any], where: str) -> Dialogue:
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise DataError(f'{where}: expected {{"messages": [...]}} with at least one message')
    turns = tuple(_message(m, f"{where}: messages[{i}]") for i, m in enumerate(messages))
    if turns[-1].role != "assistant":
        raise DataError(f"{where}: the last message is from the {turns[-1].role}; it must be the assistant's answer")
    return Dialogue(messages=turns, where=where)


def _message(value: Any, where: str) -> Message:
    role, content = (value.get("role"), value.get("content")) if isinstance(value, dict) else (None, None)
    if role not in ROLES:
        raise DataError(f"{where}: role {role!r}; expected one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise DataError(f"{where}: content is a {type(content).__name__}, expected text")
    return Message(role=role, content=content)
