"""DeepSeek-V2's template, token by token, and what is refused."""

from __future__ import annotations

import pytest

from assay.chat import completion_text, encode_dialogue, encode_prompt
from assay.errors import ConfigError, DataError
from assay.tokenizer import BOS, EOS, train_tokenizer
from assay.types import Message

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["User: add one to x\n\nAssistant: def f(x):\n    return x + 1\n"] * 20, vocab_size=320)


def user(text: str) -> Message:
    return Message(role="user", content=text)


def assistant(text: str) -> Message:
    return Message(role="assistant", content=text)


def system(text: str) -> Message:
    return Message(role="system", content=text)


def test_prompt_is_the_published_form(tokenizer) -> None:
    ids = encode_prompt(tokenizer, [system("Be brief."), user("hi"), assistant("yes"), user("why?")])
    text = tokenizer.decode(ids, skip_special_tokens=False)
    assert text == f"{BOS}Be brief.\n\nUser: hi\n\nAssistant: yes{EOS}User: why?\n\nAssistant:"
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
    assert not text.endswith(" ")


def test_loss_is_on_answers_and_their_end_only(tokenizer) -> None:
    ids, mask = encode_dialogue(tokenizer, [user("hi"), assistant("one"), user("and?"), assistant("two 2")])
    learned = tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m], skip_special_tokens=False)
    given = tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if not m], skip_special_tokens=False)
    assert learned == f" one{EOS} two 2{EOS}"
    assert given == f"{BOS}User: hi\n\nAssistant:User: and?\n\nAssistant:"
    ends = [i for i, token in enumerate(ids) if token == tokenizer.eos_token_id]
    assert len(ends) == 2 and all(mask[i] for i in ends)


@pytest.mark.parametrize(
    "answer", ["yes", " two spaces", "\nnewline first", "", "é你好 😀", "def f(x):\n    return x + 1\n"]
)
def test_prompt_and_completion_ids_are_the_dialogue_ids(tokenizer, answer: str) -> None:
    turns = [user("add one"), assistant("def f(x):"), user("again")]
    prompt = encode_prompt(tokenizer, turns)
    ids, mask = encode_dialogue(tokenizer, [*turns, assistant(answer)])
    assert ids[: len(prompt)] == prompt
    assert all(mask[len(prompt) :]) and not mask[len(prompt) - 1]
    assert ids[-1] == tokenizer.eos_token_id
    assert completion_text(tokenizer, ids[len(prompt) :]) == answer


def test_a_template_with_text_after_its_end_token_keeps_the_loss_off_that_text(tokenizer) -> None:
    other = train_tokenizer(["hello there"] * 5, vocab_size=300)
    other.add_special_tokens({"eos_token": "<|im_end|>", "bos_token": "<|im_start|>"})
    other.bos_token = None
    other.chat_template = CHATML
    ids, mask = encode_dialogue(other, [user("a"), assistant("b"), user("c"), assistant("d")])
    learned = other.decode([i for i, m in zip(ids, mask, strict=True) if m], skip_special_tokens=False)
    assert learned == "b<|im_end|>d<|im_end|>"
    prompt = encode_prompt(other, [user("a"), assistant("b"), user("c")])
    assert ids[: len(prompt)] == prompt


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "writes no"),
        ("{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}{{ 'Assistant: ' }}", "ends with a space"),
        (
            "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}{{ messages | length }}",
            "no prefix of its dialogue",
        ),
        (
            "{% for m in messages %}{{ bos_token + m['content'] + eos_token }}{% endfor %}",
            "more than once",
        ),
        (
            "{% for m in messages %}{{ m['content'] | upper + eos_token }}{% endfor %}",
            "does not round-trip: it writes 'b' as 'B",
        ),
    ],
)
def test_a_template_that_cannot_be_trained_on_is_refused(tokenizer, template: str, complaint: str) -> None:
    broken = train_tokenizer(["hello there"] * 5, vocab_size=300)
    broken.chat_template = template
    with pytest.raises(ConfigError, match=complaint) as caught:
        encode_dialogue(broken, [user("a"), assistant("b")])
    assert "\n" not in str(caught.value)


def test_a_template_that_trims_answers_is_none_of_those() -> None:
    trimming = train_tokenizer(["hello there"] * 5, vocab_size=300)
    trimming.chat_template = "{% for m in messages %}{{ m['content'] | trim + eos_token }}{% endfor %}"
    ids, mask = encode_dialogue(trimming, [user("a"), assistant(" b\n")])
    assert trimming.decode([i for i, m in zip(ids, mask, strict=True) if m]) == f"b{EOS}"


def test_no_template_at_all_is_refused() -> None:
    bare = train_tokenizer(["hello there"] * 5, vocab_size=300)
    bare.chat_template = None
    with pytest.raises(ConfigError, match="has no chat template"):
        encode_prompt(bare, [user("a")])


def test_messages_that_mean_nothing_are_refused(tokenizer) -> None:
    with pytest.raises(DataError, match="special token"):
        encode_prompt(tokenizer, [user(f"ignore this {EOS} now")])
    with pytest.raises(DataError, match="role 'tool'"):
        encode_prompt(tokenizer, [Message(role="tool", content="x"), user("a")])
    with pytest.raises(DataError, match="must end with a user message"):
        encode_prompt(tokenizer, [user("a"), assistant("b")])
    with pytest.raises(DataError, match="must end with an assistant message"):
        encode_dialogue(tokenizer, [user("a")])
