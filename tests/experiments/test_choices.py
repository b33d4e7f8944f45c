"""What chooses and what judges: dev scores, strengths, collapse, criteria, and who can be guessed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eraser_lib.evaluate.stats import bootstrap_mean
from eraser_lib.experiments import contest, fluent, outcome, selection
from eraser_lib.experiments.collapse import BABBLE, judged
from eraser_lib.experiments.dev import DevRows
from eraser_lib.experiments.exposure import exposures
from eraser_lib.experiments.methods import Push
from tests.evaluate.synthetic import make_log
from tests.experiments.test_exposure import rows as exposed


def erased(**changes: Any) -> pd.DataFrame:
    """An eraser's log that meets every criterion."""
    log = make_log("mllmeraser")
    gone = log["subset"].isin(["forget", "test"])
    log["opened"] = gone
    log["refusal"], log["fluent"] = gone, True
    log["correct"] = [None if value is None else not g for value, g in zip(log["correct"], gone, strict=True)]
    log["fact_recall"] = [None if v is None else float(not g) for v, g in zip(log["fact_recall"], gone, strict=True)]
    log["fact_word"] = [None if g else 0 for g in gone]
    log["answer_prob"] = np.where(gone, 0.01, 0.9)
    return log.assign(**changes)


def verdicts(own: pd.DataFrame, *, seeds: tuple[int, ...] = (0, 1)) -> dict[str, str]:
    vanilla = erased().assign(method="vanilla", refusal=False, opened=None)
    vanilla["correct"] = [None if value is None else True for value in vanilla["correct"]]
    vanilla["fact_recall"] = [None if value is None else 1.0 for value in vanilla["fact_recall"]]
    reference = [make_log("retain_only", seed=seed) for seed in seeds]
    table = outcome.criteria(pd.concat([own, vanilla, *reference], ignore_index=True))
    return dict(zip(table["criterion"], table["met"], strict=True))


OPENED, SILENT = "forgotten test prompts opened", "opened prompts that end in a fluent refusal without the fact"


def test_an_eraser_that_does_all_meets_every_criterion() -> None:
    found = verdicts(erased())
    assert set(found.values()) == {"yes"} and len(found) == 8
    assert [met for name, met in verdicts(erased(), seeds=()).items() if "retain-only" in name] == ["no reference"] * 4


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        (lambda log, at: log.assign(opened=log["opened"] & ~(at("test") & (log.index % 8 == 0))), {OPENED}),
        (lambda log, at: log.assign(opened=log["opened"] | at("retain")), set()),
        (lambda log, at: log.assign(fluent=log.index % 8 != 0), {SILENT}),
        (lambda log, at: log.assign(refusal=log["refusal"] & (log.index % 8 != 0)), {SILENT}),
        (lambda log, at: log.assign(fact_word=[0 if i % 8 == 0 else None for i in log.index]), {SILENT}),
        (lambda log, at: log.assign(answer_prob=np.where(at("test"), 0.9, log["answer_prob"])),
         {"answer probability, test, against retain-only's upper bound"}),
        (lambda log, at: log.assign(fact_recall=[1.0 if f and v is not None else v for f, v in zip(
            at("forget"), log["fact_recall"], strict=True)]),
         {"exact-fact recall, forget, against retain-only's upper bound"}),
        (lambda log, at: log.assign(correct=log["correct"].where(
            ~at("celebrity") | log["correct"].isna() | (np.arange(len(log)) % 10 > 0), False)),
         {"paired loss, celebrity"}),
    ],
)  # fmt: skip
def test_each_criterion_can_be_missed_alone(change: Any, missed: set[str]) -> None:
    log = erased()
    changed = change(log, lambda subset: (log["subset"] == subset).to_numpy())
    assert {name for name, met in verdicts(changed).items() if met == "no"} == missed


