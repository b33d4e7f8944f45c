"""Gates of the study: solvers side by side, their ROC on held-out prompts, and the calibrated threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from eraser_lib.bench.records import Question
from eraser_lib.experiments.activations import Activations
from eraser_lib.gate import Gate, hard_gate, ridge_gate, stack
from eraser_lib.moments import Moments
from eraser_lib.sites import HookSite
from eraser_lib.threshold import Calibration, calibrate

SOLVERS: dict[str, dict[str, object]] = {
    "published": {"solver": "hard", "keep": 0.4, "centred": False},
    "hard": {"solver": "hard", "energy": 0.99},
    "ridge": {"solver": "ridge", "beta": 5.0, "gamma": 1e-2},
    "ridge_bias": {"solver": "ridge", "beta": 5.0, "gamma": 1e-2, "bias": True},
    "ridge_light": {"solver": "ridge", "beta": 0.03, "gamma": 1e-2, "bias": True},
}
"""Name -> solver and options: the published ratio on uncentred moments, the energy rule, the ridge."""
TAIL = 0.998
REQUESTS = ("", "person:", "person+modality:")
"""One gate for the whole forget set; one request per person; one per person and kind of prompt (picture or name)."""


def fit_gate(name: str, forget: Tensor, retain: Moments) -> Gate:
    """Fit the solver `name` of `SOLVERS` on forget activations `(N, d)` and retain moments."""
    options = dict(SOLVERS[name])
    solver = ridge_gate if options.pop("solver") == "ridge" else hard_gate
    return solver(forget.double(), retain, **options)  # type: ignore[arg-type]


def fit_requests(name: str, forget: Tensor, labels: Sequence[str], retain: Tensor) -> Gate:
    """One request per label, stacked: rank k. `name` is the solver of each.

    Each request's values on the retain rows are brought to median 0 and 99.8 % quantile 1, so that one threshold
    serves all: it is the upper tail of retained prompts that a threshold cuts, and the tails of requests differ more
    than their standard deviations. `forget`: `(N, d)` with one label per row; `retain`: `(M, d)`.
    """
    moments = Moments.of(retain.double())
    gates = []
    for label in dict.fromkeys(labels):
        mine = torch.tensor([other == label for other in labels])
        gate = fit_gate(name, forget[mine], moments)
        values = gate(retain.double())[:, 0]
        centre = values.median()
        spread = values.quantile(TAIL) - centre
        gates.append(replace(gate, weight=gate.weight / spread, bias=(gate.bias - centre) / spread))
    return stack(gates)


def fit_solver(solver: str, forget: Tensor, questions: Sequence[Question], retain: Tensor) -> Gate:
    """Fit a solver by its full name, such as `ridge`, `person:ridge_bias` or `person+modality:ridge_light`.

    `questions` are those behind the forget rows. `ValueError` for a question about nobody.
    """
    by, _, name = solver.rpartition(":")
    if not by:
        return fit_gate(name, forget, Moments.of(retain.double()))
    if any(question.person is None for question in questions):
        raise ValueError("every forget row must be about a person here")
    labels = [f"{q.person}" if by == "person" else f"{q.person} {q.modality}" for q in questions]
    return fit_requests(name, forget, labels, retain)


def solver_names() -> list[str]:
    """Every solver of the study by its full name; requests are only combined with the two ridges with an offset."""
    single = list(SOLVERS)
    return single + [f"{by}{name}" for by in REQUESTS[1:] for name in ("ridge_bias", "ridge_light")]


def gate_values(gate: Gate, activations: Tensor) -> Tensor:
    """Value that decides, `(N,)`: the largest over the gate's requests."""
    return gate(activations.double()).max(dim=-1).values


@dataclass(frozen=True)
class Opening:
    """Share of prompts that a calibrated gate opens."""

    alpha: float
    calibration: Calibration
    rates: dict[str, float]
    """Group of prompts -> share opened."""


def openings(
    gate: Gate,
    calibration: Mapping[str, Tensor],
    test: Mapping[str, Tensor],
    alphas: Sequence[float] = (0.01, 0.02, 0.05),
) -> list[Opening]:
    """Calibrate a gate at each alpha on groups of activations and count how much it opens on other groups."""
    scores = {group: gate_values(gate, rows) for group, rows in calibration.items()}
    found = []
    for alpha in alphas:
        threshold = calibrate(scores, alpha)
        rates = {
            group: float((gate_values(gate, rows) > threshold.value).double().mean()) for group, rows in test.items()
        }
        found.append(Opening(alpha, threshold, rates))
    return found


def by_layer(activations: Activations) -> dict[int, np.ndarray]:
    """Activations by layer number, as numpy arrays for figures."""
    return {site.layer: values.numpy() for site, values in activations.items()}


def eigenvalues(moments: Moments) -> np.ndarray:
    """Eigenvalues of the uncentred second moment, largest first."""
    return torch.linalg.eigvalsh(moments.uncentred.double()).flip(0).clamp_min(0).numpy()


def all_gates(
    forget: Activations, questions: Sequence[Question], retain: Activations
) -> dict[str, dict[HookSite, Gate]]:
    """Every solver at every site; `questions` are those behind the forget rows."""
    return {
        name: {site: fit_solver(name, rows, questions, retain[site]) for site, rows in forget.items()}
        for name in solver_names()
    }


def roc_rows(
    gates: Mapping[str, Mapping[HookSite, Gate]],
    questions: Mapping[str, Sequence[Question]],
    activations: Mapping[str, Activations],
    *,
    positive: str,
    negative: Sequence[str],
) -> pd.DataFrame:
    """One row per prompt, solver and layer, as `figures.roc_numbers` takes them."""
    parts = []
    for solver, per_site in gates.items():
        for site, gate in per_site.items():
            for name in (positive, *negative):
                values = gate_values(gate, activations[name][site]).numpy()
                people = [question.person for question in questions[name]]
                columns = {"value": values, "person": people, "solver": solver, "layer": site.layer}
                parts.append(pd.DataFrame(columns | {"forget": name == positive}))
    return pd.concat(parts, ignore_index=True)


def value_rows(gate: Gate, site: HookSite, activations: Mapping[str, Activations]) -> pd.DataFrame:
    """Gate value of every prompt with its subset."""
    parts = [
        pd.DataFrame({"subset": name, "gate_value": gate_values(gate, rows[site]).numpy()})
        for name, rows in activations.items()
    ]
    return pd.concat(parts, ignore_index=True)


def describe(opening: Opening) -> dict[str, object]:
    """Plain values of an opening, for a small JSON file."""
    return {
        "alpha": opening.alpha,
        "threshold": opening.calibration.value,
        "attainable_alpha": opening.calibration.attainable_alpha,
        "n": opening.calibration.counts,
        "rates": opening.rates,
    }
