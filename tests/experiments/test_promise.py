"""What a threshold promises: bands, people, and draws of the calibration against theory."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eraser_lib.experiments import promise
from eraser_lib.figures.promise import spreads


def test_every_group_promises_what_its_size_allows() -> None:
    scores = {"people": torch.arange(40.0), "general": torch.arange(199.0)}
    people = {"people": [number // 4 for number in range(40)], "general": list(range(199))}
    table = promise.promises(scores, people, (0.01, 0.1)).set_index(["unit", "group", "alpha"])
    assert table.loc[("people", "people", 0.1), ["n", "attainable"]].tolist() == pytest.approx([10, 1 / 11])
    assert table.loc[("prompts", "people", 0.01), ["low", "high"]].tolist() == [0, 0], "infinite: nothing opens"
    low, high = table.loc[("prompts", "general", 0.01), ["low", "high"]]
    assert 0 < low < 0.01 < high < 0.03


def test_a_person_opens_with_any_of_their_prompts() -> None:
    """Ten people of two prompts; one loud prompt each. At alpha .5 the sixth largest of people is the threshold."""
    values = torch.tensor([[float(number), -1.0] for number in range(10)]).flatten()
    whose = [number // 2 for number in range(20)]
    test = {"retain": torch.tensor([5.5, 0.0, 9.5, 9.5])}
    table = promise.kept({"people": values}, {"people": whose}, test, {"retain": ["a", "a", "b", "b"]}, (0.5, 0.01))
    by = table.set_index(["unit", "alpha"])
    assert by.loc[("people", 0.5), "threshold"] == 5.0
    assert by.loc[("people", 0.5), ["retain", "retain_people"]].tolist() == [0.75, 1.0]
    assert by.loc[("prompts", 0.5), "threshold"] == 0.0
    assert by.loc[("people", 0.01), "threshold"] == math.inf and by.loc[("people", 0.01), "retain_people"] == 0


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**6))
def test_people_who_are_exchangeable_keep_the_promise_and_prompts_that_hang_together_scatter(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    whose = [number // 6 for number in range(600)]
    alike = torch.randn(100, generator=g)[torch.tensor(whose)] + 0.05 * torch.randn(600, generator=g)
    table = promise.redrawn(alike, whose, 0.1, draws=300)
    found = promise.against_theory(table, 0.1).set_index("unit")
    assert found.loc["people", ["n", "asked"]].tolist() == [50, 50]
    assert found.loc["people", "inside"] > 0.8, "halves of one hundred people are not independent, but near it"
    assert abs(found.loc["people", "mean"] - found.loc["people", "mean_if"]) < 0.02
    assert found.loc["prompts", "inside"] < found.loc["people", "inside"]
    assert found.loc["prompts", "spread"] > 1.5 * found.loc["prompts", "spread_if"]
    assert len(spreads(table, promise.against_theory(table, 0.1), 0.1).axes) == 2


def test_units_of_which_there_are_too_few_have_no_row() -> None:
    table = promise.redrawn(torch.randn(40), [number // 10 for number in range(40)], 0.1, draws=2)
    assert promise.against_theory(table, 0.1)["unit"].tolist() == ["prompts"]
    assert promise.against_theory(table, 0.01).empty
