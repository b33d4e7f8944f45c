"""The score and what opens: answers put together, and what each rule of choice takes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from eraser_lib import HookSite
from eraser_lib.evaluate.scores import selection_score
from eraser_lib.experiments import gates, scored, selection
from eraser_lib.experiments.activations import Activations
from eraser_lib.experiments.scored import Answers, Candidate
from eraser_lib.experiments.sets import general_questions

WIDTH = 8
SITES = [HookSite(layer, "output") for layer in range(3)]


def streams(seed: int, count: int, *, gone: bool) -> Activations:
    """Forgotten rows lie three units along the first axis of the last block, and nowhere else."""
    g = torch.Generator().manual_seed(seed)
    found = {site: torch.randn(count, WIDTH, generator=g) for site in SITES}
    found[SITES[-1]][:, 0] += 6.0 * gone
    return found


@pytest.fixture(scope="module")
def dev() -> Any:
    asked = [replace(q, person=f"r{i % 20}", subset="retain") for i, q in enumerate(general_questions(120, "fit"))]
    mine = [replace(q, person="p") for q in general_questions(24, "fit")]
    rehearsals = [
        selection.Rehearsal(
            {"forget": mine, "retain": asked},
            {"forget": streams(n, len(mine), gone=True), "retain": streams(10 + n, len(asked), gone=False)},
            streams(20 + n, 40, gone=True),
        )
        for n in range(2)
    ]  # fmt: skip
    activations = {
        "calibrate": {"people": streams(30, 200, gone=False)}, "select": {"kept": streams(31, 50, gone=False)},
    }  # fmt: skip
    return SimpleNamespace(activations=activations, rehearsals=rehearsals, baseline={"stranger": 0.2})


@pytest.fixture(scope="module")
def table(dev: Any) -> pd.DataFrame:
    about = [Answers(torch.full((40,), 0.9), torch.full((40,), 0.1))] * 2
    kept = Answers(torch.full((50,), 0.8), torch.full((50,), 0.1))
    read = {
        "fit": dev.rehearsals[0].fit, "calibrate": dev.activations["calibrate"],
        "test": {"test": streams(40, 60, gone=True), "retain": streams(41, 60, gone=False)},
    }  # fmt: skip
    tried = [
        Candidate("gate", (0,), "ridge_bias"), Candidate("gate", (2,), "ridge_bias"),
        Candidate("gate", (1, 2), "person:ridge_bias"), Candidate("quadratic gate", (2,), "gaussian:2"),
        Candidate("detector", (2,), "Gaussian"),
    ]  # fmt: skip
    return scored.scored(dev, tried, (about, kept), fit=dev.rehearsals[0].rows, read=read, alpha=0.05)


def test_every_candidate_of_the_study_is_scored_and_no_reading_is_wider_than_it_is() -> None:
    found = scored.candidates(6, 16, 40)
    assert [(one.layers, one.rule) for one in found if one.kind == "gate"] == gates.candidates(6)
    squares = {one.layers: one.rule for one in found if one.kind == "quadratic gate"}
    assert list(squares) == gates.readings(6)
    assert squares[0,] == "gaussian:16" and squares[4, 5] == "gaussian:32" and squares[2, 3, 4, 5] == "gaussian:40"
    detectors = [one for one in found if one.kind == "detector"]
    assert detectors and all(one.layers for one in detectors), "embeddings are no stream of a gate"


def test_what_opens_is_pushed_and_the_rest_is_vanilla() -> None:
    answers = Answers(torch.tensor([0.9, 0.8]), torch.tensor([0.1, 0.2]))
    opened = torch.tensor([True, False])
    assert answers.behind(opened, canned=False) == pytest.approx(0.45)
    assert answers.behind(opened, canned=True) == pytest.approx(0.4), "of a canned refusal nothing is left"


def test_a_score_is_that_of_the_share_that_opens(table: pd.DataFrame) -> None:
    """Answers that are alike everywhere: the score follows from the two shares."""
    for row in table.to_dict("records"):
        said = 0.0 if row["kind"] == "detector" else 0.1
        if row["score"] != row["score_least"]:
            continue  # of rehearsals that differ only the mean is at hand
        wanted = selection_score(
            forget_vanilla=0.9, forget_method=row["opened"] * said + (1 - row["opened"]) * 0.9, forget_stranger=0.2,
            kept_method=row["kept_opened"] * said + (1 - row["kept_opened"]) * 0.8, kept_vanilla=0.8,
        )  # fmt: skip
        assert row["score"] == pytest.approx(wanted)
    blind = table[table["layers"] == (0,)].iloc[0]
    assert blind["score"] < 0.6 and blind["test"] < 0.3, "the first block tells nobody apart"
    assert (table.loc[table["layers"] != (0,), ["opened", "test"]] > 0.9).all(axis=None)
    assert table["score"].is_monotonic_decreasing


def test_the_score_takes_the_best_and_the_share_what_opens_most_among_its_equals() -> None:
    rows = [("a", 1.0, 0.8, 0.7), ("b", 0.995, 0.99, 0.9), ("c", 0.98, 1.0, 1.0)]
    table = pd.DataFrame([
        {"kind": "gate", "layers": (1, 2), "rule": rule, "score": score, "opened": opened, "test": test}
        for rule, score, opened, test in rows
    ])  # fmt: skip
    found = scored.chosen(table).set_index("by")
    assert found["rule"].to_dict() == {"score": "a", "opened": "b"}, "c opens most, but its score is not level"
    assert (found["candidates"] == 3).all() and (found["level"] == 2).all() and found.loc["score", "blocks"] == "1+2"
    assert found["rank"].to_dict() == pytest.approx({"score": -1, "opened": 1})
