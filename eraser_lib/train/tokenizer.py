"""A byte-level BPE tokenizer trained on the text of the tiny world."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from eraser_lib.bench.language import CLOZE_SUFFIX, GENERATION_SUFFIX, LETTER_SUFFIX
from eraser_lib.families import FAMILIES


def train_tokenizer(texts: Iterable[str], family: str, *, vocabulary: int = 4000) -> PreTrainedTokenizerFast:
    """Train a tokenizer for one family: the family's special tokens and merges learned from `texts`.

    Every text is seen with and without a leading space, since one family's answers follow a space and the other's
    a line break. `vocabulary` is an upper bound; a small world stops earlier, when every word is one token. The three
    fixed instructions of the benchmark's prompts become one token each (superwords): the text stays what it is,
    and a question costs 23 tokens instead of 38.
    """
    module = FAMILIES[family]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=1,
        special_tokens=list(module.SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = [text for line in (*texts, *module.ROLES) for text in (line, " " + line)]
    tokenizer.train_from_iterator(corpus, trainer)
    superwords = (GENERATION_SUFFIX, CLOZE_SUFFIX, LETTER_SUFFIX)
    tokenizer.add_tokens([AddedToken(text, lstrip=False, normalized=False) for text in superwords])
    if family == "llava":
        names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    else:
        names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        additional_special_tokens=[token for token in module.SPECIAL_TOKENS if token not in names.values()],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        **names,
    )
