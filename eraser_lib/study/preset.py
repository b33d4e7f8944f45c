"""Presets: one short YAML file says which models, splits and settings a run covers.

The first lines of a preset are comments that state the hardware, the time and the numbers to expect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from eraser_lib.study.paths import RunFolder, StudyError, root

MODELS = ("llava", "qwen")
SPLITS = (5, 10, 15)
SHARED = ("seed", "device", "on_gpu", "checkpoints", "fine_tuning", "parameters", "settings", "notebooks")
"""What a preset takes from the one that it is within: jobs with equal names must be equal jobs."""
_LOOKS_LIKE_A_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What one run of the study covers."""

    name: str
    """the file's name without ``.yml``; also the name of the run folder"""
    models: tuple[str, ...]
    """families to run, of ``llava`` and ``qwen``"""
    splits: tuple[int, ...]
    """forget shares in per cent, of 5, 10 and 15"""
    seed: int = 0
    """passed to every notebook"""
    device: str = "cpu"
    """``cpu`` or ``cuda``"""
    checkpoints: str = "checkpoints/tiny"
    """folder of ``<model>/<name>/`` checkpoints, from the repository's root; empty if the notebooks read none"""
    fine_tuning: Mapping[str, int] = field(default_factory=dict)
    """where the models are fine-tuned from ``settings.elsewhere.<model>.base``: expected ``minutes`` of a training,
    ``memory_mb`` to reserve, and how often (``seeds``, once if not said) the model that never met the smallest forget
    set is trained; empty where models are shipped, or trained from nothing"""
    jobs: tuple[str, ...] = ()
    """names of the matrix's rows to run (``matrix.KINDS``); empty means all"""
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """extra parameters per notebook, and per row of the matrix, on top of ``preset, model, split, seed, out``"""
    minutes: Mapping[str, float] = field(default_factory=dict)
    """expected minutes per row of the matrix, for the first estimate of the time left"""
    memory_mb: int = 0
    """memory to reserve for each job that runs a model, where they need more than the matrix says; 0: as it says"""
    memory: Mapping[str, int] = field(default_factory=dict)
    """memory to reserve per row of the matrix, in MB, whatever the line above and the matrix say"""
    on_gpu: int = 1
    """jobs that may share a GPU; small models leave most of one to others"""
    notebooks: Mapping[str, str] = field(default_factory=dict)
    """notebook per row of the matrix, in the place of the usual one"""
    only: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """forget shares per row of the matrix, for a row that is not to run at all of ``splits``"""
    trained: tuple[str, ...] = ()
    """methods that train weights during the run: their figures are compared with the committed seed range"""
    from_reference: tuple[str, ...] = ()
    """glob patterns, from the run folder, of files that are copied from the reference and not made again"""
    within: str = ""
    """another preset that this one completes: both share run folder, reference, settings and finished jobs"""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """free settings that notebooks read; a change makes every job stale"""

    @property
    def study(self) -> str:
        """The name by which notebooks, logs and folders know this study; presets within one another share it."""
        return self.within or self.name

    @property
    def run(self) -> RunFolder:
        """``runs/<study>``"""
        return RunFolder(root() / "runs" / self.study)

    @property
    def reference(self) -> RunFolder:
        """``results/<study>``"""
        return RunFolder(root() / "results" / self.study)

    @property
    def records(self) -> Path:
        """``results/<study>/checkpoints``: manifests and trainings of checkpoints that are too large to be committed.

        They say what the reference is of, and stand apart so that a clone brings no manifest of other weights.
        """
        return self.reference.path / "checkpoints"


def load(name: str) -> Preset:
    """Read and check ``presets/<name>.yml``.

    Raises:
        StudyError: no such preset, an unknown key, a value of the wrong type, or a number that YAML reads as text.
    """
    folder = root() / "presets"
    path = folder / f"{name}.yml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yml"))) or "none"
        raise StudyError(f"There is no preset {name!r} ({path} does not exist). Presets here: {known}.")
    return parse(path.read_text(), path)


