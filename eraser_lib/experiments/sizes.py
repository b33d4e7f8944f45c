"""Models of several sizes side by side: does what one of them showed hold as the residual stream widens?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from eraser_lib.evaluate.log import read_log
from eraser_lib.experiments.contest import trade
from eraser_lib.experiments.study import Study, open_study
from eraser_lib.study import preset as presets

SPLIT = 5
"""Forget share at which models of other sizes are asked."""
METHODS = ("vanilla", "mllmeraser_published", "mllmeraser")
WIDTH = "width of the residual stream"


def committed(names: Sequence[str], like: Study) -> dict[str, Study]:
    """The committed results of other presets as studies of the model of `like` at `SPLIT`, by name.

    Presets without that model are left out.

    Raises:
        StudyError: there is no such preset.
    """
    return {
        name: open_study(name, like.model, SPLIT, seed=like.seed, out=f"results/{name}")
        for name in names
        if like.model in presets.load(name).models
    }


def model_row(study: Study) -> dict[str, Any]:
    """What the model is, how well it knows its people, and which gate its practice people chose.

    `width, weights`; `known` and `known_least`, mean and least rate of the memorisation gate over tasks; `blocks,
    solver`; `practice`, share of unseen prompts about people erased for practice that it opens.
    """
    model = replace(study, split=5)  # what is noted of a model has no share, and lies with the smallest
    sizes = {row["what"]: row["value"] for row in _note(model, "architecture", "02_models")["rows"]}
    known = [row["rate"] for row in _note(model, "memorisation", "02_models")["rows"]]
    choice = _note(study, f"selection-{study.split}", "06_select")
    chosen = choice["choice"]["decision"]
    return {
        "width": sizes[WIDTH],
        "weights": sizes["parameters"],
        "known": sum(known) / len(known),
        "known_least": min(known),
        "blocks": "+".join(str(layer) for layer in chosen["layers"]),
        "solver": chosen["solver"],
        "practice": choice["decision"][0]["opened"],
    }


def gate_rows(study: Study) -> pd.DataFrame:
    """Gates on the whole stream, over the number of people in the fit.

    Columns of `ablate_width.width_table`, at the full width alone.
    """
    rows = projections(study)
    return rows[rows["width"] == rows["width"].max()].drop(columns=["seed", "model"]).reset_index(drop=True)


def projections(study: Study) -> pd.DataFrame:
    """The same gates on random projections of the stream, and on the whole of it; with `model`."""
    return pd.DataFrame(_note(study, "width", "15_width")["projections"]).assign(model=study.model)


def outcome_rows(study: Study, methods: Sequence[str] = METHODS) -> pd.DataFrame:
    """What is left about the forgotten people and what retained ones keep; columns of `contest.trade`.

    Of the methods that have been asked: a GPU may be lent for less than a study takes.
    """
    logs = [read_log(study.log_path(method)) for method in methods if study.log_path(method).is_file()]
    return trade(pd.concat(logs, ignore_index=True))


def side_by_side(studies: Mapping[str, Study]) -> dict[str, pd.DataFrame]:
    """`model_row`, `gate_rows` and `outcome_rows` of each study of one model, named `study`, narrowest first.

    Keys: `models, gates, outcomes`.
    """
    found: dict[str, list[pd.DataFrame]] = {"models": [], "gates": [], "outcomes": []}
    for name, study in studies.items():
        about = model_row(study)
        place = {"study": name, "model": study.model, "width": about["width"]}
        parts = {"models": pd.DataFrame([about]), "gates": gate_rows(study), "outcomes": outcome_rows(study)}
        for kind, rows in parts.items():
            found[kind].append(rows.assign(**place))
    return {kind: _ordered(pd.concat(rows, ignore_index=True)) for kind, rows in found.items()}


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    first = ["study", "model", "width"]
    rows = rows.sort_values("width", kind="stable", ignore_index=True)
    return rows[[*first, *(column for column in rows.columns if column not in first)]]


def _note(study: Study, name: str, notebook: str) -> dict[str, Any]:
    return study.read_note(name, made_by=f"notebook {notebook} of preset {study.preset} for {study.model}")
