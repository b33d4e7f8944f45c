"""MLLMU-Bench itself (arXiv 2410.22108), from the hub or a folder: located, checked, and read into questions."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa
from PIL import Image

from eraser_lib.bench.protocols import ZERO_SHOT, Protocol, one_shot
from eraser_lib.bench.reader import SchemaError, read_profiles, read_questions
from eraser_lib.bench.records import Question, Role, Subset

HUB = "MLLMMU/MLLMU-Bench"
FILES = (
    "Full_Set", "ft_Data", "forget_5", "forget_10", "forget_15", "retain_95", "retain_90", "retain_85", "Test_Set",
    "Retain_Set",
)  # fmt: skip
"""Names of its parts. `Retain_Set` holds the celebrities, `Test_Set` other pictures of the fictitious people."""
TYPES = ("Image_Textual", "Pure_Text")
GIGABYTES = 1.5
"""Of the parts that are read here, about."""


def locate(source: str | Path, name: str, *, revision: str | None = None) -> Path:
    """The file of a part, or the folder of its shards.

    Args:
        source: a folder that holds `<name>.parquet` or `<name>/*.parquet`, or an id on the hub.
        name: one of `FILES`.
        revision: commit on the hub.

    Raises:
        ValueError: no such part.
        FileNotFoundError: the folder has it not, or the hub was not reached; says what to fetch.
    """
    if name not in FILES:
        raise ValueError(f"MLLMU-Bench has no part {name!r}; it has {', '.join(FILES)}")
    folder = Path(source)
    if not folder.exists():
        folder = _download(str(source), name, revision)
    for path in (folder / f"{name}.parquet", folder / name):
        if path.is_file() or any(path.glob("*.parquet")):
            return path
    raise FileNotFoundError(f"{folder} holds neither {name}.parquet nor {name}/*.parquet; found {_listed(folder)}")


def _download(source: str, name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    if source.count("/") != 1 or Path(source).is_absolute():
        raise FileNotFoundError(f"there is no folder {source}, and it is no id on the hub such as {HUB}")
    try:
        return Path(
            snapshot_download(source, repo_type="dataset", revision=revision, allow_patterns=[f"{name}*", f"{name}/*"])
        )
    except Exception as error:  # of many kinds: offline, gated, renamed
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(
            f"{source} could not be fetched from the hub: {reason}\n"
            f"Where there is a network (about {GIGABYTES:g} GB):\n"
            f"    hf download {source} --repo-type dataset --local-dir {source.rsplit('/', 1)[-1]}\n"
            "Then copy that folder here and pass its path."
        ) from error


def _listed(folder: Path) -> str:
    return ", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "nothing"


def questions(
    source: str | Path,
    name: str,
    subset: Subset,
    *,
    role: Role = "test",
    people: Iterable[str] | None = None,
    protocol: Protocol = ZERO_SHOT,
    seed: int = 0,
    revision: str | None = None,
) -> list[Question]:
    """The questions of a part, after its schema was checked.

    Args:
        source, name, revision: see `locate`.
        subset, role: written into the questions.
        people: only these identifiers.
        protocol: the prompts; a table must say which.
        seed: draws the person that one-shot prompts show.

    Raises:
        FileNotFoundError, ValueError: see `locate`.
        SchemaError: the file has another form; names rows and columns.
    """
    path = locate(source, name, revision=revision)
    check(pd.read_parquet(path), path.name)
    found = read_questions(path, subset, role=role, people=people, protocol=protocol)
    return one_shot(found, seed=seed) if protocol.shots else found


def people(source: str | Path, name: str, *, revision: str | None = None) -> set[str]:
    """Identifiers of the people of a part; no picture is read. Errors: see `locate`."""
    return set(pd.read_parquet(locate(source, name, revision=revision), columns=["ID"])["ID"].astype(str))


def profiles(source: str | Path, name: str, *, revision: str | None = None) -> list[Question]:
    """The training questions of a part: what every person's profile says, asked on the person's picture.

    Raises:
        FileNotFoundError, ValueError: see `locate`.
        SchemaError: the file has another form.
    """
    path = locate(source, name, revision=revision)
    check(pd.read_parquet(path), path.name)
    return read_profiles(path)


def check(frame: pd.DataFrame, name: str) -> None:
    """Check every row of a part against the schema of the benchmark.

    Raises:
        SchemaError: what is wrong, in which rows, at most five of them.
    """
    pictures = "images" if "images" in frame.columns else "image"
    try:
        schema(pictures).validate(frame, lazy=True)
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        where = [
            f"column {case['column'] or case['failure_case']}"
            + ("" if pd.isna(case["index"]) else f", row {case['index']}")
            + f": {case['check']}"
            for case in cases.to_dict("records")
        ]
        more = f"; and {len(where) - 5} more" if len(where) > 5 else ""
        raise SchemaError(f"{name} is not MLLMU-Bench as it was published: {'; '.join(where[:5])}{more}") from errors


def schema(pictures: str) -> pa.DataFrameSchema:
    """The schema of a part whose pictures are in column `pictures` (`image`, or `images` in the test set)."""

    def column(what: str, holds: Any, **options: Any) -> pa.Column:
        return pa.Column(None, pa.Check(holds, element_wise=True, error=what), **options)

    is_picture = _is_picture if pictures == "image" else lambda cell: len(cell) > 0 and all(map(_is_picture, cell))
    return pa.DataFrameSchema(
        {
            "ID": pa.Column(None, pa.Check(lambda ids: ids.notna(), error="is empty"), unique=True),
            pictures: column("is no picture with bytes that can be decoded", _safely(is_picture)),
            "metadata": column("is no list of Question and Answer", _safely(_has("Question", "Answer"))),
            "Classification_Task": column(
                "lacks a Question, four Options or a Correct_Answer among them", _safely(_is_classification)
            ),
            "Mask_Task": column(
                "lacks a Question with __, a Ground_Truth or a known Type", _safely(_is_task(gap=True))
            ),
            "Generation_Task": column("lacks a Question, a Ground_Truth or a known Type", _safely(_is_task(gap=False))),
        },
        strict=False,
    )


def _safely(holds: Any) -> Any:
    """A check that is false, and no error, for a cell of another form."""

    def checked(cell: Any) -> bool:
        try:
            return bool(holds(json.loads(cell) if isinstance(cell, str) else cell))
        except (TypeError, KeyError, ValueError, AttributeError, OSError):
            return False

    return checked


def _is_picture(cell: Mapping[str, Any]) -> bool:
    Image.open(io.BytesIO(cell["bytes"])).verify()
    return True


def _has(*keys: str) -> Any:
    return lambda entries: all(entry[key] and str(entry[key]).strip() for entry in entries for key in keys)


def _is_classification(cell: Mapping[str, Any]) -> bool:
    entries = [entry for kind in TYPES for entry in cell[f"{kind}_Questions"]]
    return bool(entries) and all(
        entry["Question"] and len(entry["Options"]) >= 2 and entry["Correct_Answer"].strip() in entry["Options"]
        for entry in entries
    )


def _is_task(*, gap: bool) -> Any:
    def holds(entries: Iterable[Mapping[str, Any]]) -> bool:
        return all(
            entry["Type"] in TYPES and entry["Ground_Truth"] and (not gap or "__" in entry["Question"])
            for entry in entries
        )

    return holds
