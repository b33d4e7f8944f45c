"""The corrected push behind another decision: what would the eraser do if it recognised as the detector does?

What an opened prompt answers does not depend on what opened it, and a closed one answers as vanilla does. So the log of
such an eraser is put together: vanilla's rows where the decision stays closed, the corrected form's where both open,
and answers under the same push, which are asked for here, where only the new decision opens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from eraser_lib import Eraser
from eraser_lib.baselines.detector import RULES
from eraser_lib.bench.records import Question
from eraser_lib.experiments.activations import Activations, join
from eraser_lib.experiments.study import Study
from eraser_lib.threshold import calibrate

KEPT = ["id", "subset", "person", "modality", "task", "answer_prob", "fact_recall", "refusal", "gibberish"]
GROUPS = ("forget", "test", "retain", "celebrity", "same_photo", "stranger")


def opened_by(
    rule: str, reading: Sequence[int], read: Mapping[str, Mapping[str, Activations]], *, alpha: float
) -> dict[str, Tensor]:
    """Set of test prompts -> which of them a detector opens, bool `(N,)`, fitted and calibrated on the study's rows.

    `read`: activations by role and set, as notebook 04_gate leaves them; `rule`: of `baselines.detector.RULES`;
    `reading`: blocks whose outputs are joined.
    """
    seen = {
        role: {name: join(rows, reading) for name, rows in sets.items() if len(next(iter(rows.values())))}
        for role, sets in read.items()
    }
    detector = RULES[rule](seen["fit"]["forget"], seen["fit"]["retain"])
    threshold = calibrate({name: detector(rows) for name, rows in seen["calibrate"].items()}, alpha).value
    return {name: detector(rows) > threshold for name, rows in seen["test"].items()}


def side_by_side(
    erased: pd.DataFrame, questions: Mapping[str, Sequence[Question]], by_set: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Decision -> which prompts it opens, bool `(N,)`, of all sets in a row: `gate` as in its log, and `detector`."""
    nothing = {name: torch.zeros(len(rows), dtype=torch.bool) for name, rows in questions.items()}
    return {
        "gate": torch.tensor([bool(value) for value in erased["opened"]]),
        "detector": torch.cat([by_set.get(name, closed) for name, closed in nothing.items()]),
    }


def behind(
    study: Study, questions: Sequence[Question], opened: Tensor, vanilla: pd.DataFrame, erased: pd.DataFrame,
    eraser: Eraser,
) -> pd.DataFrame:  # fmt: skip
    """The log of the eraser's push where `opened`, bool `(N,)`, says so: columns `KEPT`, `opened, model, seed`.

    `vanilla`, `erased`: logs of the questions, in their order, without and with the eraser. Raises `ValueError` where
    they are of other questions.
    """
    asked = [question.id for question in questions]
    if vanilla["id"].tolist() != asked or erased["id"].tolist() != asked:
        raise ValueError("the logs are of other questions than these; run notebook 06_erase again")
    before = torch.tensor([bool(value) for value in erased["opened"]])
    new = (opened & ~before).nonzero()[:, 0].tolist()
    parts = [vanilla.loc[(~opened).numpy(), KEPT], erased.loc[(opened & before).numpy(), KEPT]]
    if new:
        always = study.attach(eraser.with_threshold(float("-inf")))
        pushed = study.quick([questions[row] for row in new], study.vanilla, context=always, **study.fluency())
        parts.append(pushed.assign(row=new).set_index("row")[KEPT])
    log = pd.concat(parts).sort_index()
    return log.assign(opened=opened.tolist(), model=study.model, seed=study.seed)


def shares(log: pd.DataFrame, groups: Sequence[str] = GROUPS) -> dict[str, float]:
    """Share of prompts opened by group."""
    means = log.assign(opened=log["opened"].astype(bool)).groupby("subset")["opened"].mean()
    return {f"{name}_opened": float(means[name]) for name in groups if name in means}
