"""The committed ablations of the gate: the tables say what the kept rows say, and what the figures show."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from book_fixtures import REPOSITORY

from eraser_lib.threshold import calibrate

TINY = REPOSITORY / "results" / "tiny"
SETTINGS = {
    "rows": ("ablate_rows", ["fewer", "share", "rows"]),
    "options": ("ablate_options", ["solver", "option", "value"]),
    "site": ("ablate_site", ["fitted", "read"]),
    "width": ("width", ["solver", "width", "people"]),
    "curves": ("quadratic", ["curves"]),
    "layers": ("layers_gate", ["first", "last"]),
}
SHARES = {"opened": "test", "retain_opened": "retain", "celebrity_opened": "celebrity"}


def note(model: str, name: str, key: str = "rows") -> pd.DataFrame:
    return pd.DataFrame(json.loads((TINY / "figures" / model / f"{name}.json").read_text())[key])


@pytest.mark.parametrize("model", ["llava", "qwen"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_table_with_intervals_is_the_ablation_that_a_figure_shows(model: str, name: str) -> None:
    figure, by = SETTINGS[name]
    shown = note(model, f"openings_{name}").set_index(by)
    ablated = note(model, figure, "test" if name == "curves" else "rows").rename(columns={"test": "opened"})
    ablated = ablated.rename(columns={subset: f"{subset}_opened" for subset in ("retain", "celebrity")}).set_index(by)
    assert len(shown) == len(ablated)
    for column in (*SHARES, "auc"):
        wanted = ablated[column].reindex(shown.index)
        assert shown[column].tolist() == pytest.approx(wanted.tolist(), abs=2e-6), column
    low, high = shown["opened_low"], shown["opened_high"]
    assert (low <= shown["opened"] + 1e-9).all() and (shown["opened"] <= high + 1e-9).all() and (low < high).any()


@pytest.mark.parametrize("model", ["llava", "qwen"])
@pytest.mark.parametrize("name", SETTINGS)
def test_every_share_is_that_of_its_rows(model: str, name: str) -> None:
    by = SETTINGS[name][1]
    rows = pd.read_parquet(TINY / "rows" / model / "5" / f"openings_{name}.parquet")
    shown = note(model, f"openings_{name}").set_index(by)
    for column, subset in SHARES.items():
        shares = rows[rows["subset"] == subset].groupby(by)["opened"].mean().reindex(shown.index)
        assert shown[column].tolist() == pytest.approx(shares.tolist(), abs=2e-6), column


@pytest.mark.parametrize("model", ["llava", "qwen"])
def test_the_lottery_is_that_of_its_rows(model: str) -> None:
    rows = pd.read_parquet(TINY / "rows" / model / "5" / "lottery.parquet")
    sets = note(model, "lottery", "sets").set_index("set")
    assert len(sets) == rows["set"].nunique() == 20
    for method in ("gate", "quadratic", "detector"):
        for subset in ("test", "retain", "celebrity"):
            shares = rows[rows["subset"] == subset].groupby("set")[method].mean().reindex(sets.index)
            assert sets[f"{method}_{subset}"].tolist() == pytest.approx(shares.tolist(), abs=2e-6)


@pytest.mark.parametrize("model", ["llava", "qwen"])
def test_the_order_of_fitting_is_that_of_its_rows(model: str) -> None:
    rows = pd.read_parquet(TINY / "rows" / model / "5" / "push_order.parquet")
    shown = note(model, "push_order").set_index(["order", "strength"])
    means = rows.groupby(["order", "strength", "set"])[["answer_prob", "refused"]].mean()
    for subset in ("test", "retain"):
        own = means.xs(subset, level="set").reindex(shown.index)
        assert shown[f"{subset}_prob"].tolist() == pytest.approx(own["answer_prob"].tolist(), abs=2e-6)
        assert shown[f"{subset}_refused"].tolist() == pytest.approx(own["refused"].tolist(), abs=2e-6)


@pytest.mark.parametrize("model", ["llava", "qwen"])
def test_a_threshold_of_the_kept_gate_values_opens_what_the_promise_says(model: str) -> None:
    rows = pd.read_parquet(TINY / "rows" / model / "5" / "openings_gate.parquet")
    kept = note(model, "promise", "kept")
    test = rows[rows["role"] == "test"]
    people = rows.loc[(rows["role"] == "calibrate") & (rows["group"] == "people"), "gate_value"].tolist()
    for one in kept[kept["unit"] == "prompts"].to_dict("records"):
        threshold = calibrate({"people": people}, one["alpha"]).value
        assert one["threshold"] == pytest.approx(threshold, rel=1e-5)
        for subset in ("test", "retain", "celebrity"):
            own = test.loc[test["group"] == subset, "gate_value"]
            assert one[subset] == pytest.approx((own > threshold).mean(), abs=2e-6), (one["alpha"], subset)
