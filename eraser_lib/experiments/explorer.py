"""The data of the book's explorer: gate values, thresholds, what was tried, and a sample of answers with portraits."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd
from PIL.Image import Image

from eraser_lib.bench.records import Question
from eraser_lib.experiments.rows import path
from eraser_lib.experiments.study import Study

SHOWN = {"test": 96, "retain": 48, "celebrity": 36, "stranger": 36}
"""Questions per subset that can be read, half of them with a portrait."""
LIMIT = 1_000_000
"""Bytes of the whole, so that the page stays light."""


def explorer_data(
    studies: Sequence[Study], logs: pd.DataFrame, sets: Mapping[str, Sequence[Question]]
) -> dict[str, Any]:
    """Everything that the page needs, as plain JSON below `LIMIT` bytes.

    Args:
        studies: one per model.
        logs: rows of all methods of one split.
        sets: the questions behind them, by subset.

    Returns:
        `models`: per model `groups` (gate values by subset), `thresholds` (by alpha), `pushes` (what was tried on the
        dev people), `blocks` (AUC by block and solver), `answers` (question id -> gate value, and the answers of
        vanilla, the corrected form and retain-only) and `doses` (method -> one entry per strength that 17_dose asked:
        shares and probabilities about the forgotten and the retained, and question id -> answer). `questions`: id ->
        subset, kind, text, right answer and place in `images`, which are JPEG in base64.
    """
    asked = set().union(*(_dosed(study)["id"] for study in studies))
    questions, images = _sample(sets, asked)
    return {
        "models": {
            study.model: _model(study, logs[logs["model"] == study.model], list(questions)) for study in studies
        },
        "questions": questions,
        "images": images,
    }


def _sample(sets: Mapping[str, Sequence[Question]], first: Collection[str]) -> tuple[dict[str, list[Any]], list[str]]:
    """Questions of every subset, those `first` that were asked at several strengths."""
    questions: dict[str, list[Any]] = {}
    images: list[str] = []
    for subset, count in SHOWN.items():
        for modality in ("vqa", "qa"):
            rows = [q for q in sets[subset] if q.task == "generation" and q.modality == modality]
            chosen = [q for q in rows if q.id in first][: count // 2]
            others, left = [q for q in rows if q.id not in first], count // 2 - len(chosen)
            step = max(1, len(others) // max(1, left))
            for question in (*chosen, *others[::step][:left]):
                place = None
                for image in question.prompt.images:
                    place = len(images)
                    images.append(_jpeg(image))
                questions[question.id] = [subset, modality, question.prompt.text, question.answer, place]
    return questions, images


def _jpeg(image: Image) -> str:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="JPEG", quality=70)
    return base64.b64encode(buffer.getvalue()).decode()


def _model(study: Study, logs: pd.DataFrame, ids: Sequence[str]) -> dict[str, Any]:
    own = logs[logs["method"] == "mllmeraser"]
    values = own.set_index("id")["gate_value"].astype(float)
    frontier = study.read_note("frontier", made_by=f"notebook 06_erase for {study.model}")["rows"]
    tried = study.read_note(f"selection-{study.split}", made_by=f"notebook 06_select for {study.model}")
    blocks = study.read_note("gate_auc", made_by=f"notebook 04_gate for {study.model}")["numbers"]
    said: dict[str, Any] = {}
    for method in ("vanilla", "mllmeraser", "retain_only"):
        rows = logs[(logs["method"] == method) & (logs["seed"] == 0)]
        said[method] = dict(zip(rows["id"], rows["output"], strict=True))
    push = ("direction", "layers", "scope", "strength", "refused", "forget_prob", "reentry")
    return {
        "groups": {
            subset: sorted(round(value, 3) for value in group["gate_value"].astype(float))
            for subset, group in own.groupby("subset", sort=False)
        },
        "thresholds": [{"alpha": row["alpha"], "threshold": row["threshold"]} for row in frontier],
        "decision": tried["choice"]["decision"], "push": tried["choice"]["push"],
        "pushes": [{name: _short(row[name]) for name in push} for row in tried["push"]],
        "blocks": [{"layer": b["layer"], "solver": b["solver"], "auc": _short(b["auc"])} for b in blocks],
        "answers": {
            key: [round(float(values[key]), 3), *(said[method].get(key) for method in said)]
            for key in ids if key in values.index
        },
        "doses": _doses(_dosed(study), ids),
    }  # fmt: skip


def _dosed(study: Study) -> pd.DataFrame:
    """Answers at several strengths; no rows where 17_dose did not run."""
    file = path(study, "dose_strength")
    if file.is_file():
        return pd.read_parquet(file)
    return pd.DataFrame(columns=["id", "method", "strength"])


def _doses(rows: pd.DataFrame, ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for method, strength in (
        rows[["method", "strength"]].drop_duplicates().sort_values("strength").itertuples(index=False)
    ):
        own = rows[(rows["method"] == method) & (rows["strength"] == strength)]
        times = float(own["times"].iloc[0])  # of the strength that was chosen
        gone, kept = own[own["set"] == "test"], own[own["set"] == "retain"]
        said = own[own["id"].isin(ids)]
        shares = {
            "refused": gone["refused"], "facts": gone.loc[gone["task"] == "generation", "recalled"],
            "gone": gone["answer_prob"], "kept": kept["answer_prob"], "kept_refused": kept["refused"],
        }  # fmt: skip
        found.setdefault(method, []).append({
            "strength": strength, "times": times, "said": dict(zip(said["id"], said["output"], strict=True)),
            **{name: _short(float(values.astype(float).mean())) for name, values in shares.items()},
        })  # fmt: skip
    return found


def _short(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value
