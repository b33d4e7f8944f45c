"""Ablations of the gate from activations that are at hand: rows, solver options, the site. Nothing is chosen here.

All are measured on the forgotten people's test prompts against retained people's and celebrities': AUC, and the shares
opened after a calibration at alpha.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from eraser_lib.bench.records import Question
from eraser_lib.evaluate.separation import auc
from eraser_lib.experiments import gates
from eraser_lib.experiments.activations import Activations, join
from eraser_lib.experiments.methods import Decision
from eraser_lib.gate import Gate, hard_gate, ridge_gate
from eraser_lib.moments import Moments
from eraser_lib.sites import HookSite

SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
KEEP = (0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the dimensions with the least retain energy that stay open: the published rule."""
ENERGY = (0.8, 0.9, 0.95, 0.99, 0.999)
BETA = (0.01, 0.03, 0.1, 0.5, 1.0, 5.0, 25.0)
GAMMA = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Bench:
    """Activations by role and set, as notebook 04_gate leaves them, and the questions behind the fit."""

    read: Mapping[str, Mapping[str, Activations]]
    rows: Mapping[str, Sequence[Question]]
    alpha: float = 0.01

    def judge(self, gate: Gate, layers: Sequence[int], **about: Any) -> dict[str, Any]:
        """`about`, and how a gate on the joined outputs of blocks does: `auc, opened, kept_opened`."""
        test = self.read["test"]
        (opening,) = gates.openings(gate, layers, self.read["calibrate"], test, (self.alpha,))
        values = {name: gates.gate_values(gate, join(test[name], layers)) for name in ("test", "retain", "celebrity")}
        kept = torch.cat([values["retain"], values["celebrity"]])
        return {
            **about, "auc": auc(values["test"].numpy(), kept.numpy()), "opened": opening.rates["test"],
            "retain_opened": opening.rates["retain"], "celebrity_opened": opening.rates["celebrity"],
        }  # fmt: skip


def thinned(rows: Sequence[Question], share: float) -> Tensor:
    """Which rows stay, bool `(N,)`: the same share of everybody's rows of each kind, at least two, evenly spread."""
    groups: dict[str, list[int]] = {}
    for index, question in enumerate(rows):
        groups.setdefault(f"{question.person} {question.modality}", []).append(index)
    stay = torch.zeros(len(rows), dtype=torch.bool)
    for members in groups.values():
        count = min(len(members), max(2, round(share * len(members))))
        stay[[members[place * len(members) // count] for place in range(count)]] = True
    return stay


def fewer_rows(bench: Bench, decision: Decision, shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """The gate of the study fitted on fewer forget rows, or on fewer retained ones.

    Columns: `fewer` (`forget` or `retain`), `share`, `rows`, and those of `Bench.judge`.
    """
    found = []
    for fewer in ("forget", "retain"):
        for share in shares:
            fit, rows = dict(bench.read["fit"]), dict(bench.rows)
            stay = thinned(rows[fewer], share)
            fit[fewer] = {site: values[stay] for site, values in fit[fewer].items()}
            rows[fewer] = [row for row, stays in zip(rows[fewer], stay.tolist(), strict=True) if stays]
            gate = gates.fit_joined(decision.solver, fit, rows, decision.layers)
            found.append(bench.judge(gate, decision.layers, fewer=fewer, share=share, rows=int(stay.sum())))
    return pd.DataFrame(found)


def solver_options(bench: Bench, layer: int) -> pd.DataFrame:
    """One gate for the whole forget set at one block, by the option of its solver that decides how much it yields.

    Columns: `solver, option, value`, and those of `Bench.judge`. A solver that has nothing left to fit with is missing.
    """
    site = HookSite(layer, "output")
    forget = bench.read["fit"]["forget"][site].double()
    retain = Moments.of(bench.read["fit"]["retain"][site].double())
    found = []
    for solver, option, value, fit in _options():
        try:
            gate = fit(forget, retain)
        except ValueError:  # the projector removed everything
            continue
        found.append(bench.judge(gate, (layer,), solver=solver, option=option, value=value))
    return pd.DataFrame(found)


def _options() -> Iterator[tuple[str, str, float, Callable[[Tensor, Moments], Gate]]]:
    for keep in KEEP:
        yield "published", "keep", keep, lambda f, r, keep=keep: hard_gate(f, r, keep=keep, centred=False)  # type: ignore[misc]
    for energy in ENERGY:
        yield "hard", "energy", energy, lambda f, r, energy=energy: hard_gate(f, r, energy=energy)  # type: ignore[misc]
    for beta in BETA:
        yield "ridge", "beta", beta, lambda f, r, beta=beta: ridge_gate(f, r, beta=beta, bias=True)  # type: ignore[misc]
    for gamma in GAMMA:
        yield "ridge", "gamma", gamma, lambda f, r, gamma=gamma: ridge_gate(f, r, beta=1.0, gamma=gamma, bias=True)  # type: ignore[misc]


def site_shift(bench: Bench, solver: str) -> pd.DataFrame:
    """A gate fitted at one block and read at another: what an error of one in the hook site costs.

    Columns: `fitted, read` (blocks), and those of `Bench.judge`; the calibration is read where the gate is.
    """
    layers = sorted(site.layer for site in bench.read["fit"]["retain"])
    found = []
    for fitted in layers:
        gate = gates.fit_joined(solver, bench.read["fit"], bench.rows, (fitted,))
        found += [bench.judge(gate, (read,), fitted=fitted, read=read) for read in layers if abs(read - fitted) <= 1]
    return pd.DataFrame(found)