def parse(text: str, path: Path) -> Preset:
    """Make a preset of a file's text; ``path`` gives its name and is named in errors.

    Raises:
        StudyError: as `load`; or the preset that it is within is missing, or does not go with it.
    """
    head = [line for line in text.splitlines()[:6] if line.startswith("#")]
    for word in ("Hardware:", "Time:", "Expect:"):
        if not any(word in line for line in head):
            raise StudyError(f"{path}: the first lines must be comments that say '{word}' (none of them does).")
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise StudyError(f"{path} is not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise StudyError(f"{path} must be a mapping of settings; it holds {type(raw).__name__}.")
    _refuse_numbers_as_text(raw, path)
    known = {f.name for f in fields(Preset)} - {"name"}
    for key in sorted(set(raw) - known):
        raise StudyError(f"{path}: unknown key {key!r}. Known keys: {', '.join(sorted(known))}.")
    for key, kind in (
        ("seed", int),
        ("memory_mb", int),
        ("on_gpu", int),
        ("device", str),
        ("checkpoints", str),
        ("within", str),
    ):
        if key in raw and (not isinstance(raw[key], kind) or isinstance(raw[key], bool)):
            raise StudyError(f"{path}: {key} must be {kind.__name__}; it is {raw[key]!r}.")
    for key in ("parameters", "minutes", "memory", "settings", "notebooks", "only", "fine_tuning"):
        if not isinstance(raw.get(key, {}), dict):
            raise StudyError(f"{path}: {key} must be a mapping; it is {raw[key]!r}.")
    for key in ("models", "splits", "jobs", "trained", "from_reference"):
        if not isinstance(raw.get(key, []), list):
            raise StudyError(f"{path}: {key} must be a list; it is {raw[key]!r}.")
    for key, allowed in (("models", MODELS), ("splits", SPLITS)):
        if not raw.get(key):
            raise StudyError(f"{path}: {key} must list at least one of {', '.join(map(str, allowed))}.")
        for value in raw[key]:
            if value not in allowed:
                raise StudyError(f"{path}: {value!r} in {key} is not one of {', '.join(map(str, allowed))}.")
    for row, shares in raw.get("only", {}).items():
        if not isinstance(shares, list) or not set(shares) <= set(raw["splits"]):
            raise StudyError(f"{path}: only.{row} must list some of the splits {raw['splits']}; it is {shares!r}.")
    if "fine_tuning" in raw:
        _check_fine_tuning(raw, path)
    lists = {k: tuple(v) for k, v in raw.items() if isinstance(v, list)}
    shared = _shared(raw, path) if raw.get("within") else {}
    return Preset(name=path.stem, **{**raw, **lists, **shared})


def _check_fine_tuning(raw: Mapping[str, Any], path: Path) -> None:
    """What is asked for, and what the trainer needs to know: the people, and the models before."""
    asked, settings = raw["fine_tuning"], raw.get("settings", {})
    said = set(asked) - {"seeds"} == {"minutes", "memory_mb"}
    if not said or not all(type(value) is int and value > 0 for value in asked.values()):
        raise StudyError(
            f"{path}: fine_tuning must say minutes and memory_mb, and may say seeds, in whole numbers; it is {asked!r}."
        )
    if not settings.get("data"):
        raise StudyError(f"{path}: models are fine-tuned on the people of settings.data, which is missing.")
    for model in raw["models"]:
        if not settings.get("elsewhere", {}).get(model, {}).get("base"):
            raise StudyError(f"{path}: {model} is fine-tuned from settings.elsewhere.{model}.base, which is missing.")


def _shared(raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What a preset takes from the one that it is within."""
    for key in SHARED:
        if key in raw:
            raise StudyError(f"{path}: {key} belongs to {raw['within']!r}, within which this one is. Remove it here.")
    other = path.with_name(f"{raw['within']}.yml")
    if not other.is_file():
        raise StudyError(f"{path}: within names {raw['within']!r}, but {other} does not exist.")
    outer = parse(other.read_text(), other)
    if outer.within:
        raise StudyError(f"{path}: {outer.name!r} is itself within {outer.within!r}. Name that one.")
    return {key: getattr(outer, key) for key in SHARED}


def _refuse_numbers_as_text(value: Any, path: Path, where: str = "") -> None:
    """YAML 1.1 reads ``1e-3`` as text; a notebook would then compute with a string."""
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_numbers_as_text(item, path, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_numbers_as_text(item, path, f"{where}[{index}]")
    elif isinstance(value, str) and _LOOKS_LIKE_A_NUMBER.fullmatch(value):
        raise StudyError(
            f"{path}: {where} is the text {value!r}, not a number: YAML wants a dot and a sign, such as 1.0e-3."
        )
