from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from eraser_lib.bench.records import Prompt
from eraser_lib.evaluate.log import SCHEMA, LogError, log_key, prompt_hash, read_log, read_logs, write_log
from tests.evaluate.synthetic import make_log


@pytest.fixture()
def rows() -> pd.DataFrame:
    return make_log("vanilla", people=2, per_person=1)


def changed(rows: pd.DataFrame, column: str, row: int, value: object) -> pd.DataFrame:
    rows = rows.copy()
    values = rows[column].tolist()
    values[row] = value
    rows[column] = pd.Series(values, dtype=object)
    return rows


def test_round_trip(rows: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "llava" / "seed0.parquet"
    write_log(path, rows, key="abc")
    read = read_log(path)
    assert read.columns.tolist() == SCHEMA.names
    assert read["correct"].dtype == "boolean" and read["fact_word"].dtype == "Int64"
    for name in SCHEMA.names:
        for wanted, found in zip(rows[name], read[name], strict=True):
            assert (pd.isna(found) if wanted is None else list(found) == wanted) if name in (
                "option_logprobs", "wrong_logprobs", "gate_values"
            ) and found is not None else (found is None or pd.isna(found) or found == wanted)  # fmt: skip
    assert log_key(path) == "abc"
    write_log(path, read, key="abc")
    pd.testing.assert_frame_equal(read_log(path), read)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("subset", "forgotten", r"column 'subset', row 3: 'forgotten' is not one of forget, test"),
        ("answer_prob", 95.0, r"column 'answer_prob', row 3: 95.0 is not a fraction"),
        ("answer_logprob", "low", r"column 'answer_logprob', row 3: 'low' is not of type double"),
        ("output", None, r"column 'output', row 3: a value is required"),
        ("seed", 0.5, r"column 'seed', row 3: 0.5 is not of type int64"),
    ],
)
def test_errors_name_file_column_and_row(
    rows: pd.DataFrame, tmp_path: Path, column: str, value: object, message: str
) -> None:
    path = tmp_path / "seed0.parquet"
    with pytest.raises(LogError, match=message) as caught:
        write_log(path, changed(rows, column, 3, value))
    assert str(path) in str(caught.value)
    assert not path.exists()


def test_double_ids_and_wrong_columns(rows: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"row 1: .* is there twice"):
        write_log(tmp_path / "a.parquet", changed(rows, "id", 1, rows["id"][0]))
    with pytest.raises(LogError, match=r"missing: \['bleu'\], unknown: \['blue'\]"):
        write_log(tmp_path / "a.parquet", rows.rename(columns={"bleu": "blue"}))


def test_reading_checks_too(rows: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "seed0.parquet"
    write_log(path, rows)
    table = pq.read_table(path)
    index = SCHEMA.get_field_index("task")
    pq.write_table(table.set_column(index, "task", pa.array(["essay"] * len(table))), path)
    with pytest.raises(LogError, match=r"column 'task', row 0: 'essay'"):
        read_log(path)
    path.write_bytes(b"no parquet")
    with pytest.raises(LogError, match="not a readable parquet log"):
        read_log(path)
    assert log_key(path) is None


def test_all_logs_of_a_folder(rows: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(LogError, match="no parquet log found"):
        read_logs(tmp_path)
    write_log(tmp_path / "b" / "seed0.parquet", rows.assign(method="b"))
    write_log(tmp_path / "a" / "seed1.parquet", rows.assign(method="a"))
    assert read_logs(tmp_path)["method"].tolist() == ["a"] * len(rows) + ["b"] * len(rows)


def test_prompt_hash_sees_text_system_and_pixels() -> None:
    image = Image.new("RGB", (4, 4), "red")
    prompt = Prompt("What?", image)
    variants = [
        prompt, replace(prompt, text="Who?"), replace(prompt, system="s"), replace(prompt, image=None),
        replace(prompt, image=Image.new("RGB", (4, 4), "blue")), replace(prompt, image=image.resize((2, 8))),
    ]  # fmt: skip
    assert len({prompt_hash(variant) for variant in variants}) == len(variants)
    assert prompt_hash(prompt) == prompt_hash(Prompt("What?", image.convert("RGBA")))
