"""Gates of the study: solvers side by side, their ROC on held-out prompts, and the calibrated threshold."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from eraser_lib.bench.records import Question
from eraser_lib.experiments.activations import Activations, join
from eraser_lib.gate import Gate, hard_gate, ridge_gate, ridge_gates, stack
from eraser_lib.moments import Moments
from eraser_lib.precision import workbench
from eraser_lib.sites import HookSite
from eraser_lib.threshold import Calibration, calibrate

SOLVERS: dict[str, dict[str, object]] = {
    "published": {"solver": "hard", "keep": 0.4, "centred": False},
    "hard": {"solver": "hard", "energy": 0.99},
    "ridge": {"solver": "ridge", "beta": 5.0, "gamma": 1e-2},
    "ridge_bias": {"solver": "ridge", "beta": 5.0, "gamma": 1e-2, "bias": True},
    "ridge_middle": {"solver": "ridge", "beta": 0.1, "gamma": 1e-2, "bias": True},
    "ridge_light": {"solver": "ridge", "beta": 0.03, "gamma": 1e-2, "bias": True},
}
"""Name -> solver and options: the published ratio on uncentred moments, the energy rule, the ridge."""
TAIL = 0.998
REQUESTS = ("", "person:", "person+modality:")
"""One gate for the whole forget set; one request per person; one per person and kind of prompt (picture or name)."""


def moments_of(rows: Tensor) -> Moments:
    """Moments of activations `(N, d)` in float64, on the `workbench`."""
    return Moments.of(rows.to(workbench(rows.shape[1])).double())


def fit_gate(name: str, forget: Tensor, retain: Moments) -> Gate:
    """Fit the solver `name` of `SOLVERS` on forget activations `(N, d)` and retain moments.

    It is solved on the device of the moments and comes back to that of the activations.
    """
    options = dict(SOLVERS[name])
    solver = ridge_gate if options.pop("solver") == "ridge" else hard_gate
    return solver(forget.double(), retain, **options).to(forget.device)  # type: ignore[arg-type]


def fit_requests(name: str, forget: Tensor, labels: Sequence[str], retain: Tensor, half: Tensor) -> Gate:
    """One request per label, stacked: rank k. `name` is the solver of each.

    Each request's values on retained prompts are brought to median 0 and 99.8 % quantile 1, so that one threshold
    serves all: it is the upper tail of retained prompts that a threshold cuts, and the tails of requests differ more
    than their standard deviations. The tail is measured out of sample: each half of the retain rows by a gate fitted
    with the other half, since a ridge is quietest on the rows that it was fitted on. `forget`: `(N, d)` with one label
    per row; `retain`: `(M, d)`; `half`: bool `(M,)`, no person in both halves.
    """
    home, place = forget.device, workbench(retain.shape[1])
    rows, known, half = retain.to(place).double(), forget.to(place), half.to(place)
    whole = moments_of(rows)
    parts = [(part, rows[part], moments_of(rows[~part])) for part in (half, ~half)]
    requests = [
        known[torch.tensor([other == label for other in labels], device=place)] for label in dict.fromkeys(labels)
    ]
    if place.type == "cuda":
        return _scaled_at_once(name, requests, whole, parts).to(home)
    gates = []
    for mine in requests:
        values = torch.empty(len(rows), dtype=torch.float64)
        for part, seen, others in parts:
            values[part] = fit_gate(name, mine, others)(seen)[:, 0]
        centre = values.median()
        spread = values.quantile(TAIL) - centre
        gate = fit_gate(name, mine, whole)
        gates.append(replace(gate, weight=gate.weight / spread, bias=(gate.bias - centre) / spread))
    return stack(gates)


def _scaled_at_once(
    name: str, requests: Sequence[Tensor], whole: Moments, parts: Sequence[tuple[Tensor, Tensor, Moments]]
) -> Gate:
    """The gates of `fit_requests` up to rounding, with one factor of the retain moments for all requests.

    Three factors in the place of three for each request: hundreds, at the width of a 7B model. The committed results
    of small models are made one request after the other, and stay as they are to the last digit.
    """
    options = {key: value for key, value in SOLVERS[name].items() if key != "solver"}
    values = torch.empty(len(parts[0][0]), len(requests), dtype=torch.float64, device=whole.sum.device)
    for part, seen, others in parts:
        values[part] = ridge_gates(requests, others, **options)(seen)  # type: ignore[arg-type]
    centre = values.median(dim=0).values
    spread = values.quantile(TAIL, dim=0) - centre
    gate = ridge_gates(requests, whole, **options)  # type: ignore[arg-type]
    return replace(gate, weight=gate.weight / spread[:, None], bias=(gate.bias - centre) / spread)


def halves(questions: Sequence[Question]) -> Tensor:
    """A split of questions, bool `(N,)`: all that are about one person fall into the same half."""
    return torch.tensor([zlib.crc32((question.person or question.id).encode()) % 2 == 1 for question in questions])


def fit_solver(solver: str, forget: Tensor, retain: Tensor, rows: Mapping[str, Sequence[Question]]) -> Gate:
    """Fit a solver by its full name, such as `ridge`, `person:ridge_bias` or `person+modality:ridge_light`.

    `rows`: the questions behind the activations, `forget` and `retain`. `ValueError` for a forget question about
    nobody.
    """
    by, _, name = solver.rpartition(":")
    if not by:
        return fit_gate(name, forget, moments_of(retain))
    if any(question.person is None for question in rows["forget"]):
        raise ValueError("every forget row must be about a person here")
    labels = [f"{q.person}" if by == "person" else f"{q.person} {q.modality}" for q in rows["forget"]]
    return fit_requests(name, forget, labels, retain, halves(rows["retain"]))


def fit_joined(
    solver: str, fit: Mapping[str, Activations], rows: Mapping[str, Sequence[Question]], layers: Sequence[int]
) -> Gate:
    """Fit a solver on the outputs of several blocks side by side, for `activations.join`.

    `fit`: activations of the sets `forget` and `retain`; `rows`: the questions behind them. Blocks are brought to the
    same root mean square on the retain set first, or the last ones, whose streams are longest, would decide alone;
    the gate takes the streams as they are. Errors: see `fit_solver`.
    """
    known, kept = join(fit["forget"], layers), join(fit["retain"], layers)
    size = kept.shape[1] // len(layers)
    scale = kept.double().unflatten(1, (len(layers), size)).square().mean(dim=(0, 2)).sqrt().repeat_interleave(size)
    gate = fit_solver(solver, known / scale, kept / scale, rows)
    return replace(gate, weight=gate.weight / scale)


def readings(count: int) -> list[tuple[int, ...]]:
    """Where a decision may read, in a model of `count` blocks: one block, or the last two or four joined."""
    return [(layer,) for layer in looked_at(count)] + [tuple(range(count - n, count)) for n in (2, 4) if n < count]


def looked_at(count: int, most: int = 8) -> list[int]:
    """The single blocks that gates are tried on: all, or `most` of a deep model, evenly from the first to the last."""
    if count <= most:
        return list(range(count))
    return [round(number * (count - 1) / (most - 1)) for number in range(most)]


def request_solvers() -> list[str]:
    """Solvers with one request per person, or per person and kind of prompt: the ridges with an offset."""
    return [f"{by}{name}" for by in REQUESTS[1:] for name in ("ridge_bias", "ridge_middle", "ridge_light")]


def solver_names() -> list[str]:
    """Every solver of the study by its full name."""
    return [*SOLVERS, *request_solvers()]


def candidates(count: int) -> list[tuple[tuple[int, ...], str]]:
    """Readings and solvers to choose from in a model of `count` blocks: every solver on every single block, those with
    a request per person also on the last blocks joined."""
    return [
        (layers, solver)
        for layers in readings(count)
        for solver in (request_solvers() if len(layers) > 1 else solver_names())
    ]


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
    layers: Sequence[int],
    calibration: Mapping[str, Activations],
    test: Mapping[str, Activations],
    alphas: Sequence[float] = (0.01, 0.02, 0.05),
) -> list[Opening]:
    """Calibrate a gate on `layers` at each alpha on groups of prompts and count how much it opens on other groups."""
    scores = {group: gate_values(gate, join(read, layers)) for group, read in calibration.items()}
    values = {group: gate_values(gate, join(read, layers)) for group, read in test.items()}
    openings = []
    for alpha in alphas:
        threshold = calibrate(scores, alpha)
        rates = {group: float((found > threshold.value).double().mean()) for group, found in values.items()}
        openings.append(Opening(alpha, threshold, rates))
    return openings


def by_layer(activations: Activations) -> dict[int, np.ndarray]:
    """Activations by layer number, as numpy arrays for figures."""
    return {site.layer: values.numpy() for site, values in activations.items()}


def eigenvalues(moments: Moments) -> np.ndarray:
    """Eigenvalues of the uncentred second moment, largest first."""
    matrix = moments.uncentred.double().to(workbench(moments.size))
    return torch.linalg.eigvalsh(matrix).flip(0).clamp_min(0).cpu().numpy()


def all_gates(
    fit: Mapping[str, Activations], rows: Mapping[str, Sequence[Question]]
) -> dict[str, dict[HookSite, Gate]]:
    """Every solver at every single block of `looked_at`; arguments as for `fit_joined`."""
    sites = [HookSite(layer, "output") for layer in looked_at(len(fit["forget"]))]
    return {name: {site: fit_joined(name, fit, rows, (site.layer,)) for site in sites} for name in solver_names()}


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


def value_rows(gate: Gate, layers: Sequence[int], activations: Mapping[str, Activations]) -> pd.DataFrame:
    """Gate value of every prompt with its subset."""
    parts = [
        pd.DataFrame({"subset": name, "gate_value": gate_values(gate, join(rows, layers)).numpy()})
        for name, rows in activations.items()
    ]
    return pd.concat(parts, ignore_index=True)


def joined_table(
    fit: Mapping[str, Activations], rows: Mapping[str, Sequence[Question]],
    calibration: Mapping[str, Activations], test: Mapping[str, Activations],
    single: Mapping[str, Mapping[HookSite, Gate]],
) -> pd.DataFrame:  # fmt: skip
    """Requests per person and kind of prompt on single blocks and on several joined: share of prompts opened.

    `fit`, `rows`: see `fit_joined`; `single`: the gates of single blocks, from `all_gates`. One row per reading and
    solver, best first; `opened@alpha` counts forgotten test prompts, `retain@alpha` retained ones.
    """
    found = []
    for layers in readings(len(fit["retain"])):
        for solver in request_solvers():
            alone = single[solver][HookSite(layers[0], "output")] if len(layers) == 1 else None
            gate = alone or fit_joined(solver, fit, rows, layers)
            row: dict[str, object] = {"blocks": "+".join(map(str, layers)), "solver": solver}
            for opening in openings(gate, layers, calibration, {name: test[name] for name in ("test", "retain")}):
                row |= {
                    f"opened@{opening.alpha}": opening.rates["test"],
                    f"retain@{opening.alpha}": opening.rates["retain"],
                }
            found.append(row)
    return pd.DataFrame(found).sort_values("opened@0.01", ascending=False, kind="stable", ignore_index=True)


def describe(opening: Opening) -> dict[str, object]:
    """Plain values of an opening, for a small JSON file."""
    return {
        "alpha": opening.alpha,
        "threshold": opening.calibration.value,
        "attainable_alpha": opening.calibration.attainable_alpha,
        "n": opening.calibration.counts,
        "rates": opening.rates,
    }
