"""Ask a model questions and keep a log that survives a kill."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import pandas as pd

from eraser_lib.bench.records import Question
from eraser_lib.evaluate.log import SCHEMA, log_key, read_log, write_log
from eraser_lib.evaluate.session import Options, Row, Session
from eraser_lib.stream import ahead

if TYPE_CHECKING:
    from eraser_lib.families.base import Loaded


def evaluate(
    loaded: Loaded,
    questions: Sequence[Question],
    *,
    log_extra: Mapping[str, object] | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Unpack[Options],
) -> pd.DataFrame:
    """Ask all questions and score the answers.

    Args:
        loaded: the model with its processor.
        questions: what to ask; batches are made of prompts of similar length.
        log_extra: columns equal for all rows: `preset, model, split, method, seed`.
        progress: called with the number of questions done and their total after each batch.
        options: see `Options`.

    Returns:
        One row per question in the order given, with the columns of `eraser_lib.evaluate.log.SCHEMA`; without
        `log_extra` the columns of the run are left out.
    """
    session = Session(loaded, dict(log_extra or {}), **options)
    rows: dict[int, Row] = {}
    todo = batches(questions, session.batch_size)
    for batch, answered in zip(todo, _answered(session, questions, todo), strict=True):
        rows.update(zip(batch, answered, strict=True))
        if progress is not None:
            progress(len(rows), len(questions))
    return _frame([rows[index] for index in range(len(questions))])


def evaluate_to(
    path: Path,
    loaded: Loaded,
    questions: Sequence[Question],
    *,
    log_extra: Mapping[str, object],
    key: str = "",
    part_seconds: float = 90.0,
    progress: Callable[[int, int], None] | None = None,
    **options: Unpack[Options],
) -> pd.DataFrame:
    """`evaluate` into a parquet log, resumable: a rerun after a kill repeats at most `part_seconds` of work.

    Finished batches are kept in `<path>.parts/` until the log is whole. Batches are the same after a kill as
    without one, so the log is too. A log or parts made under another fingerprint (questions, prompts,
    options, `log_extra`, `key`) are made anew.

    Args:
        path: the log to write, e.g. `logs/llava/5/mllmeraser/seed0.parquet`.
        loaded, questions, log_extra, progress, options: see `evaluate`.
        key: what the fingerprint cannot see: hashes of the checkpoint and of the eraser.
        part_seconds: longest time between two saves.

    Raises:
        LogError: see `eraser_lib.evaluate.log.to_table`.
    """
    session = Session(loaded, dict(log_extra), **options)
    fingerprint = session.fingerprint(questions, key)
    if log_key(path) == fingerprint:
        return read_log(path)
    parts = path.with_name(f"{path.name}.parts")
    marker = parts / "key.txt"
    if not marker.exists() or marker.read_text() != fingerprint:
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir(parents=True)
        marker.write_text(fingerprint)
    done: dict[str, Row] = {}
    for part in sorted(parts.glob("part-*.json")):
        done.update((row["id"], row) for row in json.loads(part.read_text()))
    todo = [batch for batch in batches(questions, session.batch_size) if questions[batch[0]].id not in done]
    fresh: list[Row] = []
    saved = time.monotonic()
    for number, answered in enumerate(_answered(session, questions, todo)):
        fresh += answered
        if time.monotonic() - saved >= part_seconds or number == len(todo) - 1:
            _save(parts / f"part-{len(done):06d}.json", fresh)
            done.update((row["id"], row) for row in fresh)
            fresh, saved = [], time.monotonic()
        if progress is not None:
            progress(len(done) + len(fresh), len(questions))
    write_log(path, _frame([done[question.id] for question in questions]), key=fingerprint)
    shutil.rmtree(parts)
    return read_log(path)


def _answered(session: Session, questions: Sequence[Question], todo: Sequence[Sequence[int]]) -> Iterator[list[Row]]:
    """The rows of one batch after the other. The next one's pictures are decoded while the model answers this one."""
    asked = [[questions[index] for index in batch] for batch in todo]
    for own, inputs in zip(asked, ahead(session.encoded, asked, workers=1), strict=True):
        yield session.ask(own, inputs)


def reference_floor(logs: pd.DataFrame, *, quantile: float = 0.01) -> float:
    """Lower quantile of vanilla's mean log-probability of its own answers, in nats per token.

    Answers and refusals are looked at apart and the lower quantile counts: vanilla is sure of its answers, but has many
    ways to refuse, so that each single refusal is less likely.

    Args:
        logs: a log of vanilla evaluated with itself as `reference`.
        quantile: 0.01 by the fluency rule.

    Raises:
        ValueError: no row has a `reference_logprob`.
    """
    values = logs.dropna(subset=["reference_logprob"])
    if values.empty:
        raise ValueError("the log has no reference_logprob; evaluate vanilla with itself as reference first")
    logprobs = values["reference_logprob"].astype(float)
    return float(logprobs.groupby(values["refusal"].astype(bool)).quantile(quantile).min())


def batches(questions: Sequence[Question], batch_size: int) -> list[list[int]]:
    """Indices of the questions in batches of similar prompts and answers: first those with an image, by task (a batch
    runs until its longest answer ends), then by text length.

    Raises:
        ValueError: `batch_size` is below 1, or two questions have the same id.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; found {batch_size}")
    ids = [question.id for question in questions]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise ValueError(f"question ids must be unique; {twice!r} is there more than once")
    order = sorted(
        range(len(questions)),
        key=lambda index: (
            questions[index].prompt.image is None, questions[index].task, len(questions[index].prompt.text),
            questions[index].id,
        ),
    )  # fmt: skip
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _frame(rows: Sequence[Row]) -> pd.DataFrame:
    run = ("preset", "model", "split", "method", "seed")
    names = [name for name in SCHEMA.names if name not in run or (rows and name in rows[0])]
    # object dtype keeps None apart from NaN and integers apart from floats until the schema types them
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names})


def _save(path: Path, rows: Sequence[Row]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(list(rows)))
    os.replace(temporary, path)
