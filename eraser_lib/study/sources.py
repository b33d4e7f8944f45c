"""Which code a notebook depends on, and fingerprints of it that comments and layout do not change.

Imports are followed statically through the package: ``from eraser_lib import Eraser`` leads to the module that
defines `Eraser`, not to everything that the package re-exports. Imports by computed names are not seen.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from eraser_lib.study.paths import StudyError, sha256

PACKAGE = "eraser_lib"
IGNORED = f"{PACKAGE}.study"
"""The engine schedules the work and changes no number, so an edit of it makes nothing stale."""


def notebook_code(path: Path) -> list[str]:
    """The sources of a notebook's code cells.

    Raises:
        StudyError: there is no such notebook, or it is not one.
    """
    if not path.is_file():
        raise StudyError(f"{path} does not exist. Check the name, or restore it with git.")
    try:
        cells = json.loads(path.read_text())["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path} is not a notebook ({type(error).__name__}: {error}).") from error


def _parse(source: str, name: str) -> ast.Module:
    """A notebook's cell without its IPython commands, or a module, as a syntax tree."""
    plain = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())
    try:
        return ast.parse(plain)
    except SyntaxError as error:
        raise StudyError(f"{name} is not valid Python: {error}") from error


def code_hash(sources: Iterable[str], name: str) -> str:
    """Fingerprint of code; comments, layout and docstrings do not count.

    Raises:
        StudyError: not valid Python; ``name`` is in the message.
    """
    dumps = []
    for source in sources:
        tree = _parse(source, name)
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [item for item in body if not _is_text(item)]  # type: ignore[attr-defined]
            if getattr(node, "type_params", None) == []:
                del node.type_params  # type: ignore[attr-defined]  # Python 3.12 notes that there are none
        dumps.append(ast.dump(tree))
    return sha256("\n".join(dumps))


def _is_text(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@cache
def _hash_of_file(path: Path, changed: int) -> str:
    """`code_hash` of a module; ``changed`` (its modification time) keeps the cache honest."""
    return code_hash([path.read_text()], str(path))


def notebook_sources(notebook: Path, more: Iterable[str] = (), *, root: Path) -> dict[str, object]:
    """Fingerprints of a notebook and of every module of the package that it, or `more` code, depends on.

    Returns:
        ``{"notebook": sha256, "modules": {dotted name: sha256}}``.

    Raises:
        StudyError: the notebook does not exist, or something is not valid Python.
    """
    code = notebook_code(notebook)
    return {"notebook": code_hash(code, str(notebook)), "modules": module_hashes([*code, *more], root=root)}


def module_hashes(code: Iterable[str], *, root: Path) -> dict[str, str]:
    """Fingerprints of every module of the package that some code depends on, by dotted name."""
    seen: dict[str, Path] = {}
    for source in code:
        for module, name in _imports(_parse(source, "a code cell"), package=""):
            _visit(module, name, root, seen)
    return {module: _hash_of_file(path, path.stat().st_mtime_ns) for module, path in sorted(seen.items())}


def _file(module: str, root: Path) -> Path | None:
    base = root.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(tree: ast.AST, package: str) -> Iterator[tuple[str, str | None]]:
    """Pairs of module and imported name (``None`` for the whole module) of this package's imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                parts = package.split(".")
                origin = ".".join([*parts[: len(parts) - node.level + 1], *([origin] if origin else [])])
            for alias in node.names:
                yield origin, alias.name


def _visit(module: str, name: str | None, root: Path, seen: dict[str, Path]) -> None:
    """Add what ``from module import name`` (or ``import module``) depends on."""
    inside = module == PACKAGE or module.startswith(f"{PACKAGE}.")
    if not inside or module == IGNORED or module.startswith(f"{IGNORED}."):
        return
    path = _file(module, root)
    if path is None:
        return
    is_package = path.name == "__init__.py"
    if is_package and name is not None:
        if _file(f"{module}.{name}", root) is not None:
            return _visit(f"{module}.{name}", None, root, seen)
        tree = _parse(path.read_text(), str(path))
        for origin, original in _exports(tree, module, name):
            return _visit(origin, original, root, seen)
    if module in seen:
        return
    seen[module] = path
    tree = _parse(path.read_text(), str(path))
    for source, imported in _imports(tree, module if is_package else module.rpartition(".")[0]):
        _visit(source, imported, root, seen)


def _exports(tree: ast.Module, package: str, name: str) -> Iterator[tuple[str, str]]:
    """Where a package's ``__init__`` takes a name from, if it re-exports it under its own name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any((a.asname or a.name) == name for a in node.names):
            alone = ast.ImportFrom(node.module, [a for a in node.names if (a.asname or a.name) == name], node.level)
            for module, original in _imports(alone, package):
                if original is not None:
                    yield module, original
