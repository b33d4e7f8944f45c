"""Trained baselines: their grids, and the choice of hyper-parameters on the dev people."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, product
from typing import Any, TypeVar

import pandas as pd

from eraser_lib.baselines.ga import GA
from eraser_lib.baselines.ga_diff import GADiff
from eraser_lib.baselines.idk import Idk
from eraser_lib.baselines.kl_min import KLMin
from eraser_lib.baselines.low_rank import LowRank
from eraser_lib.baselines.mmunlearner import MMUnlearner
from eraser_lib.baselines.npo import NPO
from eraser_lib.baselines.rmu import RMU
from eraser_lib.baselines.training import Objective, TrainConfig, unlearn
from eraser_lib.baselines.undial import Undial
from eraser_lib.experiments.collapse import judged
from eraser_lib.experiments.dev import DevRows
from eraser_lib.experiments.sets import stratified
from eraser_lib.experiments.study import Study
from eraser_lib.families import Loaded
from eraser_lib.study.kept import kept

T = TypeVar("T")

OBJECTIVES: dict[str, tuple[Objective, ...]] = {
    "ga": (GA(),),
    "ga_diff": (GADiff(1.0), GADiff(0.5), GADiff(2.0)),
    "kl_min": (KLMin(1.0), KLMin(0.5), KLMin(2.0)),
    "npo": (NPO(0.1), NPO(0.05), NPO(0.2), NPO(0.5)),
    "idk": (Idk(lam=1.0), Idk(lam=0.5), Idk(lam=2.0)),
    "undial": (Undial(10.0, 1.0), Undial(3.0, 1.0), Undial(30.0, 1.0), Undial(10.0, 0.0)),
    "rmu": (RMU(0.5, 8.0, 1.0), RMU(0.35, 8.0, 1.0), RMU(0.5, 2.0, 1.0), RMU(0.5, 8.0, 10.0)),
    "mmunlearner": (MMUnlearner(1.0), MMUnlearner(0.5), MMUnlearner(2.0)),
}
"""Method -> the hyper-parameters tried: the first is where the search begins, each other one differs from it once."""


def _ladders(kind: type[Objective], **values: tuple[float, ...]) -> tuple[tuple[Objective, ...], ...]:
    """Every line through the product of the values that runs along one of them."""
    lines: list[tuple[Objective, ...]] = []
    for name, steps in values.items():
        others = {other: value for other, value in values.items() if other != name}
        for rest in product(*others.values()):
            fixed = dict(zip(others, rest, strict=True))
            lines.append(tuple(kind(**fixed, **{name: step}) for step in steps))
    return tuple(lines)


WEIGHTS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
LADDERS: dict[str, tuple[tuple[Objective, ...], ...]] = {
    "ga_diff": _ladders(GADiff, lam=WEIGHTS),
    "kl_min": _ladders(KLMin, alpha=WEIGHTS),
    "npo": _ladders(NPO, beta=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)),
    "idk": _ladders(Idk, lam=WEIGHTS),
    "undial": _ladders(Undial, gamma=(1.0, 3.0, 10.0, 30.0, 100.0), lam=(0.0, 1.0, 4.0, 16.0)),
    "rmu": _ladders(
        RMU, depth=(0.2, 0.35, 0.5, 0.65, 0.8), scale=(0.5, 2.0, 8.0, 32.0, 128.0), alpha=(0.1, 1.0, 10.0, 100.0)
    ),
    "mmunlearner": _ladders(MMUnlearner, threshold=WEIGHTS, lam=(0.25, 1.0, 4.0, 16.0)),
}
"""Method -> lines of hyper-parameters, each in order of the one weight that they differ in. The search leaves its grid
along them for as long as the best lies at the edge of what was tried, so that a published grid does not hold a method
back."""
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""Learning rates that the search may reach; it begins with `START`."""
START = (1e-4, 3e-4, 1e-3)
AT_EVERY_RATE = ("ga_diff", "kl_min")
"""Methods whose weight is followed at each of the rates that a search begins with, since a larger rate wants a larger
one. The searches of the others follow it at the rate of their best alone, and pass by what another rate has tried."""
STOPS = (20, 40, 80, 120)
"""Steps after which a training is looked at; 120 are one pass over all forget rows of ten people."""
DROP = 0.05
"""A training whose score has fallen this far below its best ends: from there on it only does more harm."""


def objectives(method: str, *, lora: int = 0) -> tuple[Objective, ...]:
    """The grid of a method, trained through LoRA adapters of rank `lora` where that is not 0.

    `ValueError` for a method that is not trained, with the names of those that are.
    """
    if method not in OBJECTIVES:
        raise ValueError(f"method is {method!r}; trained baselines are {', '.join(OBJECTIVES)}")
    return _adapted(OBJECTIVES[method], lora)


def ladder(method: str, *, lora: int = 0) -> tuple[tuple[Objective, ...], ...]:
    """Where the search may leave the grid; empty for a method that has no ladder."""
    return tuple(_adapted(line, lora) for line in LADDERS.get(method, ()))


def objective(method: str, settings: str, *, lora: int = 0) -> Objective:
    """The objective that `tune` calls `settings`. `ValueError` where the method has none such."""
    found = {str(one): one for one in chain(objectives(method, lora=lora), *ladder(method, lora=lora))}
    if settings not in found:
        raise ValueError(f"{method} has no setting {settings}; it has {', '.join(found)}. Run 08_tune again")
    return found[settings]


