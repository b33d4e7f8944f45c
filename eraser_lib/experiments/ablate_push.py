"""Ablations of what is added and of how gates at several blocks are fitted. Nothing is chosen here.

All are measured on the forgotten people's test prompts. What an opened prompt answers does not depend on the gate, so
the push is tried without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pandas as pd
from torch import Tensor

from eraser_lib import Direction, Eraser, HookSite, Moments
from eraser_lib.bench.records import Question
from eraser_lib.direction import contrast
from eraser_lib.evaluate.separation import auc
from eraser_lib.experiments.activations import of_questions, read_activations
from eraser_lib.experiments.gates import fit_gate, gate_values
from eraser_lib.experiments.methods import Push, constant, published
from eraser_lib.experiments.outcomes import outcomes, over_people
from eraser_lib.experiments.sets import person_rows
from eraser_lib.experiments.study import Study
from eraser_lib.gate import Gate

DIRECTIONS = ("instruction", "multimodal", "text", "image", "unknown")
STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


def unknown_direction(study: Study, *, rows: int = 4) -> Direction:
    """ "I do not know": questions about people whom no model has seen, minus the same kind about people it knows.

    At the last prompt token, at the output of every block. `rows`: questions per person, in wordings of the fit.
    """
    world = study.world
    strangers = world.population.of_kind("stranger")
    known = world.roles(study.split)["fit"]
    count = min(len(strangers), len(known))
    sides = [person_rows(people[:count], "stranger", "fit", rows=rows) for people in (strangers, known)]
    read = of_questions(study.vanilla, dict(zip(("strangers", "known"), sides, strict=True)))
    return contrast(read["strangers"], read["known"])


def pushed(
    study: Study, questions: Sequence[Question], directions: Mapping[str, Direction], push: Push,
    *, names: Iterable[str] = DIRECTIONS, strengths: Iterable[float] = STRENGTHS,
) -> pd.DataFrame:  # fmt: skip
    """Every direction at every strength, at the blocks of `push`: one row per answer, see `outcomes.outcomes`, with
    columns `direction, strength`."""
    rows = []
    options = study.fluency()
    for name in names:
        for strength in strengths:
            # generated tokens are pushed by prompt directions only: a direction for answers exists for one of them
            eraser = constant(Push(name, push.layers, strength, "prompt"), dict(directions))
            log = study.quick(list(questions), study.vanilla, context=study.attach(eraser), **options)
            rows.append(outcomes(log, questions, direction=name, strength=strength))
    return pd.concat(rows, ignore_index=True)


def one_or_many(table: pd.DataFrame, strength: float) -> pd.DataFrame:
    """One strength for all tasks against the best one of each, seen on the very prompts: a bound on what more can gain.

    `table`: shares of `pushed` by strength and task, one direction; `strength`: that of the study, the nearest one
    tried is taken. The measure is that of the selection: share refused minus answer probability.

    Columns: `task, strength, measure, best_strength, best_measure`, and the intervals of the measures where the table
    has them.
    """
    table = table.assign(measure=table["refused"] - table["answer_prob"])
    ends = [name for name in ("measure_low", "measure_high") if name in table]
    taken = min(table["strength"].unique(), key=lambda tried: abs(tried - strength))
    rows = []
    for task, own in table.groupby("task", sort=False):
        best = own.iloc[int(own["measure"].to_numpy().argmax())]
        (one,) = own[own["strength"] == taken].to_dict("records")
        rows.append({"task": task, "strength": taken, "best_strength": best["strength"]})
        rows[-1] |= {name: one[name] for name in ("measure", *ends)}
        rows[-1] |= {f"best_{name}": best[name] for name in ("measure", *ends)}
    return pd.DataFrame(rows)


def sequential(study: Study, fit: Mapping[str, Sequence[Question]], direction: Direction, strength: float) -> Eraser:
    """The published form, each gate fitted on streams that the gates before it have already steered.

    The public code fits all gates on the unsteered model, in parallel, and then runs them together, where each reads a
    stream that none of them was fitted on. `fit`: questions, `forget` and `retain`.
    """
    gates: dict[HookSite, Gate] = {}
    vectors: dict[HookSite, Tensor] = {}
    both = [*fit["forget"], *fit["retain"]]
    for before, site in zip(direction.sites, direction.sites[1:], strict=False):
        read = _steered(study, vectors, gates, strength, both, before)
        forget, retain = read[: len(fit["forget"])], read[len(fit["forget"]) :]
        gates[site] = fit_gate("published", forget, Moments.of(retain.double()))
        vectors[site] = direction[before].float()[None]
    return Eraser(directions=vectors, gates=gates, strength=strength, mode="published")


def last_values(study: Study, eraser: Eraser, questions: Sequence[Question]) -> Tensor:
    """Value of an eraser's last gate at the last prompt token, `(N,)`, on the stream that the gates before it steer."""
    *others, site = eraser.sites
    vectors, gates = {s: eraser.directions[s] for s in others}, {s: eraser.gates[s] for s in others}
    before = HookSite(site.layer - 1, "output")
    return gate_values(eraser.gates[site], _steered(study, vectors, gates, eraser.strength, questions, before))


