"""Simple detectors of forgotten people, on what the gate reads: which is a gate better than, and by how much?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from eraser_lib.baselines.detector import Gaussians, Neighbours, embed
from eraser_lib.bench.records import Question
from eraser_lib.evaluate.separation import auc, auc_interval
from eraser_lib.experiments.activations import Activations, join
from eraser_lib.experiments.gates import gate_values, looked_at
from eraser_lib.experiments.study import Study
from eraser_lib.gate import Gate
from eraser_lib.threshold import calibrate

Score = Callable[[Tensor], Tensor]
"""Features `(N, D)` to scores `(N,)`; a larger one says forgotten."""
Sets = Mapping[str, Sequence[Question]]
KNOWN, OUTSIDE = ("retain", "celebrity"), ("stranger", "general", "benign")
"""Whom a forgotten person is told from: people that the model knows, and what is about none of them."""


def gaussian(forget: Tensor, retain: Tensor) -> Score:
    """Difference of log densities of two Gaussians, see `baselines.detector`."""
    return Gaussians.fit(forget, retain)


def probe(forget: Tensor, retain: Tensor) -> Score:
    """Logistic regression on standardised features, both classes weighing the same."""
    rows = torch.cat([forget, retain]).double().numpy()
    labels = np.repeat([1, 0], [len(forget), len(retain)])
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000))
    model.fit(rows, labels)
    return lambda features: torch.from_numpy(model.decision_function(features.double().numpy()))


def neighbours(forget: Tensor, retain: Tensor, *, k: int = 5) -> Score:
    """Similarity to the nearest forget rows minus that to the nearest retain rows, see `baselines.detector`."""
    return Neighbours.fit(forget, retain, k=k)


DETECTORS: dict[str, Callable[[Tensor, Tensor], Score]] = {
    "Gaussian": gaussian, "k-NN": neighbours, "linear probe": probe,
}  # fmt: skip


def judged(
    score: Score, calibration: Mapping[str, Tensor], test: Mapping[str, Tensor], questions: Sets, *, alpha: float
) -> dict[str, float | None]:
    """How well scores tell forgotten people's prompts (`test`) from others, and what a calibrated threshold opens.

    Args:
        score: the detector.
        calibration: features of retained prompts by group.
        test, questions: features and questions of `test`, `KNOWN` and `OUTSIDE`.
        alpha: share of retained prompts that may open.

    Returns:
        `auc` against `KNOWN` with `_low` and `_high` (95 %, over people); `auc_picture` and `auc_text`, of prompts with
        a picture and without; `auc_outside` against `OUTSIDE`; `opened` and `retain`, shares of the forgotten and of
        retained people's prompts above the threshold. Missing where one side has no prompts.
    """
    values = {name: score(rows).numpy() for name, rows in test.items() if len(rows)}
    seen = {name: np.array([question.prompt.image is not None for question in questions[name]]) for name in values}
    own, known = values["test"], [name for name in KNOWN if name in values]
    others, pictures = np.concatenate([values[n] for n in known]), np.concatenate([seen[n] for n in known])
    people = [question.person for name in known for question in questions[name]]
    found = auc_interval(own, others, [question.person for question in questions["test"]], people)
    outside = [values[name] for name in OUTSIDE if name in values]
    threshold = calibrate({name: score(rows) for name, rows in calibration.items() if len(rows)}, alpha).value

    def part(mine: np.ndarray, theirs: np.ndarray) -> float | None:
        return auc(mine, theirs) if len(mine) and len(theirs) else None

    return {
        "auc": found.value, "auc_low": found.low, "auc_high": found.high,
        "auc_picture": part(own[seen["test"]], others[pictures]),
        "auc_text": part(own[~seen["test"]], others[~pictures]),
        "auc_outside": part(own, np.concatenate(outside)) if outside else None,
        "opened": float((own > threshold).mean()), "retain": float((values["retain"] > threshold).mean()),
    }  # fmt: skip


def retrieval(
    study: Study, fit: Sets, calibration: Sets, test: Sets, *, alpha: float = 0.01, batch: int = 64
) -> dict[str, Any]:
    """The nearest known picture, forgotten or retained, by the mean embedding of its tokens; prompts with a picture."""
    roles: list[Sets] = [
        {name: [q for q in rows if q.prompt.image is not None] for name, rows in role.items()}
        for role in (fit, calibration, test)
    ]
    flat = [question.prompt for role in roles for rows in role.values() for question in rows]
    vectors = iter(
        embed(study.vanilla, flat, batch=batch).split([len(rows) for role in roles for rows in role.values()])
    )
    known, others, asked = ({name: next(vectors) for name in role} for role in roles)
    score = neighbours(known["forget"], known["retain"], k=1)
    return {"detector": "image retrieval", "blocks": "input", **judged(score, others, asked, roles[2], alpha=alpha)}


def table(
    fit: Mapping[str, Activations],
    calibration: Mapping[str, Activations],
    test: Mapping[str, Activations],
    questions: Sets,
    gate: Gate,
    layers: Sequence[int],
    *,
    alpha: float = 0.01,
) -> pd.DataFrame:
    """The gate and every detector of `DETECTORS`, each at the block that serves it best and where the gate reads.

    `fit`, `calibration`, `test`: activations of the sets of 04_gate; `gate` reads `layers`. Columns `detector, blocks`
    and those of `judged`, largest `auc` first. The best block is told by the test prompts, which favours detectors.
    """

    def row(name: str, where: Sequence[int], score: Score) -> dict[str, Any]:
        others, asked = ({name: join(found, where) for name, found in role.items()} for role in (calibration, test))
        found = judged(score, others, asked, questions, alpha=alpha)
        return {"detector": name, "blocks": "+".join(map(str, where)), **found}

    rows = [row("gate", layers, lambda features: gate_values(gate, features))]
    for name, make in DETECTORS.items():
        tried = {
            where: row(name, where, make(join(fit["forget"], where), join(fit["retain"], where)))
            for where in {*((layer,) for layer in looked_at(len(fit["forget"]))), tuple(layers)}
        }
        best = max((where for where in tried if len(where) == 1), key=lambda where: (tried[where]["auc"], where))
        rows += [tried[where] for where in {best, tuple(layers)}]
    return pd.DataFrame(rows).sort_values(["auc", "blocks"], ascending=[False, True], ignore_index=True)
