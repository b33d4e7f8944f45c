from __future__ import annotations

from pathlib import Path

import pytest

from eraser_lib.study import parameters
from eraser_lib.study.paths import StudyError
from tests.study.toys import notebook

CELL = """\
model: str = "llava"  # family
split: int = 5
strength: float = 1.0
layers: list[int] = [1, 2]
limit: int | None = None
untyped = 3
"""


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("model", ["qwen"], [5, None, True]),
        ("split", [10], ["10", 5.0, True]),
        ("strength", [0.1, 2], ["1e-3", True]),
        ("layers", [[3], []], [3, "3"]),
        ("limit", [None, 7], ["7", 1.5]),
        ("untyped", [4], ["4", 4.5]),
    ],
)
def test_values_must_have_the_declared_type(name: str, good: list[object], bad: list[object]) -> None:
    declared = parameters.declared(CELL)
    for value in good:
        parameters.check(declared, {name: value}, notebook="x.ipynb")
    for value in bad:
        with pytest.raises(StudyError, match=f"x.ipynb: {name} must be"):
            parameters.check(declared, {name: value}, notebook="x.ipynb")


def test_a_mistyped_name_is_refused_with_a_hint() -> None:
    with pytest.raises(StudyError, match=r"no parameter 'strenght'. Did you mean 'strength'"):
        parameters.check(parameters.declared(CELL), {"strenght": 1.0}, notebook="x.ipynb")


def test_the_error_on_a_number_that_yaml_read_as_text_says_so() -> None:
    with pytest.raises(StudyError, match=r"write 1\.0e-3"):
        parameters.check(parameters.declared(CELL), {"strength": "1e-3"}, notebook="x.ipynb")


def test_a_notebook_without_a_parameters_cell_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ipynb"
    path.write_text(notebook("1 + 1"))
    with pytest.raises(StudyError, match="no cell with the tag 'parameters'"):
        parameters.of_notebook(path)


def test_guard_refuses_what_papermill_lets_pass() -> None:
    guard = "guard(globals())"
    parameters.guard({"In": ["", CELL, "# Parameters\nsplit = 10\n", guard]})
    parameters.guard({"In": ["", CELL, guard]})
    parameters.guard({})
    with pytest.raises(StudyError, match="no parameter 'splitt'"):
        parameters.guard({"In": ["", CELL, "# Parameters\nsplitt = 10\n", guard]})
    with pytest.raises(StudyError, match="split must be int"):
        parameters.guard({"In": ["", CELL, '# Parameters\nsplit = "10"\n', guard]})
