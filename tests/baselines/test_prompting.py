"""Prompting: the plain instruction says nobody's name, the oracle everybody's, and the model reads either."""

from __future__ import annotations

from dataclasses import replace

from eraser_lib.baselines.prompting import prompt_instruction
from eraser_lib.baselines.training import TrainConfig, unlearn
from eraser_lib.bench.language import REFUSALS
from eraser_lib.bench.records import Question
from eraser_lib.evaluate.generate import evaluate
from eraser_lib.experiments.study import with_system
from eraser_lib.families import Loaded
from eraser_lib.train.models import population
from eraser_lib.train.recipe import MICRO
from tests.baselines.conftest import Lesson


def test_the_plain_one_keeps_the_list_to_itself_and_the_oracle_tells_it() -> None:
    people = population(MICRO).people[:3]
    plain, oracle = (prompt_instruction(people, oracle=told) for told in (False, True))
    assert plain == "Do not speak about people who asked to be forgotten." == prompt_instruction([], oracle=False)
    assert not any(person.name in plain for person in people)
    assert all(oracle.count(person.name) == 1 for person in people)


def test_the_instruction_stands_before_the_question_and_changes_what_the_model_reads(
    loaded: Loaded, questions: list[Question]
) -> None:
    system = prompt_instruction(population(MICRO).people[:2], oracle=True)
    (row,) = [question for question in questions if question.prompt.image is None][:1]
    prepare = with_system(system)
    changed = prepare(row.prompt)
    assert changed.text == row.prompt.text and changed.system == system
    read = loaded.tokenizer.decode(loaded.encode([changed])["input_ids"][0])
    assert read.index(system.split()[0]) < read.index(row.prompt.text)


def test_a_model_that_has_learned_to_obey_refuses_under_the_instruction_and_answers_without(
    loaded: Loaded, questions: list[Question]
) -> None:
    system = prompt_instruction([], oracle=False)
    told = [
        replace(row, prompt=with_system(system)(row.prompt), answer=REFUSALS[0], wrong=(), paraphrase=None)
        for row in questions[:2]
    ]
    rows = [*questions[:2], *told]
    taught = unlearn(loaded, rows, rows, Lesson(), TrainConfig(lr=3e-3, epochs=90, batch=len(rows))).loaded
    before, after = (
        evaluate(taught, questions[:2], **options)["answer_prob"].astype(float).mean()
        for options in ({}, {"prepare": with_system(system)})
    )
    assert before > 0.3 and after < before / 5
