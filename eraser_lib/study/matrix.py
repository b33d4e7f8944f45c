"""The matrix of the study: which notebook runs for which model and split, and what must run before it.

`KINDS` is the one place to change when a notebook is added. A row becomes one job per model and split of the preset,
named ``<model>-<split>-<row>`` with ``all`` where the row does not range over that axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from eraser_lib.study.paths import StudyError
from eraser_lib.study.preset import Preset


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One row of the matrix."""

    name: str
    """name of the row; also ends the names of its jobs, executed notebooks and manifests"""
    over: tuple[str, ...]
    """axes that the row ranges over, of ``model`` and ``split``; each is passed to the notebook as a parameter"""
    needs: tuple[str, ...] = ()
    """rows that must be complete before; for an axis that only they have, all of their jobs are awaited"""
    after: tuple[str, ...] = ()
    """rows that must be complete before, where the preset runs them"""
    notebook: str = ""
    """file in ``notebooks/`` without ``.ipynb``; empty means the row's name. Several rows may share a notebook"""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """parameters of the row, on top of ``preset, model, split, seed, out``; ``studies`` names presets whose committed
    results the notebook reads, which are then a part of what it is made from"""
    checkpoints: tuple[str, ...] = ("vanilla",)
    """branches of the models that the row reads, as patterns (`{split}` is the job's own): new ones then make its jobs
    stale, and only these"""
    logs: tuple[str, ...] = ()
    """methods whose logs it writes"""
    code: tuple[str, ...] = ()
    """imports that stand for code which the notebook runs as a command, and does not import"""
    minutes: float = 2.0
    """expected time on one core, for the first estimate of the time left and for batch systems"""
    memory_mb: int = 3000
    """memory to reserve"""


TRAINED = {"ga_diff": 40, "npo": 30, "idk": 16, "ga": 6, "kl_min": 65, "undial": 40, "rmu": 40, "mmunlearner": 40}
"""Trained baselines and the minutes that their search takes. They are no part of `tiny`, which has 25 minutes."""
BABBLING = ("ga", "ga_diff", "kl_min", "npo", "undial", "rmu", "mmunlearner")
"""Those whose best setting babbles about the forgotten, at some share: their best that speaks is found and run too."""


