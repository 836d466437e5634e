"""Train a small byte-level BPE tokenizer with DeepSeek-V2's special tokens and chat template.

For policies that start from nothing, as in the examples and tests. The result is a Hugging Face folder that
`AutoTokenizer` and vLLM load as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from assay.chat import CHAT_TEMPLATE
from assay.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
PAD = "<｜▁pad▁｜>"  #: a token of its own: with pad = eos a mask that looks at ids would untrain the end token
FIM_TOKENS = ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")

_BYTES = 256
_SMALLEST = _BYTES + 3 + len(FIM_TOKENS)


def train_tokenizer(
    texts: Iterable[str], vocab_size: int = 1024, max_length: int = 2048, pieces: str = "words"
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens; every text round-trips, digits stay single.

    Ids 0, 1, 2 are BOS, EOS and the pad token. `max_length` is what the tokenizer reports as its model's context.
    `pieces` names a row of PIECES: what a token may not reach across.
    """
    from tokenizers import Tokenizer, models, trainers
    from transformers import PreTrainedTokenizerFast

    if vocab_size < _SMALLEST:
        raise ConfigError(f"vocab_size={vocab_size}: the bytes and special tokens alone are {_SMALLEST}; use more")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder, alphabet = _byte_level(pieces)
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[BOS, EOS, PAD, *FIM_TOKENS],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens=list(FIM_TOKENS),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=max_length,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the tokenizer's files into `folder`."""
    tokenizer.save_pretrained(str(folder))


#: What BPE may not merge across, as regular expressions of the pieces that stand alone (digits always do).
PIECES = {
    "words": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+"),  # DeepSeek-Coder's: lines, words, punctuation
    "lines": (r"\n *",),  # whole lines may become one token, for templated text: half the decoding steps
}


def _byte_level(pieces: str) -> tuple[object, object, list[str]]:
    """The split into pieces and digits, then into bytes."""
    from tokenizers import Regex, decoders, pre_tokenizers

    split = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in PIECES[pieces]),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return split, decoders.ByteLevel(), sorted(pre_tokenizers.ByteLevel.alphabet())
