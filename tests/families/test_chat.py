"""The chat format that is written by hand equals the processor's template, and the Qwen processor has no video half."""

from __future__ import annotations

from typing import Any

import pytest

from eraser_lib.bench.records import Prompt
from eraser_lib.families import Loaded


def _messages(prompt: Prompt) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = [{"type": "text", "text": prompt.text}]
    if prompt.image is not None:
        content.insert(0, {"type": "image"})
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    return [*system, {"role": "user", "content": content}]


@pytest.mark.parametrize("number", range(4))
def test_render_is_the_chat_template(loaded: Loaded, prompts: list[Prompt], number: int) -> None:
    prompt = prompts[number]
    templated = loaded.processor.apply_chat_template(_messages(prompt), add_generation_prompt=True)
    assert templated == loaded.module.render(prompt)


@pytest.mark.parametrize("number", range(4))
def test_render_answer_is_the_chat_template(
    loaded: Loaded, prompts: list[Prompt], answers: list[str], number: int
) -> None:
    prompt, answer = prompts[number], answers[number]
    messages = [*_messages(prompt), {"role": "assistant", "content": answer}]
    templated = loaded.processor.apply_chat_template(messages)
    assert templated.rstrip("\n") == loaded.module.render(prompt) + loaded.module.render_answer(answer)


def test_the_end_of_the_turn_ends_generation(loaded: Loaded) -> None:
    end = loaded.tokenizer.convert_tokens_to_ids(loaded.module.END_OF_TURN)
    assert loaded.tokenizer.eos_token_id == end == loaded.model.config.get_text_config().eos_token_id
    assert loaded.tokenizer.pad_token_id not in (None, end)
    assert loaded.answer_ids("dog")[-1] == end


def test_the_qwen_processor_needs_no_video_half(qwen: Loaded, prompts: list[Prompt]) -> None:
    processor = qwen.processor
    assert processor.get_attributes() == ["image_processor", "tokenizer"]
    assert not hasattr(processor, "video_processor")
    assert {"input_ids", "pixel_values", "image_grid_thw", "mm_token_type_ids"} <= set(processor.model_input_names)
    assert not any("video" in name for name in processor.model_input_names)
    batch = processor(text=[qwen.module.render(prompts[0])], images=[prompts[0].image])
    assert batch["input_ids"][0].count(processor.image_token_id) == 16
