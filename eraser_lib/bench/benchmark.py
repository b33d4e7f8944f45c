"""MLLMU-Bench in the place of the tiny world: checked, divided, and written as the world folder of a study.

A written benchmark cannot be asked for further wordings and pictures, so its questions are divided: of everybody's
questions in `Full_Set` each second one (of its task and kind) is asked, in the forget column or while choosing; gates
are fitted on the others and on the profile, which `ft_Data` holds. What `Test_Set` asks as well leaves the fit.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from eraser_lib.bench import mllmu
from eraser_lib.bench.documented import ASKED, CELEBRITIES, FITTED, STRANGERS
from eraser_lib.bench.mllmu import FULL
from eraser_lib.bench.protocols import PROTOCOLS, ZERO_SHOT, Protocol
from eraser_lib.bench.reader import COLUMNS, PROFILE, TASKS, plain_cell
from eraser_lib.bench.schema import read_table
from eraser_lib.bench.world import SHARES

TEST = "Test_Set"
BIOGRAPHY = "biography"
"""Column of the hub's files: who somebody is, `Name` first."""


def write_benchmark(
    source: str | Path, folder: Path, *, seed: int = 0, protocol: Protocol = ZERO_SHOT, revision: str | None = None
) -> dict[str, Any]:
    """Check MLLMU-Bench and write it as the study's world folder; `documented.open_benchmark` reads that.

    Args:
        source, revision: see `eraser_lib.bench.mllmu.locate`; all parts are read at one commit.
        folder: gets `forget_5|10|15`, `Test_Set`, `Retain_Set`, the halves, and `world.json`.
        seed: draws the dev people and, later, the roles.
        protocol: the prompts, without examples.

    Returns:
        What `world.json` says: `content_hash`, which the next two do not change, `source`, `revision` (the commit, see
        `eraser_lib.bench.mllmu.commit`; `None` where it is not known), `protocol`, `seed`, `people`, `forget`, `dev`,
        `dropped`, how many questions left the fit because the test set asks them, and `left_out`, for each part the
        questions that cannot be asked.

    Raises:
        FileNotFoundError, SchemaError: see `eraser_lib.bench.mllmu`.
        ValueError: the protocol shows examples; the forget sets are no part of `Full_Set`; or most people have no
            profile.
    """
    if protocol.shots:
        raise ValueError(
            f"protocol {protocol.name} shows examples, which the study's own questions have not; use one of "
            f"{', '.join(p.name for p in PROTOCOLS.values() if not p.shots)}, or eraser_lib.bench.mllmu.questions"
        )
    revision = mllmu.commit(source, revision)
    full, test, celebrities = (_part(source, name, revision) for name in (FULL, TEST, CELEBRITIES))
    left_out = {
        name: frame.attrs["left_out"] for name, frame in ((FULL, full), (TEST, test), (CELEBRITIES, celebrities))
    }
    if set(full["ID"]) & set(celebrities["ID"]):  # both are numbered: a celebrity must not become somebody else
        celebrities["ID"] = "celebrity-" + celebrities["ID"]
    forget = {share: sorted(mllmu.people(source, f"forget_{share}", revision=revision)) for share in SHARES}
    if strange := sorted(set(forget[15]) - set(full["ID"])):
        raise ValueError(f"forget_15 names {', '.join(strange[:5])}, who are not in {FULL}: mixed versions?")
    asked, fitted, dropped = _halves(full, test)
    fitted[PROFILE] = _profiles(source, list(full["ID"]), revision)
    parts = {TEST: test, CELEBRITIES: celebrities, ASKED: asked, FITTED: fitted}
    parts |= {f"forget_{share}": asked[asked["ID"].isin(ids)] for share, ids in forget.items()}
    if (strangers := Path(source) / f"{STRANGERS}.parquet").is_file():
        parts[STRANGERS] = read_table(strangers)
        mllmu.check(parts[STRANGERS], STRANGERS)
    names = {row["ID"]: name_in(row) for frame in (full, celebrities) for row in frame.to_dict("records")}
    parts = {name: frame.drop(columns=BIOGRAPHY, errors="ignore") for name, frame in parts.items()}
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    for name, frame in sorted(parts.items()):
        frame.to_parquet(folder / f"{name}.parquet", index=False)
        digest.update(_content(frame))
    left = sorted(set(full["ID"]) - set(forget[15]))
    dev = random.Random(f"dev-{seed}").sample(left, min(len(forget[5]), len(left)))
    people = [(one, "fictitious") for one in full["ID"]] + [(one, "celebrity") for one in celebrities["ID"]]
    described = {
        "protocol": protocol.name, "seed": seed,
        "people": [{"id": one, "kind": kind, "name": names[one]} for one, kind in people],
        "forget": {str(share): ids for share, ids in forget.items()}, "dev": dev, "dropped": dropped,
        "left_out": left_out,
    }  # fmt: skip
    digest.update(json.dumps(described, sort_keys=True).encode())
    origin = {"source": str(source), "revision": revision}
    described = {"content_hash": digest.hexdigest(), **origin, **described}
    (folder / "world.json").write_text(json.dumps(described, indent=1))
    return described


