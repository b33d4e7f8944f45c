"""The log of an evaluation: one row per question, written as parquet and checked when read.

Every table and figure of the study comes from these rows, so their columns, types and value ranges are fixed
here. Nothing in this module needs torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from eraser_lib.bench.records import Prompt

SUBSETS = (
    "forget", "test", "retain", "celebrity", "dev", "stranger", "benign", "forbidden", "general",
    "same_photo",
)  # fmt: skip
MODALITIES = ("vqa", "qa")
TASKS = ("classification", "cloze", "generation")
ROLES = ("fit", "select", "calibrate", "test")


class LogError(ValueError):
    """A log does not follow the schema; the message names file, column and row."""


def _field(name: str, kind: pa.DataType, doc: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"doc": doc})


SCHEMA = pa.schema(
    [
        _field("id", pa.string(), "identifier of the question"),
        _field("preset", pa.string(), "preset of the run"),
        _field("model", pa.string(), "model family"),
        _field("split", pa.string(), "per cent of people to forget"),
        _field("method", pa.string(), "method name"),
        _field("seed", pa.int64(), "seed of the method"),
        _field("subset", pa.string(), "subset of the question"),
        _field("role", pa.string(), "fit, select, calibrate or test"),
        _field("modality", pa.string(), "vqa or qa"),
        _field("task", pa.string(), "classification, cloze or generation"),
        _field("attribute", pa.string(), "name of the fact", nullable=True),
        _field("person", pa.string(), "person asked about", nullable=True),
        _field("view", pa.int64(), "view of the portrait", nullable=True),
        _field("wording", pa.int64(), "wording of the question"),
        _field("prompt_hash", pa.string(), "hash of system text, text and image as asked"),
        _field("answer", pa.string(), "ground truth"),
        _field("fact", pa.string(), "exact fact of a right answer", nullable=True),
        _field("output", pa.string(), "generated text"),
        _field("output_tokens", pa.int64(), "generated tokens without the end of the turn"),
        _field("ended", pa.bool_(), "whether the answer ended within the token limit"),
        _field("parsed", pa.string(), "what was read from the output, null if nothing", nullable=True),
        _field("correct", pa.bool_(), "right by the task's rule; null for generation", nullable=True),
        _field("fact_recall", pa.float64(), "1 if the fact is in the output, not for letters", nullable=True),
        _field("fact_word", pa.int64(), "words of the output before the fact; null if absent", nullable=True),
        _field("rouge_l", pa.float64(), "ROUGE-L F with stemmer (generation)", nullable=True),
        _field("bleu", pa.float64(), "sentence BLEU, 0 to 1 (generation)", nullable=True),
        _field("refusal", pa.bool_(), "the output refuses"),
        _field("fluent", pa.bool_(), "the output is fluent by the stated rule"),
        _field("gibberish", pa.bool_(), "neither fluent nor a refusal nor right"),
        _field("answer_logprob", pa.float64(), "log-probability of the ground truth, sum over tokens"),
        _field("answer_tokens", pa.int64(), "tokens of the ground truth without the end of the turn"),
        _field("answer_prob", pa.float64(), "exp of the mean log-probability per token"),
        _field("option_logprobs", pa.list_(pa.float64()), "log-probability of each letter", nullable=True),
        _field("forced", pa.string(), "letter of the largest option log-probability", nullable=True),
        _field("forced_correct", pa.bool_(), "whether that letter is right", nullable=True),
        _field("paraphrase_logprob", pa.float64(), "mean log-probability of its tokens", nullable=True),
        _field("wrong_logprobs", pa.list_(pa.float64()), "the same of each wrong answer", nullable=True),
        _field("truth_ratio", pa.float64(), "mean wrong over paraphrase probability", nullable=True),
        _field("reference_logprob", pa.float64(), "log-probability per token under vanilla", nullable=True),
        _field("gate_value", pa.float64(), "gate value at the decision layer", nullable=True),
        _field("gate_values", pa.list_(pa.float64()), "gate value of each layer", nullable=True),
        _field("opened", pa.bool_(), "whether the gate opened", nullable=True),
        _field("seconds", pa.float64(), "seconds of the batch divided by its rows"),
    ]
)  # fmt: skip
"""Columns of a log, in order. Each field's metadata says what it means."""

_DOMAINS = {"subset": SUBSETS, "modality": MODALITIES, "task": TASKS, "role": ROLES}
_FRACTIONS = ("fact_recall", "rouge_l", "bleu", "answer_prob")


def prompt_hash(prompt: Prompt) -> str:
    """Hash of what is asked: system text, text, examples and decoded pixels, 16 hexadecimal digits."""
    texts = [prompt.system, prompt.text, *(shot.text for shot in prompt.shots)]
    digest = hashlib.sha256(json.dumps(texts).encode())
    for shown in prompt.images:
        image = shown.convert("RGB")
        digest.update(f"{image.size}".encode())
        digest.update(image.tobytes())
    return digest.hexdigest()[:16]