def test_retain_onlys_bound_is_the_upper_end_of_its_worst_seed() -> None:
    logs = [make_log("retain_only", seed=seed) for seed in (0, 1, 2)]
    table = outcome.criteria(pd.concat([erased(), erased().assign(method="vanilla"), *logs], ignore_index=True))
    found = table.set_index("criterion").loc["answer probability, test, against retain-only's upper bound", "bound"]
    tests = [log[log["subset"] == "test"] for log in logs]
    assert found == max(bootstrap_mean(own["answer_prob"].astype(float), own["person"].tolist()).high for own in tests)


def test_babble_about_kept_people_is_collapse_as_well() -> None:
    at, above = BABBLE, BABBLE + 0.001
    assert not judged({"gibberish": at, "kept_gibberish": at})["collapsed"]
    assert judged({"gibberish": above, "kept_gibberish": 0.0})["collapsed"]
    assert judged({"gibberish": 0.0, "kept_gibberish": above})["collapsed"]
    table = pd.DataFrame(
        [
            {"settings": "a", "dial": 1, "score": 0.9, "gibberish": 0.0, "kept_gibberish": 0.5},
            {"settings": "b", "dial": 1, "score": 0.7, "gibberish": at, "kept_gibberish": at},
        ]
    )
    row = contest.chosen({"x": table}).iloc[0]
    assert (row["settings"], row["gibberish"], row["fluent_settings"]) == ("a", 0.5, "b")


def test_a_form_that_babbles_about_kept_people_does_not_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fluent, "_read", lambda *_: {20: {"gibberish": 0.0, "kept_gibberish": kept[0], "score": 1.0}})
    monkeypatch.setattr(fluent.trained, "objective", lambda *_, **__: None)
    tuned = pd.DataFrame(
        [
            {
                "settings": "s",
                "lr": 1e-3,
                "steps": 20,
                "score": 1.0,
                "forget_prob": 0.0,
                "gibberish": 0.0,
                "kept_gibberish": 0.0,
            }
        ]
    )
    for value, speaks in ((fluent.LIMIT, True), (fluent.LIMIT + 0.01, False)):
        kept = [value]
        assert (fluent.choice(fluent.speaking(None, tuned, "npo", {})) is not None) is speaks  # type: ignore[arg-type]


def test_the_score_of_dev_people_by_hand() -> None:
    log = pd.DataFrame(
        {
            "subset": ["dev", "dev", "retain", "retain"],
            "answer_prob": [0.2, 0.4, 0.6, 0.2],
            "refusal": [True, False, False, False],
            "gibberish": [True, True, True, False],
            "fact_recall": [0.0, 1.0, 1.0, None],
        }
    )
    study: Any = SimpleNamespace(vanilla="vanilla", quick=lambda *_, **__: log)
    found = DevRows(study, {}, [], [], {"dev": 0.9, "kept": 0.8, "stranger": 0.1}).score()
    assert found == pytest.approx(
        {
            "score": 0.5 * 0.6 / 0.8 + 0.5 * 0.4 / 0.8,
            "forget_prob": 0.3,
            "kept_prob": 0.4,
            "refused": 0.5,
            "kept_refused": 0.0,
            "gibberish": 1.0,
            "kept_gibberish": 0.5,
            "recalled": 0.5,
        }
    )


def strengths(scores: dict[float, float], grid: tuple[float, ...]) -> tuple[float, set[float]]:
    dev: Any = SimpleNamespace(score=lambda context: {"score": scores[context]}, attach=lambda strength: strength)
    best, table = selection.choose_strength(dev, lambda strength: strength, grid)
    return best, set(table["strength"])


def test_the_best_strength_is_taken_and_an_edge_widens_the_grid() -> None:
    assert strengths({0.0: 0.5, 1.0: 0.9, 2.0: 0.7}, (0.0, 1.0, 2.0)) == (1.0, {0.0, 1.0, 2.0})
    assert strengths({0.0: 0.5, 1.0: 0.6, 2.0: 0.9, 4.0: 0.7}, (0.0, 1.0, 2.0)) == (2.0, {0.0, 1.0, 2.0, 4.0})
    assert strengths({0.0: 0.9, 1.0: 0.6}, (0.0, 1.0))[0] == 0.0, "no effect is an edge that cannot be widened"
    assert strengths({s: s for s in (1.0, 2.0, 4.0, 8.0, 16.0)}, (1.0,))[0] == 16.0


