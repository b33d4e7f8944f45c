"""One list of versions for pip and conda, the front door, and an engine that needs no torch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rattler import MatchSpec

from tests.study.toys import HERE


def pins(name: str) -> dict[str, str]:
    """Package to exact version of a requirements file and those that it includes."""
    found: dict[str, str] = {}
    for raw in (HERE / name).read_text().splitlines():
        line = raw.partition("#")[0].strip()
        if line.startswith("-r "):
            included = pins(line[3:].strip())
            assert not set(included) & set(found), f"{name}: a pin stands twice"
            found |= included
        elif line:
            requirement = Requirement(line)
            if requirement.marker is not None and not requirement.marker.evaluate():
                continue
            operators = [specifier.operator for specifier in requirement.specifier]
            assert operators == ["=="], f"{name}: {line} is no exact version"
            package = canonicalize_name(requirement.name)
            assert package not in found, f"{name}: {package} stands twice"
            found[package] = next(iter(requirement.specifier)).version
    return found


def test_torch_stands_apart() -> None:
    assert "torch" not in pins("requirements.txt")
    assert "torch" not in pins("requirements-book.txt")
    assert pins("requirements-cpu.txt")["torch"]
    assert pins("requirements-gpu.txt")["torch"]


def test_conda_users_get_the_same_versions() -> None:
    environment = yaml.safe_load((HERE / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    conda = [line for line in environment["dependencies"] if isinstance(line, str)]
    names = {MatchSpec(line).name.normalized for line in conda}
    assert names == {"python", "pip"}
    (python,) = [MatchSpec(line) for line in conda if line.startswith("python")]
    assert "3.11" in str(python.version)
    (block,) = [line for line in environment["dependencies"] if isinstance(line, dict)]
    assert block["pip"] == ["-r requirements-cpu.txt", "-e ."]
    included = block["pip"][0].removeprefix("-r ")
    everything = pins(included)
    assert {name: everything[name] for name in pins("requirements.txt")} == pins("requirements.txt")


def test_the_installed_versions_are_the_pinned_ones() -> None:
    from importlib.metadata import PackageNotFoundError, version

    different = {}
    for package, wanted in pins("requirements-cpu.txt").items():
        try:
            installed = version(package).partition("+")[0]
        except PackageNotFoundError:
            installed = "missing"
        if installed != wanted:
            different[package] = f"{installed} instead of {wanted}"
    assert not different, "run 'make setup'"


def test_pyproject_names_what_the_library_imports() -> None:
    import tomllib

    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    study = project["optional-dependencies"]["study"]
    declared = {canonicalize_name(Requirement(line).name) for line in [*project["dependencies"], *study]}
    renamed = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml", "rouge_score": "rouge-score"}
    imported = set()
    for path in (HERE / "eraser_lib").rglob("*.py"):
        imported |= set(re.findall(r"^\s*(?:from|import) ([A-Za-z_]\w*)", path.read_text(), re.MULTILINE))
    foreign = imported - set(sys.stdlib_module_names) - {"eraser_lib", "__future__"}
    names = {canonicalize_name(renamed.get(name, name)) for name in foreign}
    known = declared | set(pins("requirements.txt"))
    # words of docstrings at the start of a line look like imports; real packages are installed
    from importlib.util import find_spec

    assert {name for name in names - known if find_spec(name.replace("-", "_"))} == set()


@pytest.mark.parametrize("command", ["--help", "list"])
def test_the_engine_imports_no_torch(command: str) -> None:
    code = (
        "import sys\nfor name in ('torch', 'transformers'): sys.modules[name] = None\n"
        "from eraser_lib.study.__main__ import main\n"
        f"sys.exit(main([{command!r}]))"
    )
    environment = {**os.environ, "ERASER_ROOT": str(HERE)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # without this a `make test` around us would hand its own flags on
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    return subprocess.run(["make", *arguments], cwd=HERE, env=environment, capture_output=True, text=True, check=False)


def test_help_lists_every_target() -> None:
    text = make("help").stdout
    phony = re.search(r"^\.PHONY: (.*)$", (HERE / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    for target in phony.group(1).split():
        assert re.search(rf"make {target} ", text), target


def test_an_old_python_is_refused_in_words(tmp_path: Path) -> None:
    old = tmp_path / "python3.8"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.8.1"\nexit 1\n')
    old.chmod(0o755)
    done = make("-B", ".venv/.installed-test", f"PYTHON={old}", "STAMP=.venv/.installed-test")
    assert done.returncode != 0
    assert "Python 3.8.1, but Python 3.11 or 3.12 is needed" in done.stderr
    assert not (HERE / ".venv" / ".installed-test").exists()


def test_a_book_without_results_is_refused_in_words() -> None:
    done = make("book", "FROM=results/no-such-preset", "PY=python")
    assert done.returncode != 0
    assert "nothing to show" in done.stderr
