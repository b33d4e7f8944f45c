from __future__ import annotations

from pathlib import Path

import pytest

from eraser_lib.study import matrix, sources
from eraser_lib.study.paths import StudyError
from tests.study.toys import HERE, notebook

FILES = {
    "__init__.py": "from .gate import Gate\nfrom .hooks import capture as capture\n",
    "gate.py": "from . import moments\nclass Gate: pass\n",
    "moments.py": "import numpy\n",
    "hooks.py": "def capture(): pass\n",
    "bench/__init__.py": "",
    "bench/world.py": "from eraser_lib.bench.people import draw\n",
    "bench/people.py": "def draw(): pass\n",
    "study/__init__.py": "",
    "study/preset.py": "x = 1\n",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "eraser_lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("from eraser_lib import Gate", {"gate", "moments"}),
        ("from eraser_lib import capture", {"hooks"}),
        ("import eraser_lib.hooks", {"hooks"}),
        ("from eraser_lib.bench import world", {"bench.world", "bench.people"}),
        ("def late():\n    from eraser_lib.bench.people import draw", {"bench.people"}),
        ("%matplotlib inline\nfrom eraser_lib.study.preset import x\nimport numpy", set()),
    ],
)
def test_imports_lead_to_the_modules_that_define_names(package: Path, code: str, modules: set[str]) -> None:
    found = sources.module_hashes([code], root=package)
    assert set(found) == {f"eraser_lib.{name}" for name in modules}


def test_comments_layout_and_docstrings_do_not_count_but_code_does() -> None:
    def fingerprint(text: str) -> str:
        return sources.code_hash([text], "x")

    base = fingerprint('def f(x):\n    "Old."\n    return x + 1\n')
    assert base == fingerprint('# why\ndef f(x):\n    """New."""\n\n    return (x + 1)\n')
    assert base != fingerprint("def f(x):\n    return x + 2\n")


def test_fingerprints_are_the_same_in_every_python() -> None:
    """3.12 notes in a tree that a function has no type parameters."""
    text = "import a\n\n\nclass B:\n    def f(self, x=1, *, y):\n        return f'{x} {y!r}'\n"
    assert sources.code_hash([text], "x") == "8a1f77e3c723d9e34320400ab0b401a0e2a4f4e056e7eecc5f9408d9ef89df4f"


def test_only_the_code_of_a_notebook_counts(tmp_path: Path) -> None:
    first, second = tmp_path / "a.ipynb", tmp_path / "b.ipynb"
    first.write_text(notebook("#md Old", "x = 1"))
    second.write_text(notebook("#md New", "#md Cells", "x = 1  # one"))
    read = [sources.notebook_sources(path, root=tmp_path)["notebook"] for path in (first, second)]
    assert read[0] == read[1]


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="does not exist"):
        sources.notebook_code(tmp_path / "none.ipynb")
    (tmp_path / "bad.ipynb").write_text("{}")
    with pytest.raises(StudyError, match="is not a notebook"):
        sources.notebook_code(tmp_path / "bad.ipynb")
    with pytest.raises(StudyError, match="m is not valid Python"):
        sources.code_hash(["def"], "m")


def test_code_that_a_notebook_runs_as_a_command_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE)
    (kind,) = (kind for kind in matrix.KINDS if kind.name == "14_cookbook")
    found = sources.notebook_sources(HERE / "notebooks" / "14_cookbook.ipynb", kind.code, root=HERE)["modules"]
    assert isinstance(found, dict) and {"eraser_lib.cli.main", "eraser_lib.cli.workshop"} <= set(found)
