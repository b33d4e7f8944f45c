"""The committed notebooks: no outputs, typed parameters that the matrix can fill, thin."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from eraser_lib.study import matrix, parameters, preset
from tests.study.toys import HERE

NOTEBOOKS = sorted((HERE / "notebooks").glob("*.ipynb"))
PRESETS = sorted(path.stem for path in (HERE / "presets").glob("*.yml"))


def cells(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text())["cells"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_without_outputs(path: Path) -> None:
    content = json.loads(path.read_text())
    for index, cell in enumerate(content["cells"]):
        assert not cell.get("outputs"), f"cell {index} has outputs: nbstripout {path}"
        assert cell.get("execution_count") is None, f"cell {index} has a count: nbstripout {path}"
    assert "papermill" not in content["metadata"]
    assert content["metadata"]["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_one_parameters_cell_typed_and_commented_then_the_guard(path: Path) -> None:
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    tagged = [i for i, cell in enumerate(code) if "parameters" in cell.get("metadata", {}).get("tags", [])]
    assert tagged == [0], "the parameters cell is the first code cell, and there is one"
    source = "".join(code[0]["source"])
    for line in filter(None, source.splitlines()):
        assert re.match(r"\w+: [\w\[\], |]+ = .+  # .+|#", line), f"no type or no comment: {line}"
    assert "guard(globals()" in "".join(code[1]["source"]), "the cell after the parameters calls guard(globals())"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_thin(path: Path) -> None:
    assert len(cells(path)) <= 22
    for cell in cells(path):
        if cell["cell_type"] == "code":
            lines = len("".join(cell["source"]).splitlines())
            assert lines <= 45, f"{lines} lines in a cell: the heavy lifting belongs into the library"


@pytest.mark.parametrize("name", PRESETS)
def test_the_matrix_fills_only_declared_parameters(name: str) -> None:
    path = HERE / "presets" / f"{name}.yml"
    for job in matrix.jobs(preset.parse(path.read_text(), path)).values():
        notebook = HERE / "notebooks" / f"{job.notebook}.ipynb"
        parameters.check(parameters.of_notebook(notebook), job.parameters, notebook=job.name)
