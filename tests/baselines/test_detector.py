"""The detector: its scores by hand, its embeddings, and the log behind a canned refusal."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from eraser_lib.baselines.detector import EMBEDDING, RULES, Gaussians, Neighbours, embed
from eraser_lib.bench.records import Prompt, Question
from eraser_lib.evaluate.generate import evaluate
from eraser_lib.evaluate.log import SCHEMA, read_log, to_table
from eraser_lib.experiments import closed
from eraser_lib.families import Loaded
from eraser_lib.hooks import run_capture

Rows = list[Question]


def test_the_score_by_hand() -> None:
    """Retain rows (1, 1) and (-1, -1) have mean 0; the forget rows stand at right angles to them and along x."""
    detector = Neighbours.fit(torch.tensor([[1.0, -1.0], [2.0, 0.0]]), torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), k=1)
    scores = detector(torch.tensor([[3.0, -3.0], [5.0, 5.0], [1.0, 0.0]]))
    root = 0.5**0.5
    assert scores.tolist() == pytest.approx([1 - 0, root - 1, 1 - root], abs=1e-6)
    both = Neighbours.fit(torch.tensor([[1.0, -1.0], [2.0, 0.0]]), torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), k=2)
    assert both(torch.tensor([[1.0, 0.0]])).tolist() == pytest.approx([(1 + root) / 2 - 0], abs=1e-6)
    assert detector.bytes == 4 * (4 + 4 + 2)


@pytest.mark.parametrize("k", [0, 3])
def test_k_must_fit_the_rows(k: int) -> None:
    with pytest.raises(ValueError, match=f"k is {k}; it must lie between 1 and the 2 rows"):
        Neighbours.fit(torch.ones(2, 3), torch.ones(5, 3), k=k)


def test_log_densities_by_hand() -> None:
    """Two uncorrelated columns: variances 1 and 4 among forget rows about (2, 0), 1 and 1 among retain rows about 0."""
    forget = torch.tensor([[3.0, 2.0], [1.0, 2.0], [3.0, -2.0], [1.0, -2.0]])
    retain = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    detector = Gaussians.fit(forget, retain)
    # the covariance of the forget rows is shrunken towards 2.5, the mean of its variances; the other is at its target
    one, other = (detector.factors[0] @ detector.factors[0].T).diagonal().tolist()
    assert 1 < one < 2.5 < other < 4 and one + other == pytest.approx(5)
    points = [(0.0, 0.0), (2.0, 3.0)]
    wanted = [
        -0.5 * ((x - 2) ** 2 / one + y**2 / other + math.log(one * other)) + 0.5 * (x**2 + y**2) for x, y in points
    ]
    assert detector(torch.tensor(points)).tolist() == pytest.approx(wanted)
    assert detector.bytes == 8 * (4 + 2 * 3)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_knows_its_own(rule: str) -> None:
    generator = torch.Generator().manual_seed(0)
    gone, kept = (torch.randn(60, 4, generator=generator) + shift for shift in (6.0, 0.0))
    detector = RULES[rule](gone, kept)
    assert detector(gone + 0.1).min() > detector(kept + 0.1).max()
    assert detector.bytes > 0


def test_embeddings_are_of_the_picture_or_of_the_text(loaded: Loaded, forget: Rows) -> None:
    prompts = [row.prompt for row in forget]
    found = embed(loaded, prompts, batch=3)
    for row, prompt in enumerate(prompts):
        inputs = loaded.encode([prompt])
        stream = run_capture(loaded.model, inputs, [EMBEDDING], "all")[EMBEDDING][0]
        pictures = inputs["input_ids"][0] == loaded.model.config.image_token_id
        mine = stream[pictures] if prompt.image is not None else stream
        assert torch.allclose(found[row], mine.mean(dim=0), atol=1e-5)
    other = Prompt("Something else entirely?", prompts[0].image)
    assert torch.allclose(embed(loaded, [other])[0], found[0], atol=1e-5), "a question about a picture is its picture"


def test_a_refused_row_shows_nothing_but_the_refusal(loaded: Loaded, forget: Rows) -> None:
    run = {"preset": "toy", "model": "llava", "split": "5", "method": "vanilla", "seed": 0}
    log = evaluate(loaded, forget, log_extra=run, max_new_tokens=3)
    words = frozenset(closed.REFUSAL.lower().replace(".", "").replace(",", "").replace("'", " ").split())
    study: Any = SimpleNamespace(vanilla=loaded, vocabulary=words)
    after = closed.refused(log, forget, torch.tensor([2.0, 0.0, 0.5, 1.0]), 0.5, study)
    to_table(after)  # follows the schema
    assert after["opened"].tolist() == [True, False, False, True]
    assert after["method"].unique().tolist() == ["detector"]
    for row in (0, 3):
        assert after["output"][row] == closed.REFUSAL and after["refusal"][row] and not after["gibberish"][row]
        assert after["answer_prob"][row] == 0 and not after["correct"][row]
    same = [name for name in SCHEMA.names if name not in ("method", "gate_value", "gate_values", "opened")]
    kept = pd.DataFrame({name: log[name] for name in same}).iloc[[1, 2]].astype(str)
    assert kept.equals(after[same].iloc[[1, 2]].astype(str)), "other rows are vanilla's"


def test_in_front_of_a_model_it_refuses_the_forgotten_alone(
    loaded: Loaded, forget: Rows, retain: Rows, tmp_path: Path
) -> None:
    """The forgotten in words that it has not seen, the retained in those that set its threshold."""
    texts = [row.prompt.text.replace("What is", "Tell me") for row in forget]
    reworded = [replace(row, prompt=replace(row.prompt, text=text)) for row, text in zip(forget, texts, strict=True)]
    rows = [*reworded, *retain]
    run = {"preset": "toy", "model": "llava", "split": "5", "method": "vanilla", "seed": 0}
    log = evaluate(loaded, rows, log_extra=run, max_new_tokens=3)
    fitted, kept, asked = (embed(loaded, [row.prompt for row in of]) for of in (forget, retain, rows))
    detector = RULES["1 nearest"](fitted, kept)
    study: Any = SimpleNamespace(vanilla=loaded, vocabulary=frozenset(), log_path=lambda method: tmp_path / method)
    after = closed.detect(study, log, rows, detector, asked, {"retain": kept}, alpha=0.2)
    assert after["opened"].tolist() == [True] * 4 + [False] * 4
    assert after["refusal"].tolist() == after["opened"].tolist()
    assert after["answer_prob"][:4].eq(0).all()
    assert after["answer_prob"][4:].equals(log["answer_prob"][4:].astype(object)), "the retained are answered as before"
    assert read_log(tmp_path / "detector")["output"].tolist() == after["output"].tolist()


def test_a_refusal_behind_options_is_a_guess(loaded: Loaded, forget: Rows) -> None:
    row = replace(forget[1], task="classification", options=("red", "blue", forget[1].answer, "green"), answer="C")
    run = {"preset": "toy", "model": "llava", "split": "5", "method": "vanilla", "seed": 0}
    log = evaluate(loaded, [row], log_extra=run, max_new_tokens=3)
    study: Any = SimpleNamespace(vanilla=loaded, vocabulary=frozenset())
    after = closed.refused(log, [row], torch.tensor([1.0]), 0.0, study)
    to_table(after)
    assert len(set(after["option_logprobs"][0])) == 1 and after["forced"][0] == "A" and not after["forced_correct"][0]
