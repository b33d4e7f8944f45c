"""The corrected form behind a quadratic gate: how many curves does recognition need, and what is erased with them?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from eraser_lib.evaluate.separation import auc
from eraser_lib.experiments.activations import Activations, join
from eraser_lib.experiments.gates import gate_values
from eraser_lib.experiments.methods import Decision
from eraser_lib.experiments.selection import Dev
from eraser_lib.experiments.study import Study, read_choice
from eraser_lib.precision import workbench
from eraser_lib.quadratic import Discriminant, QuadraticGate, discriminant
from eraser_lib.threshold import calibrate

METHOD = "mllmeraser_quadratic"
SOLVER = "gaussian:"
"""Before the number of curves: the solver's name in a decision."""
NEAR = 0.01
"""A gate with fewer curves that opens this much less than the best is taken: it stores less and reads less."""


def counts(width: int) -> list[int]:
    """Numbers of curves to try on a stream of this width: none, powers of two, and all."""
    return [0, *(2**power for power in range(width.bit_length()) if 2**power < width), width]


def reading(detectors: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    """Blocks whose outputs serve two Gaussians best on the practice people, of the detectors that 09_closed tried.

    `detectors`: its rows, best first. `ValueError` where no Gaussian on blocks is among them.
    """
    for row in detectors:
        if row["rule"] == "Gaussian" and row["layers"]:
            return tuple(row["layers"])
    raise ValueError("09_closed tried no Gaussian on the outputs of blocks; run it again with all its rules")


def chosen(study: Study) -> Decision:
    """The quadratic gate that notebook 18_quadratic chose. `FileNotFoundError` where it has not run."""
    note = study.read_note("quadratic", made_by=f"notebook 18_quadratic for {study.model} at {study.split} %")
    alpha = read_choice(study)["decision"]["alpha"]
    return Decision(tuple(note["layers"]), f"{SOLVER}{note['curves']}", alpha)


def fit_gate(decision: Decision, fit: Mapping[str, Activations]) -> QuadraticGate:
    """The gate of a decision with the solver `SOLVER` and a number of curves; `fit` as for `told_apart`."""
    return told_apart(fit, decision.layers).gate(int(decision.solver.removeprefix(SOLVER)))


def told_apart(fit: Mapping[str, Activations], layers: Sequence[int]) -> Discriminant:
    """Two Gaussians on the joined outputs of `layers`. `fit`: activations of the sets `forget` and `retain`."""
    forget, retain = (join(fit[name], layers) for name in ("forget", "retain"))
    place = workbench(forget.shape[1])
    found = discriminant(forget.to(place), retain.to(place))
    return Discriminant(*(value.cpu() for value in vars(found).values()))


def practised(dev: Dev, layers: Sequence[int], numbers: Sequence[int], *, alpha: float) -> pd.DataFrame:
    """What gates with so many curves open of people erased for practice, at a calibrated threshold.

    Means over the rehearsals: `curves, opened, opened_least, kept_opened, auc`, fewest curves first.
    """
    rows = [
        {"curves": number, **row}
        for rehearsal in dev.rehearsals
        for number, gate in _gates(rehearsal.fit, layers, numbers)
        for asked in [{"test": rehearsal.unseen, "retain": dev.activations["select"]["kept"]}]
        for row in [opened(gate, layers, dev.activations["calibrate"], asked, alpha=alpha)]
    ]
    found = pd.DataFrame(rows).rename(columns={"test": "opened", "retain": "kept_opened"})
    means = found.groupby("curves", sort=True)[["opened", "kept_opened", "auc"]].mean()
    return means.assign(opened_least=found.groupby("curves")["opened"].min()).reset_index()


def fewest(table: pd.DataFrame) -> int:
    """The smallest number of curves whose gate opens within `NEAR` of the one that opens most; see `practised`."""
    enough = table["opened"] >= table["opened"].max() - NEAR
    return int(table.loc[enough, "curves"].min())


def tested(
    read: Mapping[str, Mapping[str, Activations]], layers: Sequence[int], numbers: Sequence[int], *, alpha: float
) -> pd.DataFrame:
    """Share of prompts that gates with so many curves open in every set of `read["test"]`; nothing is chosen here.

    `read`: activations by role and set, as notebook 04_gate leaves them.
    """
    asked = {name: rows for name, rows in read["test"].items() if len(next(iter(rows.values())))}
    return pd.DataFrame([
        {"curves": number, **opened(gate, layers, read["calibrate"], asked, alpha=alpha)}
        for number, gate in _gates(read["fit"], layers, numbers)
    ])  # fmt: skip


def opened(
    gate: QuadraticGate, layers: Sequence[int], calibration: Mapping[str, Activations],
    asked: Mapping[str, Activations], *, alpha: float,
) -> dict[str, float]:  # fmt: skip
    """Set of prompts -> share opened at a calibrated threshold; and `auc` of the set `test` against `retain`."""
    groups = {name: gate_values(gate, join(rows, layers)) for name, rows in calibration.items()}
    threshold = calibrate(groups, alpha).value
    values = {name: gate_values(gate, join(rows, layers)) for name, rows in asked.items()}
    shares = {name: float((found > threshold).double().mean()) for name, found in values.items()}
    return {**shares, "auc": auc(values["test"].numpy(), values["retain"].numpy())}


def _gates(
    fit: Mapping[str, Activations], layers: Sequence[int], numbers: Sequence[int]
) -> Iterator[tuple[int, QuadraticGate]]:
    """Gates with so many curves each, of one fit."""
    found = told_apart(fit, layers)
    for number in numbers:
        yield number, found.gate(number)
