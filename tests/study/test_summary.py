from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eraser_lib.evaluate.log import write_log
from eraser_lib.evaluate.summary import COLUMNS, summarise
from eraser_lib.study import preset, summary
from eraser_lib.study.paths import RunFolder, StudyError, read_json
from tests.evaluate.synthetic import make_log


def test_the_file_reads_back_and_equal_logs_give_equal_files(tmp_path: Path) -> None:
    tiny, folder = preset.load("tiny"), RunFolder(tmp_path)
    write_log(folder.logs / "llava" / "5" / "vanilla" / "seed0.parquet", make_log("vanilla"))
    summary.write(tiny, folder)
    first, wanted = folder.summary.read_bytes(), summarise(folder.logs)
    read = pd.read_csv(folder.summary, dtype={"split": str, "seed": str})
    assert list(read.columns) == COLUMNS
    assert read[["split", "seed"]].equals(wanted[["split", "seed"]].astype(read["split"].dtype))
    np.testing.assert_allclose(read["value"], wanted["value"], rtol=1e-5)
    manifest = read_json(folder.manifest("summary"))
    assert (list(manifest["logs"]), manifest["rows"]) == (["logs/llava/5/vanilla/seed0.parquet"], len(wanted))
    summary.write(tiny, folder)
    assert folder.summary.read_bytes() == first


def test_a_summary_needs_logs(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds no logs"):
        summary.write(preset.load("tiny"), RunFolder(tmp_path))
