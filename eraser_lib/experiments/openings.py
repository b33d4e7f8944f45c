"""The ablations of the gate, prompt by prompt: rows to trace their numbers to, and intervals over people.

`ablate` and `ablate_width` give rates. Here the same gates are fitted and calibrated once more on the same activations,
and what each says to each prompt is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from eraser_lib.bench.records import Question
from eraser_lib.evaluate.separation import auc, auc_interval
from eraser_lib.experiments import curved, gates
from eraser_lib.experiments.ablate import Bench
from eraser_lib.experiments.ablate_width import _judged, narrowed, random_basis
from eraser_lib.experiments.activations import Activations, join
from eraser_lib.experiments.methods import Decision
from eraser_lib.experiments.outcomes import over_people
from eraser_lib.gate import Gate
from eraser_lib.sites import HookSite
from eraser_lib.threshold import calibrate

OTHERS = ("retain", "celebrity")
"""Subsets that the forgotten people's test prompts are told apart from, as `Bench.judge` does."""


@dataclass(frozen=True)
class Recorder(Bench):
    """A bench that writes down what every gate says to every prompt."""

    asked: Mapping[str, Sequence[Question]] = field(default_factory=dict)
    """The questions behind `read["test"]` by subset, of those subsets that are to be written down."""
    found: list[pd.DataFrame] = field(default_factory=list)

    def judge(self, gate: Gate, layers: Sequence[int], **about: Any) -> dict[str, Any]:
        """See `Bench.judge`; adds a table to `found`: `about`, and `id, person, modality, task, subset, gate_value,
        opened`."""
        scores = {group: gates.gate_values(gate, join(read, layers)) for group, read in self.read["calibrate"].items()}
        threshold = calibrate(scores, self.alpha).value
        for subset, asked in self.asked.items():
            values = gates.gate_values(gate, join(self.read["test"][subset], layers))
            opened = (values > threshold).numpy()
            table = _asked(asked).assign(subset=subset, gate_value=values.float().numpy(), opened=opened)
            self.found.append(table.assign(**about)[[*about, *table]])
        return super().judge(gate, layers, **about)

    def recorded(self) -> pd.DataFrame:
        """All that was written down."""
        return pd.concat(self.found, ignore_index=True)


def record_widths(
    bench: Recorder, decision: Decision, *, widths: Sequence[int], people: Sequence[int], seeds: int = 3
) -> pd.DataFrame:
    """The gates of `ablate_width.width_table`, at `widths` below that of the stream and at its own.

    Columns: `solver, width, people, seed, free`, and those of `Recorder.judge`.
    """
    size = bench.read["fit"]["retain"][HookSite(decision.layers[-1], "output")].shape[1]
    drawn = [(width, seed) for width in widths if width < size for seed in range(seeds)]
    for width, seed in [*drawn, (size, 0)]:
        basis = None if width == size else random_basis(size, width, seed=seed)
        for count in people:
            small = narrowed(bench, decision.layers, basis, count)
            recorder = Recorder(small.read, small.rows, small.alpha, bench.asked, bench.found)
            # its private judge, so that these are the same gates
            _judged(recorder, decision, {"width": width, "people": count, "seed": seed})
    return bench.recorded()


def record_curves(bench: Recorder, layers: Sequence[int], numbers: Sequence[int]) -> pd.DataFrame:
    """Quadratic gates with so many curves on the joined outputs of `layers`, see `curved.tested`; column `curves`."""
    found = curved.told_apart(bench.read["fit"], layers)
    for number in numbers:
        bench.judge(found.gate(number), layers, curves=number)
    return bench.recorded()


def gate_rows(
    gate: Gate, layers: Sequence[int], read: Mapping[str, Mapping[str, Activations]],
    asked: Mapping[str, Mapping[str, Sequence[Question]]],
) -> pd.DataFrame:  # fmt: skip
    """What one gate says to every prompt of calibration and test, from which any threshold and its promise follow.

    `read`: activations by role and set; `asked`: the questions behind them. Columns: `id, person, modality, task, role,
    group, gate_value`.
    """
    parts = []
    for role, sets in asked.items():
        for group, questions in sets.items():
            values = gates.gate_values(gate, join(read[role][group], layers))
            parts.append(_asked(questions).assign(role=role, group=group, gate_value=values.numpy()))
    return pd.concat(parts, ignore_index=True)


def _asked(questions: Sequence[Question]) -> pd.DataFrame:
    """One row per question: `id, person, modality, task`."""
    return pd.DataFrame({name: [getattr(q, name) for q in questions] for name in ("id", "person", "modality", "task")})


def rates(
    rows: pd.DataFrame, by: Sequence[str], *, repeat: str | None = None, others: Sequence[str] = OTHERS
) -> pd.DataFrame:
    """Shares opened and AUC for every setting, with 95 % intervals over people (`_low`, `_high`).

    Args:
        rows: of `Recorder`.
        by: columns that name a setting.
        repeat: a column of draws (`seed`) whose mean is shown. People are drawn together for all of them, so that an
            interval of a share is one over people for these draws; an AUC over several draws has none.
        others: subsets whose prompts the AUC tells the forgotten people's from.

    Returns:
        Columns `by`, `opened` (of the forgotten people's test prompts) and `<subset>_opened` of the others, and `auc`,
        with their intervals; `n_people` (forgotten).
    """
    found = []
    for key, own in rows.groupby(list(by), sort=False, dropna=False):
        row: dict[str, Any] = dict(zip(by, key, strict=True))
        shares = over_people(own.assign(opened=own["opened"].astype(float)), ["subset"], ("opened",))
        for share in shares.to_dict("records"):
            name = named(str(share["subset"]))
            row |= {name + end: share["opened" + end] for end in ("", "_low", "_high")}
        row |= _auc(own, repeat, others) | {"n_people": own.loc[own["subset"] == "test", "person"].nunique()}
        found.append(row)
    return pd.DataFrame(found)


def named(subset: str) -> str:
    """What the share of a subset's prompts that open is called, as by `Bench.judge`."""
    return "opened" if subset == "test" else f"{subset}_opened"


def _auc(rows: pd.DataFrame, repeat: str | None, others: Sequence[str]) -> dict[str, float]:
    draws = [rows] if repeat is None else [own for _, own in rows.groupby(repeat)]
    sides = [(own[own["subset"] == "test"], own[own["subset"].isin(others)]) for own in draws]
    if len(sides) > 1:
        return {"auc": float(sum(auc(up["gate_value"], down["gate_value"]) for up, down in sides) / len(sides))}
    ((up, down),) = sides
    whole = auc_interval(up["gate_value"], down["gate_value"], up["person"].tolist(), down["person"].tolist())
    return {"auc": whole.value, "auc_low": whole.low, "auc_high": whole.high}