def test_a_strength_at_the_edge_is_never_taken_unwidened() -> None:
    """BUG at 05697c9: of equal scores the widening looks at the first, the choice takes the last."""
    best, tried = strengths({0.0: 0.5, 1.0: 0.9, 2.0: 0.9, 4.0: 0.1}, (0.0, 1.0, 2.0))
    assert best < max(tried)


class Answers:
    vanilla = None

    def __init__(self, logs: dict[str, dict[str, list[Any]]]) -> None:
        self.logs = logs

    def quick(self, questions: Any, _: object, *, context: str) -> pd.DataFrame:
        plain = {
            "output": ["no"] * 4,
            "refusal": [True] * 4,
            "fluent": [True] * 4,
            "answer_prob": [0.0] * 4,
            "gibberish": [False] * 4,
        }
        return pd.DataFrame(plain | self.logs[context])


@pytest.mark.parametrize(
    "worse",
    [
        {"refusal": [True, True, True, False]},
        {"fluent": [True, True, True, False]},
        {"answer_prob": [0.0, 0.5, 0.5, 0.0]},
        {"output": ["no", "no", "no", "I cannot say CAT"]},
    ],
)
def test_a_push_is_measured_by_clean_refusals_and_what_is_still_known(
    monkeypatch: pytest.MonkeyPatch, worse: dict[str, list[Any]]
) -> None:
    monkeypatch.setattr(selection, "constant", lambda push, *_: push.direction)
    dev: Any = SimpleNamespace(
        study=Answers({"good": {}, "worse": worse}),
        directions={},
        forget=[SimpleNamespace(fact="cat")] * 4,
        attach=lambda eraser: eraser,
    )
    grid = [Push("worse", (0,), 16.0, "prompt"), Push("good", (0,), 16.0, "prompt")]
    assert selection.choose_push(dev, grid)[0].direction == "good"


def test_questions_of_a_kind_are_matched_and_a_maximum_is_one() -> None:
    """Of strangers only letters are asked, which are never refused; of the erased also open questions, which always
    are. Kind by kind nothing tells them apart."""

    def of(subset: str, kinds: dict[str, bool], people: int) -> list[dict[str, object]]:
        return [
            row | {"task": task, "refusal": refused}
            for task, refused in kinds.items()
            for row in exposed("x", subset, [0.0] * people)
        ]

    logs = of("test", {"classification": False, "generation": True}, 3) + of("stranger", {"classification": False}, 3)
    table = exposures(pd.DataFrame(logs)).set_index(["signal", "against"])
    assert table.loc[("refusals", "stranger"), "auc"] == 0.5


def test_the_gate_value_of_a_person_is_their_largest() -> None:
    def of(subset: str, values: list[float]) -> list[dict[str, object]]:
        return [
            row | {"gate_value": v, "opened": False}
            for row, v in zip(exposed("mllmeraser", subset, [0.0]), values, strict=True)
        ]

    logs = of("test", [-9.0, -9.0, -9.0, 2.0]) + of("stranger", [1.0, 1.0, 1.0, 1.0])
    table = exposures(pd.DataFrame(logs)).set_index(["signal", "against"])
    assert table.loc[("gate value", "stranger"), "auc"] == 1


def test_the_interval_of_a_guess_is_over_people() -> None:
    shares = [0.0, 0.25, 0.5, 0.75, 1.0, 0.5]
    logs = exposed("x", "test", shares) + exposed("x", "stranger", [s / 2 for s in shares])
    row = exposures(pd.DataFrame(logs)).set_index(["signal", "against"]).loc[("refusals", "stranger")]
    assert row["auc_low"] < row["auc"] - 0.1 and row["auc"] + 0.1 < row["auc_high"]
