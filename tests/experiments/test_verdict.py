"""One row per method: what is forgotten, what is spared, and whose pictures suffer."""

from __future__ import annotations

import pandas as pd
import pytest

from eraser_lib.experiments import contest, verdict
from eraser_lib.experiments.outcome import left_behind, lost_elsewhere
from tests.evaluate.synthetic import make_log

GONE = ("a", "b")


def colours(method: str, person: str, right: float, seed: int = 0, opened: bool | None = None) -> dict[str, object]:
    return {"method": method, "subset": "same_photo", "person": person, "seed": seed, "answer_prob": right / 2,
            "fact_recall": right, "opened": opened}  # fmt: skip


def test_pictures_of_the_forgotten_stand_apart_from_those_of_others() -> None:
    logs = pd.DataFrame([
        *(colours("vanilla", person, 1.0) for person in ("a", "b", "c")),
        *(colours("noise", person, float(person == "c"), seed) for person in ("a", "b", "c") for seed in (0, 1)),
        *(colours("gate", person, 1.0, opened=person == "a") for person in ("a", "b", "c")),
        {**colours("gate", "a", 0.0), "subset": "test"},
    ])  # fmt: skip
    found = verdict.photos(logs, GONE).set_index("method")
    assert found["their_right"].to_dict() == {"noise": 0, "vanilla": 1, "gate": 1}
    assert found["others_right"].to_dict() == {"noise": 1, "vanilla": 1, "gate": 1}
    assert found.loc["noise", "others_prob"] == 0.5 and found.loc["noise", "their_prob"] == 0
    assert found.loc["gate", ["their_opened", "others_opened"]].tolist() == [0.5, 0]
    assert found.drop("gate")[["their_opened", "others_opened"]].isna().all(axis=None), "where nothing can open"
    assert (found["their_n"] == 2).all() and (found["others_n"] == 1).all(), "of one seed"
    assert verdict.photos(logs[logs["subset"] == "test"], GONE).empty


@pytest.fixture(scope="module")
def logs() -> pd.DataFrame:
    methods = {"vanilla": (0,), "retain_only": (0,), "mllmeraser": (0,), "ga_diff": (0, 1)}
    return pd.concat([make_log(method, seed=seed) for method, seeds in methods.items() for seed in seeds])


def test_one_row_says_what_the_logs_say(logs: pd.DataFrame) -> None:
    tests = contest.tests(logs)
    table = verdict.verdicts(logs, tests, []).set_index("method")
    assert list(table.index) == sorted(table.index, key=lambda method: table.loc[method, "gone"])
    own = logs[(logs["method"] == "ga_diff") & (logs["subset"] == "test")]
    assert table.loc["ga_diff", "gone"] == pytest.approx(own["answer_prob"].mean())
    assert table.loc["ga_diff", "gone_low"] < table.loc["ga_diff", "gone"] < table.loc["ga_diff", "gone_high"]
    open_answers = own[own["task"] == "generation"]
    assert table.loc["ga_diff", "facts"] == pytest.approx(open_answers["fact_recall"].astype(float).mean())
    assert table.loc["ga_diff", "p_holm"] == tests.set_index("baseline").loc["ga_diff", "p_holm"]
    assert pd.isna(table.loc["mllmeraser", "p_holm"]) and table["their_photos"].isna().all()
    assert table.loc["vanilla", ["forgets", "spares"]].isna().all(), "it is what the others are measured by"
    met = [row["met"] for row in left_behind(logs, "mllmeraser")]
    assert table.loc["mllmeraser", "forgets"] == ("yes" if met == ["yes"] * 4 else f"{met.count('yes')} of 4")
    erased = (logs["method"] == "mllmeraser") & logs["subset"].isin(["forget", "test"])
    for left, wanted in (
        ({"fact_recall": 0.0, "answer_prob": 1.0}, "2 of 4"),
        ({"fact_recall": 0.0, "answer_prob": 0.0}, "yes"),
    ):
        known = logs.assign(**{name: logs[name].mask(erased, value) for name, value in left.items()})
        again = verdict.verdicts(known, tests, []).set_index("method")
        assert again.loc["mllmeraser", "forgets"] == wanted, left
    without = verdict.verdicts(logs[logs["method"] != "retain_only"], tests, []).set_index("method")
    assert without["forgets"].isna().all(), "no reference, no verdict"


def test_of_several_trainings_the_worst_counts(logs: pd.DataFrame) -> None:
    one = logs[logs["method"].isin(["vanilla", "ga_diff"])].copy()
    bad = (one["method"] == "ga_diff") & (one["seed"] == 1) & (one["subset"] == "retain")
    one.loc[bad, ["correct", "fact_recall"]] = 0
    (retain,) = [row for row in lost_elsewhere(one, "ga_diff") if row["criterion"].endswith("retain")]
    right = one[(one["method"] == "vanilla") & (one["subset"] == "retain")]
    right = right["correct"].astype("Float64").fillna(right["fact_recall"].astype("Float64"))
    assert retain["value"] == pytest.approx(float(right.mean())) and retain["met"] == "no"
