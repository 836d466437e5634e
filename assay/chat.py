"""Messages to token ids and back: the only place where a chat template is applied.

A dialogue is rendered as text once per assistant turn and cut at the boundary the template itself shows: what it
writes for a generation prompt, then what the assistant says up to and including the end-of-sequence token. The
pieces are tokenised one by one, so prompt ids followed by completion ids are the dialogue's ids by construction,
whatever the tokenizer would have merged across the boundary. What a policy is trained on is therefore what it is
asked to continue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from assay.errors import ConfigError, DataError
from assay.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLES = ("system", "user", "assistant")

#: DeepSeek-Coder-V2's own template: BOS; system text and a blank line; `User: ` text and a blank line;
#: `Assistant: ` text EOS; and, to be answered, `Assistant:` with nothing after it (a space there makes the
#: published models answer in Chinese or repeat themselves: README of deepseek-ai/DeepSeek-Coder-V2, issue 12).
CHAT_TEMPLATE = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}"
    "{% elif message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids [P] of a conversation that waits for an answer; for a DeepSeek template they end with `Assistant:`.

    Raises ConfigError where the tokenizer's template cannot be trained on, DataError where the messages cannot be
    rendered.
    """
    if not messages or messages[-1].role == "assistant":
        raise DataError("a prompt must end with a user message; there is nothing to answer here")
    token_ids: list[int] = []
    for text, _ in _pieces(tokenizer, messages, add_generation_prompt=True):
        token_ids += _tokenise(tokenizer, text)
    _check_bos(tokenizer, token_ids)
    return token_ids


def encode_dialogue(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
    """Token ids [L] of a finished conversation and its loss mask [L], true on assistant tokens and their EOS.

    The first P ids are `encode_prompt` of the messages before the last answer. Raises as `encode_prompt` does.
    """
    if not messages or messages[-1].role != "assistant":
        raise DataError("a dialogue to learn from must end with an assistant message")
    token_ids: list[int] = []
    loss_mask: list[bool] = []
    for text, is_answer in _pieces(tokenizer, messages, add_generation_prompt=False):
        piece = _tokenise(tokenizer, text)
        if is_answer and piece[-1] != tokenizer.eos_token_id:
            raise ConfigError(f"{_name(tokenizer)}: {tokenizer.eos_token!r} is not a single token of this tokenizer")
        token_ids += piece
        loss_mask += [is_answer] * len(piece)
    _check_bos(tokenizer, token_ids)
    return token_ids, loss_mask


def completion_text(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """What the assistant said: the completion decoded without special tokens and without the template's one space."""
    text: str = tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.removeprefix(" ")


def _pieces(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, add_generation_prompt: bool
) -> list[tuple[str, bool]]:
    """The conversation as (text, is an answer) pieces; an answer runs through its EOS and not a character further."""
    _check_messages(tokenizer, messages)
    pieces: list[tuple[str, bool]] = []
    done = ""  # what has been cut into pieces so far
    for i, message in enumerate(messages):
        if message.role != "assistant":
            continue
        prompt = _render(tokenizer, messages[:i], add_generation_prompt=True)
        whole = _render(tokenizer, messages[: i + 1], add_generation_prompt=False)
        pieces.append((_after(tokenizer, done, prompt), False))
        answer = _after(tokenizer, prompt, whole)
        end = answer.rfind(tokenizer.eos_token)
        if end < 0:
            raise ConfigError(
                f"{_name(tokenizer)}: the chat template writes no {tokenizer.eos_token!r} after an assistant turn, so "
                "a policy trained with it would never stop; use a template that does"
            )
        end += len(tokenizer.eos_token)
        if message.content.strip() not in answer[:end]:  # many templates trim, which harms nothing
            raise ConfigError(
                f"{_name(tokenizer)}: the chat template does not round-trip: it writes {message.content!r:.60} as "
                f"{answer[:end]!r:.60}; use a template that leaves answers as they are"
            )
        pieces.append((answer[:end], True))
        done = prompt + answer[:end]  # what the template adds after EOS belongs to the next prompt
    if add_generation_prompt:
        pieces.append((_after(tokenizer, done, _render(tokenizer, messages, add_generation_prompt=True)), False))
    return pieces


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
    from jinja2 import TemplateError

    turns = [{"role": m.role, "content": m.content} for m in messages]
    try:
        text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt)
    except TemplateError as error:
        raise DataError(f"{_name(tokenizer)}: the chat template refuses the messages: {error}") from None
    if add_generation_prompt and text.endswith(" "):
        raise ConfigError(
            f"{_name(tokenizer)}: the chat template's generation prompt ends with a space, which no answer ever "
            "follows; remove it (for DeepSeek-V2 it must end with 'Assistant:')"
        )
    return text


def _after(tokenizer: PreTrainedTokenizerBase, prefix: str, text: str) -> str:
    if not text.startswith(prefix):
        raise ConfigError(
            f"{_name(tokenizer)}: the chat template writes earlier turns differently once a later one follows, so a "
            "prompt is no prefix of its dialogue; use a template that only appends"
        )
    return text[len(prefix) :]


def _check_messages(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> None:
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(f"{_name(tokenizer)}: has no chat template; set tokenizer.chat_template")
    if tokenizer.eos_token is None:
        raise ConfigError(f"{_name(tokenizer)}: has no end-of-sequence token, so no answer could ever end")
    for i, message in enumerate(messages):
        if message.role not in ROLES:
            raise DataError(f"message {i}: role {message.role!r}; expected one of {', '.join(ROLES)}")
        for special in tokenizer.all_special_tokens:
            if special in message.content:
                raise DataError(f"message {i} ({message.role}): holds the special token {special!r}; remove it")


def _check_bos(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> None:
    bos = tokenizer.bos_token_id
    if bos is not None and bos != tokenizer.eos_token_id and token_ids.count(bos) > 1:
        raise ConfigError(f"{_name(tokenizer)}: the chat template writes {tokenizer.bos_token!r} more than once")


def _tokenise(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    token_ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    return token_ids


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    return f"tokenizer {getattr(tokenizer, 'name_or_path', '') or type(tokenizer).__name__}"
