"""MLLMU-Bench itself (arXiv 2410.22108), from the hub or a folder: located, checked, and read into questions."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa

from eraser_lib.bench.protocols import ZERO_SHOT, Protocol, one_shot
from eraser_lib.bench.reader import PROFILE, TASKS, SchemaError, plain_cell, questions_of, read_profiles
from eraser_lib.bench.records import Question, Role, Subset
from eraser_lib.bench.schema import cells, check_whole, is_picture, read_table, some, validate

HUB = "MLLMMU/MLLMU-Bench"
FILES = (
    "Full_Set", "ft_Data", "forget_5", "forget_10", "forget_15", "retain_95", "retain_90", "retain_85", "Test_Set",
    "Retain_Set",
)  # fmt: skip
"""Names of its parts. `Retain_Set` holds the celebrities, `Test_Set` other pictures of the fictitious people; `ft_Data`
what models are trained on, and no tasks."""
FULL, TRAINING = "Full_Set", "ft_Data"
MOST_FAULTY = 0.05
"""Share of a part's questions that may be left out because they cannot be asked."""
TYPES = ("Image_Textual", "Pure_Text")
GIGABYTES = 1.5
"""Of the parts that are read here, about."""


def locate(source: str | Path, name: str, *, revision: str | None = None) -> Path:
    """The file of a part, or the folder of its shards.

    Args:
        source: a folder that holds `<name>.parquet` or `<name>/*.parquet`, or an id on the hub.
        name: one of `FILES`.
        revision: commit on the hub, see `commit`; `None` means the newest.

    Raises:
        ValueError: no such part.
        FileNotFoundError: the folder has it not or is none, or the hub was not reached; says what to fetch.
        SchemaError: the folder lacks some of its shards.
    """
    if name not in FILES:
        raise ValueError(f"MLLMU-Bench has no part {name!r}; it has {', '.join(FILES)}")
    folder, hub = Path(source), HUB
    if not folder.exists():  # a cache may hold another part alone, and give it where there is no network
        folder, hub = _download(str(source), name, revision), str(source)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is a file; pass the folder of the benchmark, which holds {name}.parquet or {name}/*.parquet"
        )
    if (path := folder / f"{name}.parquet").is_file():
        return path
    if not any((path := folder / name).glob("*.parquet")):
        raise FileNotFoundError(
            f"{folder} holds neither {name}.parquet nor {name}/*.parquet; found {_listed(folder)}\n"
            + _how_to_fetch(hub, revision)
        )
    check_whole(path, _how_to_fetch(hub, revision))
    return path


def commit(source: str | Path, revision: str | None = None) -> str | None:
    """The commit on the hub that a source is read at: given to `locate`, all parts come from it, and can come again.

    Of a folder it is the one that ``hf download --local-dir`` noted there, or that names a snapshot of the hub's cache;
    `None` where neither says one.

    Args:
        source, revision: see `locate`; without a revision the hub gives the newest one, as a warning says.

    Raises:
        FileNotFoundError: the folder was fetched at another commit than `revision`, or the hub was not reached.
    """
    folder = Path(source)
    if not folder.exists():
        found = _download(str(source), TRAINING, revision).name  # a snapshot's folder is named by its commit
        if not revision:
            warnings.warn(
                f"no revision of {source} was asked for, so its newest is read: {found}. Ask for that one to read the "
                "same files again",
                stacklevel=2,
            )
        return found
    notes = (folder / ".cache" / "huggingface" / "download").rglob("*.parquet.metadata")
    commits = sorted({note.read_text().split("\n", 1)[0].strip() for note in notes})
    if folder.resolve().parent.name == "snapshots":
        commits = [folder.resolve().name]
    if revision and commits and commits != [revision]:
        raise FileNotFoundError(
            f"{folder} was fetched at {', '.join(commits)} and not at revision {revision}, which is asked for; fetch "
            "that one, or ask for none"
        )
    if len(commits) > 1:
        warnings.warn(f"the files of {folder} come from several commits: {', '.join(commits)}", stacklevel=2)
    return commits[0] if len(commits) == 1 else None


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
            f"{source} could not be fetched from the hub: {reason}\n{_how_to_fetch(source, revision)}"
        ) from error


def _how_to_fetch(source: str, revision: str | None) -> str:
    return (
        f"Where there is a network (about {GIGABYTES:g} GB):\n"
        f"    hf download {source} --repo-type dataset{f' --revision {revision}' if revision else ''} "
        f"--local-dir {source.rsplit('/', 1)[-1]}\n"
        "Then copy that folder here and pass its path."
    )


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
    frame = part(source, name, revision=revision)
    found = questions_of(frame, name, subset, role=role, people=people, protocol=protocol)
    return one_shot(found, seed=seed) if protocol.shots else found


def part(source: str | Path, name: str, *, revision: str | None = None) -> pd.DataFrame:
    """A part with tasks, checked row by row, and what can be asked of it.

    Written files are never quite regular, so a question that cannot be asked, or not be judged, is left out: one
    without an answer, a gap without a gap, a letter that is no option's. A right answer may be given as ``"B"``,
    ``"B. Rome"`` or ``"Rome"``, a gap as ``__``, ``_`` or ``[Blank]``, an absent list as None.

    Returns:
        The part's columns; identifiers are text, tasks JSON. `attrs["left_out"]` lists what was left out and why, which
        a warning counts.

    Raises:
        FileNotFoundError, ValueError: see `locate`.
        SchemaError: the file has another form, or more than `MOST_FAULTY` of its questions cannot be asked.
    """
    path = locate(source, name, revision=revision)
    frame = read_table(path)
    check(frame, name)
    frame["ID"] = frame["ID"].astype(str).str.strip()
    left_out: list[str] = []
    asked = 0
    for task in TASKS:
        kept_cells = []
        for person, cell in zip(frame["ID"], frame[task], strict=True):
            # a table writes NaN for None
            kept, faults = _askable(task, None if isinstance(cell, float) else plain_cell(cell))
            asked += sum(map(len, kept.values())) if isinstance(kept, dict) else len(kept)
            left_out += [f"ID {person}, {task}: {fault}" for fault in faults]
            kept_cells.append(json.dumps(kept))
        frame[task] = kept_cells
    share = f"{len(left_out)} of {asked + len(left_out)} questions"
    if len(left_out) > MOST_FAULTY * (asked + len(left_out)):
        raise SchemaError(f"{name}: {share} cannot be asked, where {MOST_FAULTY:.0%} may be faulty: {some(left_out)}")
    if left_out:
        warnings.warn(f"{name}: {share} cannot be asked and are left out: {some(left_out)}", stacklevel=2)
    frame.attrs["left_out"] = left_out
    return frame


def _askable(task: str, cell: Any) -> tuple[Any, list[str]]:
    """The questions of a cell that can be asked, in one form, and what is wrong with the others."""
    faults: list[str] = []

    def good(entries: Any, mend: Any) -> list[dict[str, Any]]:
        kept = []
        for entry in entries or ():
            try:
                kept.append(mend(dict(entry)))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                missing = f"lacks {error}" if isinstance(error, KeyError) else str(error)
                faults.append(f"{entry.get('Question', entry) if isinstance(entry, Mapping) else entry!r}: {missing}")
        return kept

    if task == "Classification_Task":
        lists = {f"{kind}_Questions": good((cell or {}).get(f"{kind}_Questions"), _choice) for kind in TYPES}
        return lists, faults
    return good(cell, _gap if task == "Mask_Task" else _open), faults


def _choice(entry: dict[str, Any]) -> dict[str, Any]:
    _text(entry, "Question")
    options = {key: str(value) for key, value in entry["Options"].items() if value is not None}
    right = str(entry["Correct_Answer"]).strip()
    letter = right.split(".", 1)[0].strip("() ").upper()
    named = [key for key, value in options.items() if value.strip().casefold() == right.casefold()]
    if letter not in options and len(named) != 1:
        raise ValueError(f"its right answer {right!r} is none of {', '.join(options)}")
    if len(options) < 2:
        raise ValueError(f"has {len(options)} option")
    return {**entry, "Options": options, "Correct_Answer": letter if letter in options else named[0]}


def _gap(entry: dict[str, Any]) -> dict[str, Any]:
    question = _text(_open(entry), "Question")
    if "[Blank]" not in question and "__" not in question:
        question, found = re.subn(r"(?<!\w)_(?!\w)", "__", question)
        if not found:
            raise ValueError("has no gap")
    return {**entry, "Question": question}


def _open(entry: dict[str, Any]) -> dict[str, Any]:
    _text(entry, "Question")
    _text(entry, "Ground_Truth")
    if entry["Type"] not in TYPES:
        raise ValueError(f"Type {entry['Type']!r} is none of {', '.join(TYPES)}")
    return entry


def _text(entry: Mapping[str, Any], key: str) -> str:
    text = entry[key]
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{key} is empty")
    return text


def people(source: str | Path, name: str, *, revision: str | None = None) -> set[str]:
    """Identifiers of the people of a part; no picture is read.

    Raises:
        FileNotFoundError, ValueError: see `locate`.
        SchemaError: the file has no `ID`, or an empty one, or one twice.
    """
    path = locate(source, name, revision=revision)
    frame = read_table(path, ["ID"])
    validate(frame, pa.DataFrameSchema({"ID": _IDENTIFIERS}), f"{path} does not say who its people are")
    return set(frame["ID"].astype(str).str.strip())


def profiles(source: str | Path, *, revision: str | None = None) -> list[Question]:
    """The training questions: what everybody's profile says, asked on their picture.

    They are those of `ft_Data`; a folder without it may have them in `Full_Set`, as the tiny world does. Entries
    without a question or an answer are passed over, see `eraser_lib.bench.reader.read_profiles`.

    Raises:
        FileNotFoundError: neither is there; see `locate`.
        SchemaError: a profile that is no list of objects, a picture that cannot be decoded, or an `ID` that is empty
            where there is that column; names file, rows and columns.
    """
    try:
        path = locate(source, TRAINING, revision=revision)
    except FileNotFoundError as error:
        try:
            path = locate(source, FULL, revision=revision)
        except FileNotFoundError:
            raise error from None
    frame = read_table(path)
    validate(frame, training_schema(_pictures(frame)), f"{path} has no profiles as {TRAINING} has them on the hub")
    return read_profiles(path)


def key(identifier: str) -> str:
    """Under which an identifier is compared between parts: 7, "7" and "007" are one person."""
    text = str(identifier).strip()
    return str(int(text)) if text.isdecimal() else text


def check(frame: pd.DataFrame, name: str) -> None:
    """Check every row of a part with tasks: its columns, identifiers and pictures, and that tasks are lists.

    Raises:
        SchemaError: what is wrong, in which rows, at most five of them.
    """
    validate(frame, schema(_pictures(frame)), f"{name} is not MLLMU-Bench as it was published")


def _pictures(frame: pd.DataFrame) -> str:
    """The column of a part's pictures: `image`, or `images` in the test set."""
    return "images" if "images" in frame.columns else "image"


_IDENTIFIERS = pa.Column(None, unique=True)


def schema(pictures: str) -> pa.DataFrameSchema:
    """The schema of a part with tasks; `pictures` is the column of its pictures: `image`, in the test set `images`."""
    return pa.DataFrameSchema(
        {
            "ID": _IDENTIFIERS,
            pictures: _shown(pictures),
            "Classification_Task": cells(
                "holds no lists of questions", lambda c: _is_lists(plain_cell(c)), nullable=True
            ),
            **{
                task: cells("is no list of questions", lambda cell: _is_list(plain_cell(cell)), nullable=True)
                for task in TASKS[1:]
            },
        },
        strict=False,
    )


def training_schema(pictures: str) -> pa.DataFrameSchema:
    """The schema of the training part, whose profiles are lists of objects, be it as JSON text.

    `ID` may be absent, and people may have several rows. The objects may have any keys; a question and an answer, where
    both are given, are texts.
    """
    wanted = '{"Question": "Who is this?", "Answer": "Ada Cole."}'
    return pa.DataFrameSchema(
        {
            "ID": pa.Column(None, required=False),
            pictures: _shown(pictures),
            PROFILE: cells(f"is no list of objects such as {wanted}", lambda cell: _is_profile(plain_cell(cell))),
        },
        strict=False,
    )


def _shown(pictures: str) -> pa.Column:
    shown = is_picture if pictures == "image" else lambda cell: len(cell) > 0 and all(map(is_picture, cell))
    return cells("is no picture with bytes that can be decoded", shown)


def _is_profile(cell: Any) -> bool:
    return _is_list(cell) and all(
        isinstance(entry["Question"], str) and isinstance(entry["Answer"], str)
        for entry in cell
        if entry.get("Question") and entry.get("Answer")
    )


def _is_lists(cell: Mapping[str, Any]) -> bool:
    return all(_is_list(found) for kind in TYPES if (found := cell.get(f"{kind}_Questions")) is not None)


def _is_list(cell: Any) -> bool:
    return not isinstance(cell, (str, Mapping)) and all(isinstance(entry, Mapping) for entry in cell)
