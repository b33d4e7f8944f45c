"""The dev people as every method meets them: rows to fit on, rows to be judged by, and the one score."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from eraser_lib.bench.records import Question
from eraser_lib.evaluate.scores import selection_score
from eraser_lib.experiments.sets import dev_questions, fit_sets, kept_select_questions, stranger_questions
from eraser_lib.experiments.study import Study
from eraser_lib.families import Loaded


@dataclass
class DevRows:
    """Dev people erased, other retained people kept."""

    study: Study
    fit: dict[str, list[Question]]
    """Questions of the fit: `forget`, `retain`."""
    forget: list[Question]
    kept: list[Question]
    baseline: dict[str, float]
    """Mean answer probability of vanilla on dev, kept and stranger rows; where a benchmark has no strangers, that of
    a model that has met nobody (branch `base`) on the dev rows."""

    def score(self, **options: Any) -> dict[str, float]:
        """Selection score of a method and the rates that explain it; `options` as for `Study.quick`."""
        loaded: Loaded = options.pop("loaded", self.study.vanilla)
        log = self.study.quick([*self.forget, *self.kept], loaded, **options)
        gone, kept = log[log["subset"] == "dev"], log[log["subset"] != "dev"]
        score = selection_score(
            forget_vanilla=self.baseline["dev"],
            forget_method=gone["answer_prob"].mean(),
            forget_stranger=self.baseline["stranger"],
            kept_method=kept["answer_prob"].mean(),
            kept_vanilla=self.baseline["kept"],
        )
        return {
            "score": score,
            "forget_prob": float(gone["answer_prob"].mean()),
            "kept_prob": float(kept["answer_prob"].mean()),
            "refused": float(gone["refusal"].astype(float).mean()),
            "kept_refused": float(kept["refusal"].astype(float).mean()),
            "gibberish": float(gone["gibberish"].astype(float).mean()),
            "kept_gibberish": float(kept["gibberish"].astype(float).mean()),
            "recalled": float(gone["fact_recall"].astype(float).mean()),
        }

    def attach(self, eraser: Any) -> Any:
        """A context factory for `score`, of whatever has `attach(model)`."""

        def context() -> AbstractContextManager[Any]:
            return eraser.attach(self.study.vanilla.model)

        return context


def open_rows(study: Study) -> DevRows:
    """Draw the rows and ask vanilla about them."""
    people = study.world.population.by_id(study.world.population.dev)
    fit = fit_sets(study.world, study.split, forget=people, per_person=study.sizes.per_person)
    forget = dev_questions(study.world_folder, people, size=study.sizes.select)
    kept = kept_select_questions(study.world, study.split, size=study.sizes.select)
    strangers = stranger_questions(study.world_folder, size=study.sizes.select)
    asked = {"dev": (forget, study.vanilla), "kept": (kept, study.vanilla)}
    asked["stranger"] = (strangers, study.vanilla) if strangers else (forget, study.load("base"))
    baseline = {name: float(study.quick(rows, model)["answer_prob"].mean()) for name, (rows, model) in asked.items()}
    return DevRows(study, fit, forget, kept, baseline)