def to_table(rows: pd.DataFrame, *, source: str = "log") -> pa.Table:
    """Check rows against `SCHEMA` and convert them to an arrow table.

    Args:
        rows: one row per question with the columns of `SCHEMA`, in any order.
        source: name used in errors, usually the path.

    Raises:
        LogError: a column is missing or unknown, or a value has a wrong type or is outside its range.
    """
    missing = [name for name in SCHEMA.names if name not in rows.columns]
    unknown = [name for name in rows.columns if name not in SCHEMA.names]
    if missing or unknown:
        raise LogError(
            f"{source}: columns missing: {missing or 'none'}, unknown: {unknown or 'none'}; "
            "a log has exactly the columns of eraser_lib.evaluate.log.SCHEMA. Evaluate again to rewrite it."
        )
    arrays = []
    for field in SCHEMA:
        values = [_plain(value) for value in rows[field.name].tolist()]
        try:
            if pa.types.is_int64(field.type):  # arrow would cut fractions off
                values = [int(value) if _is_whole(value) else value for value in values]
            array = pa.array(values, type=field.type, safe=True)
            if pa.types.is_int64(field.type) and any(isinstance(value, float) for value in values):
                raise pa.ArrowInvalid("a fraction in a column of integers")
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            row = _first_bad(values, field.type)
            raise LogError(
                f"{source}: column '{field.name}', row {row}: {values[row]!r} is not of type {field.type}"
            ) from error
        if not field.nullable and array.null_count:
            raise LogError(
                f"{source}: column '{field.name}', row {values.index(None)}: a value is required, found none"
            )
        arrays.append(array)
    _check_values(rows, source)
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def write_log(path: Path, rows: pd.DataFrame, *, key: str = "") -> None:
    """Write a checked log to `path` (parquet), through a temporary file so that no half-written log appears.

    Args:
        path: file to write; folders are made.
        rows: see `to_table`.
        key: fingerprint of what produced the rows, kept in the file and returned by `log_key`.

    Raises:
        LogError: see `to_table`.
    """
    table = to_table(rows, source=str(path))
    table = table.replace_schema_metadata({"eraser_lib.key": key})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    pq.write_table(table, temporary, compression="zstd")
    os.replace(temporary, path)


def read_log(path: Path) -> pd.DataFrame:
    """Read and check one log.

    Raises:
        LogError: the file cannot be read as parquet or does not follow the schema.
    """
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowInvalid, OSError) as error:
        raise LogError(f"{path}: not a readable parquet log ({error}); evaluate again to rewrite it") from error
    frame = table.to_pandas(types_mapper=_nullable)
    if table.schema.equals(SCHEMA) and not any(
        table.column(field.name).null_count for field in SCHEMA if not field.nullable
    ):
        _check_values(frame, str(path))
    else:  # the slow way finds the row to name
        to_table(frame, source=str(path))
    return frame[SCHEMA.names]


def read_logs(root: Path) -> pd.DataFrame:
    """All logs below a folder (`<model>/<split>/<method>/seed<k>.parquet`), in sorted order of their paths.

    Raises:
        LogError: no log is found, or one is wrong.
    """
    paths = sorted(path for path in root.rglob("*.parquet") if ".parts" not in path.parent.name)
    if not paths:
        raise LogError(f"{root}: no parquet log found below this folder; run the study first")
    return pd.concat([read_log(path) for path in paths], ignore_index=True)


def log_key(path: Path) -> str | None:
    """Fingerprint stored by `write_log`, or `None` when there is no readable log at `path`."""
    try:
        metadata: Mapping[bytes, bytes] = pq.read_schema(path).metadata or {}
    except (pa.ArrowInvalid, OSError):
        return None
    return metadata.get(b"eraser_lib.key", b"").decode()


def _nullable(kind: pa.DataType) -> pd.api.extensions.ExtensionDtype | None:
    # Nullable dtypes keep integers and booleans with gaps from turning into floats and objects.
    if pa.types.is_int64(kind):
        return pd.Int64Dtype()
    return pd.BooleanDtype() if pa.types.is_boolean(kind) else None


def _plain(value: object) -> object:
    if value is None or value is pd.NA:
        return None
    if isinstance(value, float) and value != value:
        return None
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return value.tolist()
    return value


def _is_whole(value: object) -> TypeGuard[float]:
    return isinstance(value, float) and value.is_integer()


def _first_bad(values: list[object], kind: pa.DataType) -> int:
    for row, value in enumerate(values):
        if pa.types.is_int64(kind) and isinstance(value, float):
            return row
        try:
            pa.array([value], type=kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            return row
    return 0


def _check_values(rows: pd.DataFrame, source: str) -> None:
    for name, allowed in _DOMAINS.items():
        for row, value in enumerate(rows[name].tolist()):
            if value not in allowed:
                raise LogError(f"{source}: column '{name}', row {row}: {value!r} is not one of {', '.join(allowed)}")
    for name in _FRACTIONS:
        for row, value in enumerate(map(_plain, rows[name].tolist())):
            if isinstance(value, (int, float)) and not -1e-9 <= value <= 1 + 1e-6:
                raise LogError(
                    f"{source}: column '{name}', row {row}: {value!r} is not a fraction between 0 and 1 "
                    "(rates and scores are never per cent)"
                )
    duplicated = rows["id"].duplicated()
    if duplicated.any():
        row = int(duplicated.to_numpy().argmax())
        raise LogError(f"{source}: column 'id', row {row}: {rows['id'].iloc[row]!r} is there twice; ids are unique")