def _steered(
    study: Study, vectors: Mapping[HookSite, Tensor], gates: Mapping[HookSite, Gate], strength: float,
    questions: Sequence[Question], site: HookSite,
) -> Tensor:  # fmt: skip
    """The stream at one site, `(N, d)`, under gates and directions of the published form; none is vanilla."""
    context: AbstractContextManager[Any] = nullcontext()
    if gates:
        eraser = Eraser(directions=vectors, gates=gates, strength=strength, mode="published")
        context = eraser.attach(study.vanilla.model)
    with context:
        return read_activations(study.vanilla, [row.prompt for row in questions], sites=[site])[site]


def fitting_order(
    study: Study, fit: Mapping[str, Sequence[Question]], direction: Direction,
    sets: Mapping[str, Sequence[Question]], strengths: Iterable[float],
) -> pd.DataFrame:  # fmt: skip
    """Gates of the published form fitted in parallel or one after another, run on the same prompts.

    `fit`: questions, `forget` and `retain`; `sets`: test questions, `test` of the forgotten and `retain` of others.

    One row per answer, see `outcomes.outcomes`, with columns `order, strength, set, refused`, and `value`, what the
    last gate says in the run.
    """
    plain = of_questions(study.vanilla, fit)
    rows = []
    for strength in strengths:
        erasers = {
            "parallel": published(plain["forget"], plain["retain"], direction, strength),
            "sequential": sequential(study, fit, direction, strength),
        }
        for order, eraser in erasers.items():
            for name, questions in sets.items():
                log = study.quick(list(questions), study.vanilla, context=study.attach(eraser))
                answers = outcomes(log, questions, order=order, strength=strength, set=name)
                refused = log["refusal"].astype(float)
                rows.append(answers.assign(refused=refused, value=last_values(study, eraser, questions).numpy()))
    return pd.concat(rows, ignore_index=True)


def by_order(answers: pd.DataFrame) -> pd.DataFrame:
    """What `fitting_order` found, in one row per order and strength.

    Columns: `order, strength`, for either set the mean `<set>_prob` of the right answer and `<set>_refused`, with
    intervals over people, and `auc` of the last gate's values between the two.
    """
    rows = []
    for (order, strength), run in answers.groupby(["order", "strength"], sort=False):
        row: dict[str, Any] = {"order": order, "strength": strength}
        for name, own in run.groupby("set", sort=False):
            (shares,) = over_people(own, ["set"], ("answer_prob", "refused")).to_dict("records")
            short = {"answer_prob": f"{name}_prob", "refused": f"{name}_refused"}
            row |= {to + end: shares[of + end] for of, to in short.items() for end in ("", "_low", "_high")}
        values = {name: own["value"].to_numpy() for name, own in run.groupby("set")}
        rows.append({**row, "auc": auc(values["test"], values["retain"])})
    return pd.DataFrame(rows)
