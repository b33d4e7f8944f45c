"""One interface: every baseline is fitted alike, moves a model or stands before it, and says what that cost."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from eraser_lib.baselines.interface import BASELINES, Detecting, Fitted, Prompting, Training
from eraser_lib.baselines.training import TrainConfig
from eraser_lib.bench.language import REFUSALS
from eraser_lib.bench.records import Question
from eraser_lib.evaluate.generate import evaluate
from eraser_lib.families import Loaded
from eraser_lib.train.models import population
from eraser_lib.train.recipe import MICRO
from tests.baselines.conftest import questions_about

NAMES = {
    "ga", "ga_diff", "kl_min", "npo", "idk", "undial", "rmu", "mmunlearner", "manu", "leace", "detector", "constant",
    "prompt", "prompt_oracle",
}  # fmt: skip
HOOKS = {"leace", "constant", "detector", "prompt", "prompt_oracle"}
"""What leaves the model as it is."""


@pytest.fixture(scope="module")
def rows() -> list[Question]:
    """A question in text and one about a picture, of each of nine people."""
    return questions_about(population(MICRO).people[:9], 2)


def fit(name: str, loaded: Loaded, rows: Sequence[Question]) -> Fitted:
    """The first three people are to go; small budgets."""
    method = BASELINES[name]
    if isinstance(method, Training):
        method = replace(method, config=TrainConfig(lr=1e-3, steps=2, batch=4))
    if isinstance(method, Detecting):
        method = replace(method, alpha=0.5)
    return method.fit(loaded, rows[:6], rows[6:])


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_baseline_is_fitted_asked_and_billed(name: str, loaded: Loaded, rows: list[Question]) -> None:
    before = copy.deepcopy(loaded.model.state_dict())
    done = fit(name, loaded, rows)
    assert done.name == name
    assert all(torch.equal(value, before[key]) for key, value in loaded.model.state_dict().items()), "vanilla stays"
    assert (done.loaded is loaded) == (name in HOOKS) == done.cost.reversible
    assert (done.cost.trained_parameters > 0) == isinstance(BASELINES[name], Training)
    assert done.cost.seconds > 0 and done.cost.peak_memory_bytes > 10**7 and done.cost.stored_bytes > 0
    prompts = [row.prompt for row in rows]
    said = done.answer(prompts, max_new_tokens=3, batch=7)
    assert len(said) == len(prompts)
    if name == "detector":
        assert done.refuses is not None
        stopped = done.refuses(prompts)
        assert [text == REFUSALS[0] for text in said] == stopped and any(stopped) and not all(stopped)
        return
    likely = [
        evaluate(one, rows[:6], max_new_tokens=1, **options)["answer_logprob"].astype(float)
        for one, options in ((loaded, {}), (done.loaded, {"context": done.attach, "prepare": done.prepare}))
    ]
    assert not likely[1].equals(likely[0]), "something has changed for whom it is fitted"
    with done.attach():
        pass
    assert all(torch.equal(value, before[key]) for key, value in loaded.model.state_dict().items())


def test_they_are_those_of_the_comparison() -> None:
    assert set(BASELINES) == NAMES


def test_the_oracle_names_whom_it_is_told_of(loaded: Loaded, rows: list[Question]) -> None:
    prompt = rows[0].prompt
    plain, labels, names = (
        method.fit(loaded, rows[:6], rows[6:]).prepare(prompt).system or ""
        for method in (Prompting(), Prompting(oracle=True), Prompting(oracle=True, names=("Ada Marsh",)))
    )
    assert not any(str(row.person) in plain for row in rows)
    assert all(labels.count(str(row.person)) == 1 for row in rows[:6:2])
    assert "Ada Marsh" in names and str(rows[0].person) not in names


def test_what_is_missing_is_said(loaded: Loaded, rows: list[Question]) -> None:
    for name in ("ga", "leace", "prompt"):
        with pytest.raises(ValueError, match=f"{name} needs forget and retain rows"):
            BASELINES[name].fit(loaded, [], rows)
    with pytest.raises(ValueError, match="two retained people"):
        BASELINES["detector"].fit(loaded, rows[:6], rows[6:8])
    with pytest.raises(ValueError, match=r"would refuse nobody: infinite threshold at alpha = 0\.05"):
        BASELINES["detector"].fit(loaded, rows[:6], rows[6:])
    nobody = [replace(row, person=None) for row in rows[:6]]
    with pytest.raises(ValueError, match="the oracle needs names"):
        BASELINES["prompt_oracle"].fit(loaded, nobody, rows[6:])
