from __future__ import annotations

import pandas as pd
import pytest

from eraser_lib.evaluate.summary import summarise_rows
from eraser_lib.tables import PAPER, comparison, direction, metric_table
from tests.evaluate.synthetic import make_log


@pytest.fixture(scope="module")
def summary() -> pd.DataFrame:
    logs = [
        make_log(method, model=model)
        for model in ("llava", "qwen")
        for method in ("vanilla", "retain_only", "ga_diff", "mllmeraser")
    ]
    return summarise_rows(pd.concat(logs, ignore_index=True))


def test_shape_of_the_paper(summary: pd.DataFrame) -> None:
    table = comparison(summary)
    assert list(table.value.index) == ["vanilla", "retain_only", "ga_diff", "mllmeraser"]
    assert table.value.shape == (4, 2 * 4 * 2 * 3)
    assert table.value.columns[0] == ("llava", "forget", "vqa", "classification")
    assert comparison(summary, models=["qwen"], metrics=PAPER).value.shape == (4, 24)
    overlap = comparison(summary, metrics=PAPER).value.xs("generation", axis=1, level=3)
    assert overlap.to_numpy() == pytest.approx(0.8)


def test_bold_only_where_intervals_are_apart(summary: pd.DataFrame) -> None:
    table = comparison(summary, models=["llava"])
    best = table.best()
    assert not best.loc[["vanilla", "retain_only"]].any(axis=None)
    for column in best.columns:
        forgotten = column[1] in ("forget", "test")
        own, other = table.high[column]["mllmeraser"], table.low[column]["ga_diff"]
        apart = own < other if forgotten else table.low[column]["mllmeraser"] > table.high[column]["ga_diff"]
        assert best.loc["mllmeraser", column] == apart
        assert not best.loc["ga_diff", column]
    assert best.any(axis=None) and not best.loc["mllmeraser"].all()


def test_renderings(summary: pd.DataFrame) -> None:
    table = comparison(summary, models=["llava"], subsets=("forget", "retain"))
    markdown = table.markdown()
    lines = markdown.splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "forget \u2193, VQA class." in lines[0] and "retain \u2191, QA gen." in lines[0]
    assert "**" in markdown and "nan" not in markdown
    html = table.html(caption="5 % < 10 %")
    assert html.count("<tr>") == 4 + 4 and "5 % &lt; 10 %" in html and "<strong>" in html
    assert "font-weight: bold" in table.styler().to_html()


def test_missing_cells_are_dashes(summary: pd.DataFrame) -> None:
    partial = summary[~((summary["method"] == "ga_diff") & (summary["subset"] == "retain"))]
    text = comparison(partial, models=["llava"]).text()
    assert text.loc["GA_Diff"].xs("retain \u2191", level="subset").eq("\u2013").all()


def test_directions() -> None:
    assert direction("forget", "accuracy") == direction("retain", "refusal_rate") == "down"
    assert direction("forget", "refusal_rate") == direction("celebrity", "fact_recall") == "up"
    assert direction("retain", "gibberish_rate") == direction("forget", "gibberish_rate") == "down"
    assert direction("stranger", "accuracy") == "none"


def test_nothing_to_show_is_an_error(summary: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="no rows for split 15"):
        comparison(summary, split="15")
    with pytest.raises(ValueError, match="choose one"):
        comparison(pd.concat([summary, summary.assign(preset="gpu")]))
    with pytest.raises(ValueError, match="no 'opened_rate'"):
        metric_table(summary, "opened_rate", subsets=["forget"])


def test_metric_table(summary: pd.DataFrame) -> None:
    table = metric_table(summary, "refusal_rate", subsets=["forget", "retain"])
    assert table.shape == (8, 12)
    assert ("LLaVA", "MLLMEraser (corrected)") in table.index
