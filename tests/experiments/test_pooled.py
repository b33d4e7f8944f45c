"""Several forget sets in full, on an untrained model: nobody leaks in, and every method answers the same rows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from eraser_lib.baselines.leace import Leace
from eraser_lib.bench.world import World
from eraser_lib.direction import Direction
from eraser_lib.evaluate.summary import compare
from eraser_lib.experiments import contest, lottery, pooled, sets
from eraser_lib.experiments.methods import Decision, Push
from eraser_lib.experiments.study import Sizes, Study
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
    for rows in (own.kept, *own.calibration.values()):
        assert not gone & {q.person for q in rows.questions}
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
