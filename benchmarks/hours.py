"""``python -m benchmarks.hours``: GPU hours that the preset `paper` may take, as ``results/hours.csv``. An estimate.

No weights of a large model were at hand, so each row of the matrix is counted in units that were measured: how many
prefills of one prompt by the tiny model, on the processor that ran it, its seconds are worth. The same number of
prefills is then charged to a 7B model, at the time of one that was measured on a GPU with random weights, times how
many more people there are to read about. Decoding and training are in those seconds, weighed as they weigh on a CPU.
The fine-tunings before it have no row in the tiny world: what they learn is counted, each question at the prefills that
one takes in the training of a baseline.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from eraser_lib.baselines.training import TrainConfig
from eraser_lib.study.checkpoints import FineTuning, fine_tunings
from eraser_lib.study.matrix import Job, jobs
from eraser_lib.study.paths import read_json, root
from eraser_lib.study.preset import load
from eraser_lib.train.finetune import LoraRecipe

TABLE = root() / "results" / "hours.csv"
PEOPLE = (500 + 153) / (200 + 40)
"""Fictitious people and celebrities of MLLMU-Bench against those of the tiny world."""
LARGE = {"llava": "llava-hf/llava-1.5-7b-hf", "qwen": "Qwen/Qwen2.5-VL-7B-Instruct"}
TOKENS = {"llava": 576 + 64 + 26, "qwen": 400 + 64 + 133}
"""Of one prompt with a picture: image tokens, text, and what the vision tower's work is worth in tokens of the language
model (weights times patches: 0.3e9 x 577 of 6.7e9 a token, 0.63e9 x 1600 of 7.6e9)."""

PROFILES, QUESTIONS = 500, 14
"""People whose profiles are learned, and questions about each, as the benchmark's abstract counts them (arXiv
2410.22108); how many of these `ft_Data` holds is not known here."""
SIMPLEST = "idk"
"""The trained baseline that computes what fine-tuning does, and nothing else: the likelihood of given answers."""


class Timed(NamedTuple):
    """What a job took, and on which processor."""

    seconds: float
    cpu: str


def prefill_seconds(costs: pd.DataFrame, model: str, cpu: str) -> float:
    """Core seconds of one prompt in a batch of 32 through the tiny model, unsteered, as `benchmarks.cost` measured on
    this processor. `ValueError` where it did not."""
    row = _unsteered(costs[costs["machine"].str.startswith(f"{cpu}, ")], f"tiny-{model}", cpu)
    threads = int(str(row["machine"]).rpartition(", ")[2].split()[0])
    return float(row["value"]) * threads / 32


def large_prefill_seconds(costs: pd.DataFrame, model: str) -> float:
    """The same of the 7B model on one GPU: measured with text of another length, and charged by the token."""
    row = _unsteered(costs, LARGE[model], "a GPU")
    return float(row["value"]) / 32 / int(str(row["shape"]).split()[0]) * TOKENS[model]


def _unsteered(costs: pd.DataFrame, model: str, machine: str) -> pd.Series:
    rows = costs[
        (costs["model"] == model)
        & (costs["method"] == "unsteered")
        & (costs["phase"] == "prefill")
        & (costs["batch"] == 32)
    ]
    if rows.empty:
        raise ValueError(
            f"results/cost.csv has no prefill of {model} on {machine}; run python -m benchmarks.cost there"
        )
    return rows.iloc[0]


def job_hours(job: Job, timed: Mapping[str, Timed], costs: pd.DataFrame) -> float | None:
    """GPU hours of one job of `paper`; `None` where its row was never timed at 5 % in the tiny world.

    `timed`: the jobs of the tiny world, by name. A trained baseline takes steps in proportion to the forget share.
    """
    measured = timed.get(f"{job.model}-5-{job.kind.name}", timed.get(f"{job.model}-all-{job.kind.name}"))
    if job.model is None or measured is None:
        return None
    longer = (job.split or 5) / 5 if job.notebook == "08_trained" else 1.0
    prefills = measured.seconds / prefill_seconds(costs, job.model, measured.cpu)
    return prefills * PEOPLE * longer * large_prefill_seconds(costs, job.model) / 3600


def trained_row_prefills(costs: pd.DataFrame, model: str, cpu: str) -> float:
    """Prefills that one row takes in a training of the tiny model: forward, backward and its share of the step.
    `cpu`: that trained.

    Timed with all language weights trained; adapters take less.
    """
    runs = read_json(load("tiny").reference.path / "figures" / model / f"cost_{SIMPLEST}-5.json")["rows"]
    seconds = sum(run["seconds"] for run in runs) / sum(run["steps"] for run in runs)
    # forget rows, and as many retain rows
    return seconds / (2 * TrainConfig.batch) / prefill_seconds(costs, model, cpu)


def fine_tuning_hours(one: FineTuning, prefills: float, costs: pd.DataFrame) -> float:
    """GPU hours of one checkpoint: all epochs, over the profiles of everybody but those who are left out.

    `prefills`: that a row of a training takes.
    """
    left_out = float(one.without.rpartition("_")[2] or 0) / 100
    rows = (1 - left_out) * PROFILES * QUESTIONS * LoraRecipe.epochs
    return rows * prefills * large_prefill_seconds(costs, one.model) / 3600


def table(timed: Mapping[str, Timed], costs: pd.DataFrame, prefills: Mapping[str, float]) -> pd.DataFrame:
    """Hours by model. One row per row of the matrix, of those of its jobs that could be told, and their sum; then the
    fine-tunings of vanilla and of the retain-only models, and the sum of everything.

    `prefills`: that a row of a training takes, by model.
    """
    rows = []
    paper = load("paper")
    for job in jobs(paper).values():
        if job.model is not None:
            rows.append({"row": job.kind.name, "model": job.model, "hours": job_hours(job, timed, costs)})
    found = pd.DataFrame(rows)
    hours = found.groupby(["row", "model"], sort=False)["hours"]
    by_model = hours.sum(min_count=1).unstack("model").round(1)
    tuned = pd.DataFrame([
        {
            "row": f"fine_tuning ({'retain-only' if one.without else one.branch})",
            "model": one.model,
            "hours": fine_tuning_hours(one, prefills[one.model], costs),
        }
        for one in fine_tunings(paper).values()
    ])  # fmt: skip
    counted = tuned.groupby(["row", "model"], sort=False)["hours"].sum().unstack("model").round(1)
    sums = {"all that was timed": by_model.sum(), "all": by_model.sum() + counted.sum()}
    told, everything = (value.round(0).rename(name).to_frame().T for name, value in sums.items())
    return pd.concat([by_model, told, counted, everything]).rename_axis("row").reset_index()


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
