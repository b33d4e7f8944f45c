"""Models of several sizes: what is read from committed results, and how it is told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from eraser_lib.experiments import sizes
from eraser_lib.experiments.study import Study, open_study
from eraser_lib.figures.width import trained_widths
from eraser_lib.study.paths import StudyError


@pytest.fixture
def like(tmp_path: Path) -> Study:
    return Study(preset="toy", model="qwen", split=5, out=tmp_path)


def test_committed_results_are_read_as_they_stand(like: Study) -> None:
    (study,) = sizes.committed(["tiny"], like).values()
    assert (study.model, study.out) == ("qwen", open_study("tiny", "qwen", 5, out="results/tiny").out)
    tables = sizes.side_by_side({"tiny": study})
    (model,) = tables["models"].to_dict("records")
    assert (model["study"], model["model"], model["width"]) == ("tiny", "qwen", 256)
    assert 0.9 < model["known_least"] <= model["known"] <= 1
    assert set(tables["gates"]["width"]) == {256}, "projections are no models"
    counts = tables["gates"].groupby("solver")["people"].agg(["count", "nunique"])
    assert (counts["count"] == counts["nunique"]).all(), "one row to each number of people"
    left = tables["outcomes"].set_index("method")["gone"]
    assert left["mllmeraser"] < left["vanilla"]


def test_studies_stand_by_width_and_keep_their_names(like: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    (study,) = sizes.committed(["tiny"], like).values()
    row = sizes.model_row(study)
    widths = iter((512, 64))
    monkeypatch.setattr(sizes, "model_row", lambda study: {**row, "width": next(widths)})
    tables = sizes.side_by_side({"wide": study, "narrow": study})
    assert tables["models"]["study"].tolist() == ["narrow", "wide"]
    assert set(tables["outcomes"].loc[tables["outcomes"]["study"] == "narrow", "width"]) == {64}
    chart = trained_widths(tables["gates"].assign(width=tables["outcomes"]["width"].iloc[0]), sizes.projections(study))
    assert len(chart.axes) == tables["gates"]["solver"].nunique()


def test_presets_without_the_model_are_left_out(like: Study) -> None:
    assert list(sizes.committed(["tiny-64", "tiny-128"], like)) == ["tiny-128"]
    assert list(sizes.committed(["tiny-64", "tiny-128"], like.at("llava"))) == ["tiny-64", "tiny-128"]


def test_methods_that_were_not_asked_have_no_row(like: Study) -> None:
    (study,) = sizes.committed(["gpu"], like).values()
    assert sizes.outcome_rows(study)["method"].tolist() == ["vanilla", "mllmeraser"]


def test_what_is_missing_is_named(like: Study) -> None:
    with pytest.raises(StudyError, match="no preset 'tiny-63'"):
        sizes.committed(["tiny-63"], like)
    with pytest.raises(FileNotFoundError, match="run notebook 02_models of preset toy for qwen first"):
        sizes.model_row(like)
