"""The check that comes before everything else: added to benign prompts, the direction must make the model refuse."""

from __future__ import annotations

import pandas as pd

from eraser_lib.direction import Direction
from eraser_lib.evaluate.stats import wilson
from eraser_lib.experiments.methods import STRENGTHS, Push, constant
from eraser_lib.experiments.sets import request_questions
from eraser_lib.experiments.study import Study


def benign_refusals(study: Study, directions: dict[str, Direction], *, count: int = 40) -> pd.DataFrame:
    """Refusal and gibberish rates on benign requests over strength, per direction, at all blocks but the last.

    Columns: `strength, series, value, ci_low, ci_high`, as `figures.strength_curve` takes them, with the direction and
    the metric behind each series; intervals are Wilson's.
    """
    questions = request_questions(min(count, 4 * study.sizes.select), "select", bad=False)
    rows = []
    for name in ("multimodal", "text", "image", "instruction"):
        layers = tuple(site.layer for site in directions[name].sites[:-1])
        for strength in STRENGTHS:
            eraser = constant(Push(name, layers, strength), directions)
            model = study.vanilla.model
            log = study.quick(
                questions, study.vanilla, context=lambda eraser=eraser, model=model: eraser.attach(model), forced=False
            )
            for metric in ("refusal", "gibberish"):
                hits = int(log[metric].astype(bool).sum())
                low, high = wilson(hits, len(log))
                rows.append({
                    "strength": strength, "series": f"{name}, {metric}", "value": hits / len(log), "ci_low": low,
                    "ci_high": high, "direction": name, "metric": f"{metric}_rate", "n": len(log),
                })  # fmt: skip
    return pd.DataFrame(rows)