def _adapted(grid: tuple[Objective, ...], lora: int) -> tuple[Objective, ...]:
    return tuple(LowRank(loss, lora) for loss in grid) if lora else grid  # type: ignore[arg-type]  # it checks


def tune(
    dev: DevRows,
    grid: Sequence[Objective],
    *,
    ladder: Sequence[Sequence[Objective]] = (),
    start: Sequence[float] = START,
    rates: Sequence[float] = RATES,
    stops: Sequence[int] = STOPS,
) -> pd.DataFrame:
    """Search hyper-parameters, rate and number of steps on the dev people.

    The first objective is trained at the rates `start`, the others at the rate that served it best. Then the search
    goes on from the best of all, outwards, for as long as it lies at the edge of the rates tried with it, or of the
    objectives tried along a line of `ladder`; for methods that are `AT_EVERY_RATE`, of those tried at its rate, and
    from the best at each rate of `start` as well. Every training passes the forget rows at most once and is scored at
    `stops`, so that each row of the table is a training that ends there. A search that was stopped goes on after its
    last training.

    Columns: `settings` (the objective in words), `lr`, `steps`, `collapsed`, `seconds` (of training), and those of
    `DevRows.score`, best first. A method's best point that has not collapsed is the first row where `collapsed` is
    false.
    """
    rows: list[dict[str, Any]] = []
    known = {str(objective): objective for objective in chain(grid, *ladder)}
    lines = [[str(objective) for objective in line] for line in ladder]

    def run(objective: str, rate: float) -> None:
        rows.extend(kept(f"{objective} at {rate:g}", lambda: watched(dev, known[objective], rate, stops)))

    first, *others = (str(objective) for objective in grid)
    for rate in start:
        run(first, rate)
    for objective in others:
        run(objective, _best(rows, settings=first)["lr"])
    everywhere = grid[0].name in AT_EVERY_RATE
    while True:
        best = _best(rows)
        tried = {row["lr"] for row in rows if row["settings"] == best["settings"]}
        further = [(best["settings"], beside) for beside in _beside(rates, best["lr"]) if beside not in tried]
        for leader in (best, *(_best(rows, lr=rate) for rate in start if everywhere)):
            seen = {row["settings"] for row in rows if row["lr"] == leader["lr"] or not everywhere}
            beside = chain.from_iterable(_beside(line, leader["settings"]) for line in lines)
            further += [(one, leader["lr"]) for one in beside if one not in seen]
        if not further:
            break
        for point in dict.fromkeys(further):
            run(*point)
    return pd.DataFrame(rows).sort_values("score", ascending=False, kind="stable", ignore_index=True)


def _beside(places: Sequence[T], value: T) -> list[T]:
    """What lies next to a value, on either side: nothing where it is not among the places."""
    at = places.index(value) if value in places else None
    return [] if at is None else [places[k] for k in (at - 1, at + 1) if 0 <= k < len(places)]


def _best(rows: Sequence[dict[str, Any]], **where: Any) -> dict[str, Any]:
    return max((row for row in rows if all(row[k] == v for k, v in where.items())), key=lambda row: row["score"])


def watched(
    dev: DevRows, objective: Objective, rate: float, stops: Sequence[int], *, epochs: int = 1
) -> list[dict[str, Any]]:
    """One training on the dev people, scored at every stop: rows of `tune`, not judged against one another.

    `epochs`: passes over the forget rows, which the last stop may take.
    """
    rows: list[dict[str, Any]] = []
    clock = {"began": time.perf_counter(), "looked": 0.0}

    def look(step: int, model: Loaded) -> bool:
        if step not in stops:
            return False
        seconds = time.perf_counter() - clock["began"] - clock["looked"]
        score = judged(dev.score(loaded=model))
        clock["looked"] = time.perf_counter() - clock["began"] - seconds
        rows.append({"settings": str(objective), "lr": rate, "steps": step, "seconds": seconds, **score})
        return step == stops[-1] or score["score"] < max(row["score"] for row in rows) - DROP

    study = dev.study
    forget = stratified(dev.fit["forget"], study.sizes.train)
    config = TrainConfig(lr=rate, steps=stops[-1], epochs=epochs, seed=study.seed)
    unlearn(study.vanilla, forget, dev.fit["retain"], objective, config, watch=look)
    return rows


def choice(table: pd.DataFrame, *, fluent: bool = False) -> dict[str, Any] | None:
    """Settings, rate and steps of the best row of `tune`, or of the best not collapsed: `None` if all have."""
    rows = table[~table["collapsed"]] if fluent else table
    if rows.empty:
        return None
    best = rows.iloc[0]
    return {"settings": str(best["settings"]), "lr": float(best["lr"]), "steps": int(best["steps"])}


def read_choice(study: Study, method: str) -> dict[str, Any]:
    """What notebook 08_tune chose for this model. `FileNotFoundError` where it has not run."""
    found: dict[str, Any] = replace(study, split=5).read_note(
        f"tuning-{method}", made_by=f"notebook 08_tune for {study.model} and {method}"
    )
    best: dict[str, Any] = found["choice"]["best"]
    return best