KINDS: tuple[Kind, ...] = (
    Kind(name="01_world", over=(), checkpoints=(), minutes=0.5),
    Kind(name="02_models", over=("model",), needs=("01_world",), minutes=1),
    Kind(name="03_direction", over=("model", "split"), needs=("02_models",), minutes=2),
    Kind(name="04_gate", over=("model", "split"), needs=("02_models",), minutes=2),
    Kind(name="06_select", over=("model", "split"), needs=("03_direction", "04_gate"), minutes=8),
    Kind(
        name="06_erase",
        over=("model", "split"),
        needs=("06_select",),
        logs=("vanilla", "mllmeraser", "mllmeraser_published", "constant"),
        minutes=8,
    ),
    # after 06_erase, whose vanilla log sets the floor of fluency
    Kind(
        name="06_baselines",
        over=("model", "split"),
        needs=("06_erase",),
        checkpoints=("vanilla", "retain_only_{split}*"),
        logs=("retain_only", "prompt", "prompt_oracle"),
        minutes=2,
    ),
    # it reads what 04_gate has read, with the gate that 06_select chose, as 06_erase does
    Kind(name="24_promise", over=("model", "split"), needs=("06_select",), minutes=1),
    # after 06_erase, whose eraser it attaches
    Kind(name="05_pca", over=("model", "split"), needs=("06_erase",), minutes=1),
    *(
        kind
        for method, minutes in TRAINED.items()
        for kind in (
            # hyper-parameters are chosen once per model and serve every split
            Kind(
                name=f"08_tune_{method}",
                over=("model",),
                needs=("02_models",),
                notebook="08_tune",
                parameters={"method": method},
                minutes=minutes,
            ),
            Kind(
                name=f"08_{method}",
                over=("model", "split"),
                needs=(f"08_tune_{method}", "06_erase"),
                notebook="08_trained",
                parameters={"method": method},
                logs=(method,),
                minutes=8,
            ),
        )
    ),
    # after 06_erase, which sets the floor of fluency
    *(
        Kind(
            name=f"08_{what}_{method}",
            over=over,
            needs=(f"08_{before}_{method}", "06_erase"),
            notebook=f"08_{what}",
            parameters={"method": method, **seeds},
            minutes=minutes,
        )
        for method in BABBLING
        # found with ten people, then with more to forget
        for what, before, over, minutes, seeds in (
            ("fluent", "tune", ("model",), 15, {}),
            ("quiet", "fluent", ("model", "split"), 10, {"seeds": 3}),
        )
    ),
    # after 06_erase: the detector answers with vanilla's log, and the floor of fluency stands
    Kind(
        name="09_closed",
        over=("model", "split"),
        needs=("06_erase",),
        logs=("detector", "leace", "manu"),
        minutes=11,
        memory_mb=4000,
    ),
    # at every share, since LEACE has a search of its own at each
    Kind(
        name="08_quiet_leace",
        over=("model", "split"),
        needs=("09_closed",),
        notebook="08_quiet",
        parameters={"method": "leace"},
        minutes=3,
    ),
    Kind(name="11_ablate", over=("model", "split"), needs=("06_select",), minutes=3),
    Kind(name="15_width", over=("model", "split"), needs=("06_select",), minutes=4),
    # after 06_erase, which sets the floor of fluency
    Kind(name="12_push", over=("model", "split"), needs=("06_erase",), minutes=8),
    Kind(name="22_layers", over=("model", "split"), needs=("06_erase",), minutes=10),
    Kind(
        name="16_reluctant",
        over=("model", "split"),
        needs=("06_erase",),
        checkpoints=("vanilla", "few_refusals"),
        minutes=20,
    ),
    Kind(name="17_dose", over=("model", "split"), needs=("06_erase", "09_closed"), minutes=8),
    # at the blocks that serve the Gaussians of 09_closed best, which it is compared with
    Kind(
        name="18_quadratic",
        over=("model", "split"),
        needs=("06_erase", "09_closed"),
        logs=("mllmeraser_quadratic",),
        minutes=6,
    ),
    Kind(name="19_score", over=("model", "split"), needs=("18_quadratic",), minutes=6),
    Kind(name="25_openings", over=("model", "split"), needs=("18_quadratic",), minutes=4),
    # what models of other sizes showed, which presets of their own train and ask
    Kind(
        name="20_sizes",
        over=(),
        needs=("06_erase", "15_width"),
        checkpoints=(),
        parameters={"studies": ["tiny-64", "tiny-128", "gpu"]},
        minutes=0.3,
    ),
    # the gates and the detector that were chosen at 5 %
    Kind(name="10_lottery", over=("model",), needs=("09_closed", "18_quadratic"), minutes=6, memory_mb=5000),
    Kind(name="13_pooled", over=("model",), needs=("09_closed", "18_quadratic"), minutes=8, memory_mb=5000),
    # the same sets and questions, for what changes weights
    *(
        Kind(
            name=f"21_refitted_{method}",
            over=("model",),
            needs=("09_closed" if method == "manu" else f"08_tune_{method}", "06_erase"),
            notebook="21_refitted",
            parameters={"method": method},
            minutes=10,
        )
        for method in (*TRAINED, "manu")
    ),
    # past the edges that those searches stopped at, and beside what they chose
    *(
        Kind(
            name=name,
            over=("model",),
            needs=("02_models",),
            after=tuple(f"08_tune_{method}" for method in TRAINED),
            minutes=minutes,
        )
        for name, minutes in (("23_longer", 35), ("26_neighbours", 75))
    ),
    # what was chosen, searched and fitted in turn, so that the ledger compares seconds and memory of one run
    Kind(
        name="27_pace",
        over=("model",),
        needs=("02_models",),
        after=("06_select", "09_closed", "18_quadratic", *(f"08_tune_{method}" for method in TRAINED)),
        minutes=30,
        memory_mb=4000,
    ),
    Kind(
        name="14_cookbook",
        over=("model",),
        needs=("02_models",),
        code=("from eraser_lib.cli import main",),
        minutes=2,
    ),
    Kind(
        name="07_compare",
        over=("split",),
        needs=("06_erase", "06_baselines"),
        after=(
            "09_closed",
            "17_dose",
            "18_quadratic",
            "13_pooled",
            "27_pace",
            *(f"21_refitted_{method}" for method in (*TRAINED, "manu")),
            *(f"08_{method}" for method in TRAINED),
            *(f"08_fluent_{method}" for method in BABBLING),
            *(f"08_quiet_{method}" for method in (*BABBLING, "leace")),
        ),
        checkpoints=(),
        minutes=1,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One notebook to run with one set of parameters."""

    name: str
    """``<model>-<split>-<row>``"""
    kind: Kind
    model: str | None
    split: int | None
    notebook: str
    """file in ``notebooks/`` without ``.ipynb``"""
    parameters: Mapping[str, Any]
    """everything that is passed to the notebook"""
    needs: tuple[str, ...]
    """names of the jobs that must be complete before"""
    minutes: float
    """expected time on one core"""
    memory_mb: int
    """memory to reserve"""

    @property
    def on_device(self) -> bool:
        """Whether it runs a model; what does not needs no GPU and none of the memory that a model takes."""
        return bool(self.kind.checkpoints)

    @property
    def branches(self) -> tuple[str, ...]:
        """Patterns of the checkpoints that it reads."""
        return tuple(pattern.format(split=self.split) for pattern in self.kind.checkpoints)

    @property
    def logs(self) -> list[str]:
        """Folders of the logs that it writes, ``<model>/<split>/<method>``."""
        return [f"{self.model}/{self.split}/{method}" for method in self.kind.logs]


def jobs(preset: Preset, *, out: str = "", kinds: tuple[Kind, ...] = KINDS) -> dict[str, Job]:
    """All jobs of a preset by name, each after the jobs that it needs.

    Args:
        preset: which models and splits.
        out: run folder passed to the notebooks; empty means ``runs/<study>``.
        kinds: rows of the matrix.

    Raises:
        StudyError: the preset names a row that does not exist, or a row needs one that is not run or comes later.
    """
    known = [kind.name for kind in kinds]
    notebooks = [kind.notebook for kind in kinds if kind.notebook]
    for where, names in (
        ("jobs", preset.jobs),
        ("parameters", [name for name in preset.parameters if name not in notebooks]),
        ("minutes", preset.minutes),
        ("memory", preset.memory),
        ("notebooks", preset.notebooks),
        ("only", preset.only),
    ):
        for name in names:
            if name not in known:
                raise StudyError(
                    f"Preset {preset.name!r}: {name!r} in {where} is no row of the matrix: {', '.join(known)}."
                )
    found: dict[str, Job] = {}
    for kind in kinds:
        if preset.jobs and kind.name not in preset.jobs:
            continue
        for model in preset.models if "model" in kind.over else (None,):
            for split in preset.only.get(kind.name, preset.splits) if "split" in kind.over else (None,):
                job = _job(preset, kind, model, split, found, out or f"runs/{preset.study}")
                found[job.name] = job
    return found


def _job(preset: Preset, kind: Kind, model: str | None, split: int | None, earlier: Mapping[str, Job], out: str) -> Job:
    needs: list[str] = []
    for need in (*kind.needs, *kind.after):
        matching = [
            job.name
            for job in earlier.values()
            if job.kind.name == need and _meet(model, job.model) and _meet(split, job.split)
        ]
        if not matching and need in kind.needs:
            raise StudyError(f"Row {kind.name} needs row {need}, which preset {preset.name!r} does not run before it.")
        needs += matching
    notebook = preset.notebooks.get(kind.name) or kind.notebook or kind.name
    parameters: dict[str, Any] = {"preset": preset.study, "seed": preset.seed, "out": out}
    if model is not None:
        parameters["model"] = model
    if split is not None:
        parameters["split"] = split
    given = {**kind.parameters, **preset.parameters.get(notebook, {}), **preset.parameters.get(kind.name, {})}
    return Job(
        name=f"{model or 'all'}-{split or 'all'}-{kind.name}",
        kind=kind,
        model=model,
        split=split,
        notebook=notebook,
        parameters={**parameters, **given},
        needs=tuple(needs),
        minutes=float(preset.minutes.get(kind.name, kind.minutes)),
        memory_mb=preset.memory.get(kind.name) or (kind.checkpoints and preset.memory_mb) or kind.memory_mb,
    )


def _meet(mine: object, theirs: object) -> bool:
    """Whether two jobs agree on an axis; one that does not range over it agrees with every value."""
    return mine is None or theirs is None or mine == theirs


def find(all_jobs: Mapping[str, Job], name: str) -> Job:
    """The job of that name.

    Raises:
        StudyError: there is none; the message names the closest ones.
    """
    if name in all_jobs:
        return all_jobs[name]
    close = get_close_matches(name, all_jobs, n=3, cutoff=0.4) or list(all_jobs)
    raise StudyError(f"There is no job {name!r} in this preset. Did you mean {' or '.join(close)}?")