def name_in(row: Mapping[Any, Any]) -> str:
    """The name of the person of a row: what its `biography` says or, where a file has none, what its questions do.

    Text-only questions speak of a person by name: it is the run of capitalised words that most of them hold. The
    identifier where there is none.
    """
    biography = row.get(BIOGRAPHY)
    if isinstance(biography, str) and biography.lstrip().startswith("{"):
        biography = json.loads(biography)
    if isinstance(biography, Mapping) and str(biography.get("Name") or "").strip():
        return str(biography["Name"]).strip()
    counts: Counter[str] = Counter()
    for text in _texts(row, "Pure_Text"):
        words = re.findall(r"(?:[A-Z][\w'’.-]*\s?){2,}", re.sub(r"^\W*\w+\s", "", text))
        counts.update({re.sub(r"(?:['’]s)?[.,\s]*$", "", found) for found in words})
    found = counts.most_common(1)
    return found[0][0] if found else str(row["ID"])


def _part(source: str | Path, name: str, revision: str | None) -> pd.DataFrame:
    frame = mllmu.part(source, name, revision=revision)
    pictures = "images" if "images" in frame.columns else "image"
    return frame[[*COLUMNS, pictures, *({BIOGRAPHY} & set(frame.columns))]].copy()


def _profiles(source: str | Path, people: list[str], revision: str | None) -> list[str]:
    """The profile of each of these people, as cells of `metadata`."""
    found: dict[str, list[dict[str, str]]] = {}
    for row in mllmu.profiles(source, revision=revision):
        if row.person is not None:
            found.setdefault(mllmu.key(row.person), []).append({"Question": row.prompt.text, "Answer": row.answer})
    without = [one for one in people if mllmu.key(one) not in found]
    if 2 * len(without) > len(people):
        raise ValueError(
            f"{len(without)} of {len(people)} people of {FULL} have no profile in {mllmu.TRAINING}, among them "
            f"{', '.join(without[:5])}; its rows name {', '.join(sorted(found)[:5]) or 'nobody'}"
        )
    return [json.dumps(found.get(mllmu.key(one), [])) for one in people]


def _halves(full: pd.DataFrame, test: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Each second question of every list of `full`, and the others but for those that the test set asks: how many."""
    tested = {
        row["ID"]: {text for kind in mllmu.TYPES for text in _texts(row, kind)} for row in test.to_dict("records")
    }
    asked, fitted = full.copy(), full.copy()
    dropped = 0
    for index, row in zip(full.index, full.to_dict("records"), strict=True):
        for task in TASKS:
            cell = plain_cell(row[task])
            lists = {kind: _entries(cell, kind) for kind in mllmu.TYPES}
            # the first one is asked, so that a task with a single question is asked at all
            asked.at[index, task] = _cell(task, {kind: found[::2] for kind, found in lists.items()})
            others = {kind: found[1::2] for kind, found in lists.items()}
            left = {
                k: [e for e in found if e["Question"] not in tested.get(row["ID"], ())] for k, found in others.items()
            }
            fitted.at[index, task] = _cell(task, left)
            dropped += sum(len(others[kind]) - len(left[kind]) for kind in others)
    return asked, fitted, dropped


def _cell(task: str, lists: Mapping[str, list[dict[str, Any]]]) -> str:
    """The inverse of `_entries` for all kinds, as JSON."""
    if task == "Classification_Task":
        return json.dumps({f"{kind}_Questions": found for kind, found in lists.items()})
    return json.dumps([entry for found in lists.values() for entry in found])


def _entries(cell: Any, kind: str) -> list[dict[str, Any]]:
    """Questions of a kind in the cell of a task."""
    if isinstance(cell, dict):
        return list(cell[f"{kind}_Questions"])
    return [entry for entry in cell if entry["Type"] == kind]


def _texts(row: Mapping[Any, Any], kind: str) -> list[str]:
    return [entry["Question"] for task in TASKS for entry in _entries(plain_cell(row[task]), kind)]


def _content(frame: pd.DataFrame) -> bytes:
    """A digest of the rows that no writer of files can change."""
    digest = hashlib.sha256()
    for row in frame.to_dict("records"):
        cells = row["images"] if "images" in row else [row["image"]]
        for cell in cells:
            digest.update(cell["bytes"])
        for name in (column for column in (*COLUMNS, PROFILE) if column in row):
            digest.update(json.dumps(plain_cell(row[name]) if name != "ID" else row[name], sort_keys=True).encode())
    return digest.digest()
