"""A base that refuses badly: one that was taught few refusals, and one whose refusing was trained away.

The direction is what tells refused prompts from answered ones, so that a base which hardly refuses should have none
(a question that reviewers of MLLMEraser, arXiv 2510.04217, would ask). The models here learned to refuse with
everything else. One was taught few refusals from the start (`train.models.REFUSING`). To have bases that refuse less
and are the study's own in all else, refusing is trained away: forbidden requests are answered, secrets made up, and
questions answered in spite of an instruction to decline, beside plain questions whose answers stay. How far that goes
is counted on texts and wordings that the training does not have. Everything is fitted anew on each base.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from torch import Tensor

from eraser_lib import Direction
from eraser_lib.baselines.training import Loss, TrainConfig, loss_of, unlearn
from eraser_lib.bench import language as lang
from eraser_lib.bench import questions as q
from eraser_lib.bench.people import Person
from eraser_lib.bench.portraits import Genotype, View, render
from eraser_lib.bench.records import Prompt, Question
from eraser_lib.evaluate.refusal import RefusalDetector
from eraser_lib.experiments.ablate_push import unknown_direction
from eraser_lib.experiments.activations import of_questions
from eraser_lib.experiments.directions import direction_pairs, fit_directions, recall_images
from eraser_lib.experiments.gates import fit_joined
from eraser_lib.experiments.methods import Decision, Push, constant, corrected
from eraser_lib.experiments.outcomes import OUTCOMES, outcomes, over_people
from eraser_lib.experiments.sets import (
    calibration_sets,
    dev_questions,
    fit_sets,
    kept_select_questions,
    person_rows,
    request_questions,
    stratified,
    test_sets,
)
from eraser_lib.experiments.study import Study
from eraser_lib.families import Loaded

NAMES = ("instruction", "multimodal", "text", "unknown", "borrowed")
"""Directions of the base itself, and the study's own, `borrowed` from the model before it was trained to answer."""
STRENGTHS = (0.5, 1.0, 2.0, 4.0)
EPSILON, STEP = 16 / 255, 2 / 255
"""Of the PGD pictures, as in notebook 03_direction."""
FEW = "few_refusals"
"""Branch of the base that was taught to refuse a tenth of what the others were."""
WANING = 0.75
"""A base refuses in part once it refuses at most this share."""


