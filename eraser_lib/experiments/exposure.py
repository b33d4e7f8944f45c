"""Who was erased? How well somebody who can ask, time, or read the artifact tells the erased from strangers.

A retain-only model treats a forgotten person like a stranger. A method that makes them stand out has published the list
of requests. Each signal is turned into one number per person, and the AUC says how often an erased person's number is
above that of somebody else. A mean or a maximum over many questions is not comparable with one over few, so that of
everybody as many questions count as of somebody of the other side. Source: the study's protocol, section 9.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from eraser_lib.evaluate.separation import auc

SIGNALS: dict[str, tuple[str, str, float]] = {
    "refusals": ("refusal", "mean", 1.0),
    "gibberish": ("gibberish", "mean", 1.0),
    "silence about the fact": ("answer_prob", "mean", -1.0),
    "second prefill": ("opened", "mean", 1.0),
    "gate value": ("gate_value", "max", 1.0),
}
"""What an observer sees -> column of the log, how a person's rows become one number, sign. Refusals and gibberish can
be read by anybody who asks; probabilities by who is shown them; a second prefill takes time, which a clock without
noise would see; the gate's value needs the artifact and the model."""
OWNERS = {
    "second prefill": ("mllmeraser", "mllmeraser_quadratic"),
    "gate value": ("mllmeraser", "mllmeraser_quadratic", "mllmeraser_published", "detector"),
}
"""Methods that have the signal at all; the others do by everybody."""
CONTROLS = ("stranger", "retain")
"""Who is not erased: people whom no model has seen, or retained ones where a benchmark has no such people."""
CELL = ["modality", "task"]
DRAWS = 300
"""So often the questions that count, and for the interval the people, are drawn."""
Values = Mapping[tuple[Hashable, ...], np.ndarray]
"""Kind of question (`CELL`) -> values of a person's answers."""


def exposures(logs: pd.DataFrame) -> pd.DataFrame:
    """AUC over people of guessing who is on the forget list, one row per method, signal and control.

    Args:
        logs: rows of one model and split. Erased people are those of `test`; the others, the first of `CONTROLS`
            that the logs have.

    Returns:
        Columns `method, signal, against` (who is not erased: `stranger` or `retain`), `auc` (0.5 tells nothing; mean
        over trainings and draws of the questions that count), `auc_low, auc_high` (over trainings, people and draws),
        `least` and `most` of the single trainings, `erased` and `others` (people), `questions` (mean number a person
        that count).
    """
    control = next((name for name in CONTROLS if (logs["subset"] == name).any()), CONTROLS[-1])
    rows = []
    for method, own in logs.groupby("method", sort=False):
        for signal, (column, how, sign) in SIGNALS.items():
            if method not in OWNERS.get(signal, (method,)) or own[column].isna().all():
                continue
            seen = [_seen(one, control, column, how, sign) for _, one in own.groupby("seed")]
            trainings = [one for one in seen if one is not None]
            if not trainings:
                continue
            low, high = np.percentile(np.concatenate([one.spread for one in trainings]), [2.5, 97.5])
            means = [one.auc for one in trainings]
            rows.append({
                "method": method, "signal": signal, "against": control, "auc": float(np.mean(means)),
                "auc_low": float(low), "auc_high": float(high), "least": min(means), "most": max(means),
                "erased": trainings[0].erased, "others": trainings[0].others,
                "questions": float(np.mean([one.questions for one in trainings])),
            })  # fmt: skip
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Seen:
    """What one signal tells of one training."""

    auc: float
    """Mean over draws of the questions."""
    spread: list[float]
    """By draw of questions and people."""
    questions: float
    erased: int
    others: int


def _seen(rows: pd.DataFrame, control: str, column: str, how: str, sign: float) -> _Seen | None:
    """`None` where one side was asked nothing, or no kind of question was put to both."""
    erased, others = (_by_person(rows[rows["subset"] == subset], column, sign) for subset in ("test", control))
    if not {cell for person in erased for cell in person} & {cell for person in others for cell in person}:
        return None
    return _matched(erased, others, how)


def _by_person(rows: pd.DataFrame, column: str, sign: float) -> list[Values]:
    """The signed values of every person's answers, by kind of question."""
    rows = rows.dropna(subset=[column, "person"])
    return [
        {cell: sign * answers[column].to_numpy(float) for cell, answers in own.groupby(CELL)}
        for _, own in rows.groupby("person")
    ]


def _matched(erased: list[Values], others: list[Values], how: str) -> _Seen:
    """AUC of both sides, with as many questions of each kind on either.

    In every draw each person of the side with more questions meets a random one of the other, and as many questions
    of each kind are drawn as were asked about that one.
    """
    rng = np.random.default_rng(0)
    sides = [erased, others]
    counts = [np.mean([sum(map(len, person.values())) for person in side]) for side in sides]
    many = int(counts[1] > counts[0])
    few = [_one(person, how) for person in sides[1 - many]]
    found, spread, asked = [], [], []
    for _ in range(DRAWS):
        drawn = []
        for person in sides[many]:
            chosen = _like(person, sides[1 - many][rng.integers(len(few))], rng)
            if chosen.size:
                drawn.append(getattr(np, how)(chosen))
                asked.append(chosen.size)
        if not drawn:
            continue
        pair = [np.array(drawn), np.array(few)]
        positive, negative = pair if many == 0 else pair[::-1]
        found.append(auc(positive, negative))
        spread.append(auc(rng.choice(positive, len(positive)), rng.choice(negative, len(negative))))
    return _Seen(float(np.mean(found)), spread, float(np.mean(asked)), len(erased), len(others))


def _one(person: Values, how: str) -> float:
    return float(getattr(np, how)(np.concatenate(list(person.values()))))


def _like(person: Values, other: Values, rng: np.random.Generator) -> np.ndarray:
    """Values of one person's answers, as many of each kind as the other has, where there are so many."""
    parts = [
        rng.choice(person[cell], min(len(values), len(person[cell])), replace=False)
        for cell, values in other.items()
        if cell in person
    ]
    return np.concatenate(parts) if parts else np.empty(0)
