"""The reference stands alone: NumPy and the standard library, and nothing else of this project."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import moe_routing.reference

FORBIDDEN = ("torch", "triton", "hypothesis", "pytest")
ALLOWED = {*sys.stdlib_module_names, "numpy"}
OWN = "moe_routing.reference"
MODULES = sorted(
    path for root in moe_routing.reference.__path__ for path in Path(root).glob("**/*.py")
)


def test_importing_the_reference_imports_no_framework(tmp_path: Path) -> None:
    program = (
        "import sys, moe_routing.reference\n"
        f"print(*(name for name in {FORBIDDEN!r} if name in sys.modules))\n"
        "print(*(name for name in sys.modules if name.startswith('moe_routing.')))\n"
    )
    done = subprocess.run(  # a fresh interpreter, away from the sources
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    frameworks, own = done.stdout.splitlines()
    assert not frameworks, f"moe_routing.reference imports {frameworks}"
    others = [name for name in own.split() if not (name + ".").startswith(OWN + ".")]
    assert not others, f"moe_routing.reference imports {others} of this project"


def test_every_module_is_looked_at() -> None:
    names = {path.stem for path in MODULES}
    assert {"__init__", "config", "inputs", "routing", "presets"} <= names, names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_reference_module_imports_numpy_and_the_standard_library_only(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for name in imported(node):
            own = (name + ".").startswith(OWN + ".")
            known = own or name.partition(".")[0] in ALLOWED
            assert known, f"{path.name}:{node.lineno} imports {name}"


def imported(node: ast.AST) -> list[str]:
    """The modules that an import statement names; inside functions as well."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: imports use the installed name"
        return [node.module or ""]
    return []
