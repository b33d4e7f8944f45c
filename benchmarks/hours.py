"""``python -m benchmarks.hours``: GPU hours that the preset `paper` may take, as ``results/hours.csv``. An estimate.

No weights of a large model were at hand, so each row of the matrix is counted in units that were measured: how many
prefills of one prompt by the tiny model, on the processor that ran it, its seconds are worth. The same number of
prefills is then charged to a 7B model, at the time of one that was measured on a GPU with random weights, times how
many more people there are to read about. Decoding and training are in those seconds, weighed as they weigh on a CPU. A
GPU gains more on a decoding step than on a prefill: charged as if they were nothing else, the same seconds are less,
and what a row takes lies between the two (`_from` and `_to`), as far as the units are right.
The fine-tunings before it have no row in the tiny world: what they learn is counted, each question at the prefills that
one takes in the training of a baseline, or at the three of forward and backward by arithmetic.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from eraser_lib.baselines.training import TrainConfig
from eraser_lib.study.checkpoints import FineTuning, fine_tunings
from eraser_lib.study.matrix import Job, Kind, jobs
from eraser_lib.study.paths import read_json, root
from eraser_lib.study.preset import load
from eraser_lib.tables import METHOD_NAMES
from eraser_lib.train.finetune import LoraRecipe

TABLE = root() / "results" / "hours.csv"
PEOPLE = (500 + 153) / (200 + 40)
"""Fictitious people and celebrities of MLLMU-Bench against those of the tiny world."""
LARGE = {"llava": "llava-hf/llava-1.5-7b-hf", "qwen": "Qwen/Qwen2.5-VL-7B-Instruct"}
GPU = "NVIDIA H100 80GB HBM3"
"""Whose hours are told."""
TOKENS = {"llava": 576 + 64 + 26, "qwen": 400 + 64 + 133}
"""Of one prompt with a picture: image tokens, text, and what the vision tower's work is worth in tokens of the language
model (weights times patches: 0.3e9 x 577 of 6.7e9 a token, 0.63e9 x 1600 of 7.6e9)."""

PROFILES, QUESTIONS = 500, 14
"""People whose profiles are learned, and questions about each, as the benchmark's abstract counts them (arXiv
2410.22108); how many of these `ft_Data` holds is not known here."""
FORWARD_AND_BACKWARD = 3.0
"""Prefills that a row of a training takes by arithmetic; adapters spare a part of the way back."""
OWN = ("03_direction", "04_gate", "06_select")
"""Rows that write no answers, and without which the eraser would not be there."""
SIMPLEST = "idk"
"""The trained baseline that computes what fine-tuning does, and nothing else: the likelihood of given answers."""


class Timed(NamedTuple):
    """What a job took, and on which processor."""

    seconds: float
    cpu: str


def unit_seconds(costs: pd.DataFrame, model: str, cpu: str, phase: str = "prefill") -> float:
    """Core seconds of one prompt in a batch of 32 through the tiny model, unsteered, as `benchmarks.cost` measured on
    this processor: of its prefill, or of one decoding step (`phase`). `ValueError` where it did not."""
    row = _unsteered(costs[costs["machine"].str.startswith(f"{cpu}, ")], f"tiny-{model}", cpu, phase)
    threads = int(str(row["machine"]).rpartition(", ")[2].split()[0])
    return float(row["value"]) * threads / 32


def large_unit_seconds(costs: pd.DataFrame, model: str, phase: str = "prefill") -> float:
    """The same of the 7B model on `GPU`. A prefill was measured with text of another length, and is charged by the
    token."""
    row = _unsteered(costs[costs["machine"] == GPU], LARGE[model], GPU, phase)
    per_prompt = float(row["value"]) / 32
    return per_prompt / int(str(row["shape"]).split()[0]) * TOKENS[model] if phase == "prefill" else per_prompt


def _unsteered(costs: pd.DataFrame, model: str, machine: str, phase: str) -> pd.Series:
    rows = costs[
        (costs["model"] == model)
        & (costs["method"] == "unsteered")
        & (costs["phase"] == phase)
        & (costs["batch"] == 32)
    ]
    if rows.empty:
        raise ValueError(
            f"results/cost.csv has no {phase} of {model} on {machine}; run python -m benchmarks.cost there"
        )
    return rows.iloc[0]


def job_hours(job: Job, timed: Mapping[str, Timed], costs: pd.DataFrame, phase: str = "prefill") -> float | None:
    """GPU hours of one job of `paper`; `None` where its row was never timed at 5 % in the tiny world.

    `timed`: the jobs of the tiny world, by name. `phase`: what its seconds are charged as. A trained baseline takes
    steps in proportion to the forget share.
    """
    measured = timed.get(f"{job.model}-5-{job.kind.name}", timed.get(f"{job.model}-all-{job.kind.name}"))
    if job.model is None or measured is None:
        return None
    longer = (job.split or 5) / 5 if job.notebook == "08_trained" else 1.0
    units = measured.seconds / unit_seconds(costs, job.model, measured.cpu, phase)
    return units * PEOPLE * longer * large_unit_seconds(costs, job.model, phase) / 3600


def trained_row_prefills(costs: pd.DataFrame, model: str, cpu: str) -> float:
    """Prefills that one row takes in a training of the tiny model: forward, backward and its share of the step.
    `cpu`: that trained.

    Timed with all language weights trained; adapters take less.
    """
    runs = read_json(load("tiny").reference.path / "figures" / model / f"cost_{SIMPLEST}-5.json")["rows"]
    seconds = sum(run["seconds"] for run in runs) / sum(run["steps"] for run in runs)
    # forget rows, and as many retain rows
    return seconds / (2 * TrainConfig.batch) / unit_seconds(costs, model, cpu)


def fine_tuning_hours(one: FineTuning, prefills: float, costs: pd.DataFrame) -> float:
    """GPU hours of one checkpoint: all epochs, over the profiles of everybody but those who are left out.

    `prefills`: that a row of a training takes.
    """
    left_out = float(one.without.rpartition("_")[2] or 0) / 100
    rows = (1 - left_out) * PROFILES * QUESTIONS * LoraRecipe.epochs
    return rows * prefills * large_unit_seconds(costs, one.model) / 3600


def table(timed: Mapping[str, Timed], costs: pd.DataFrame, prefills: Mapping[str, float]) -> pd.DataFrame:
    """Hours by model, from and to. One row per row of the matrix, of those of its jobs that could be told, and their
    sum; then the fine-tunings of vanilla and of the retain-only models, and the sum of everything.

    `prefills`: that a row of a training takes, by model.
    """
    paper = load("paper")
    found = pd.DataFrame([
        {"row": job.kind.name, "column": column, "hours": job_hours(job, timed, costs, phase)}
        for job in jobs(paper).values()
        if job.model is not None
        for column, phase in ((f"{job.model}_from", "decode"), (f"{job.model}_to", "prefill"))
    ])  # fmt: skip
    hours = found.groupby(["row", "column"], sort=False)["hours"]
    by_model = hours.sum(min_count=1).unstack("column").round(1)
    tuned = pd.DataFrame([
        {
            "row": f"fine_tuning ({'retain-only' if one.without else one.branch})",
            "column": column,
            "hours": fine_tuning_hours(one, each, costs),
        }
        for one in fine_tunings(paper).values()
        for column, each in ((f"{one.model}_from", FORWARD_AND_BACKWARD), (f"{one.model}_to", prefills[one.model]))
    ])  # fmt: skip
    counted = tuned.groupby(["row", "column"], sort=False)["hours"].sum().unstack("column").round(1)
    sums = {"all that was timed": by_model.sum(), "all": by_model.sum() + counted.sum()}
    told, everything = (value.round(0).rename(name).to_frame().T for name, value in sums.items())
    whole = pd.concat([by_model, told, counted, everything]).rename_axis("row").reset_index()
    methods = {job.kind.name: method_of(job.kind) for job in jobs(paper).values()}
    whole.insert(1, "method", whole["row"].map(methods).fillna(""))
    return whole


def method_of(kind: Kind) -> str:
    """What a row of the matrix is for: methods that it searches, fits or asks, by the names of the tables; empty for
    what is about none alone."""
    names = [kind.parameters["method"]] if "method" in kind.parameters else kind.logs
    if kind.name in OWN:
        names = ("mllmeraser",)
    return ", ".join(METHOD_NAMES[name] for name in names if name != "vanilla")


def timed_jobs() -> dict[str, Timed]:
    """The jobs of the committed tiny study, by name."""
    folder = load("tiny").reference.path
    manifests = {path.stem: read_json(path) for path in sorted(folder.glob("manifests/*.json"))}
    return {
        name: Timed(float(found["seconds"]), str(found["machine"]["cpu"]))
        for name, found in manifests.items()
        if "seconds" in found
    }


def trained_rows(timed: Mapping[str, Timed], costs: pd.DataFrame) -> dict[str, float]:
    """What a row of a training is worth (`trained_row_prefills`), by model."""
    return {model: trained_row_prefills(costs, model, timed[f"{model}-5-08_{SIMPLEST}"].cpu) for model in LARGE}


def main() -> None:
    """Write the table and print it."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    costs = pd.read_csv(root() / "results" / "cost.csv")
    timed = timed_jobs()
    found = table(timed, costs, trained_rows(timed, costs))
    found.to_csv(TABLE, index=False)
    print(found.to_string(index=False))


if __name__ == "__main__":
    main()
