"""The steering library stands alone: it imports nothing from the study that is built on it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import eraser_lib

ROOT = Path(eraser_lib.__file__).parent
CORE = (
    "__init__", "sites", "hooks", "moments", "gate", "quadratic", "threshold", "direction", "adversarial", "eraser",
    "fit", "steering", "prompts", "artifact", "stream", "precision",
)  # fmt: skip
ALLOWED = {"torch", "transformers", "safetensors", "huggingface_hub", "scipy", "sklearn", "__future__"} | set(
    sys.stdlib_module_names
)


def test_core_imports_only_core() -> None:
    for name in CORE:
        for node in ast.walk(ast.parse((ROOT / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= ALLOWED, name
            elif isinstance(node, ast.ImportFrom):
                module = (node.module or "").split(".")[0]
                if node.level:
                    assert module in CORE or (not module and {a.name for a in node.names} <= {*CORE, "__version__"}), (
                        name
                    )
                else:
                    assert module in ALLOWED, name


def test_importing_the_package_needs_no_torch() -> None:
    code = "import sys, eraser_lib; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_resolve() -> None:
    for name in eraser_lib.__all__:
        assert getattr(eraser_lib, name) is not None
    assert set(eraser_lib.__all__) <= set(dir(eraser_lib))
