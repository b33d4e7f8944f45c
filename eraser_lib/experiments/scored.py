"""What the one score of the protocol says about gates and detectors, beside the share of prompts that they open.

The score asks that people erased for practice become as unlikely as strangers, and no more. Whatever opens for four
prompts in five gets there, so that most candidates score all but 1 and the score cannot tell them apart. The study
therefore takes what opens most, here checked against what the score itself would have taken.

What a prompt answers behind a gate is what it answers under the push where it opens, and vanilla's answer where it does
not: nothing is generated for a candidate, and a refusal of the detector leaves nothing, by convention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor

from eraser_lib.baselines.detector import RULES
from eraser_lib.bench.records import Question
from eraser_lib.evaluate.scores import selection_score
from eraser_lib.experiments import closed, curved, gates
from eraser_lib.experiments.activations import Activations, join
from eraser_lib.experiments.methods import Decision, Push, constant
from eraser_lib.experiments.selection import Dev
from eraser_lib.experiments.sets import dev_questions, practice_people
from eraser_lib.threshold import calibrate

NEAR = 0.01
"""Scores so near the best are level: what a stronger push must gain, and what a gate may lose for fewer curves."""


@dataclass(frozen=True)
class Candidate:
    """One way to recognise forgotten people."""

    kind: str
    """`gate`, `quadratic gate` or `detector`."""
    layers: tuple[int, ...]
    """Blocks whose outputs are read, joined."""
    rule: str
    """Solver of a gate, see `gates.fit_solver` and `curved.SOLVER`; rule of a detector."""

    def fit(
        self, fit: Mapping[str, Activations], rows: Mapping[str, Sequence[Question]]
    ) -> Callable[[Activations], Tensor]:
        """What maps activations of prompts to scores `(N,)`; `fit`, `rows`: activations and questions by set."""
        if self.kind == "detector":
            detector = RULES[self.rule](*(join(fit[name], self.layers) for name in ("forget", "retain")))
            return lambda read: detector(join(read, self.layers))
        if self.kind == "gate":
            gate = gates.fit_joined(self.rule, fit, rows, self.layers)
        else:
            gate = curved.fit_gate(Decision(self.layers, self.rule), fit)
        return lambda read: gates.gate_values(gate, join(read, self.layers))


def candidates(blocks: int, width: int, curves: int) -> list[Candidate]:
    """Every gate of 06_select, every detector of 09_closed that reads blocks, and a quadratic gate at each reading.

    `blocks` and `width` of the model; `curves`: squares of the quadratic gates, at most as many as a reading is wide.
    """
    linear = [Candidate("gate", layers, solver) for layers, solver in gates.candidates(blocks)]
    squares = [
        Candidate("quadratic gate", layers, f"{curved.SOLVER}{min(curves, width * len(layers))}")
        for layers in gates.readings(blocks)
    ]
    return linear + squares + [Candidate("detector", *pair) for pair in closed.detectors(blocks) if pair[0]]


@dataclass(frozen=True)
class Answers:
    """Probabilities of the right answers to some prompts, each `(N,)`."""

    vanilla: Tensor
    pushed: Tensor
    """With the push that opens for everybody."""

    def behind(self, opened: Tensor, *, canned: bool) -> float:
        """Their mean where the prompts `opened`, bool `(N,)`, are pushed, or refused with a canned sentence."""
        said = torch.zeros_like(self.pushed) if canned else self.pushed
        return float(torch.where(opened, said, self.vanilla).mean())


def ask(dev: Dev, push: Push) -> tuple[list[Answers], Answers]:
    """Ask about the people of every rehearsal in unseen views and wordings, and about people who stay."""
    study = dev.study
    eraser = constant(push, dev.directions, dev.directions.get("answer"))
    ways: tuple[dict[str, Any], ...] = ({}, {"context": dev.attach(eraser)})
    groups = practice_people(study.world, study.split)
    rows = [dev.forget, *(dev_questions(study.world_folder, group, size=study.sizes.select) for group in groups)]

    def answers(questions: list[Question]) -> Answers:
        logs = (study.quick(questions, study.vanilla, **how) for how in ways)
        return Answers(*(torch.tensor(log["answer_prob"].astype(float).to_numpy()) for log in logs))

    return [answers(questions) for questions in rows], answers(dev.kept)


def scored(
    dev: Dev, tried: Iterable[Candidate], asked: tuple[Sequence[Answers], Answers], *,
    fit: Mapping[str, Sequence[Question]], read: Mapping[str, Mapping[str, Activations]], alpha: float,
) -> pd.DataFrame:  # fmt: skip
    """One row per candidate: its score in practice, what it opens there, and what it opens of the people in earnest.

    Args:
        dev: the rehearsals.
        tried: the candidates.
        asked: of `ask`.
        fit: questions of the fit in earnest, sets `forget` and `retain`.
        read: activations by role and set, as notebook 04_gate leaves them.
        alpha: tolerated share of prompts opened among those of the calibration.

    Returns:
        Columns `kind, layers, rule, score` and `score_least` (mean and least over the rehearsals), `opened,
        kept_opened` (in practice), `test, retain` (shares opened in earnest), best first: by score, then by `opened`.
    """
    rows = []
    about, kept = asked
    for one in tried:
        found: list[dict[str, float]] = []
        for rehearsal, answers in zip(dev.rehearsals, about, strict=True):
            values = one.fit(rehearsal.fit, rehearsal.rows)
            threshold = _threshold(values, dev.activations["calibrate"], alpha)
            gone, stay = values(rehearsal.unseen) > threshold, values(dev.activations["select"]["kept"]) > threshold
            canned = one.kind == "detector"
            score = selection_score(
                forget_vanilla=float(answers.vanilla.mean()), forget_method=answers.behind(gone, canned=canned),
                forget_stranger=dev.baseline["stranger"], kept_method=kept.behind(stay, canned=canned),
                kept_vanilla=float(kept.vanilla.mean()),
            )  # fmt: skip
            found.append({"score": score, "opened": _share(gone), "kept_opened": _share(stay)})
        table = pd.DataFrame(found)
        values = one.fit(read["fit"], fit)
        threshold = _threshold(values, read["calibrate"], alpha)
        earnest = {name: _share(values(read["test"][name]) > threshold) for name in ("test", "retain")}
        practice: dict[str, float] = {str(name): float(mean) for name, mean in table.mean().items()}
        row: dict[str, Any] = {**vars(one), **practice, "score_least": float(table["score"].min()), **earnest}
        rows.append(row)
    return pd.DataFrame(rows).sort_values(["score", "opened"], ascending=False, kind="stable", ignore_index=True)


def _threshold(values: Callable[[Activations], Tensor], groups: Mapping[str, Activations], alpha: float) -> float:
    return calibrate({name: values(rows) for name, rows in groups.items()}, alpha).value


def _share(opened: Tensor) -> float:
    return float(opened.double().mean())


def chosen(table: pd.DataFrame) -> pd.DataFrame:
    """One row per kind and rule of choice: what the score takes, and what opens most.

    `by`: `score` (of equal ones what opens most), or `opened`, among those whose score is level with the best. Columns
    `kind, by, candidates, level` (how many are within `NEAR` of the best score), `blocks`, those of `scored`, and the
    rank correlation over candidates of what the choice looks at with what opens in earnest, `rank`.
    """
    rows: list[dict[str, Any]] = []
    for kind, own in table.groupby("kind", sort=False):
        level = own[own["score"] >= own["score"].max() - NEAR]
        picks = {"score": own.iloc[0], "opened": level.sort_values("opened", ascending=False, kind="stable").iloc[0]}
        for by, pick in picks.items():
            varies = own[by].nunique() > 1 and own["test"].nunique() > 1
            rank = float(spearmanr(own[by], own["test"]).statistic) if varies else None
            about = {"kind": kind, "by": by, "candidates": len(own), "level": len(level), "rank": rank}
            rows.append({**pick.to_dict(), **about, "blocks": "+".join(map(str, pick["layers"]))})
    return pd.DataFrame(rows).drop(columns="layers")
