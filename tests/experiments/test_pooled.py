"""Several forget sets in full, on an untrained model: nobody leaks in, and every method answers the same rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from eraser_lib.baselines.leace import Leace
from eraser_lib.baselines.npo import NPO
from eraser_lib.bench.records import Question
from eraser_lib.bench.world import World
from eraser_lib.direction import Direction
from eraser_lib.evaluate.summary import compare
from eraser_lib.experiments import closed, contest, lottery, pooled, refitted, rows, sets
from eraser_lib.experiments.methods import Decision, Push
from eraser_lib.experiments.study import Sizes, Study
from eraser_lib.families import Loaded
from eraser_lib.sites import every_layer
from eraser_lib.train.models import new_model
from eraser_lib.train.recipe import MICRO

SIZES = Sizes(test=12, select=12, calibrate=24, per_person=2, batch=16, new_tokens=4)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, world: World, folder: Path) -> Study:
    out = tmp_path_factory.mktemp("pooled")
    (out / "world").symlink_to(folder)
    found = Study(preset="micro", model="llava", split=5, out=out, sizes=SIZES, strict=False)
    found.__dict__ |= {"world": world, "vanilla": new_model("llava", MICRO)}
    return found


@pytest.fixture(scope="module")
def answers(study: Study) -> pd.DataFrame:
    """Two sets, with random directions and a gate that may err often."""
    sites = every_layer(study.vanilla.model)
    width = study.vanilla.model.config.get_text_config().hidden_size
    g = torch.Generator().manual_seed(0)
    directions = {n: Direction(sites, torch.randn(len(sites), width, generator=g)) for n in ("multimodal", "answer")}
    choice = {
        "push": Push("multimodal", (0, 1), 8.0).describe(), "published": 1.0, "constant": 8.0,
        "decision": Decision((1, 2), "person:ridge_bias", 0.2).describe(),
    }  # fmt: skip
    study.note("fluency-5", {"floor": {"answers": -9.0, "refusals": -9.0}})
    drawn = pooled.disjoint_sets(study, 2)
    read = lottery.open_lottery(study, (tuple(range(len(sites))), ()), [p for group in drawn for p in group])
    logs = []
    for group in drawn:
        own = read.erasing(group)
        erasers = pooled.erase(own, directions, choice, Leace((1,), "person"), Decision((1, 2), "gaussian:4", 0.2))
        logs.append(pooled.answers(study, own, erasers, (), "1 nearest", 0.2))
    return pooled.numbered(logs)


def test_sets_are_disjoint_and_nobody_was_chosen_on(study: Study) -> None:
    drawn = pooled.disjoint_sets(study, 99)
    people = [person.id for group in drawn for person in group]
    assert len(people) == len(set(people)) and {len(group) for group in drawn} == {2}
    practised = {p.id for group in sets.practice_people(study.world, 5) for p in group} | set(
        study.world.population.dev
    )
    assert practised and not practised & set(people)
    assert len(people) >= 40 - len(practised) - 1
    assert pooled.disjoint_sets(study, 2) == drawn[:2]


def test_erasing_moves_people_from_kept_to_forgotten(study: Study) -> None:
    group, *_ = pooled.disjoint_sets(study, 1)
    read = lottery.open_lottery(study, ((0,),), group)
    own = read.erasing(group)
    gone = {person.id for person in group}
    assert {q.person for q in own.forget.questions} == gone == {q.person for q in own.unseen.questions}
    for others in (own.kept, *own.calibration.values()):
        assert not gone & {q.person for q in others.questions}
    assert not gone & {q.person for q in own.retain.questions if q.subset == "retain"}


def test_every_method_answers_the_same_questions_about_every_set(answers: pd.DataFrame) -> None:
    assert set(answers["method"]) == {"vanilla", *pooled.METHODS, *pooled.LATER}
    asked = answers.groupby("method")["id"].apply(sorted)
    assert all(ids == asked.iloc[0] for ids in asked) and len(set(asked.iloc[0])) == len(asked.iloc[0])
    counts = answers.groupby(["set", "method", "subset"]).size()
    assert set(counts.index.get_level_values("set")) == {0, 1}
    assert counts.xs("test", level="subset").between(1, SIZES.select).all()
    closed = answers[(answers["method"] == "detector") & ~answers["opened"].astype("boolean").fillna(False)]
    vanilla = answers[answers["method"] == "vanilla"].set_index("id")
    assert (closed.set_index("id")["answer_prob"] == vanilla.loc[closed["id"], "answer_prob"]).all()


def test_tables_pool_people_of_all_sets(answers: pd.DataFrame) -> None:
    table = contest.trade(answers).set_index("method")
    assert set(table.index) == set(answers["method"])
    tests = compare(answers, method="mllmeraser", baselines=["constant", "leace"], subsets=("test",))
    assert (tests["n_people"] == 4).all(), "two sets of two"
    people = pooled.by_person(answers)
    assert len(people) == len(answers[["method", "set", "subset", "person"]].drop_duplicates())
    mine = answers[(answers["method"] == "leace") & (answers["subset"] == "test")]
    row = people[(people["method"] == "leace") & (people["subset"] == "test")]
    assert set(row["person"]) == set(mine["person"])


def test_an_unknown_scrubber_is_named() -> None:
    assert pooled.find_scrubber(6, str(Leace((5,), "person", True))) == Leace((5,), "person", True)
    with pytest.raises(ValueError, match="LEACE has no setting Leace\\(7\\); run 09_closed again"):
        pooled.find_scrubber(6, "Leace(7)")


def test_what_is_refitted_answers_the_questions_that_the_others_answered(study: Study, answers: pd.DataFrame) -> None:
    """A fit that changes nothing must say what vanilla says, question by question."""
    drawn, seen = pooled.disjoint_sets(study, 2), []

    def nothing(forget: list[Question], retain: list[Question]) -> Loaded:
        gone = {question.person for question in forget}
        assert not gone & {question.person for question in retain if question.subset == "retain"}
        seen.append(gone)
        return study.vanilla

    found = refitted.answers(study, "npo", nothing, drawn)
    assert seen == [{person.id for person in group} for group in drawn]
    vanilla = answers[answers["method"] == "vanilla"]
    for column in ("id", "subset", "person", "answer_prob", "output"):
        assert found[column].tolist() == vanilla[column].tolist()
    rows.keep(study, "pooled", answers)
    rows.keep(study, "pooled_npo", found)
    tables = refitted.compared(refitted.together(study))
    assert set(tables["trade"]["method"]) == {"vanilla", "npo", *pooled.METHODS, *pooled.LATER}
    tests = tables["tests"].set_index(["about", "baseline"])
    assert tests.loc[("test", "npo"), "difference"] == pytest.approx(tests.loc[("test", "vanilla"), "difference"])
    assert pooled.LATER[0] not in tests.index.get_level_values("baseline"), "it has a family of its own"
    assert tests.loc[("retain", "npo"), "n_people"] > 0
    assert tables["pictures"].empty, "npo does not mean to keep what is said without a picture"
    rows.keep(study, "pooled_mmunlearner", found.assign(method="mmunlearner"))
    tables = refitted.compared(refitted.together(study))
    seen = tables["pictures"].set_index("about")
    asked = found[found["modality"] == "vqa"]
    assert set(seen["baseline"]) == {"mmunlearner"}
    assert all(seen.loc[about, "n"] == (asked["subset"] == about).sum() for about in refitted.ABOUT)
    parts = tables["modalities"].set_index(["modality", "method"])["gone"]
    both = {name: own["answer_prob"].mean() for name, own in asked[asked["subset"] == "test"].groupby("method")}
    assert parts["vqa", "npo"] == pytest.approx(both["npo"]) and ("qa", "npo") in parts


def test_without_the_cheap_methods_there_is_nothing_to_compare_with(study: Study, tmp_path: Path) -> None:
    assert refitted.compared(refitted.together(replace(study, out=tmp_path))) == {}


def test_a_method_is_refitted_with_the_settings_that_were_chosen_for_it(study: Study) -> None:
    own = refitted.questions(study, pooled.disjoint_sets(study, 1)[0])
    forget, retain = own.forget.questions, own.retain.questions
    best = {"settings": str(NPO(0.2)), "lr": 1e-3, "steps": 1}
    study.note("tuning-npo", {"choice": {"best": best}})
    fit, words = refitted.fit_of(study, "npo", seed=3)
    assert words == f"{NPO(0.2)}, rate 0.001, 1 steps"
    first, again = (fit(forget, retain).model.state_dict() for _ in range(2))
    before = study.vanilla.model.state_dict()
    assert any(not torch.equal(first[name], before[name]) for name in before), "it is trained"
    assert all(torch.equal(first[name], again[name]) for name in before), "and the same way every time"
    pruner = closed.PRUNERS[3]
    study.note("closed", {"choice": {"manu": str(pruner)}})
    fit, words = refitted.fit_of(study, "manu")
    assert words == str(pruner)
    expected = pruner.fit(study.vanilla, forget, retain).loaded.model.state_dict()
    pruned = fit(forget, retain).model.state_dict()
    assert all(torch.equal(pruned[name], expected[name]) for name in expected)
    study.note("closed", {"choice": {"manu": "Manu(share=7)"}})
    with pytest.raises(ValueError, match="MANU has no setting Manu\\(share=7\\); run 09_closed again"):
        refitted.fit_of(study, "manu")
