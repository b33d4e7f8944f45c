"""Models of several sizes: what is read from committed results, and how it is told apart."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from eraser_lib.evaluate.log import read_log
from eraser_lib.experiments import sizes
from eraser_lib.experiments.study import Study, open_study
from eraser_lib.figures.width import trained_widths
from eraser_lib.study.paths import StudyError, root


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


def test_the_page_says_what_the_larger_models_showed(like: Study) -> None:
    page = " ".join((root() / "book" / "ablation" / "width.md").read_text().split())
    told = page[page.index("### Larger in everything") : page.index("## Provenance")]

    def mean(preset: str, model: str, method: str, subset: str, column: str) -> str:
        (study,) = sizes.committed([preset], like.at(model)).values()
        log = read_log(study.log_path(method))
        gone = set(log.loc[log["subset"] == "test", "person"])
        # of pictures, those of the forgotten
        rows = log[(log["subset"] == subset) & (log["person"].isin(gone) | (subset != "same_photo"))]
        return short(
            (rows["refusal"].astype(bool) & rows["fluent"].astype(bool)).mean()
            if not column
            else rows[column].astype(float).mean()
        )

    def gate(preset: str, model: str, solver: str, people: int, column: str) -> str:
        (study,) = sizes.committed([preset], like.at(model)).values()
        rows = sizes.gate_rows(study).query("solver == @solver and people == @people")
        return short(rows[column].item(), 2)

    both = ("llava", "qwen")
    opened = [mean("gpu", model, "mllmeraser", "test", "opened") for model in both]
    fluent = [mean("gpu", model, "mllmeraser", "test", "") for model in both]
    small = [mean("tiny", model, "mllmeraser", "test", "answer_prob") for model in both]
    left = [mean("gpu", model, "mllmeraser", "test", "answer_prob") for model in both]
    kept = [mean("gpu", model, method, "retain", "answer_prob") for model in both for method in sizes.METHODS[::-2]]
    some = [gate(preset, model, "decision", 110, "opened") for preset in ("gpu", "tiny") for model in both]
    few = [gate(preset, model, "gaussian", 7, "auc") for preset in ("gpu", "tiny") for model in both]
    null = [gate(preset, model, "hard", 110, "auc") for preset in ("gpu", "tiny") for model in both]
    photo = [
        mean(preset, model, "mllmeraser", "same_photo", "opened") for preset, model in product(("gpu", "tiny"), both)
    ]
    published = mean("gpu", "llava", "mllmeraser_published", "test", "answer_prob")
    for words in (
        "{} and {} of the forgotten people's unseen prompts open".format(*opened),
        "are refused, {} and {} in words that pass as fluent".format(*fluent),
        "256 leave {} and {}".format(*small),
        "{} and {} of the probability of right answers is left".format(*left),
        "keep {} of {} on LLaVA-1.5 and {} of {} on Qwen2.5-VL".format(*kept),
        "the same gate opens {} and {} of the forgotten's prompts".format(*some[:2]),
        "with all of them its gates open {} and {}".format(*some[2:]),
        "an AUC of {} and {}, and of {} and {} at 256".format(*few),
        "(AUC {} and {} with 110 people, {} and {} there)".format(*null),
        f"{published} of {mean('gpu', 'llava', 'vanilla', 'test', 'answer_prob')} is left",
        "{} on LLaVA-1.5 and {} on Qwen2.5-VL, where at 256 it is {} and none".format(*photo[:3]),
    ):
        assert words in told, words
    assert photo[3] == ".000"


def short(number: float, digits: int = 3) -> str:
    """As the pages write a fraction."""
    return f"{number:.{digits}f}".lstrip("0")
