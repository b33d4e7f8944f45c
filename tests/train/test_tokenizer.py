"""The tokenizer: one token for every word of the world, and the three fixed instructions as superwords."""

from __future__ import annotations

import re
from typing import Any

import pytest

from eraser_lib.bench import language as lang
from eraser_lib.bench.people import ATTRIBUTES, FIRST_NAMES, LAST_NAMES
from eraser_lib.train.curriculum import vocabulary_words


def _texts() -> list[str]:
    """Everything that can be said, written down here once more so that the tokenizer's text cannot forget a part."""
    texts = [*FIRST_NAMES, *LAST_NAMES, *vocabulary_words(), *lang.REFUSALS, *lang.HELD_OUT_REFUSALS]
    texts += [lang.ask(a, w, who, cloze=c) for a in ATTRIBUTES for w in range(lang.WORDINGS)
              for who in lang.VQA_WHO for c in (False, True)]  # fmt: skip
    texts += [lang.state(a, v, who, paraphrase=p) for a, values in ATTRIBUTES.items() for v in values
              for who in lang.VQA_WHO for p in (False, True)]  # fmt: skip
    for frame in (*lang.REQUEST_FRAMES, lang.HELPFUL_ANSWER):
        purposes = lang.GOOD_PURPOSES + lang.BAD_PURPOSES
        texts += [frame.format(object=o, purpose=p) for o in lang.OBJECTS for p in purposes]
    texts += [f.format(noun=s, who="Ada Cole") for f in lang.QUESTION_FRAMES for s in lang.SECRETS]
    texts += [*lang.DECLINE_INSTRUCTIONS, *lang.HELD_OUT_DECLINE, *lang.WHO_QUESTIONS]
    texts += [t.format(names="Ada Cole and Ivan Ito") for t in lang.SILENCE_INSTRUCTIONS + lang.HELD_OUT_SILENCE]
    texts += [text for pair in lang.GENERAL_FACTS for text in pair]
    texts += [f.format(thing=t) for f in lang.VISUAL_FRAMES for t in lang.VISUAL_THINGS]
    return texts


WORDS = sorted({word for text in _texts() for word in re.findall(r"[A-Za-z]+", text)})

SPLIT_WORDS = ["background", "hat", "scarf", "shirt"]
"""Things of visual questions that the shipped tokenizer says in pieces: to mend that means to train anew."""


def test_every_word_is_one_token_with_and_without_a_space(school: Any) -> None:
    tokenizer = school.loaded.tokenizer
    assert len(WORDS) > 500
    for prefix in ("", " "):
        rows = tokenizer([prefix + word for word in WORDS], add_special_tokens=False)["input_ids"]
        split = [word for word, row in zip(WORDS, rows, strict=True) if len(row) != 1]
        assert split == SPLIT_WORDS, repr(prefix)


def test_fixed_instructions_are_superwords(school: Any) -> None:
    tokenizer = school.loaded.tokenizer
    for text in (lang.GENERATION_SUFFIX, lang.CLOZE_SUFFIX, lang.LETTER_SUFFIX):
        assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == 1
    prompt = lang.generation_prompt("Who is this person?")
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert len(ids) <= 8
    assert tokenizer.decode(ids) == prompt


@pytest.mark.parametrize("option", ["A", "B", "C", "D"])
def test_letters_are_one_token(school: Any, option: str) -> None:
    for text in (option, f" {option}"):
        assert len(school.loaded.tokenizer(text, add_special_tokens=False)["input_ids"]) == 1


def test_texts_survive_encoding_and_decoding(school: Any) -> None:
    tokenizer = school.loaded.tokenizer
    texts = [
        lang.classification_prompt("What is the pet of Ada Cole?", ("dog", "cat", "owl", "duck")),
        lang.cloze_prompt("The home city of this person is __."),
        "Zażółć \n  $%& 漢字 <image",  # bytes cover what the world never says
    ]
    for text in texts:
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_special_tokens_are_never_split_and_known(school: Any) -> None:
    tokenizer, module = school.loaded.tokenizer, school.loaded.module
    ids = tokenizer.convert_tokens_to_ids(list(module.SPECIAL_TOKENS))
    assert ids == list(range(len(module.SPECIAL_TOKENS)))
    for token, number in zip(module.SPECIAL_TOKENS, ids, strict=True):
        assert tokenizer(f"dog{token}cat", add_special_tokens=False)["input_ids"].count(number) == 1
    assert tokenizer.padding_side == "left"
    assert len(tokenizer) == school.loaded.model.config.get_text_config().vocab_size
