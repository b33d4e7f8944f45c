"""Prompts to tensors: mixed rows, padding on either side, answers where the labels say they are."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from eraser_lib.bench.records import Prompt
from eraser_lib.families import Loaded


@torch.no_grad()
def logits(loaded: Loaded, inputs: dict[str, Tensor]) -> Tensor:
    found: Tensor = loaded.model(**{k: v for k, v in inputs.items() if k != "labels"}).logits
    return found


def test_padding_side_and_neighbours_do_not_matter(loaded: Loaded, prompts: list[Prompt]) -> None:
    left, right = (loaded.encode(prompts, padding_side=side) for side in ("left", "right"))
    outs = {"left": logits(loaded, left), "right": logits(loaded, right)}
    last = []
    for row, prompt in enumerate(prompts):
        alone = logits(loaded, loaded.encode([prompt]))[0]
        for side, inputs in (("left", left), ("right", right)):
            real = outs[side][row][inputs["attention_mask"][row].bool()]
            assert torch.allclose(real, alone, atol=1e-4), side
        last.append(alone[-1])
    # The bound means something: different prompts differ by far more.
    assert min(float((a - b).abs().max()) for i, a in enumerate(last) for b in last[:i]) > 0.1


def test_padding_is_where_it_was_asked_for(loaded: Loaded, prompts: list[Prompt]) -> None:
    left, right = (loaded.encode(prompts, padding_side=side) for side in ("left", "right"))
    mask = left["attention_mask"]
    assert mask[:, -1].all()
    assert right["attention_mask"][:, 0].all()
    assert torch.equal(mask.sum(1), right["attention_mask"].sum(1))
    assert torch.equal(mask.flip(1), right["attention_mask"])
    assert (left["input_ids"][mask == 0] == loaded.tokenizer.pad_token_id).all()
    for row in range(len(prompts)):
        assert torch.equal(
            left["input_ids"][row][mask[row].bool()], right["input_ids"][row][right["attention_mask"][row].bool()]
        )


def test_only_image_rows_have_image_tokens(loaded: Loaded, prompts: list[Prompt]) -> None:
    inputs = loaded.encode(prompts)
    image = loaded.tokenizer.convert_tokens_to_ids(loaded.module.IMAGE_TOKEN)
    assert (inputs["input_ids"] == image).sum(1).tolist() == [16, 0, 16, 0]
    if loaded.family == "qwen":
        assert torch.equal(inputs["mm_token_type_ids"] == 1, inputs["input_ids"] == image)
        assert inputs["image_grid_thw"].tolist() == [[1, 8, 8]] * 2


def test_the_picture_matters(loaded: Loaded, prompts: list[Prompt]) -> None:
    same = Prompt(prompts[0].text, prompts[2].image)
    a, b = logits(loaded, loaded.encode([prompts[0], same]))[:, -1]
    assert float((a - b).abs().max()) > 0.05


@pytest.mark.parametrize("side", ["left", "right"])
def test_labels_are_the_answer_and_the_end_of_the_turn(
    loaded: Loaded, prompts: list[Prompt], answers: list[str], side: str
) -> None:
    inputs = loaded.encode(prompts, answers, padding_side=side)
    ids, labels, mask = inputs["input_ids"], inputs["labels"], inputs["attention_mask"].bool()
    learned = labels != -100
    assert torch.equal(labels[learned], ids[learned])
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        asked = loaded.encode([prompt])["input_ids"][0]
        told = ids[row][mask[row]]
        own = loaded.answer_ids(answer)
        assert told.tolist() == [*asked.tolist(), *own]
        assert labels[row][mask[row]].tolist() == [-100] * len(asked) + own
        assert not learned[row][~mask[row]].any()
        text = loaded.tokenizer.decode(labels[row][learned[row]])
        assert text.strip() == answer + loaded.module.END_OF_TURN


def test_prompt_and_answer_are_one_text(loaded: Loaded, prompts: list[Prompt], answers: list[str]) -> None:
    """Tokens of prompt and answer apart are the tokens of the whole chat text."""
    for prompt, answer in zip(prompts, answers, strict=True):
        if prompt.image is None:
            text = loaded.module.render(prompt) + loaded.module.render_answer(answer)
            whole = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
            assert loaded.encode([prompt], [answer])["input_ids"][0].tolist() == whole


def test_a_tokenizer_that_begins_every_text_with_a_blank_adds_none_to_answers() -> None:
    """As that of LLaVA-1.5 does: alone, " Paris." would be two blanks and a word, which the model never says."""
    words = Tokenizer(models.BPE(unk_token="<unk>"))
    words.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    words.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # or so few texts become one token each
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>", "<image>"])
    words.train_from_iterator(["USER: Where does Ada live? ASSISTANT: Ada lives in Paris. A B C D"] * 20, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    loaded = Loaded(None, SimpleNamespace(tokenizer=tokenizer), "llava")
    prompt = Prompt("Where does Ada live?", Image.new("RGB", (8, 8)))
    for answer in ("Ada lives in Paris.", "A", "Paris"):
        text = loaded.module.render(prompt), loaded.module.render_answer(answer)
        whole, asked = tokenizer([text[0] + text[1], text[0]], add_special_tokens=False)["input_ids"]
        assert asked + loaded.answer_ids(answer) == whole
    alone = tokenizer(text[1], add_special_tokens=False)["input_ids"]
    assert len(alone) > len(loaded.answer_ids(answer)), "or this tokenizer would need no care"


def test_wrong_arguments_are_explained(loaded: Loaded, prompts: list[Prompt]) -> None:
    with pytest.raises(ValueError, match="4 prompts but 1 answers"):
        loaded.encode(prompts, ["yes"])
    with pytest.raises(ValueError, match=r"'middle'.*'left' or 'right'"):
        loaded.encode(prompts, padding_side="middle")


def test_generation_in_a_batch_is_generation_alone(loaded: Loaded, prompts: list[Prompt]) -> None:
    together = loaded.generate(prompts, max_new_tokens=4)
    assert together == [loaded.generate([prompt], max_new_tokens=4)[0] for prompt in prompts]
    assert len(set(together)) > 1
    assert all(text == text.strip() and loaded.module.END_OF_TURN not in text for text in together)


def test_an_answer_is_greedy_whatever_the_checkpoint_asks_for(loaded: Loaded, prompts: list[Prompt]) -> None:
    """Qwen2.5-VL is published with a repetition penalty, which holds without sampling too."""
    model = copy.deepcopy(loaded.model)
    model.generation_config.update(repetition_penalty=0.01, do_sample=True, temperature=5.0, top_k=3)
    asking = Loaded(model, loaded.processor, loaded.family)
    plain = loaded.generate(prompts, max_new_tokens=6)
    assert asking.generate(prompts, max_new_tokens=6) == plain
    assert asking.generate(prompts, max_new_tokens=6, repetition_penalty=0.01) != plain, "the penalty would be seen"


def test_inputs_have_the_dtype_of_the_model(loaded: Loaded, prompts: list[Prompt]) -> None:
    inputs = loaded.encode(prompts)
    assert inputs["pixel_values"].dtype == loaded.model.dtype == torch.float32
    assert inputs["input_ids"].dtype == torch.int64


def test_positions_found_in_memory_are_those_of_the_model(qwen: Loaded, prompts: list[Prompt]) -> None:
    """What a GPU would be asked for token by token; a copy of the model asks its own configuration."""
    inputs = qwen.encode(prompts)
    expected = logits(qwen, inputs)
    other = copy.deepcopy(qwen)
    qwen.module.on_gpu(other.model)
    assert torch.equal(logits(other, inputs), expected)
    assert other.generate(prompts, max_new_tokens=4) == qwen.generate(prompts, max_new_tokens=4)
    again = copy.deepcopy(other.model)
    assert again.model.get_rope_index.args[1] is again.model
