"""Parameters of notebooks: papermill only warns about a mistyped one and runs the defaults; we refuse.

`check` serves the engine, which knows the values before a notebook starts. `guard` is the first line of every
notebook after its parameters cell, for those who call papermill themselves.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from eraser_lib.study.paths import StudyError


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell, such as ``strength: float = 1.0``."""

    name: str
    annotation: str
    """text of the type; empty if there is none"""
    default: Any
    """value of the default; ``...`` where it is not a literal"""

    def accepts(self, value: Any) -> bool:
        """Whether a value has the type that is written, or, without one, the type of the default."""
        if self.annotation:
            return any(_is(value, option.strip()) for option in _options(self.annotation))
        if self.default is ... or self.default is None:
            return True
        return _is(value, type(self.default).__name__)

    @property
    def type_name(self) -> str:
        """The type, for messages."""
        return self.annotation or type(self.default).__name__


def declared(source: str) -> dict[str, Parameter]:
    """The parameters that a parameters cell declares.

    Raises:
        StudyError: the cell is not valid Python.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise StudyError(f"The parameters cell is not valid Python: {error}") from error
    found: dict[str, Parameter] = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            name, annotation, value = node.target.id, ast.unparse(node.annotation), node.value
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name, annotation, value = node.targets[0].id, "", node.value
        else:
            continue
        try:
            default = ast.literal_eval(value)
        except ValueError:
            default = ...
        found[name] = Parameter(name, annotation, default)
    return found


def of_notebook(path: Path) -> dict[str, Parameter]:
    """The parameters of a notebook: its first cell with the tag ``parameters``, as papermill defines it.

    Raises:
        StudyError: no such notebook, or no such cell.
    """
    if not path.is_file():
        raise StudyError(f"{path} does not exist. Check the name, or restore it with git.")
    for cell in json.loads(path.read_text())["cells"]:
        if "parameters" in cell.get("metadata", {}).get("tags", []):
            return declared("".join(cell["source"]))
    raise StudyError(f"{path} has no cell with the tag 'parameters'. Tag the cell that assigns the defaults.")


def check(parameters: Mapping[str, Parameter], given: Mapping[str, Any], *, notebook: str) -> None:
    """Refuse values that a notebook does not declare, or declares with another type.

    Raises:
        StudyError: one line per problem.
    """
    problems = []
    for name, value in given.items():
        if name not in parameters:
            close = get_close_matches(name, parameters, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            problems.append(f"it has no parameter {name!r}.{hint} It has: {', '.join(parameters) or 'none'}.")
        elif not parameters[name].accepts(value):
            expected = parameters[name].type_name
            note = " (YAML reads 1e-3 as text: write 1.0e-3)" if isinstance(value, str) else ""
            problems.append(f"{name} must be {expected}; it is {type(value).__name__} {value!r}{note}.")
    if problems:
        raise StudyError(f"{notebook}: " + f"\n{notebook}: ".join(problems))


def guard(namespace: Mapping[str, Any], *, notebook: str = "this notebook") -> None:
    """Stop a notebook that was given a parameter it does not declare, or one of another type.

    Call it as ``guard(globals())`` in the cell after the parameters cell: papermill's injected cell comes between the
    two, and both are in IPython's history of inputs.

    Raises:
        StudyError: as `check`.
    """
    cells = [cell for cell in namespace.get("In", []) if cell.strip()][:-1]
    injected = [cell for cell in cells if cell.lstrip().startswith("# Parameters\n")]
    if not injected:
        return  # run by hand: whoever edits the parameters cell cannot mistype a name
    defaults = declared(cells[cells.index(injected[-1]) - 1])
    given = {name: parameter.default for name, parameter in declared(injected[-1]).items()}
    check(defaults, given, notebook=notebook)


def _options(annotation: str) -> list[str]:
    return annotation.split("|") if "[" not in annotation else [annotation]


def _is(value: Any, kind: str) -> bool:
    """Whether a JSON-like value has a type given by name; an unknown name accepts everything."""
    kind = kind.split("[")[0]
    if kind == "None":
        return value is None
    if kind == "float":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in ("list", "tuple"):
        return isinstance(value, (list, tuple))
    known = {"str": str, "bool": bool, "dict": dict}
    return isinstance(value, known[kind]) if kind in known else True
