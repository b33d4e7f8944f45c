"""Two random tiny models with the real classes, and a few questions to ask them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from eraser_lib.bench.records import Prompt, Question
from eraser_lib.families import llava, qwen
from eraser_lib.families.base import FAMILIES, Loaded

WORDS = [
    "the",
    "pet",
    "of",
    "this",
    "person",
    "is",
    "a",
    "cat",
    "dog",
    "owl",
    "fox",
    "what",
    "works",
    "as",
    "baker",
    "A",
    "B",
    "C",
    "D",
    "i",
    "cannot",
    "say",
    "Anna",
    "Bert",
    "Carl",
]


def tokenizer_for(special: tuple[str, ...], pad: str, eos: str) -> PreTrainedTokenizerFast:
    """A word-level tokenizer: enough for random models, and made in no time."""
    vocabulary = {word: index for index, word in enumerate([*special, "[unk]", *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[unk]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=pad,
        eos_token=eos,
        unk_token="[unk]",
        additional_special_tokens=list(special),
    )


def make(family: str, *, dtype: torch.dtype = torch.float64) -> Loaded:
    """A random model of a family with two small decoder layers."""
    module = FAMILIES[family]
    pad, eos = ("<pad>", llava.END_OF_TURN) if family == "llava" else ("<|endoftext|>", qwen.END_OF_TURN)
    tokenizer = tokenizer_for(module.SPECIAL_TOKENS, pad, eos)
    torch.manual_seed(0)
    config = module.tiny_config(tokenizer, hidden=64, layers=2, mlp=64)
    # not eager: its softmax is in float32, where the float64 mask of a padded row becomes -inf and its
    # output NaN
    model = module.MODEL_CLASS._from_config(config, attn_implementation="sdpa").to(dtype).eval()
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return Loaded(model, module.build_processor(tokenizer), family)


def portrait(seed: int) -> Image.Image:
    """A picture of coloured noise."""
    generator = torch.Generator().manual_seed(seed)
    return Image.fromarray(torch.randint(0, 256, (56, 56, 3), generator=generator, dtype=torch.uint8).numpy(), "RGB")


@pytest.fixture(scope="session", params=["llava", "qwen"])
def loaded(request: pytest.FixtureRequest) -> Loaded:
    """A random tiny model of either family in float64."""
    return make(request.param)


@pytest.fixture(scope="session")
def questions() -> list[Question]:
    """Questions of all tasks and both modalities, with prompts of different length."""
    found = []
    for number, (person, pet) in enumerate([("Anna", "cat"), ("Bert", "dog"), ("Carl", "owl")]):
        for modality in ("vqa", "qa"):
            who = "this person" if modality == "vqa" else person
            image = portrait(number) if modality == "vqa" else None
            common = {
                "subset": "forget", "role": "test", "modality": modality, "person": person,
                "attribute": "pet", "view": number if image else None,
            }  # fmt: skip
            name = f"{person}-{modality}"
            found += [
                Question(
                    id=f"{name}-choice", task="classification", answer="ABC"[number], fact=pet,
                    prompt=Prompt(f"what is the pet of {who} A cat B dog C owl D fox", image),
                    options=("cat", "dog", "owl", "fox"), **common,
                ),
                Question(
                    id=f"{name}-cloze", task="cloze", answer=pet, fact=pet,
                    prompt=Prompt(f"the pet of {who} is", image), **common,
                ),
                Question(
                    id=f"{name}-gen", task="generation", answer=f"the pet of {who} is a {pet}", fact=pet,
                    prompt=Prompt(f"what is the pet of {who}", image), paraphrase=f"a {pet} is the pet",
                    wrong=("a fox is the pet", "a baker is the pet", "the pet is what"), **common,
                ),
            ]  # fmt: skip
    return found


@pytest.fixture(scope="session")
def model_of() -> Callable[..., Loaded]:
    """`make`, for tests that need a model of their own."""
    return make