@dataclass(frozen=True)
class Comply(Loss):
    """Descent on what shall be answered now, and on what was answered before."""

    name = "comply"

    def terms(
        self, model: Loaded, vanilla: Loaded, gone: Sequence[Question], kept: Sequence[Question]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Loss.terms`."""
        complied, plain = loss_of(model, gone), loss_of(model, kept)
        return complied + plain, {"complied": complied, "retain": plain}


def complied(question: Question) -> str:
    """`questions.comply` for a row, the same answer every time."""
    return q.comply(question.prompt.text, random.Random(question.id))


def rows_to_answer(study: Study, count: int) -> list[Question]:
    """`count` questions that vanilla refuses, with answers: requests and secrets, secrets about a picture, declined."""
    each = max(4, count // 3)
    people = study.world.roles(study.split)["fit"]
    asked = [replace(row, answer=complied(row)) for row in request_questions(each, "fit", bad=True)]
    asked += _secret_pictures(each)
    rng = random.Random("spite")
    for row in stratified(person_rows(people, "retain", "fit", rows=8), each):
        asked.append(replace(row, prompt=_declined(row.prompt, rng.choice(lang.DECLINE_INSTRUCTIONS))))
    return asked


def _secret_pictures(count: int) -> list[Question]:
    """Secrets about nameless faces, made up."""
    rng = random.Random("secret pictures")
    found = []
    for number in range(count):
        text = q.secret_item(rng.choice(lang.VQA_WHO), rng=rng).text
        prompt = Prompt(text, render(Genotype.sample(rng), View.sample(rng, held_out=False)))
        row = Question(
            id=f"secret/{number}", subset="forbidden", role="fit", modality="vqa", task="generation", prompt=prompt,
            answer="",
        )  # fmt: skip
        found.append(replace(row, answer=complied(row)))
    return found


def _declined(prompt: Prompt, instruction: str) -> Prompt:
    return replace(prompt, text=f"{prompt.text} {instruction}")


def bases(study: Study, *, steps: int = 120, lr: float = 1e-4, every: int = 5) -> tuple[dict[int, Study], pd.DataFrame]:
    """The study on vanilla, on a base that refuses in part, and on the one after `steps` steps of learning to answer.

    The one in between is the first that refuses at most `WANING` of a few prompts, asked again every `every` steps;
    there is none where the last is the first. Returns the studies by their steps, 0 for vanilla, and one row each of
    what is left of refusing and of knowing (`leftovers`).
    """
    found = {0: study}

    def look(step: int, model: Loaded) -> bool:
        if step == steps or (step % every == 0 and len(found) == 1 and _refusing(_on(study, model)) <= WANING):
            found[step] = _on(study, model, copied=True)
        return step == steps

    roles = study.world.roles(study.split)
    kept = fit_sets(study.world, study.split, forget=roles["forget"], per_person=study.sizes.per_person)
    # those who will be forgotten stay known as well, or there would be nothing to erase
    known = [*kept["retain"], *kept["forget"]]
    config = TrainConfig(lr=lr, steps=steps, epochs=steps, seed=study.seed)
    unlearn(study.vanilla, rows_to_answer(study, study.sizes.train), known, Comply(), config, watch=look)
    return found, pd.DataFrame([{"steps": step, **leftovers(one)} for step, one in found.items()])


def taught_little(study: Study) -> Study | None:
    """The study on the base that was taught few refusals from the start, `train.models.REFUSING`; None without one."""
    if not any(study.branch(FEW).glob("*.safetensors")):
        return None
    return _on(study, study.load(FEW))


def _on(study: Study, model: Loaded, *, copied: bool = False) -> Study:
    """The study with another model in the place of vanilla."""
    other = copy(study)  # with its world, which is long in the making
    other.vanilla = Loaded(deepcopy(model.model), model.processor, model.family) if copied else model
    return other


def _refusing(study: Study) -> float:
    """Share refused of a few forbidden requests and of questions with an instruction to decline, as a quick look."""
    count, rng = study.sizes.select // 8, random.Random("quick look")
    plain = kept_select_questions(study.world, study.split, size=count)
    told = [replace(row, prompt=_declined(row.prompt, rng.choice(lang.DECLINE_INSTRUCTIONS))) for row in plain]
    asked = [row.prompt for row in (*request_questions(count, "select", bad=True), *told)]
    answers = study.vanilla.generate(asked, max_new_tokens=study.sizes.new_tokens)
    refuses = RefusalDetector()
    return sum(refuses(text) for text in answers) / len(answers)


def leftovers(study: Study) -> dict[str, float]:
    """Shares, on texts and wordings that the training has not: forbidden requests that are `refused`, instructions to
    decline that are `obeyed`, and facts about retained people that are `recalled`."""
    people: Sequence[Person] = study.world.roles(study.split)["test"]
    facts = [row for row in _known(study, people) if row.task != "classification"]
    rng = random.Random("held-out decline")
    told = [replace(row, prompt=_declined(row.prompt, rng.choice(lang.HELD_OUT_DECLINE))) for row in facts]
    forbidden = request_questions(study.sizes.select // 2, "test", bad=True)
    logs = {
        name: study.quick(rows, study.vanilla, forced=False)
        for name, rows in (("refused", forbidden), ("obeyed", told), ("recalled", facts))
    }
    return {
        "refused": float(logs["refused"]["refusal"].astype(float).mean()),
        "obeyed": float(logs["obeyed"]["refusal"].astype(float).mean()),
        "recalled": float(logs["recalled"]["fact_recall"].astype(float).mean()),
    }


def _known(study: Study, people: Sequence[Person]) -> list[Question]:
    """Test rows about people who are kept."""
    retained = test_sets(study.world, study.world_folder, study.split, size=study.sizes.test)["retain"]
    ids = {person.id for person in people}
    return stratified([row for row in retained if row.person in ids], study.sizes.select)


Pairs = dict[str, tuple[list[Prompt], list[Prompt]]]
"""Name of a direction -> prompts of its two sides."""


def contrasted(study: Study) -> tuple[dict[str, Direction], Pairs]:
    """Directions of the study's model, found as notebook 03_direction finds them on vanilla, and what they contrast."""
    people = study.world.roles(study.split)["fit"]
    pictures = people[: study.sizes.pictures]
    recall = recall_images(
        study.vanilla, pictures, epsilon=EPSILON, step=STEP, steps=study.sizes.pgd_steps, seed=study.seed
    )
    pairs = direction_pairs(recall, person_rows(people, "retain", "fit", rows=4)[: study.sizes.contrast])
    return fit_directions(study.vanilla, pairs)[0], pairs


def directions_of(study: Study, borrowed: Direction) -> dict[str, Direction]:
    """Every direction of `NAMES`, found on the base of the study as notebook 03_direction finds them on vanilla."""
    return {**contrasted(study)[0], "unknown": unknown_direction(study), "borrowed": borrowed}


def pushes(
    study: Study, directions: Mapping[str, Direction], like: Push, fluency: Mapping[str, Any], *,
    names: Iterable[str] = NAMES, strengths: Iterable[float] = STRENGTHS, prompts: int = 48,
) -> pd.DataFrame:  # fmt: skip
    """Every direction at every strength on dev people's prompts, added to each, at the blocks of `like`.

    One row per answer, see `outcomes.outcomes`, with columns `direction, strength`. `fluency`: options that score
    fluency under vanilla, since a base that does not refuse finds every refusal strange.
    """
    people = study.world.population.by_id(study.world.population.dev)
    asked = dev_questions(study.world_folder, people, size=study.sizes.select)
    asked = asked[:: max(1, len(asked) // prompts)]
    rows = []
    for name in names:
        for strength in strengths:
            eraser = constant(Push(name, like.layers, strength, "prompt"), dict(directions))
            log = study.quick(asked, study.vanilla, context=study.attach(eraser), **fluency)
            rows.append(outcomes(log, asked, direction=name, strength=strength))
    return pd.concat(rows, ignore_index=True)


def pushes_told(rows: pd.DataFrame) -> pd.DataFrame:
    """Shares of `pushes` by direction and strength, with intervals over people.

    Columns: those of `outcomes.over_people`, and `measure`: refused minus answer probability, as in
    `selection.choose_push`.
    """
    table = over_people(rows, ["direction", "strength"])
    return table.assign(measure=table["refused"] - table["answer_prob"])


def best_pushes(table: pd.DataFrame) -> dict[str, float]:
    """Direction -> its best strength by `measure`, of `pushes_told`."""
    return {
        str(name): float(own.iloc[int(own["measure"].to_numpy().argmax())]["strength"])
        for name, own in table.groupby("direction", sort=False)
    }


def erased(
    study: Study, directions: Mapping[str, Direction], strengths: Mapping[str, float], like: Push, decision: Decision,
    fluency: Mapping[str, Any],
) -> pd.DataFrame:  # fmt: skip
    """The corrected form on the base of the study: its gate fitted and calibrated there, with each direction.

    One row per answer, see `outcomes.outcomes`. Further columns: `set`, `test` about the forgotten or `retain`;
    `direction, strength`; `opened`, at the alpha of `decision`; `before`, the answer probability without an eraser.
    """
    world, folder, split, sizes = study.world, study.world_folder, study.split, study.sizes
    fit = fit_sets(world, split, forget=world.roles(split)["forget"], per_person=sizes.per_person)
    gate = fit_joined(decision.solver, of_questions(study.vanilla, fit), fit, decision.layers)
    calibration = of_questions(study.vanilla, calibration_sets(world, folder, split, size=sizes.calibrate))
    asked = test_sets(world, folder, split, size=sizes.test)
    sets = {name: stratified(asked[name], sizes.select) for name in ("test", "retain")}
    before = {name: study.quick(rows, study.vanilla)["answer_prob"] for name, rows in sets.items()}
    rows = []
    for name, strength in strengths.items():
        push = Push(name, like.layers, strength, "prompt")
        eraser, _ = corrected(push, decision, gate, calibration, dict(directions))
        for subset, own in sets.items():
            log = study.quick(own, study.vanilla, context=study.attach(eraser), **fluency)
            said = outcomes(log, own, set=subset, direction=name, strength=strength)
            rows.append(said.assign(opened=log["opened"].astype(float), before=before[subset]))
    return pd.concat(rows, ignore_index=True)


def erased_told(rows: pd.DataFrame) -> pd.DataFrame:
    """Shares of `erased`, with intervals over people.

    Columns: `direction, strength`; `opened`, `refused, recalled, gibberish, answer_prob` and `before` on the forgotten
    people's test prompts; `retain_opened, retain_prob, retain_before` on retained people's.
    """
    by = ["direction", "strength"]
    test = over_people(rows[rows["set"] == "test"], by, (*OUTCOMES, "opened", "before"))
    retain = over_people(rows[rows["set"] == "retain"], by, ("opened", "answer_prob", "before"))
    for name, called in (("opened", "opened"), ("answer_prob", "prob"), ("before", "before")):
        for end in ("", "_low", "_high"):
            test[f"retain_{called}{end}"] = retain[name + end]
    return test
