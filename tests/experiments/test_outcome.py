"""What is counted of opened prompts: an open answer without a written-down fact says nothing about the fact."""

from __future__ import annotations

import pandas as pd

from eraser_lib.experiments.outcome import reentry_positions


def test_positions_of_facts_that_nobody_wrote_down_are_not_counted() -> None:
    row = {"method": "vanilla", "subset": "test", "task": "generation", "fact": "Paris", "fact_word": None}
    logs = pd.DataFrame([row | {"fact_word": 3}, row, row | {"fact": None}, row | {"task": "cloze"}])
    assert reentry_positions(logs) == {"vanilla": [3.0, None]}
    assert reentry_positions(logs.assign(fact=None)) == {}
